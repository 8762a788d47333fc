"""Tables of text: CSV as people and spreadsheets write it, read with the line of every row."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from skelnas.data.readers.files import read_bytes
from skelnas.errors import InputError

DELIMITERS = (",", ";", "\t")
LONGEST_CELL = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Row(NamedTuple):
    """The cells of a row, without blanks around them, and the line of the file on which it ends."""

    line: int
    cells: list[str]


def read_table(path: Path) -> list[Row]:
    """Read all rows that are not blank.

    Cells are divided by commas, or by the semicolons or tabs that the first line has instead.

    Raises:
        InputError: names the file, the line and what is wrong; also if there is no row.
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
                if len(cell) > LONGEST_CELL or _CONTROL.search(cell):
                    raise InputError(
                        f"{path}: line {reader.line_num}, column {column}: expected plain text of "
                        f"at most {LONGEST_CELL} characters, found {cell[:40]!r}"
                    )
            if any(stripped):
                rows.append(Row(reader.line_num, stripped))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: expected CSV: {error}") from None
    if not rows:
        raise InputError(f"{path}: expected a table, found an empty file")
    return rows


def parse_integer(text: str, first: int, end: int) -> int | None:
    """Return a whole number in plain digits from `first` to below `end`; None if it is none."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    value = int(text)
    return value if first <= value < end else None


def parse_number(text: str) -> float | None:
    """Return a number as Python writes it, nan and inf too; None if it is none."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
