"""One clip from an array in a file: `.npy`, `.npz`, `.json` or `.csv`.

An array has the axes [T, V, C] or [M, T, V, C]. A CSV has a row for each frame, or for each person
in a frame, under a header such as ``frame,person,hip_x,hip_y,hip_z,head_x,...``: the columns
`frame` and `person` are optional, the others are named joint_channel and may stand in any order.
An empty cell is a number that is not known. Without a header each row is a frame of one person, all
channels of the first joint, then of the second.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError
from skelnas.sources.archives import Archive
from skelnas.sources.files import MAX_BYTES, read_bytes, read_json
from skelnas.sources.npy import read_npy
from skelnas.sources.tables import Row, parse_integer, parse_number, read_table

ENDINGS = (".npy", ".npz", ".json", ".csv")
KEY = "poses"
"""The array in an .npz or a .json object that holds others too."""
LONGEST_NAME = 100
MAX_NUMBERS = 1 << 25
"""Numbers of a clip; frames that a table leaves out count too."""


@dataclass(frozen=True)
class ClipArray:
    """What a file holds.

    Attributes:
        poses: [M, T, V, C] float64, not finite where a number is not known.
        joints, channels: their names, if the file has them; else empty.
    """

    poses: NDArray[np.float64]
    joints: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def read_clip(path: Path, num_joints: int | None = None) -> ClipArray:
    """Read a clip.

    Args:
        path: the file; its ending says what it is.
        num_joints: V if it is known; a table without a header cannot be read otherwise.

    Raises:
        InputError: names the file, the place in it, what was expected and what was found.
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
    with np.errstate(invalid="ignore"):  # a signalling nan
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


def as_array(lists: Any) -> NDArray[Any] | None:
    """Turn nested lists of numbers into an array, nan where there is None; None if they are not."""
    try:
        array = np.array(lists)
        if array.dtype == object and set(map(type, array.flat)) <= {int, float, type(None)}:
            array = array.astype(np.float64)  # None becomes nan
    except (ValueError, OverflowError):  # of unequal length, nested too deep; too large an integer
        return None
    return array if array.dtype.kind in "iuf" and isinstance(lists, list) else None


def _read_csv(path: Path, num_joints: int | None) -> ClipArray:
    rows = read_table(path)
    if parse_number(rows[0].cells[0]) is not None or not rows[0].cells[0]:
        return _plain_rows(path, rows, num_joints)
    header, *rows = rows
    if not rows:
        raise InputError(f"{path}: line {header.line}: expected rows below the header, found none")
    joints, channels, columns = _columns(path, header)
    numbers = _numbers(path, rows, header.cells, columns)
    frames = _integers(path, rows, header.cells, "frame", list(range(len(rows))))
    persons = _integers(path, rows, header.cells, "person", [0] * len(rows))
    if "person" in header.cells and "frame" not in header.cells:
        raise InputError(f"{path}: line {header.line}: expected a column frame beside person")

    slots = {person: slot for slot, person in enumerate(sorted(set(persons)))}
    first = min(frames)
    shape = (len(slots), max(frames) - first + 1, len(joints), len(channels))
    if np.prod(np.array(shape, np.float64)) > MAX_NUMBERS:
        raise InputError(f"{path}: expected at most {MAX_NUMBERS:,} numbers, found {shape}")
    poses = np.full(shape, np.nan)
    taken: dict[tuple[int, int], int] = {}
    for row, frame, person, values in zip(rows, frames, persons, numbers, strict=True):
        other = taken.setdefault((frame, person), row.line)
        if other != row.line:
            raise InputError(
                f"{path}: line {row.line}: frame {frame} of person {person} "
                f"is in line {other} already"
            )
        poses[slots[person], frame - first] = np.reshape(values, shape[2:])
    return ClipArray(poses, joints, channels)


def _plain_rows(path: Path, rows: list[Row], num_joints: int | None) -> ClipArray:
    width = len(rows[0].cells)
    if num_joints is None:
        raise InputError(
            f"{path}: line {rows[0].line}: expected a header such as frame,hip_x,hip_y,hip_z",
            hint="or give the names of the joints, in the order of the columns, by --joints",
        )
    if width % num_joints:
        raise InputError(
            f"{path}: line {rows[0].line}: {width} columns, "
            f"expected a multiple of the {num_joints} joints"
        )
    names = [str(column) for column in range(1, width + 1)]
    numbers = _numbers(path, rows, names, list(range(width)))
    return ClipArray(np.reshape(numbers, (1, len(rows), num_joints, width // num_joints)))


def _columns(path: Path, header: Row) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """Find joints and channels, and the column of each channel of each joint, joint by joint."""
    place = f"{path}: line {header.line}"
    columns: dict[tuple[str, str], int] = {}
    for column, name in enumerate(header.cells):
        joint, _, channel = name.rpartition("_")
        if name in ("frame", "person"):
            joint, channel = "", name
        elif not joint or not channel or len(name) > LONGEST_NAME:
            raise InputError(
                f"{place}, column {column + 1}: expected frame, person or a joint and its channel, "
                f"such as hip_x, found {name[:40]!r}"
            )
        if (joint, channel) in columns:
            raise InputError(f"{place}, column {column + 1}: a second column {name[:40]!r}")
        columns[joint, channel] = column
    joints = tuple(dict.fromkeys(joint for joint, _ in columns if joint))
    channels = tuple(dict.fromkeys(channel for joint, channel in columns if joint))
    if not joints:
        raise InputError(f"{place}: expected columns of joints, such as hip_x,hip_y,hip_z")
    for joint in joints:
        for channel in channels:
            if (joint, channel) not in columns:
                raise InputError(f"{place}: expected a column {joint}_{channel}, found none")
    return joints, channels, [columns[joint, channel] for joint in joints for channel in channels]


def _numbers(
    path: Path, rows: list[Row], names: list[str], columns: list[int]
) -> list[list[float]]:
    """Read the numbers of some columns; an empty cell gives nan."""
    table = []
    for row in rows:
        if len(row.cells) != len(names):
            raise InputError(
                f"{path}: line {row.line}: expected {len(names)} cells, found {len(row.cells)}"
            )
        values = [parse_number(row.cells[column] or "nan") for column in columns]
        if None in values:
            column = columns[values.index(None)]
            raise InputError(
                f"{path}: line {row.line}, column {names[column]}: "
                f"expected a number, found {row.cells[column][:40]!r}"
            )
        table.append([value for value in values if value is not None])
    return table


def _integers(
    path: Path, rows: list[Row], names: list[str], name: str, default: list[int]
) -> list[int]:
    """Read a column of whole numbers, if it is there."""
    if name not in names:
        return default
    column = names.index(name)
    values = []
    for row in rows:
        value = parse_integer(row.cells[column], 0, 2**31)
        if value is None:
            raise InputError(
                f"{path}: line {row.line}, column {name}: "
                f"expected a whole number from 0, found {row.cells[column][:40]!r}"
            )
        values.append(value)
    return values
