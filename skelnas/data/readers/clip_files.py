"""Read one clip from an array in a file: `.npy`, `.npz`, `.json` or `.csv`.

An array has the axes [T, V, C] or [M, T, V, C]. A CSV has one row per frame, or per person in a
frame, under a header such as ``frame,person,hip_x,hip_y,hip_z,head_x,...``. The columns `frame` and
`person` are optional; the others are named joint_channel, in any order. An empty cell is an unknown
number. Without a header each row is a frame of one person: all channels of the first joint, then of
the second, and so on.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import Archive
from skelnas.data.readers.base import Layout, Poses
from skelnas.data.readers.files import (
    MAX_BYTES,
    are_found,
    as_array,
    as_joints,
    read_bytes,
    read_json,
)
from skelnas.data.readers.npy import read_npy
from skelnas.data.readers.tables import (
    Row,
    cell_error,
    check_widths,
    parse_integer,
    parse_number,
    read_table,
)
from skelnas.errors import InputError, shown

ENDINGS = (".npy", ".npz", ".json", ".csv")
KEY = "poses"
"""Name of the array in an .npz or a .json object that holds several."""
MAX_NAME_CHARS = 100
MAX_NUMBERS = 1 << 25
"""Numbers in a clip, including those of frames missing from a table."""

Picture = tuple[float, float] | None
"""Width and height to divide x and y by, or None to leave coordinates as they are."""


def read_poses(
    path: Path,
    layout: Layout,
    max_persons: int,
    picture: Picture = None,
    *,
    joints_note: str = "",
    persons_note: str = "",
) -> Poses:
    """Read a clip whose layout is known.

    Args:
        path: the file.
        layout: the expected joints and channels.
        max_persons: maximum number of persons.
        picture: see `Picture`.
        joints_note, persons_note: ends of the messages about a wrong number of joints or persons;
            say where the expected number comes from.

    Raises:
        InputError: the file is malformed, or has other joints or too many persons.
    """
    clip = read_clip(path, len(layout.joints))
    for kind, found, expected in (
        ("joints", clip.joints, layout.joints),
        ("channels", clip.channels, layout.channels),
    ):
        if found and found != expected:
            raise InputError(
                f"{path}: expected the {kind} {_shorten(expected)}, found {_shorten(found)}"
            )
    persons, frames, *joint_shape = clip.poses.shape
    if joint_shape != [len(layout.joints), len(layout.channels)]:
        raise InputError(
            f"{path}: {joint_shape[0]} joints of {joint_shape[1]} numbers, expected "
            f"{len(layout.joints)} of {len(layout.channels)}{joints_note}"
        )
    if not 1 <= persons <= max_persons or not frames:
        raise InputError(
            f"{path}: {persons} persons in {frames} frames, expected 1 to {max_persons} "
            f"persons and a frame{persons_note}"
        )
    return to_poses(clip.poses, layout.channels, picture)


def _shorten(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f"... ({len(names)})" if len(names) > 6 else "")


def to_poses(array: NDArray[np.float64], channels: Sequence[str], picture: Picture = None) -> Poses:
    """Turn an array [M, T, V, C] into poses; a person without joints in a frame is absent."""
    present: NDArray[np.bool_] = np.any(are_found(array, channels), axis=-1)
    return as_joints(array, channels, picture), present


def parse_frame(line: str, where: str, layout: Layout, max_persons: int) -> NDArray[np.float64]:
    """Read one frame from JSON: [joints, channels] or [persons, joints, channels].

    An object holds this under the key ``poses``. An unknown number is null; a frame without
    persons is null or an empty list.

    Args:
        line: the text.
        where: name of the line, for error messages.
        layout: the expected joints and channels.
        max_persons: maximum number of persons.

    Returns:
        [M, V, C], M >= 0, NaN where a number is unknown.

    Raises:
        InputError: the line is not such a frame.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # also numbers too long, and lists nested too deeply
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
    frame = array.astype(np.float64).reshape(-1, *shape)
    if len(frame) > max_persons:
        raise InputError(f"{where}: {len(frame)} persons, expected at most {max_persons}")
    return frame


@dataclass(frozen=True)
class ClipArray:
    """The content of a file.

    Attributes:
        poses: [M, T, V, C] float64, not finite where a number is unknown.
        joints, channels: their names; empty if the file has none.
    """

    poses: NDArray[np.float64]
    joints: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def read_clip(path: Path, num_joints: int | None = None) -> ClipArray:
    """Read a clip.

    Args:
        path: the file; its extension determines the format.
        num_joints: V, which a table without a header needs.

    Raises:
        InputError: names the file, the line or array, what was expected and what was found.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        return _read_csv(path, num_joints)
    if ending == ".npy":
        array = read_npy(read_bytes(path), str(path))
    elif ending == ".npz":
        array = _read_npz(path)
    elif ending == ".json":
        array = _read_json(path)
    else:
        raise InputError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}")
    if array.ndim not in (3, 4):
        raise InputError(
            f"{path}: an array of the shape {array.shape}, "
            "expected [frames, joints, channels] or [persons, frames, joints, channels]"
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN
        poses = array.astype(np.float64)
    return ClipArray(poses[None] if array.ndim == 3 else poses)


def _read_npz(path: Path) -> NDArray[Any]:
    archive = Archive(path, read_bytes(path))
    names = [name for name in archive.members if name in (f"{KEY}.npy", KEY)] or archive.paths
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
    return array


def _read_csv(path: Path, num_joints: int | None) -> ClipArray:
    rows = read_table(path)
    if parse_number(rows[0].cells[0]) is not None or not rows[0].cells[0]:
        return _read_plain_rows(path, rows, num_joints)
    header, *rows = rows
    if not rows:
        raise InputError(f"{path}: line {header.line}: expected rows below the header, found none")
    joints, channels, columns = _find_columns(path, header)
    numbers = _read_numbers(path, rows, header.cells, columns)
    frames = _read_integers(path, rows, header.cells, "frame", list(range(len(rows))))
    persons = _read_integers(path, rows, header.cells, "person", [0] * len(rows))
    if "person" in header.cells and "frame" not in header.cells:
        raise InputError(f"{path}: line {header.line}: expected a column frame along with person")

    slots = {person: slot for slot, person in enumerate(sorted(set(persons)))}
    first = min(frames)
    shape = (len(slots), max(frames) - first + 1, len(joints), len(channels))
    if np.prod(np.array(shape, np.float64)) > MAX_NUMBERS:
        raise InputError(f"{path}: expected at most {MAX_NUMBERS:,} numbers, found {shape}")
    poses = np.full(shape, np.nan)
    lines: dict[tuple[int, int], int] = {}
    for row, frame, person, values in zip(rows, frames, persons, numbers, strict=True):
        line = lines.setdefault((frame, person), row.line)
        if line != row.line:
            raise InputError(
                f"{path}: line {row.line}: frame {frame} of person {person} "
                f"is already in line {line}"
            )
        poses[slots[person], frame - first] = np.reshape(values, shape[2:])
    return ClipArray(poses, joints, channels)


def _read_plain_rows(path: Path, rows: list[Row], num_joints: int | None) -> ClipArray:
    width = len(rows[0].cells)
    if num_joints is None:
        raise InputError(
            f"{path}: line {rows[0].line}: expected a header such as frame,hip_x,hip_y,hip_z",
            hint="or name the joints, in the order of the columns, with --joints",
        )
    if width % num_joints:
        raise InputError(
            f"{path}: line {rows[0].line}: {width} columns, "
            f"expected a multiple of the {num_joints} joints"
        )
    names = [str(column) for column in range(1, width + 1)]
    numbers = _read_numbers(path, rows, names, list(range(width)))
    return ClipArray(np.reshape(numbers, (1, len(rows), num_joints, width // num_joints)))


def _find_columns(path: Path, header: Row) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """Return joints, channels, and the column of every channel, joint by joint."""
    where = f"{path}: line {header.line}"
    columns: dict[tuple[str, str], int] = {}
    for column, name in enumerate(header.cells):
        joint, _, channel = name.rpartition("_")
        if name in ("frame", "person"):
            joint, channel = "", name
        elif not joint or not channel or len(name) > MAX_NAME_CHARS:
            raise InputError(
                f"{where}, column {column + 1}: expected frame, person or a joint and its channel, "
                f"such as hip_x, found {name[:40]!r}"
            )
        if (joint, channel) in columns:
            raise InputError(f"{where}, column {column + 1}: a second column {name[:40]!r}")
        columns[joint, channel] = column
    joints = tuple(dict.fromkeys(joint for joint, _ in columns if joint))
    channels = tuple(dict.fromkeys(channel for joint, channel in columns if joint))
    if not joints:
        raise InputError(f"{where}: expected columns of joints, such as hip_x,hip_y,hip_z")
    for joint in joints:
        for channel in channels:
            if (joint, channel) not in columns:
                raise InputError(f"{where}: expected a column {joint}_{channel}, found none")
    return joints, channels, [columns[joint, channel] for joint in joints for channel in channels]


def _read_numbers(
    path: Path, rows: list[Row], names: list[str], columns: list[int]
) -> list[list[float]]:
    """Read the numbers in some columns; an empty cell becomes NaN."""
    check_widths(path, rows, len(names))
    table = []
    for row in rows:
        values = [parse_number(row.cells[column] or "nan") for column in columns]
        if None in values:
            column = columns[values.index(None)]
            raise cell_error(path, row.line, names[column], "a number", row.cells[column])
        table.append([value for value in values if value is not None])
    return table


def _read_integers(
    path: Path, rows: list[Row], names: list[str], name: str, default: list[int]
) -> list[int]:
    """Read a column of whole numbers; return the default if there is none."""
    if name not in names:
        return default
    column = names.index(name)
    values = []
    for row in rows:
        value = parse_integer(row.cells[column], 0, 2**31)
        if value is None:
            raise cell_error(path, row.line, name, "a whole number from 0", row.cells[column])
        values.append(value)
    return values
