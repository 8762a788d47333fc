"""Read CSV tables as people and spreadsheets write them, with the line number of every row."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from skelnas.data.readers.files import read_bytes
from skelnas.errors import InputError

DELIMITERS = (",", ";", "\t")
MAX_CELL_CHARS = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Row(NamedTuple):
    """The stripped cells of a row, and the line of the file on which it ends."""

    line: int
    cells: list[str]


def read_table(path: Path) -> list[Row]:
    """Read all rows that are not blank.

    The delimiter is a comma, semicolon or tab, whichever the first line has most of.

    Raises:
        InputError: names the file, the line and what is wrong; also if there are no rows.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: expected text in UTF-8, found the byte {data[error.start]:#04x}",
            hint="save the table as 'CSV UTF-8'",
        ) from None
    first = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            for column, cell in enumerate(stripped, start=1):
                if len(cell) > MAX_CELL_CHARS or _CONTROL.search(cell):
                    raise InputError(
                        f"{path}: line {reader.line_num}, column {column}: expected plain text of "
                        f"at most {MAX_CELL_CHARS} characters, found {cell[:40]!r}"
                    )
            if any(stripped):
                rows.append(Row(reader.line_num, stripped))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: expected CSV: {error}") from None
    if not rows:
        raise InputError(f"{path}: expected a table, found an empty file")
    return rows


def check_widths(path: Path, rows: list[Row], width: int) -> None:
    """Raise InputError unless all rows have `width` cells."""
    for line, cells in rows:
        if len(cells) != width:
            raise InputError(f"{path}: line {line}: expected {width} cells, found {len(cells)}")


def cell_error(path: Path, line: int, column: str, expected: str, found: str) -> InputError:
    """Create the error about one cell."""
    text = repr(found[:40]) if found else "nothing"
    return InputError(f"{path}: line {line}, column {column}: expected {expected}, found {text}")


def parse_integer(text: str, first: int, end: int) -> int | None:
    """Parse plain digits; return None unless they are a number >= `first` and < `end`."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    value = int(text)
    return value if first <= value < end else None


def parse_number(text: str) -> float | None:
    """Parse a number in Python's notation, including nan and inf; return None if it is not."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
