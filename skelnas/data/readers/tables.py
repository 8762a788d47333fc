"""Read tables of text as people and spreadsheets write them, with the line number of every row."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from skelnas.data.readers.files import read_bytes
from skelnas.errors import InputError

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "blank": " "}
"""What may divide cells, by name; blanks are any number of blanks and tabs."""
MAX_CELL_CHARS = 1000
MAX_COLUMNS = 65_536
MAX_LINES = 1 << 21
"""Twenty hours of frames."""
UNKNOWN = frozenset(("", "nan", "-nan", "+nan", "na", "n/a", "#n/a", "<na>", "null", "none"))
"""How cells without a number are written, in small letters."""
_BLANKS = re.compile(r"[ \t]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Row(NamedTuple):
    """The stripped cells of a row.

    Attributes:
        line: the line of the file on which it ends.
        cells: at least one.
        after_blank: whether a blank line comes right before it.
    """

    line: int
    cells: list[str]
    after_blank: bool


def read_table(path: Path, max_lines: int) -> list[Row]:
    """Read all rows that are not empty; otherwise like `read_rows`."""
    rows = [row for row in read_rows(path, max_lines) if any(row.cells)]
    if not rows:
        raise InputError(f"{path}: expected a table, found an empty file")
    return rows


def read_rows(
    path: Path,
    max_lines: int = MAX_LINES,
    delimiter: str = "",
    *,
    are_blanks_possible: bool = False,
) -> Iterator[Row]:
    """Read the rows one by one, also those of empty cells; blank lines are no rows.

    Args:
        path: the file.
        max_lines: maximum number of lines.
        delimiter: one of `DELIMITERS`; by default the comma, semicolon or tab, whichever the first
            line has most of.
        are_blanks_possible: whether blanks divide the cells if the first line has none of those.

    Raises:
        InputError: names the file, the line and what is wrong.
    """
    # Windows makes \r\r\n of the \r\n of Python's csv module.
    data = read_bytes(path).replace(b"\r\r\n", b"\r\n").rstrip(b"\r\n")
    num_lines = 1 + max(data.count(b"\n"), data.count(b"\r"))
    if num_lines > max_lines:
        raise InputError(f"{path}: {num_lines:,} lines, expected at most {max_lines:,}")
    _check_encoding(path, data)
    first = data.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]
    divider = DELIMITERS[delimiter] if delimiter else _find_divider(first, are_blanks_possible)
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    after_blank = False
    for line, cells in _split(path, lines, divider):
        if not cells or (len(cells) == 1 and cells[0].isspace()):
            after_blank = True
            continue
        stripped = [cell.strip() for cell in cells]
        _check_cells(path, line, stripped)
        yield Row(line, stripped, after_blank)
        after_blank = False


def _find_divider(first: bytes, are_blanks_possible: bool) -> str:
    counts = {divider: first.count(divider.encode()) for divider in (",", ";", "\t")}
    if are_blanks_possible and not counts[","] + counts[";"] and b" " in first.strip():
        cells = first.decode("utf-8", "replace").split()
        if not counts["\t"] or (
            any(b" " in cell.strip() for cell in first.split(b"\t")) and parse_numbers(cells)
        ):
            return " "  # or blanks and tabs among numbers
    return max(counts, key=counts.__getitem__)


def _split(path: Path, lines: Iterable[str], divider: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line on which it ends; quotes have no meaning among blanks."""
    if divider == " ":
        for number, line in enumerate(_narrow(path, lines, divider), start=1):
            # NumPy writes headers as comments.
            text = line.removeprefix("#") if number == 1 else line
            yield number, [cell for cell in _BLANKS.split(text.strip("\r\n")) if cell]
        return
    reader = csv.reader(_narrow(path, lines, divider), delimiter=divider, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: expected CSV: {error}") from None


def _check_encoding(path: Path, data: bytes) -> None:
    try:
        data.isascii() or data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: expected text in UTF-8, found the byte {data[error.start]:#04x}",
            hint="save the table as 'CSV UTF-8'",
        ) from None


def _narrow(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """Yield the lines, unless one has too many cells."""
    for number, line in enumerate(lines, start=1):
        count = line.count(delimiter) if delimiter != " " else len(line.split()) - 1
        if count >= MAX_COLUMNS:
            raise InputError(f"{path}: line {number}: expected at most {MAX_COLUMNS:,} cells")
        yield line


def _check_cells(path: Path, line: int, cells: list[str]) -> None:
    text = "".join(cells)
    if len(text) <= MAX_CELL_CHARS and not _CONTROL.search(text):
        return
    for column, cell in enumerate(cells, start=1):
        if len(cell) > MAX_CELL_CHARS or _CONTROL.search(cell):
            raise InputError(
                f"{path}: line {line}, column {column}: expected plain text of "
                f"at most {MAX_CELL_CHARS} characters, found {cell[:40]!r}"
            )


def check_widths(path: Path, rows: list[Row], width: int) -> None:
    """Raise InputError unless all rows have `width` cells."""
    for line, cells, _ in rows:
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
    """Parse a number in Python's notation, also inf; NaN if it is unknown; None if it is neither.

    A finite number that is too large for a float is none.
    """
    if text.casefold() in UNKNOWN:
        return math.nan
    try:
        number = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
    if number is not None and math.isinf(number) and any(map(str.isdigit, text)):
        return None
    return number


def parse_numbers(cells: list[str]) -> list[float] | None:
    """Parse the cells of a row like `parse_number`; return None if one is no number."""
    text = "".join(cells)
    if text.isascii() and "_" not in text:
        with suppress(ValueError):
            numbers = [float(cell) if cell else math.nan for cell in cells]
            if math.inf not in numbers and -math.inf not in numbers:
                return numbers
    slowly = [parse_number(cell) for cell in cells]
    return None if None in slowly else [number for number in slowly if number is not None]
