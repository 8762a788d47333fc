"""The first row of a clip as a table: what its columns are, or whether it is a frame itself.

Shapes: R rows, W columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import channel_name, fold_name, sort_channels
from skelnas.data.readers.tables import Row
from skelnas.errors import InputError

MAX_NAME_CHARS = 100
MIN_COUNTED = 4
"""Columns from which on a row that counts 0, 1, 2, ... cannot be a frame."""
_INDEX = re.compile(r"|index|unnamed: \d+(\.\d+)?")
"""Names that pandas gives to a column of row numbers."""
_MANGLED = re.compile(r"(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes:
        frame, person: indices of these columns; None if there are none.
        indices: those of row numbers.
        num_skipped: columns of the file before the first.
        joints, channels: their names; empty without a header of names.
        numbers: the columns of all channels of the first joint, then of the second, ...
    """

    frame: int | None = None
    person: int | None = None
    indices: list[int] = field(default_factory=list)
    num_skipped: int = 0
    joints: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    numbers: list[int] = field(default_factory=list)


def find_columns(path: Path, header: Row, skip: int) -> Columns:
    """Find the columns under a header of names, or of numbers besides `frame` or `person`."""
    where = f"{path}: line {header.line}"
    special: dict[str, int] = {}
    indices: list[int] = []
    others: list[int] = []
    for column, name in enumerate(map(fold_name, header.cells)):
        if name in special:
            raise InputError(f"{where}, column {column + 1 + skip}: a second column {name!r}")
        if name in ("frame", "person"):
            special[name] = column
        else:
            (indices if _INDEX.fullmatch(name) else others).append(column)
    frame, person = special.get("frame"), special.get("person")
    if person is not None and frame is None:
        raise InputError(f"{where}: expected a column frame along with person")
    if others and all(header.cells[column].isdecimal() for column in others):
        return Columns(frame, person, indices, skip, numbers=others)
    joints, channels, numbers = _find_joints(where, header, others, skip)
    return Columns(frame, person, indices, skip, joints, channels, numbers)


def _find_joints(
    where: str, header: Row, others: list[int], skip: int
) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """Return joints, channels, and the column of every channel, joint by joint."""
    columns: dict[tuple[str, str], int] = {}
    joints: dict[str, str] = {}  # spelled as where it occurs first
    for column in others:
        name = header.cells[column]
        joint, _, channel = name.rpartition("_")
        if not joint or not channel or len(name) > MAX_NAME_CHARS:
            raise InputError(
                f"{where}, column {column + 1 + skip}: expected frame, person or a joint and its "
                f"channel, such as hip_x, found {name[:40]!r}",
                hint="is that a row? --delimiter says what divides it" if " " in name else None,
            )
        key = (fold_name(joint), channel_name(channel))
        if key in columns:
            raise InputError(f"{where}, column {column + 1 + skip}: a second column {name[:40]!r}")
        columns[key] = column
        joints.setdefault(key[0], joint)
    if not joints:
        raise InputError(f"{where}: expected columns of joints, such as hip_x,hip_y,hip_z")
    channels = sort_channels(tuple(dict.fromkeys(channel for _, channel in columns)))
    for folded, joint in joints.items():
        for channel in channels:
            if (folded, channel) not in columns:
                raise InputError(f"{where}: expected a column {joint}_{channel}, found none")
    numbers = [columns[joint, channel] for joint in joints for channel in channels]
    return tuple(joints.values()), channels, numbers


def numbered_columns(header: Row, skip: int) -> Columns:
    """Return the columns under a header of numbers: row numbers where it is empty."""
    empty = [column for column, cell in enumerate(header.cells) if not cell]
    numbers = [column for column, cell in enumerate(header.cells) if cell]
    return Columns(indices=empty, num_skipped=skip, numbers=numbers)


def is_header(path: Path, first: Row, table: NDArray[np.float64]) -> bool:
    """Return whether the first row of numbers [R, W] names the columns.

    It does if it counts them from 0 or 1, after an empty cell or not, while no other row has whole
    numbers only; or if it counts at least four from 0.

    Raises:
        InputError: it is unlike all other rows, or looks like a header otherwise.
    """
    texts = list(dropwhile(lambda cell: not cell, first.cells))
    labels, others = table[0, -len(texts) :], table[1:, -len(texts) :]
    if not texts or not np.isfinite(labels).all():
        return False
    counts = any(np.array_equal(labels, np.arange(len(labels)) + start) for start in (0, 1))
    is_unlike = _is_unlike(labels, others)
    if counts and (is_unlike or (labels[0] == 0 and len(labels) >= MIN_COUNTED)):
        if not _all_count(others):
            return True
    elif not counts and not is_unlike and not _looks_numbered(labels, texts):
        return False
    raise InputError(
        f"{path}: line {first.line}: {', '.join(texts[:4])}, ... may be a header or a frame",
        hint="delete the line if it is a header; if not, write one, such as hip_x,hip_y, above it",
    )


def check_no_second_header(
    path: Path, lines: NDArray[np.int64], table: NDArray[np.float64]
) -> None:
    """Raise InputError if the first row, a header of numbers, is there again: of a joined file."""
    is_label = np.isfinite(table[0])
    again = (table[1:, is_label] == table[0, is_label]).all(axis=1)
    if again.any():
        raise InputError(
            f"{path}: line {lines[1 + int(again.argmax())]}: the header of line {lines[0]} again",
            hint="delete it if the rows below are frames of the same clip",
        )


def _is_unlike(labels: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Return whether the labels are whole numbers and those of no other row are.

    Labels of 0 and -1, as where nobody is seen, are no evidence, nor is another row of one number.
    """
    with np.errstate(invalid="ignore"):
        says = np.isfinite(others).any(axis=1) & (np.ptp(others, axis=1) != 0)
        whole = ((others == np.round(others)) | np.isnan(others)).all(axis=1)
    is_whole = np.array_equal(labels, np.round(labels)) and not np.isin(labels, (0, -1)).all()
    return bool(is_whole and says.any() and not (whole & says).any())


def _all_count(others: NDArray[np.float64]) -> bool:
    """Return whether every row counts: then one more that does is not unlike them."""
    with np.errstate(invalid="ignore"):  # infinite numbers
        return bool(len(others) and others.shape[1] > 1 and (np.diff(others, axis=1) == 1).all())


def _looks_numbered(labels: NDArray[np.float64], texts: list[str]) -> bool:
    """Return whether labels count on, go up in steps (0,0,1,1), repeat (0,1,0,1) or are mangled."""
    if len(labels) < MIN_COUNTED:
        return False
    steps = np.diff(labels)
    if (steps == 1).all() or (
        labels[0] in (0, 1) and np.isin(steps, (0, 1)).all() and steps.any() and not steps.all()
    ):
        return True
    ends = np.flatnonzero(labels == labels[0])
    if len(ends) > 1 and labels[0] in (0, 1):
        period = int(ends[1])
        if period > 1 and np.array_equal(labels, labels[0] + np.arange(len(labels)) % period):
            return True
    return _are_mangled(texts)


def _are_mangled(texts: list[str]) -> bool:
    """Return whether pandas made these of equal labels: 0, 0.1, 0.2, 1, 1.1, 1.2."""
    counts: dict[str, int] = {}
    for text in texts:
        match = _MANGLED.fullmatch(text)
        if match is None or int(match[2] or 0) != counts.get(match[1], 0):
            return False
        counts[match[1]] = counts.get(match[1], 0) + 1
    return max(counts.values()) > 1
