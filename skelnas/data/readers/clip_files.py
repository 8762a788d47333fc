"""Read one clip from a file, an array or a table, or one frame from a line of JSON.

An array has the axes [T, V, C] or [M, T, V, C]; `clip_tables` describes tables. An unknown number
is NaN, in JSON also null, as is a joint, a person or a frame of which all is unknown.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas import json_text
from skelnas.data.readers.archives import Archive
from skelnas.data.readers.base import (
    MAX_COORDINATE,
    Layout,
    Poses,
    channel_name,
    fold_name,
)
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
from skelnas.data.readers.npy import read_npy
from skelnas.data.sides import standard_name
from skelnas.errors import InputError, UsageError, shown

TEXT_ENDINGS = (".csv", ".txt", ".tsv")
ENDINGS = (".npy", ".npz", ".json", *TEXT_ENDINGS)
MAX_MEMBERS = 1000
"""Files in an .npz: each takes ten times as much memory as in the archive."""
KEY = "poses"
"""Name of the array in an .npz or a .json object that holds several."""

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
    clip = read_clip(path, len(layout.joints), text_format)
    poses, joints = clip.poses, clip.joints
    if joints:
        order = find_joint_order(joints, layout.joints)
        if order is None:
            raise InputError(
                f"{path}: expected the joints {_shorten(layout.joints)}, found {_shorten(joints)}"
            )
        poses = poses[:, :, order]
    persons, frames, *joint_shape = poses.shape
    if joint_shape != [len(layout.joints), len(layout.channels)]:
        raise InputError(
            f"{path}: {joint_shape[0]} joints of {joint_shape[1]} numbers, expected "
            f"{len(layout.joints)} of {len(layout.channels)}{joints_note}"
        )
    order = _order_channels(clip.channels or channels or layout.channels, layout, str(path))
    if not 1 <= persons <= max_persons or not frames:
        raise InputError(
            f"{path}: {persons} persons in {frames} frames, expected 1 to {max_persons} "
            f"persons and a frame{persons_note}"
        )
    poses = poses[..., order]
    _check_size(poses, str(path))
    if not clip.channels and not are_channels_given:
        check_channels(poses, layout.channels, str(path))
    return to_poses(poses, layout.channels, picture)


def find_joint_order(found: tuple[str, ...], expected: tuple[str, ...]) -> list[int] | None:
    """Return the index of each expected joint among those found, in any usual spelling."""
    order = find_order(found, expected, fold_name)
    return find_order(found, expected, standard_name) if order is None else order


def find_order(
    found: tuple[str, ...], expected: tuple[str, ...], fold: Callable[[str], str]
) -> list[int] | None:
    """Return the index of each expected name among those found; None unless both are the same."""
    if found == expected:
        return list(range(len(found)))
    index = {fold(name): number for number, name in enumerate(found)}
    names = [fold(name) for name in expected]
    if len(found) != len(names) or index.keys() != set(names):
        return None
    return [index[name] for name in names]


def _order_channels(channels: tuple[str, ...], layout: Layout, where: str) -> list[int]:
    """Return the index of each channel of the layout. Raises InputError if others were found."""
    order = find_order(channels, layout.channels, channel_name)
    if order is None:
        raise InputError(
            f"{where}: expected the channels {_shorten(layout.channels)}, "
            f"found {_shorten(channels)}"
        )
    return order


def _shorten(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f"... ({len(names)})" if len(names) > 6 else "")


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


def parse_frame(
    line: str, where: str, layout: Layout, max_persons: int, channels: tuple[str, ...] = ()
) -> NDArray[np.float64]:
    """Read one frame from JSON: [joints, channels] or [persons, joints, channels].

    An object holds this under the key ``poses``. An unknown number or joint is null; a frame
    without persons is null or an empty list.

    Args:
        line: the text.
        where: name of the line, for error messages.
        layout: the expected joints and channels.
        max_persons: maximum number of persons.
        channels: those of the line, in its order; by default the layout's.

    Returns:
        [M, V, C], M >= 0, NaN where a number is unknown.

    Raises:
        InputError: the line is not such a frame.
    """
    try:
        value = json_text.parse(line.removeprefix("\ufeff"), is_strict=False)
    except ValueError:
        found = shown(line.strip())
        raise InputError(f"{where}: expected a frame as JSON, found {found}") from None
    if isinstance(value, dict):
        value = value.get(KEY)
    shape = (len(layout.joints), len(layout.channels))
    if value is None or value == []:
        return np.empty((0, *shape))
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
    return frame[..., _order_channels(channels or layout.channels, layout, where)]


def read_clip(
    path: Path, num_joints: int | None = None, text_format: TextFormat = ANY_TEXT
) -> ClipArray:
    """Read a clip.

    Args:
        path: the file; its extension determines the format.
        num_joints: V, which a table without a header needs.
        text_format: what the user says of text.

    Raises:
        InputError: names the file, the line or array, what was expected and what was found.
    """
    ending = path.suffix.lower()
    if ending in TEXT_ENDINGS:
        return read_clip_table(path, num_joints, text_format)
    if ending == ".npy":
        array = read_npy(read_bytes(path), str(path))
    elif ending == ".npz":
        array = _read_npz(path)
    elif ending == ".json":
        array = _read_json(path)
    else:
        raise InputError(
            f"{path}: expected a file that ends in {', '.join(ENDINGS)}",
            hint="rename text with numbers in rows to .txt",
        )
    if array.dtype.kind == "b":
        raise InputError(f"{path}: expected an array of numbers, found truth values")
    if array.ndim not in (3, 4):
        raise InputError(
            f"{path}: an array of the shape {array.shape}, "
            "expected [frames, joints, channels] or [persons, frames, joints, channels]"
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN
        poses = array.astype(np.float64)
    return ClipArray(poses[None] if array.ndim == 3 else poses)


def _read_npz(path: Path) -> NDArray[Any]:
    data = read_bytes(path)
    if (num_members := data.count(b"PK\x01\x02")) > MAX_MEMBERS:
        raise InputError(f"{path}: expected one array, found {num_members:,} files")
    archive = Archive(path, data)
    names = [name for name in archive.paths if name in (f"{KEY}.npy", KEY)] or archive.paths
    if len(names) != 1:
        raise InputError(
            f"{path}: expected one array, or one named {KEY!r}, found {len(names)} arrays"
        )
    return read_npy(archive.read(names[0], MAX_BYTES), f"{path}: {names[0]}")


def _read_json(path: Path) -> NDArray[Any]:
    lists = read_json(path)
    if isinstance(lists, dict):
        lists = lists.get(KEY)
    array = as_array(lists)
    if array is None:
        raise InputError(
            f"{path}: expected numbers in lists of equal length, "
            f"[frames, joints, channels], alone or under the key {KEY!r}"
        )
    _check_json(array, str(path))
    return array
