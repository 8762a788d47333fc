"""Join single frames to a clip: a folder with a file a frame, or a file with a line a frame.

Files are sorted by the one number in which their names differ. Missing numbers are frames without
persons; numbers that go up in equal steps, such as 0, 5, 10, have nothing missing. A frame is
JSON with persons, see `keypoints`, or an array, `.json` or `.npy`, of [V * C], [V, C] or [M, V, C].
JSON may have it under the key ``poses``, beside the names of ``joints`` and ``channels``.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from skelnas import json_text
from skelnas.data.readers import keypoints
from skelnas.data.readers.archives import list_folder
from skelnas.data.readers.clip_tables import MAX_ABSENT_FRAMES, MAX_NUMBERS, ClipArray
from skelnas.data.readers.files import are_found, as_array, read_bytes, read_json
from skelnas.data.readers.joint_names import NAME_KEYS, find_array_names
from skelnas.data.readers.keypoints import OTHER_ORDER, Person
from skelnas.data.readers.layouts import MAX_BONE_RATIO, find_layout, mean_bone_length
from skelnas.data.readers.npy import read_npy
from skelnas.data.readers.numbering import Numbering, number_names
from skelnas.data.readers.tracking import track
from skelnas.errors import InputError

ENDINGS = (".json", ".npy")
KEY = "poses"
MAX_FRAMES = 100_000
"""An hour of 25 frames a second."""
MAX_FRAME_BYTES = 4 << 20
MAX_FRAMES_JUDGED = 1000

Content = TypeVar("Content")
_Array = NDArray[np.float64]


class ArrayFrame(NamedTuple):
    """A frame that is an array.

    Attributes:
        numbers: [M, V, C].
        joints, channels: their names; empty if the file has none.
    """

    numbers: _Array
    joints: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


Frame = list[Person] | ArrayFrame | None
"""None where the file says nobody."""


def read_frame_folder(
    folder: Path, num_joints: int | None, num_channels: int | None, max_persons: int
) -> ClipArray:
    """Read a clip with a file a frame.

    Args:
        folder: it, which may be in an archive.
        num_joints, num_channels: V and C if they are known; rows of V * C numbers need one.
        max_persons: persons to choose at most where they are to be tracked, see `tracking`.

    Raises:
        InputError: names the file, what was expected and what was found.
    """
    paths = number_files(folder, _list_frames(folder))
    frames = ((n, _read_frame(path, num_joints, num_channels)) for n, path in paths.items())
    return _join_frames(frames, folder, max_persons)


def read_frame_lines(
    path: Path, num_joints: int | None, num_channels: int | None, max_persons: int
) -> ClipArray:
    """Read a clip with a line of JSON a frame; otherwise like `read_frame_folder`."""
    try:
        contents = json_text.parse_lines(read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path}: expected a frame as JSON in each line: {error}") from None
    if len(contents) > MAX_FRAMES:
        raise InputError(f"{path}: {len(contents):,} frames, expected at most {MAX_FRAMES:,}")
    frames = (
        (index, _parse_frame(content, f"{path}, line {line}", num_joints, num_channels))
        for index, (line, content) in enumerate(contents.items())
    )
    return _join_frames(frames, path, max_persons)


def _join_frames(frames_in_order: Iterable[tuple[int, Frame]], path: Path, limit: int) -> ClipArray:
    """Join numbered frames to a clip of at most `limit` persons, if these are to be tracked."""
    frames: dict[int, Frame] = {}
    num_numbers = 0
    for number, frame in frames_in_order:
        frames[number] = frame
        parts = frame if isinstance(frame, list) else [frame]
        num_numbers += sum(part.numbers.size for part in parts if part is not None)
        if num_numbers > MAX_NUMBERS:
            raise InputError(f"{path}: expected at most {MAX_NUMBERS:,} numbers in its frames")
    arrays = {number: frame for number, frame in frames.items() if isinstance(frame, ArrayFrame)}
    persons = {number: frame for number, frame in frames.items() if isinstance(frame, list)}
    nobody = {number for number, frame in frames.items() if frame is None}
    if arrays and persons:
        raise InputError(
            f"{path}: frame {min(arrays)} is an array and frame {min(persons)} a list of "
            "persons, expected one kind"
        )
    if arrays:
        return _join_arrays({**arrays, **dict.fromkeys(nobody)}, str(path))
    return join_persons({**persons, **{number: [] for number in nobody}}, str(path), limit)


def join_persons(frames: Mapping[int, list[Person]], where: str, max_persons: int) -> ClipArray:
    """Join the persons of numbered frames to a clip, see `tracking`.

    Raises:
        InputError: nobody is in any frame, or persons have different joints.
    """
    persons = [(number, person) for number in sorted(frames) for person in frames[number]]
    if not persons:
        raise InputError(f"{where}: nobody is in any of {len(frames)} frames")
    first = persons[0][1]
    for number, person in persons:
        if person.joints != first.joints or len(person.numbers) != len(first.numbers):
            found, expected = len(person.numbers), len(first.numbers)
            names = "" if found != expected else " of other names"
            raise InputError(
                f"{where}: frame {number}: {found} joints{names}, expected {expected} as in frame "
                f"{persons[0][0]}"
            )
        if person.channels != first.channels:
            raise InputError(
                f"{where}: frame {number}: the channels {', '.join(person.channels)}, expected "
                f"{', '.join(first.channels)} as in frame {persons[0][0]}"
            )
    empty = np.empty((0, *first.numbers.shape))
    placed, numbering = _place(frames, where, first.numbers.size, [])
    clip = [
        np.stack([person.numbers for person in present]) if present else empty for present in placed
    ]
    poses = track(clip, first.channels, max_persons)
    layout, other = _find_layouts(poses, first)
    joints = find_layout(layout).joints if layout else first.joints
    _check_numbers(poses.size, where)
    notes = []
    if any(person.has_hands for _, person in persons):
        notes.append("the joints of hands are left out; --joints openpose67 reads them")
    return ClipArray(poses, joints, first.channels, layout, other, tuple(notes), numbering)


def _find_layouts(poses: _Array, person: Person) -> tuple[str, str]:
    """Return the layout of poses [M, T, V, C], and another that they may have as well.

    Of two that look alike in a file, it is that of much shorter bones.
    """
    usual, other = person.layout, OTHER_ORDER.get(person.layout, "")
    if not other:
        return usual, ""
    frames = poses.reshape(-1, *poses.shape[2:])  # [M, T, V, C] -> [M * T, V, C]
    frames = frames[:: 1 + len(frames) // MAX_FRAMES_JUDGED]
    found = are_found(frames, person.channels)
    points = np.where(found[..., None], frames, np.nan)[..., :2]
    lengths = [mean_bone_length(points, find_layout(name).bones) for name in (usual, other)]
    if max(lengths) <= MAX_BONE_RATIO * min(lengths):
        return usual, other
    return (usual, "") if lengths[0] < lengths[1] else (other, "")


def number_files(folder: Path, paths: Sequence[Path]) -> dict[int, Path]:
    """Return the files by the number in which their names differ, in its order.

    Raises:
        InputError: names differ in something else, or two files have the same number.
    """
    by_name = {path.name: path for path in paths}
    numbered = number_names(
        list(by_name),
        str(folder),
        kind="files",
        example="frame_001.json",
        hint="put the frames of each clip into a folder of its own",
    )
    return {number: by_name[name] for number, name in numbered.items()}


def _list_frames(folder: Path) -> list[Path]:
    """List the files that may be frames. Raises InputError if there are none, or of two kinds."""
    try:
        files = list_folder(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    paths = sorted(
        path for path in files if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )
    if not paths:
        raise InputError(
            f"{folder}: is a folder, expected a recording or a folder with a file a frame, "
            f"{' or '.join(ENDINGS)}",
            hint=f"name the recordings in it, such as {folder}/*",
        )
    if len(endings := {path.suffix: path for path in paths}) > 1:
        one, other, *_ = endings.values()
        raise InputError(
            f"{folder}: expected frames of one kind, found {one.name[:60]!r} and "
            f"{other.name[:60]!r}"
        )
    if len(paths) > MAX_FRAMES:
        raise InputError(f"{folder}: {len(paths):,} frames, expected at most {MAX_FRAMES:,}")
    return paths


def _read_frame(path: Path, num_joints: int | None, num_channels: int | None) -> Frame:
    if path.suffix.lower() == ".npy":
        array = read_npy(read_bytes(path, MAX_FRAME_BYTES), str(path))
        return ArrayFrame(_to_frame(array, str(path), num_joints, num_channels))
    content = read_json(path, MAX_FRAME_BYTES)
    return _parse_frame(content, str(path), num_joints, num_channels)


def _parse_frame(
    content: Any, where: str, num_joints: int | None, num_channels: int | None
) -> Frame:
    if keypoints.are_persons(content):
        return keypoints.read_frame(content, where, num_joints)
    names = content if isinstance(content, dict) else {}
    if KEY in names:
        content = names[KEY]
    if content in (None, []):
        return None
    numbers = _to_frame(as_array(content), where, num_joints, num_channels)
    return ArrayFrame(numbers, *find_array_names(names, numbers.shape, where))


def _to_frame(
    array: NDArray[Any] | None, where: str, num_joints: int | None, num_channels: int | None
) -> _Array:
    """Return an array of a frame as [M, V, C]."""
    if array is None or array.dtype.kind == "b" or not 1 <= array.ndim <= 3 or not array.size:
        found = "something else" if array is None else f"{array.dtype} {list(array.shape)}"
        raise InputError(
            f"{where}: expected a frame of numbers, [joints, channels], or persons with "
            f"'keypoints' or 'pose_keypoints_2d', found {found}"
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN
        frame = array.astype(np.float64)
    if frame.ndim == 1:
        return _split_row(frame, where, num_joints, num_channels)[None]
    return frame if frame.ndim == 3 else frame[None]


def _split_row(row: _Array, where: str, num_joints: int | None, num_channels: int | None) -> _Array:
    """Return a row [V * C] as [V, C]."""
    if num_joints is None and num_channels is None:
        raise InputError(
            f"{where}: {len(row)} numbers in a row, and nothing says how many a joint has",
            hint="name them, such as --channels x,y, or the joints, such as --joints mediapipe33",
        )
    count, what = (num_joints, "joints") if num_joints else (num_channels or 1, "channels")
    if len(row) % count:
        raise InputError(
            f"{where}: {len(row)} numbers in a row, expected a multiple of the {count} {what}"
        )
    return row.reshape((num_joints, -1) if num_joints else (-1, count))  # [V * C] -> [V, C]


def _join_arrays(frames: Mapping[int, ArrayFrame | None], where: str) -> ClipArray:
    """Join arrays [M, V, C] of numbered frames to a clip; persons keep their places."""
    arrays = {number: frame for number, frame in sorted(frames.items()) if frame is not None}
    first, expected = next(iter(arrays.items()))
    shape = expected.numbers.shape[1:]
    for number, found in arrays.items():
        if found.numbers.shape[1:] != shape:
            raise InputError(
                f"{where}: frame {number}: {found.numbers.shape[1]} joints of "
                f"{found.numbers.shape[2]} numbers, expected {shape[0]} of {shape[1]} as in frame "
                f"{first}"
            )
        for what in NAME_KEYS:
            if getattr(found, what) != getattr(expected, what):
                raise InputError(
                    f"{where}: frame {number}: other names of {what} than in frame {first}"
                )
    num_persons = max(len(frame.numbers) for frame in arrays.values())
    placed, numbering = _place(frames, where, num_persons * math.prod(shape), None)
    poses = np.full((num_persons, len(placed), *shape), np.nan)
    for index, frame in enumerate(placed):
        if frame is not None:
            poses[: len(frame.numbers), index] = frame.numbers
    return ClipArray(poses, expected.joints, expected.channels, numbering=numbering)


def _place(
    frames: Mapping[int, Content], where: str, numbers_a_frame: int, absent: Content
) -> tuple[list[Content], Numbering]:
    """Return the frames in order, with `absent` for those that are missing, and their numbers."""
    numbers = sorted(frames)
    step = math.gcd(*(after - before for before, after in pairwise(numbers))) or 1
    num_frames = (numbers[-1] - numbers[0]) // step + 1
    if num_frames - len(frames) > max(MAX_ABSENT_FRAMES, 10 * len(frames)):
        raise InputError(
            f"{where}: {len(frames)} frames with the numbers {numbers[0]} to {numbers[-1]}, "
            f"expected at most {MAX_ABSENT_FRAMES:,} missing ones"
        )
    _check_numbers(num_frames * numbers_a_frame, where)
    placed = [frames.get(numbers[0] + index * step, absent) for index in range(num_frames)]
    return placed, Numbering(numbers[0], step)


def _check_numbers(count: int, where: str) -> None:
    if count > MAX_NUMBERS:
        raise InputError(f"{where}: {count:,} numbers, expected at most {MAX_NUMBERS:,}")
