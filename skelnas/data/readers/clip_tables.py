"""Read one clip from a table, as people and pandas write it.

A row is a frame, or a person in a frame, under a header such as
``frame,person,hip_x,hip_y,hip_z,head_x,...``. The columns `frame` and `person` are optional; the
others are named joint_channel, in any order. A row of empty cells is a frame without persons.

Without names each row is a frame of one person: all channels of the first joint, then of the
second, and so on. A first row that only counts its columns, as pandas writes it, is no frame.
Where rows are too short for that, each is one joint, and as many as there are joints a frame.

Shapes: M persons, T frames, V joints, C channels, R rows, W columns.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, dropwhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import channel_name, fold_name, sort_channels
from skelnas.data.readers.tables import (
    Row,
    cell_error,
    check_widths,
    parse_number,
    parse_numbers,
    read_rows,
)
from skelnas.errors import InputError

MAX_NAME_CHARS = 100
MAX_NUMBERS = 1 << 25
"""Numbers in a clip, including those of frames missing from a table."""
MAX_ABSENT_FRAMES = 100_000
"""Frames that may be missing from a table, or ten times its rows if that is more."""
MAX_CHANNELS_IN_ROW = 4
"""Numbers of a row that may be a single joint."""
MAX_SPARE = 3
"""Columns beyond a multiple of the joints that may stand before them."""
MIN_COUNTED = 4
"""Columns from which on a row that counts 0, 1, 2, ... cannot be a frame."""
_INDEX = re.compile(r"|index|unnamed: \d+(\.\d+)?")
"""Names that pandas gives to a column of row numbers."""
_MANGLED = re.compile(r"(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class TextFormat:
    """What the user says of clips in text.

    Attributes:
        delimiter: what divides cells, see `tables.DELIMITERS`; by default it is found.
        skip_columns: columns before those of the joints, such as a frame number or a time.
    """

    delimiter: str = ""
    skip_columns: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, as plain containers."""
        return {name: value for name, value in asdict(self).items() if value}


ANY_TEXT = TextFormat()


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


@dataclass(frozen=True)
class _Columns:
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


def read_clip_table(
    path: Path, num_joints: int | None, text_format: TextFormat = ANY_TEXT
) -> ClipArray:
    """Read a clip.

    Args:
        path: the file.
        num_joints: V, which a table without names needs.
        text_format: what the user says of the file.

    Raises:
        InputError: names the file, the line, the column, what was expected and what was found.
    """
    skip = text_format.skip_columns
    rows = _skip_columns(
        path, read_rows(path, delimiter=text_format.delimiter, are_blanks_possible=True), skip
    )
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: expected a table, found an empty file")
    if parse_numbers(first.cells) is None:  # NumPy writes headers as comments
        first.cells[0] = first.cells[0].removeprefix("#").strip()
    if parse_numbers(first.cells) is None:
        columns = _find_columns(path, first, skip)
        lines, table = _read_numbers(path, rows, first.cells, columns)
    else:
        names = [str(column) for column in range(1 + skip, len(first.cells) + 1 + skip)]
        columns = _Columns(num_skipped=skip, numbers=list(range(len(names))))
        lines, table = _read_numbers(path, chain([first], rows), names, columns)
        if _is_header(path, first, table):
            _check_no_second_header(path, lines, table)
            lines, table = lines[1:], table[1:]
            columns = _numbered_columns(first, skip)
    if not len(table):
        raise InputError(f"{path}: line {first.line}: expected rows below the header, found none")
    _check_indices(path, lines, table, columns)
    poses = _fill(path, lines, table, columns)  # [M, T, V * C]
    if not columns.joints and num_joints is None:
        raise InputError(
            f"{path}: line {first.line}: expected a header such as frame,hip_x,hip_y,hip_z",
            hint="or name the joints, in the order of the columns, with --joints",
        )
    num_joints = len(columns.joints) or num_joints or 1
    num_columns = len(columns.numbers)
    if columns.frame is None and 2 <= num_columns < min(num_joints, MAX_CHANNELS_IN_ROW + 1):
        poses = _join_rows(path, poses[0], num_joints)
    elif num_columns % num_joints or not num_columns:
        raise _count_error(f"{path}: line {first.line}", num_columns, num_joints, skip)
    shape = (*poses.shape[:2], num_joints, -1)
    return ClipArray(poses.reshape(shape), columns.joints, columns.channels)


def _skip_columns(path: Path, rows: Iterable[Row], count: int) -> Iterator[Row]:
    """Yield the rows without their first cells."""
    for row in rows:
        if len(row.cells) <= count:
            raise InputError(
                f"{path}: line {row.line}: {len(row.cells)} cells, expected more than the {count} "
                "that --skip-columns leaves out"
            )
        yield row._replace(cells=row.cells[count:]) if count else row


def _join_rows(path: Path, rows: NDArray[np.float64], num_joints: int) -> NDArray[np.float64]:
    """Join rows of a joint each, [T * V, C], to frames [1, T, V * C]."""
    if len(rows) % num_joints:
        raise InputError(
            f"{path}: {rows.shape[1]} columns, expected a multiple of the {num_joints} joints, or "
            f"a row per joint, but {len(rows)} rows are no multiple either"
        )
    return rows.reshape(1, -1, num_joints * rows.shape[1])


def _count_error(where: str, num_columns: int, num_joints: int, skip: int) -> InputError:
    """Create the error about a number of columns that does not fit the joints."""
    spare = num_columns % num_joints
    hint = None
    if num_columns > num_joints and spare <= MAX_SPARE:
        what = "the first is a frame number or a time" if spare == 1 else "the first are no joints"
        hint = f"if {what}, give --skip-columns {skip + spare}"
    return InputError(
        f"{where}: {num_columns} columns, expected a multiple of the {num_joints} joints", hint=hint
    )


def _read_numbers(
    path: Path, rows: Iterable[Row], names: list[str], columns: _Columns
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the line of every row [R], and its numbers [R, W]; an unknown number is NaN."""
    lines, numbers = array("q"), array("d")
    for row in rows:
        check_widths(path, [row], len(names))
        if row.after_blank and columns.frame is None:
            raise InputError(
                f"{path}: line {row.line}: a blank line before it, which may be a frame or not",
                hint=f"delete it, or write {len(names) - 1} separators for a frame without persons",
            )
        values = parse_numbers(row.cells)
        if values is None:
            column = [parse_number(cell) for cell in row.cells].index(None)
            raise cell_error(path, row.line, names[column], "a number", row.cells[column])
        if len(numbers) + len(names) > MAX_NUMBERS:
            raise InputError(f"{path}: line {row.line}: expected at most {MAX_NUMBERS:,} numbers")
        lines.append(row.line)
        numbers.extend(values)
    return np.frombuffer(lines, np.int64), np.frombuffer(numbers).reshape(-1, len(names))


# Headers


def _find_columns(path: Path, header: Row, skip: int) -> _Columns:
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
        return _Columns(frame, person, indices, skip, numbers=others)
    joints, channels, numbers = _find_joints(where, header, others, skip)
    return _Columns(frame, person, indices, skip, joints, channels, numbers)


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


def _numbered_columns(header: Row, skip: int) -> _Columns:
    """Return the columns under a header of numbers: row numbers where it is empty."""
    empty = [column for column, cell in enumerate(header.cells) if not cell]
    numbers = [column for column, cell in enumerate(header.cells) if cell]
    return _Columns(indices=empty, num_skipped=skip, numbers=numbers)


def _is_header(path: Path, first: Row, table: NDArray[np.float64]) -> bool:
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


def _check_no_second_header(
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

    A row of one number is no evidence, such as zeros where nobody is seen.
    """
    with np.errstate(invalid="ignore"):
        says = np.isfinite(others).any(axis=1) & (np.ptp(others, axis=1) != 0)
        whole = ((others == np.round(others)) | np.isnan(others)).all(axis=1)
    is_whole = np.array_equal(labels, np.round(labels)) and np.ptp(labels) != 0
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


# Frames


def _check_indices(
    path: Path, lines: NDArray[np.int64], table: NDArray[np.float64], columns: _Columns
) -> None:
    """Raise InputError if row numbers say that rows are missing, unless the frames are numbered."""
    for column in columns.indices if columns.frame is None else []:
        numbers = table[:, column]
        if np.isnan(numbers).all():  # as after a comma at the end of every line
            continue
        with np.errstate(invalid="ignore"):  # infinite numbers
            steps = np.flatnonzero(~(np.diff(numbers) == 1))
        if not np.isfinite(numbers[0]) or len(steps):
            row = int(steps[0]) + 1 if len(steps) else 0
            raise InputError(
                f"{path}: line {lines[row]}, column {column + 1 + columns.num_skipped}: expected "
                f"row numbers without gaps, found {numbers[row]:g}",
                hint="name the column frame if it counts frames; if not, remove it",
            )


def _fill(
    path: Path, lines: NDArray[np.int64], table: NDArray[np.float64], columns: _Columns
) -> NDArray[np.float64]:
    """Return the numbers [M, T, V * C] of every person and frame, NaN where there is no row."""
    values = table[:, columns.numbers]  # [R, V * C]
    if columns.frame is None:
        return values[None]
    frames = _read_integers(path, lines, table[:, columns.frame], "frame")
    persons = np.zeros_like(frames)
    if columns.person is not None:
        numbers = table[:, columns.person]
        is_nobody = np.isnan(values).all(axis=1) & np.isnan(numbers)
        persons = _read_integers(path, lines, np.where(is_nobody, 0, numbers), "person")
        persons[is_nobody] = -1
    slots = np.unique(persons[persons >= 0])
    num_slots, num_frames = max(1, len(slots)), int(frames.max() - frames.min()) + 1
    if num_frames - len(frames) > max(MAX_ABSENT_FRAMES, 10 * len(frames)):
        raise InputError(
            f"{path}: {len(frames)} rows for the frames {frames.min()} to {frames.max()}, "
            f"expected at most {MAX_ABSENT_FRAMES:,} absent ones"
        )
    if num_slots * num_frames * values.shape[1] > MAX_NUMBERS:
        raise InputError(
            f"{path}: {num_slots} persons in {num_frames} frames, "
            f"expected at most {MAX_NUMBERS:,} numbers"
        )
    _check_duplicates(path, lines, frames, persons)
    poses = np.full((num_slots, num_frames, values.shape[1]), np.nan)
    has_person = persons >= 0
    slot, frame = np.searchsorted(slots, persons), frames - frames.min()
    poses[slot[has_person], frame[has_person]] = values[has_person]
    return poses


def _read_integers(
    path: Path, lines: NDArray[np.int64], numbers: NDArray[np.float64], name: str
) -> NDArray[np.int64]:
    """Convert the numbers of a column to whole numbers."""
    is_wrong = ~((numbers >= 0) & (numbers < 2**31) & (numbers == np.round(numbers)))
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        found = "" if np.isnan(numbers[row]) else f"{numbers[row]:g}"
        raise cell_error(path, int(lines[row]), name, "a whole number from 0", found)
    return numbers.astype(np.int64)


def _check_duplicates(
    path: Path, lines: NDArray[np.int64], frames: NDArray[np.int64], persons: NDArray[np.int64]
) -> None:
    order = np.lexsort((persons, frames))
    same = (np.diff(frames[order]) == 0) & (np.diff(persons[order]) == 0)
    if same.any():
        index = int(np.argmax(same))
        row, earlier = int(order[index + 1]), int(order[index])
        raise InputError(
            f"{path}: line {lines[row]}: frame {frames[row]} of person {max(0, persons[row])} "
            f"is already in line {lines[earlier]}"
        )
