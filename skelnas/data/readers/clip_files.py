"""Read one clip from a file, an array or a table.

An array has the axes [T, V, C] or [M, T, V, C]; `clip_tables` describes tables, `keypoints` the
JSON of pose estimators and `frames` a folder or lines of frames. An unknown number is NaN, in JSON
also null, as is a joint, a person or a frame of which all is unknown. A JSON object or an .npz may
have the names of the `joints` and `channels` beside the array.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import Archive, is_file, is_folder
from skelnas.data.readers.base import Poses
from skelnas.data.readers.clip_tables import ANY_TEXT, ClipArray, TextFormat, read_clip_table
from skelnas.data.readers.expected import Expected, fit_poses
from skelnas.data.readers.files import MAX_BYTES, as_array, check_json, read_bytes, read_json
from skelnas.data.readers.frames import join_persons, read_frame_folder, read_frame_lines
from skelnas.data.readers.joint_names import NAME_KEYS, find_array_names
from skelnas.data.readers.keypoints import are_persons, is_one_frame, read_frames
from skelnas.data.readers.mat import read_mat_clip
from skelnas.data.readers.npy import read_npy
from skelnas.data.readers.numbering import Numbering
from skelnas.errors import InputError, shown

TEXT_ENDINGS = (".csv", ".txt", ".tsv")
ENDINGS = (".npy", ".npz", ".json", ".jsonl", *TEXT_ENDINGS, ".mat")
MAX_MEMBERS = 1000
"""Files in an .npz: each takes ten times as much memory as in the archive."""
KEY = "poses"
"""Name of the array in an .npz or a .json object that holds several."""
NO_NAMES: Mapping[str, Any] = {}


def read_poses(path: Path, expected: Expected, text_format: TextFormat = ANY_TEXT) -> Poses:
    """Read a clip whose layout is known; named joints and channels may be in any order.

    Args:
        path: the file, or a folder of frames.
        expected: what it has to be.
        text_format: what the user says of text.

    Raises:
        InputError: the file is malformed, or has other joints or too many persons.
    """
    return read_numbered_poses(path, expected, text_format)[0]


def read_numbered_poses(
    path: Path, expected: Expected, text_format: TextFormat = ANY_TEXT
) -> tuple[Poses, Numbering]:
    """Read a clip like `read_poses`, and the numbers of its frames."""
    layout = expected.layout
    num_joints, num_channels = len(layout.joints), len(layout.channels)
    clip = read_clip(path, num_joints, text_format, num_channels, expected.max_persons)
    return fit_poses(clip, str(path), expected), clip.numbering


def read_clip(
    path: Path,
    num_joints: int | None = None,
    text_format: TextFormat = ANY_TEXT,
    num_channels: int | None = None,
    max_persons: int = 1,
) -> ClipArray:
    """Read a clip.

    Args:
        path: the file, whose extension determines the format, or a folder of frames.
        num_joints: V, which a table without a header needs.
        text_format: what the user says of text.
        num_channels: C, which does instead of V for single frames.
        max_persons: persons to choose at most where a file does not say who is who.

    Raises:
        InputError: names the file, the line or array, what was expected and what was found.
    """
    if not is_file(path) and is_folder(path):
        return read_frame_folder(path, num_joints, num_channels, max_persons)
    ending = path.suffix.lower()
    if ending == ".jsonl":
        return read_frame_lines(path, num_joints, num_channels, max_persons)
    if ending in TEXT_ENDINGS:
        return read_clip_table(path, num_joints, text_format)
    if ending == ".mat":
        return read_mat_clip(read_bytes(path), str(path))
    names = NO_NAMES
    if ending == ".npy":
        array = read_npy(read_bytes(path), str(path))
    elif ending == ".npz":
        array, names = _read_npz(path)
    elif ending == ".json":
        content = read_json(path)
        if are_persons(content):
            return _read_persons(content, path, num_joints, max_persons)
        array, names = _as_json_array(content, path)
    else:
        raise InputError(
            f"{path}: expected a file that ends in {', '.join(ENDINGS)}",
            hint="rename text with numbers in rows to .txt",
        )
    hint = f"if it is one frame of many, give their folder: {path.parent}"
    return as_clip(array, str(path), names, hint)


def as_clip(
    array: NDArray[Any], where: str, names: Mapping[str, Any] = NO_NAMES, hint: str | None = None
) -> ClipArray:
    """Return an array [T, V, C] or [M, T, V, C] as a clip.

    Args:
        array: of any type of numbers.
        where: name of the array, for error messages.
        names: of its `NAME_KEYS`, if any.
        hint: what to do if it has other axes.

    Raises:
        InputError: it has other axes or no numbers.
    """
    if array.dtype.kind not in "iuf":
        found = "truth values" if array.dtype.kind == "b" else f"{array.dtype}"
        raise InputError(f"{where}: expected an array of numbers, found {found}")
    if array.ndim not in (3, 4):
        raise InputError(
            f"{where}: an array of the shape {array.shape}, "
            "expected [frames, joints, channels] or [persons, frames, joints, channels]",
            hint=hint,
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN
        poses = array.astype(np.float64)
    names_found = find_array_names(names, array.shape, where)
    return ClipArray(poses[None] if array.ndim == 3 else poses, *names_found)


def _read_npz(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    data = read_bytes(path)
    if (num_members := data.count(b"PK\x01\x02")) > MAX_MEMBERS:
        raise InputError(f"{path}: expected one array, found {num_members:,} files")
    archive = Archive(path, data)
    texts = [f"{key}.npy" for key in NAME_KEYS if f"{key}.npy" in archive.paths]
    others = [name for name in archive.paths if name not in texts]
    members = [name for name in others if name in (f"{KEY}.npy", KEY)] or others
    if len(members) != 1:
        raise InputError(
            f"{path}: expected one array, or one named {KEY!r}, found {len(members)} arrays"
        )
    array, *names = (
        read_npy(archive.read(name, MAX_BYTES), f"{path}: {name}", allow_text=name in texts)
        for name in (*members, *texts)
    )
    keys = (name.removesuffix(".npy") for name in texts)
    return array, {key: value.tolist() for key, value in zip(keys, names, strict=True)}


def _read_persons(content: Any, path: Path, num_joints: int | None, max_persons: int) -> ClipArray:
    """Read JSON of a pose estimator: a list of frames, or of COCO results."""
    if is_one_frame(content):
        raise InputError(
            f"{path}: the persons of one frame, expected a list of frames",
            hint=f"if each frame has a file, give their folder: {path.parent}",
        )
    return join_persons(read_frames(content, str(path), num_joints), str(path), max_persons)


def _as_json_array(content: Any, path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    lists, names = content, {}
    if isinstance(content, dict):
        lists, names = content.get(KEY), content
    array = as_array(lists)
    if array is None:
        found = ""
        if isinstance(content, dict) and KEY not in content:
            found = f", found the keys {', '.join(map(shown, list(content)[:4]))}"
        raise InputError(
            f"{path}: expected numbers in lists of equal length, [frames, joints, channels], "
            f"alone or under the key {KEY!r}, or a list of frames with 'keypoints'{found}"
        )
    check_json(array, str(path))
    return array, names
