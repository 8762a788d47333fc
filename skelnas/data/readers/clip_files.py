"""Read one clip from a file, an array or a table, or one frame from a line of JSON.

An array has the axes [T, V, C] or [M, T, V, C]; `clip_tables` describes tables, `keypoints` the
JSON of pose estimators and `frames` a folder or lines of frames. An unknown number is NaN, in JSON
also null, as is a joint, a person or a frame of which all is unknown. A JSON object or an .npz may
have the names of the `joints` and `channels` beside the array.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas import json_text
from skelnas.data.readers.archives import Archive, is_file, is_folder
from skelnas.data.readers.base import MAX_COORDINATE, Layout, Poses
from skelnas.data.readers.channels import check_channels
from skelnas.data.readers.clip_tables import ANY_TEXT, ClipArray, TextFormat, read_clip_table
from skelnas.data.readers.files import (
    MAX_BYTES,
    are_found,
    as_array,
    as_joints,
    read_bytes,
    read_json,
)
from skelnas.data.readers.frames import join_persons, read_frame_folder, read_frame_lines
from skelnas.data.readers.joint_names import (
    NAME_KEYS,
    find_array_names,
    find_joint_order,
    order_channels,
    order_joints,
)
from skelnas.data.readers.keypoints import (
    OTHER_ORDER,
    are_persons,
    is_one_frame,
    read_frame,
    read_frames,
)
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.mat import read_mat_clip
from skelnas.data.readers.npy import read_npy
from skelnas.errors import InputError, UsageError, shown

TEXT_ENDINGS = (".csv", ".txt", ".tsv")
ENDINGS = (".npy", ".npz", ".json", ".jsonl", *TEXT_ENDINGS, ".mat")
MAX_MEMBERS = 1000
"""Files in an .npz: each takes ten times as much memory as in the archive."""
KEY = "poses"
"""Name of the array in an .npz or a .json object that holds several."""
NO_NAMES: Mapping[str, Any] = {}

Picture = tuple[float, float] | None
"""Width and height to divide x and y by, or None to leave coordinates as they are."""


def parse_picture(text: str) -> Picture:
    """Parse the option --picture, a width and a height in pixels."""
    if not text:
        return None
    if not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}", text, re.ASCII):
        raise UsageError(f"--picture {text}: expected width x height such as 1920x1080")
    width, height = text.split("x")
    return float(width), float(height)


def read_poses(
    path: Path,
    layout: Layout,
    max_persons: int,
    picture: Picture = None,
    channels: tuple[str, ...] = (),
    *,
    are_channels_given: bool = False,
    text_format: TextFormat = ANY_TEXT,
    joints_note: str = "",
    persons_note: str = "",
) -> Poses:
    """Read a clip whose layout is known; named joints and channels may be in any order.

    Args:
        path: the file.
        layout: the expected joints and channels.
        max_persons: maximum number of persons.
        picture: see `Picture`.
        channels: those of a file without names, in its order; by default the layout's.
        are_channels_given: whether the user named them, so that they are not doubted.
        text_format: what the user says of text.
        joints_note, persons_note: ends of the messages about a wrong number of joints or persons;
            say where the expected number comes from.

    Raises:
        InputError: the file is malformed, or has other joints or too many persons.
    """
    num_joints, num_channels = len(layout.joints), len(layout.channels)
    clip = read_clip(path, num_joints, text_format, num_channels, max_persons)
    return fit_poses(
        clip,
        str(path),
        layout,
        max_persons,
        picture,
        channels,
        are_channels_given=are_channels_given,
        joints_note=joints_note,
        persons_note=persons_note,
    )


def fit_poses(
    clip: ClipArray,
    where: str,
    layout: Layout,
    max_persons: int,
    picture: Picture = None,
    channels: tuple[str, ...] = (),
    *,
    are_channels_given: bool = False,
    joints_note: str = "",
    persons_note: str = "",
) -> Poses:
    """Turn a clip into poses of a layout.

    Args:
        clip: as read.
        where: name of the clip, for error messages.
        layout, max_persons, picture, channels, are_channels_given, joints_note, persons_note: as
            for `read_poses`.

    Raises:
        InputError: it has other joints, too many persons or numbers that cannot be right.
    """
    poses, joints = clip.poses, clip.joints
    if joints:
        poses = poses[:, :, _order_joints(joints, clip.other_layout, layout, where)]
    if clip.channels:
        order_channels(clip.channels, layout, where)
    persons, frames, *joint_shape = poses.shape
    if joint_shape != [len(layout.joints), len(layout.channels)]:
        raise InputError(
            f"{where}: {joint_shape[0]} joints of {joint_shape[1]} numbers, expected "
            f"{len(layout.joints)} of {len(layout.channels)}{joints_note}"
        )
    order = order_channels(clip.channels or channels or layout.channels, layout, where)
    if not 1 <= persons <= max_persons or not frames:
        raise InputError(
            f"{where}: {persons} persons in {frames} frames, expected 1 to {max_persons} "
            f"persons and a frame{persons_note}"
        )
    poses = poses[..., order]
    _check_size(poses, where)
    if not clip.channels and not are_channels_given:
        check_channels(poses, layout.channels, where)
    return to_poses(poses, layout.channels, picture)


def _order_joints(joints: tuple[str, ...], other: str, layout: Layout, where: str) -> list[int]:
    """Return the index of each joint of the layout among those of a file.

    Args:
        joints: names in the file.
        other: name of another layout that the file may have as well, if any.
        layout: the expected one.
        where: for the message.

    Raises:
        InputError: others were found.
    """
    if other and find_joint_order(find_layout(other).joints, layout.joints) is not None:
        joints = find_layout(other).joints
    return order_joints(joints, layout, where)


def _check_json(array: NDArray[np.float64], where: str) -> None:
    """Raise InputError if there is a number that JSON does not have, though not for NaN."""
    if np.isinf(array).any():
        raise InputError(f"{where}: expected finite numbers or null, found an infinite one")


def _check_size(numbers: NDArray[np.float64], where: str) -> None:
    """Raise InputError if a number is implausibly large."""
    is_large = np.isfinite(numbers) & (np.abs(numbers) > MAX_COORDINATE)
    if is_large.any():
        raise InputError(
            f"{where}: expected numbers up to {MAX_COORDINATE:,.0f}, "
            f"found {numbers[is_large][0]:g} at {np.argwhere(is_large)[0].tolist()} (from 0)"
        )


def to_poses(array: NDArray[np.float64], channels: Sequence[str], picture: Picture = None) -> Poses:
    """Turn an array [M, T, V, C] into poses; a person without joints in a frame is absent."""
    present: NDArray[np.bool_] = np.any(are_found(array, channels), axis=-1)
    return as_joints(array, channels, picture), present


class StreamFrame(NamedTuple):
    """One frame of a stream.

    Attributes:
        persons: [M, V, C], M >= 0, NaN where a number is unknown.
        says_who: whether a person has the same place in all frames; if not, there may be more than
            the model takes, and they are to be tracked.
    """

    persons: NDArray[np.float64]
    says_who: bool = True


def parse_frame(
    line: str, where: str, layout: Layout, max_persons: int, channels: tuple[str, ...] = ()
) -> StreamFrame:
    """Read one frame from JSON: [joints, channels] or [persons, joints, channels].

    An object holds this under the key ``poses``, and maybe names, as in a file, or is of a pose
    estimator. An unknown number or joint is null; a frame without persons is null or an empty list.

    Args:
        line: the text.
        where: name of the line, for error messages.
        layout: the expected joints and channels.
        max_persons: maximum number of persons in an array.
        channels: those of the line, in its order; by default the layout's.

    Raises:
        InputError: the line is not such a frame.
    """
    try:
        value = json_text.parse(line.removeprefix("\ufeff"), is_strict=False)
    except ValueError:
        found = shown(line.strip())
        raise InputError(f"{where}: expected a frame as JSON, found {found}") from None
    if are_persons(value):
        return StreamFrame(_parse_persons(value, where, layout), says_who=False)
    content: dict[str, Any] = {}
    if isinstance(value, dict):
        if KEY not in value:
            raise InputError(
                f"{where}: expected an object with {KEY!r}, found {shown(line.strip())}"
            )
        content, value = value, value[KEY]
    shape = (len(layout.joints), len(layout.channels))
    if value is None or value == []:
        return StreamFrame(np.empty((0, *shape)))
    array = as_array(value)
    if array is None or array.ndim not in (2, 3) or array.shape[-2:] != shape:
        found = "something else" if array is None else f"an array {list(array.shape)}"
        raise InputError(
            f"{where}: found {found}, expected {shape[0]} joints of {shape[1]} numbers, or a list "
            "of such persons"
        )
    _check_json(array, where)
    frame = array.reshape(-1, *shape)
    _check_size(frame, where)
    if len(frame) > max_persons:
        raise InputError(f"{where}: {len(frame)} persons, expected at most {max_persons}")
    joints, names = find_array_names(content, shape, where)
    if joints:
        frame = frame[:, order_joints(joints, layout, where)]
    order = order_channels(names or channels or layout.channels, layout, where)
    return StreamFrame(frame[..., order])


def _parse_persons(value: Any, where: str, layout: Layout) -> NDArray[np.float64]:
    """Return persons [M, V, C] in the order of the layout."""
    num_joints = len(layout.joints)
    persons = read_frame(value, where, num_joints)
    frame = np.empty((len(persons), num_joints, len(layout.channels)))
    for index, person in enumerate(persons):
        if len(person.numbers) != num_joints:
            raise InputError(f"{where}: {len(person.numbers)} joints, expected {num_joints}")
        other = OTHER_ORDER.get(person.layout, "")
        joints = _order_joints(person.joints or layout.joints, other, layout, where)
        channels = order_channels(person.channels, layout, where)
        frame[index] = person.numbers[joints][:, channels]
    return frame


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
    _check_json(array, str(path))
    return array, names
