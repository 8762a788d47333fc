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

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.clip_headers import (
    MIN_COUNTED,
    Columns,
    check_no_second_header,
    find_columns,
    is_header,
    numbered_columns,
)
from skelnas.data.readers.numbering import FROM_ZERO, Numbering
from skelnas.data.readers.tables import (
    Row,
    cell_error,
    check_widths,
    parse_number,
    parse_numbers,
    read_rows,
)
from skelnas.errors import InputError

MAX_NUMBERS = 1 << 25
"""Numbers in a clip, including those of frames missing from a table."""
MAX_ABSENT_FRAMES = 100_000
"""Frames that may be missing from a table, or ten times its rows if that is more."""
MAX_CHANNELS_IN_ROW = 4
"""Numbers of a row that may be a single joint."""
MAX_SPARE = 3
"""Columns beyond a multiple of the joints that may stand before them."""


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
        layout: name of the layout that the format has; empty if it says nothing.
        other_layout: name of another that it may be as well; empty if there is none.
        notes: lines about what was left out.
        numbering: of the frames, see `Numbering`.
    """

    poses: NDArray[np.float64]
    joints: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    layout: str = ""
    other_layout: str = ""
    notes: tuple[str, ...] = ()
    numbering: Numbering = FROM_ZERO


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
        columns = find_columns(path, first, skip)
        lines, table = _read_numbers(path, rows, first.cells, columns)
    else:
        names = [str(column) for column in range(1 + skip, len(first.cells) + 1 + skip)]
        columns = Columns(num_skipped=skip, numbers=list(range(len(names))))
        lines, table = _read_numbers(path, chain([first], rows), names, columns)
        if is_header(path, first, table):
            check_no_second_header(path, lines, table)
            lines, table = lines[1:], table[1:]
            columns = numbered_columns(first, skip)
    if not len(table):
        raise InputError(f"{path}: line {first.line}: expected rows below the header, found none")
    _check_indices(path, lines, table, columns)
    poses, numbering = _fill(path, lines, table, columns)  # [M, T, V * C]
    if not columns.joints and num_joints is None:
        raise InputError(
            f"{path}: line {first.line}: expected a header such as frame,hip_x,hip_y,hip_z, found "
            f"{len(first.cells)} numbers",
            hint="or name the joints, in the order of the columns, with --joints",
        )
    num_joints = len(columns.joints) or num_joints or 1
    num_columns = len(columns.numbers)
    is_joint_a_row = columns.frame is None and 2 <= num_columns < min(
        num_joints, MAX_CHANNELS_IN_ROW + 1
    )
    if is_joint_a_row:
        poses = _join_rows(path, poses[0], num_joints)
    elif num_columns % num_joints or not num_columns:
        raise _count_error(f"{path}: line {first.line}", num_columns, num_joints, skip)
    if not columns.joints and columns.frame is None:
        numbers = table[:, columns.numbers[0]]
        _check_not_counted(path, numbers, num_joints if is_joint_a_row else 1, skip)
    shape = (*poses.shape[:2], num_joints, -1)
    return ClipArray(poses.reshape(shape), columns.joints, columns.channels, numbering=numbering)


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


def _check_not_counted(
    path: Path, numbers: NDArray[np.float64], rows_per_frame: int, skip: int
) -> None:
    """Raise InputError if the first column [R] counts rows, frames or joints, from any number."""
    if not np.isfinite(numbers).all():
        return
    rows = np.arange(len(numbers))
    for what, count, is_told in (
        ("rows", rows, len(rows) >= MIN_COUNTED),
        ("frames", rows // rows_per_frame, rows[-1] // rows_per_frame >= 2),
        ("joints", rows % rows_per_frame, rows_per_frame >= MIN_COUNTED),
    ):
        if is_told and np.array_equal(numbers - numbers[0], count):
            raise InputError(
                f"{path}: the first column counts {what}",
                hint=f"give --skip-columns {skip + 1}; if it is a coordinate, write a header with "
                "the names of all columns",
            )


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
    path: Path, rows: Iterable[Row], names: list[str], columns: Columns
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


def _check_indices(
    path: Path, lines: NDArray[np.int64], table: NDArray[np.float64], columns: Columns
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
    path: Path, lines: NDArray[np.int64], table: NDArray[np.float64], columns: Columns
) -> tuple[NDArray[np.float64], Numbering]:
    """Return the numbers [M, T, V * C] of every person and frame, NaN where there is no row."""
    values = table[:, columns.numbers]  # [R, V * C]
    if columns.frame is None:
        return values[None], FROM_ZERO
    frames = _read_integers(path, lines, table[:, columns.frame], "frame")
    persons = np.zeros_like(frames)
    if columns.person is not None:
        numbers = table[:, columns.person]
        is_nobody = np.isnan(values).all(axis=1) & np.isnan(numbers)
        persons = _read_integers(path, lines, np.where(is_nobody, 0, numbers), "person")
        persons[is_nobody] = -1
    slots = np.unique(persons[persons >= 0])
    first = int(frames.min())
    num_slots, num_frames = max(1, len(slots)), int(frames.max()) - first + 1
    if num_frames - len(frames) > max(MAX_ABSENT_FRAMES, 10 * len(frames)):
        raise InputError(
            f"{path}: {len(frames)} rows for the frames {first} to {frames.max()}, "
            f"expected at most {MAX_ABSENT_FRAMES:,} absent ones"
        )
    if num_slots * num_frames * values.shape[1] > MAX_NUMBERS:
        raise InputError(
            f"{path}: {num_slots} persons in {num_frames} frames, "
            f"expected at most {MAX_NUMBERS:,} numbers"
        )
    _check_duplicates(path, lines, frames, persons)
    _check_steps(path, frames)
    poses = np.full((num_slots, num_frames, values.shape[1]), np.nan)
    has_person = persons >= 0
    slot, frame = np.searchsorted(slots, persons), frames - first
    poses[slot[has_person], frame[has_person]] = values[has_person]
    return poses, Numbering(first)


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


def _check_steps(path: Path, frames: NDArray[np.int64]) -> None:
    """Raise InputError if all frames are multiples apart, so that others would count as absent."""
    numbers = np.unique(frames)
    step = int(np.gcd.reduce(np.diff(numbers), initial=0))
    if len(numbers) >= MIN_COUNTED and step > 1:
        raise InputError(
            f"{path}: the frames are {step} apart, as if there were nobody in between",
            hint=f"divide the column frame by {step}, or remove it",
        )


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
