"""The table of a manifest: which clips there are, and what is known of each.

A CSV with a header. `path` (relative to the table) and `label` have to be there; `name`, `subject`,
`camera`, `setup`, `split` and any number of columns `split_PROTOCOL` may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from skelnas.errors import InputError
from skelnas.sources.base import Test, Train, Unused
from skelnas.sources.checks import MAX_CLASSES
from skelnas.sources.tables import Row, parse_integer, read_table

FACTS = ("subject", "camera", "setup")
COLUMNS = ("path", "label", "name", *FACTS, "split")
PARTS = {"train": Train, "test": Test, "": Unused}
OFFICIAL = "official"
"""The protocol of a column `split`; a column `split_xsub` gives the protocol `xsub`."""


@dataclass(frozen=True)
class Entry:
    """One row: a clip.

    Attributes:
        line: of the table.
        name: of the clip.
        label: class index.
        facts: subject, camera and setup; -1 where unknown.
        parts: of each protocol of the table, in its order.
    """

    line: int
    name: str
    label: int
    facts: tuple[int, int, int]
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """A manifest.

    Attributes:
        entries: every clip by its path, in the order of the table.
        classes: class names in order of the class index.
        protocols: names of the protocols that the table itself has.
        columns: which columns there are.
    """

    entries: dict[Path, Entry]
    classes: tuple[str, ...]
    protocols: tuple[str, ...]
    columns: frozenset[str]


@cache
def read_manifest(path: Path) -> Table:
    """Read a manifest, once.

    Raises:
        InputError: names the file, the line, the column, what was expected and what was found.
    """
    header, *rows = read_table(path)
    columns = _columns(path, header)
    for row in rows:
        if len(row.cells) != len(header.cells):
            raise InputError(
                f"{path}: line {row.line}: expected {len(header.cells)} cells, "
                f"found {len(row.cells)}"
            )
    if not rows:
        raise InputError(f"{path}: line {header.line}: expected a clip in each line below, found 0")
    labels, classes = _labels(path, rows, columns["label"])
    splits = {name: column for name, column in columns.items() if name.partition("_")[0] == "split"}
    entries: dict[Path, Entry] = {}
    lines: dict[str, int] = {}
    for row, label in zip(rows, labels, strict=True):
        file = row.cells[columns["path"]]
        if not Path(file).name or "\0" in file:
            raise _error(path, row, "path", "the path of a clip", file)
        name = row.cells[columns["name"]] if "name" in columns else ""
        name = name or Path(file).with_suffix("").as_posix()
        where = path.parent / file
        for what, other in (
            (f"the name {name!r}", lines.get(name)),
            (f"the clip {file!r}", entries[where].line if where in entries else None),
        ):
            if other is not None:
                raise InputError(f"{path}: line {row.line}: {what} is in line {other} already")
        lines[name] = row.line
        subject, camera, setup = (_fact(path, row, columns, fact) for fact in FACTS)
        parts = tuple(_part(path, row, name, column) for name, column in splits.items())
        entries[where] = Entry(row.line, name, label, (subject, camera, setup), parts)
    protocols = tuple(name.partition("_")[2] or OFFICIAL for name in splits)
    return Table(entries, classes, protocols, frozenset(columns))


def _columns(path: Path, header: Row) -> dict[str, int]:
    """Find the columns of the header."""
    columns: dict[str, int] = {}
    for column, cell in enumerate(header.cells):
        name = cell.lower() if cell.lower() in COLUMNS else cell
        place = f"{path}: line {header.line}, column {column + 1}"
        protocol = name.removeprefix("split_")
        if name not in COLUMNS and (protocol in ("", name, OFFICIAL) or "/" in protocol):
            raise InputError(
                f"{place}: unknown column {cell[:40]!r}",
                hint=f"expected {', '.join(COLUMNS)} or split_PROTOCOL, such as split_xsub",
            )
        if name in columns:
            raise InputError(f"{place}: a second column {cell!r}")
        columns[name] = column
    for name in ("path", "label"):
        if name not in columns:
            raise InputError(f"{path}: line {header.line}: expected a column {name!r}")
    return columns


def _labels(path: Path, rows: list[Row], column: int) -> tuple[list[int], tuple[str, ...]]:
    """Read class indices, if all labels are numbers, or number the class names by the alphabet."""
    texts = [row.cells[column] for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if not text:
            raise _error(path, row, "label", "a class name, or a class index from 0", text)
    if not all(text.lstrip("-").isdigit() for text in texts):
        names = tuple(sorted(set(texts)))
        index = {name: number for number, name in enumerate(names)}
        return [index[text] for text in texts], names
    labels = []
    for row, text in zip(rows, texts, strict=True):
        label = parse_integer(text, 0, MAX_CLASSES)
        if label is None:
            raise _error(path, row, "label", f"a class index from 0 to {MAX_CLASSES - 1}", text)
        labels.append(label)
    return labels, tuple(f"class {label}" for label in range(max(labels) + 1))


def _fact(path: Path, row: Row, columns: dict[str, int], name: str) -> int:
    text = row.cells[columns[name]] if name in columns else ""
    value = parse_integer(text, 0, 2**31) if text else -1
    if value is None:
        raise _error(path, row, name, "a whole number from 0, or nothing", text)
    return value


def _part(path: Path, row: Row, name: str, column: int) -> int:
    text = row.cells[column]
    if text.lower() not in PARTS:
        raise _error(path, row, name, "train, test or nothing", text)
    return PARTS[text.lower()]


def _error(path: Path, row: Row, column: str, expected: str, found: str) -> InputError:
    text = repr(found[:40]) if found else "nothing"
    return InputError(
        f"{path}: line {row.line}, column {column}: expected {expected}, found {text}"
    )


def part_of(values: Sequence[int], test: tuple[int, ...]) -> list[int]:
    """Divide clips by a fact: those in `test` are for testing, unknown ones for nothing."""
    return [Unused if value < 0 else Test if value in test else Train for value in values]
