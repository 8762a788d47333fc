"""The table of a manifest: which clips there are, and what is known of each."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import (
    enter,
    find_archive,
    find_spelling,
    is_archive,
    is_folder,
)
from skelnas.data.readers.base import MAX_CLASSES, ClipTable, Test, Train, Unused, fold_name
from skelnas.data.readers.clip_files import ENDINGS, TEXT_ENDINGS
from skelnas.data.readers.clip_tables import MAX_ABSENT_FRAMES
from skelnas.data.readers.numbering import FROM_ZERO, Numbering
from skelnas.data.readers.tables import (
    Row,
    cell_error,
    check_widths,
    parse_integer,
    parse_number,
    read_table,
)
from skelnas.errors import InputError

MAX_CLIPS = 1_000_000
METADATA = ("subject", "camera", "setup")
PICTURE = ("width", "height")
FRAMES = ("start", "end")
SECONDS = ("start_s", "end_s")
COLUMNS = ("path", "label", "name", *METADATA, "split", *PICTURE, *FRAMES, *SECONDS)
PARTS = {"train": Train, "test": Test, "": Unused}
OFFICIAL = "official"
"""The protocol of a column `split`; a column `split_xsub` defines the protocol `xsub`."""
TABLE = "clips.csv"
"""The table in an archive."""
MAX_SIDE = 1e9
MAX_SECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a recording that is a clip: from `start` up to, but without, `end`.

    Attributes:
        start, end: frames, by the numbers that the recording gives them or else from 0; or
            seconds. An infinite one is the beginning or the end of the recording.
        in_seconds: which of them.
    """

    start: float
    end: float
    in_seconds: bool

    def __str__(self) -> str:
        unit = "s" if self.in_seconds else ""
        end = "end" if math.isinf(self.end) else f"{self.end:.15g}{unit}"
        return f"{max(0, self.start):.15g}{unit}-{end}"

    def find_frames(
        self, num_frames: int, frame_rate: float | None, numbering: Numbering = FROM_ZERO
    ) -> range:
        """Return the indices of its frames in a recording.

        Negative ones are frames before the first that is listed.

        Args:
            num_frames: of the recording, from the first to the last that are listed.
            frame_rate: frames per second; only needed for seconds.
            numbering: the numbers of these frames.

        Raises:
            InputError: none of them is listed, or some are after the last.
        """
        start, end = self.find_span(frame_rate, numbering)
        start, end = (empty if math.isinf(x) else x for x, empty in ((start, 0), (end, num_frames)))
        first, last, before, after = (
            f"{numbering.first + numbering.step * int(index)}"
            for index in (0, num_frames - 1, start, end - 1)
        )
        if not max(0, start) < end <= num_frames:
            raise InputError(
                f"the clip is frames {before} to {after}, but the recording has {num_frames}, "
                f"{first} to {last}"
            )
        if -start > MAX_ABSENT_FRAMES:
            raise InputError(
                f"the clip begins with frame {before}, the first that is listed is {first}, "
                f"expected at most {MAX_ABSENT_FRAMES:,} absent ones before it"
            )
        return range(int(start), int(end))

    def find_span(
        self, frame_rate: float | None, numbering: Numbering = FROM_ZERO
    ) -> tuple[float, float]:
        """Return the index of its first frame and of the one after its last, if not infinite."""
        first, step = numbering
        bounds = (self.start, self.end)
        if not self.in_seconds:  # in whole numbers, rounded up
            start, end = (x if math.isinf(x) else -((first - int(x)) // step) for x in bounds)
            return start, end
        assert frame_rate is not None
        earlier = (first - numbering.start_number) / step
        start, end = (
            x if math.isinf(x) else math.ceil(x * frame_rate - earlier - 1e-6) for x in bounds
        )
        return start, end


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip: one row of the table.

    Attributes:
        line: of the table.
        file: of the recording.
        name: of the clip.
        label: class index.
        metadata: subject, camera and setup; -1 where unknown.
        parts: the part it belongs to in each protocol of the table, in order.
        picture: width and height to divide x and y by, if the table has them.
        stretch: which part of the recording it is; None if all of it.
    """

    line: int
    file: Path
    name: str
    label: int
    metadata: tuple[int, int, int]
    parts: tuple[int, ...]
    picture: tuple[float, float] | None = None
    stretch: Stretch | None = None

    def find_span(self, frame_rate: float | None) -> tuple[float, float]:
        """Return the first frame in its recording, and the one after the last; maybe infinite."""
        return self.stretch.find_span(frame_rate) if self.stretch else (-math.inf, math.inf)


@dataclass(frozen=True)
class Table:
    """A manifest.

    Attributes:
        entries: item to clip, in the order of the table; items are paths, see `_make_item`.
        classes: class names in order of the class index.
        protocols: names of the protocols that the table defines.
    """

    entries: dict[Path, Entry]
    classes: tuple[str, ...]
    protocols: tuple[str, ...]

    def clips(self) -> ClipTable:
        """Return what is known of the clips before any is read."""
        entries = self.entries.values()
        numbers = np.array([(entry.label, *entry.metadata) for entry in entries], np.int32)
        return ClipTable([entry.name for entry in entries], *numbers.T)

    @property
    def has_pictures(self) -> bool:
        """Whether each clip has its own size of the picture."""
        return next(iter(self.entries.values())).picture is not None


@cache
def find_table(root: Path) -> Path:
    """Return the table: the file itself, or the one in an archive, which is searched once.

    Raises:
        InputError: there is no single table at the top of the archive.
    """
    if not is_archive(root):
        return root
    top = enter(root)
    found = find_archive(top)
    assert found is not None
    archive, folder = found
    inner = [name for name in archive.members if name.rpartition("/")[0] == folder]
    tables = [name for name in inner if name.lower().endswith(".csv")]
    names = [name for name in tables if Path(name).name == TABLE] or tables
    if len(names) != 1:
        raise InputError(
            f"{root}: expected a table {TABLE} in the archive, found {len(names) or 'no'} tables",
            hint=f"name it, such as {root}/{names[0]}" if names else None,
        )
    return top / Path(names[0]).name


@cache
def read_manifest(path: Path) -> Table:
    """Read a manifest, once.

    Raises:
        InputError: names the file, the line, the column, what was expected and what was found.
    """
    if is_folder(path) and not is_archive(path):
        raise InputError(
            f"{path}: is a folder, expected a table of clips",
            hint="skelnas prepare folder reads folders named after classes; a folder with a file "
            "a frame is one clip, whose path may be in a table",
        )
    if path.suffix.lower() in ENDINGS and path.suffix.lower() not in TEXT_ENDINGS:
        raise InputError(
            f"{path}: expected a table of clips, such as clips.csv",
            hint="if this is a clip, write it below the header path,label,split",
        )
    header, *rows = read_table(path, MAX_CLIPS)
    columns = _find_columns(path, header)
    check_widths(path, rows, len(header.cells))
    if not rows:
        raise InputError(f"{path}: line {header.line}: expected a clip in each line below, found 0")
    labels, classes = _read_labels(path, rows, columns["label"])
    splits = {name: column for name, column in columns.items() if name.partition("_")[0] == "split"}
    entries: dict[Path, Entry] = {}
    lines: dict[str, int] = {}  # of names, and of paths after a slash
    for row, label in zip(rows, labels, strict=True):
        file = row.cells[columns["path"]]
        if not Path(file).name or "\0" in file:
            raise cell_error(path, row.line, "path", "the path of a clip", file)
        file = find_spelling(path.parent, file)
        stretch = _read_stretch(path, row, columns)
        name = row.cells[columns["name"]] if "name" in columns else ""
        name = name or name_clip(Path(file)) + (f"_{stretch}" if stretch else "")
        for what, key in (
            (f"the name {name!r}", unicodedata.normalize("NFC", name)),
            (f"the clip {file!r}", f"/{os.path.normpath(file)}/{stretch or ''}"),
        ):
            if lines.setdefault(key, row.line) != row.line:
                raise InputError(f"{path}: line {row.line}: {what} is already in line {lines[key]}")
        recording = path.parent / file
        subject, camera, setup = (_read_number(path, row, columns, field) for field in METADATA)
        parts = tuple(_read_part(path, row, split, column) for split, column in splits.items())
        entries[_make_item(recording, stretch)] = Entry(
            row.line,
            recording,
            name,
            label,
            (subject, camera, setup),
            parts,
            _read_picture(path, row, columns),
            stretch,
        )
    protocols = tuple(split.partition("_")[2] or OFFICIAL for split in splits)
    return Table(entries, classes, protocols)


def number_recordings(entries: Iterable[Entry]) -> NDArray[np.int32]:
    """Return the number of each clip's recording [N], from 0: the same for parts of one file."""
    numbers: dict[str, int] = {}
    files = (os.path.normpath(entry.file) for entry in entries)
    return np.array([numbers.setdefault(file, len(numbers)) for file in files], np.int32)


def _make_item(recording: Path, stretch: Stretch | None) -> Path:
    """Return the file of a recording, or a path as if its stretches were files in it."""
    return recording / str(stretch) if stretch else recording


def name_clip(path: Path) -> str:
    """Return the name of a clip: its path without extension; a folder has none."""
    return (path.with_suffix("") if path.suffix.lower() in ENDINGS else path).as_posix()


def _find_columns(path: Path, header: Row) -> dict[str, int]:
    """Return the index of each column by its name."""
    columns: dict[str, int] = {}
    for column, cell in enumerate(header.cells):
        name = cell.lower() if cell.lower() in COLUMNS else cell
        name = "split" if name == f"split_{OFFICIAL}" else name
        where = f"{path}: line {header.line}, column {column + 1}"
        protocol = name.removeprefix("split_")
        if name not in COLUMNS and (protocol in ("", name) or "/" in protocol):
            raise InputError(
                f"{where}: unknown column {cell[:40]!r}",
                hint=f"expected {', '.join(COLUMNS)} or split_PROTOCOL, such as split_xsub",
            )
        if name in columns:
            raise InputError(f"{where}: a second column {cell!r}")
        columns[name] = column
    for name in ("path", "label"):
        if name not in columns:
            raise InputError(f"{path}: line {header.line}: expected a column {name!r}")
    if len(columns.keys() & {*PICTURE}) == 1:
        raise InputError(f"{path}: line {header.line}: expected both columns width and height")
    if columns.keys() & {*FRAMES} and columns.keys() & {*SECONDS}:
        raise InputError(
            f"{path}: line {header.line}: expected start and end in frames, or start_s and end_s "
            "in seconds, found both"
        )
    return columns


def _read_labels(path: Path, rows: list[Row], column: int) -> tuple[list[int], tuple[str, ...]]:
    """Read the class indices, or number the class names in alphabetical order."""
    texts = [row.cells[column] for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if not text or text.casefold() == "nan":
            raise cell_error(path, row.line, "label", "a class name, or a class index from 0", text)
    if not all(text.lstrip("-").isdigit() for text in texts):
        _check_classes(path, rows, texts)
        names = tuple(sorted(set(texts)))
        index = {name: number for number, name in enumerate(names)}
        return [index[text] for text in texts], names
    labels = []
    for row, text in zip(rows, texts, strict=True):
        label = parse_integer(text, 0, MAX_CLASSES)
        if label is None:
            raise cell_error(
                path, row.line, "label", f"a class index from 0 to {MAX_CLASSES - 1}", text
            )
        labels.append(label)
    return labels, tuple(f"class {label}" for label in range(max(labels) + 1))


def _check_classes(path: Path, rows: list[Row], texts: list[str]) -> None:
    """Raise InputError if two classes differ in case or blanks only, or if there are too many."""
    spellings: dict[str, tuple[str, int]] = {}
    for row, text in zip(rows, texts, strict=True):
        folded = fold_name(" ".join(text.split()))
        spelling, line = spellings.setdefault(folded, (text, row.line))
        if spelling != text:
            expected = f"{spelling[:40]!r} as in line {line}, or another class"
            raise cell_error(path, row.line, "label", expected, text)
    if len(spellings) > MAX_CLASSES:
        raise InputError(f"{path}: {len(spellings):,} classes, expected at most {MAX_CLASSES:,}")


def _read_number(path: Path, row: Row, columns: dict[str, int], name: str) -> int:
    text = row.cells[columns[name]] if name in columns else ""
    value = parse_integer(text, 0, 2**31) if text else -1
    if value is None:
        raise cell_error(path, row.line, name, "a whole number from 0, or nothing", text)
    return value


def _read_part(path: Path, row: Row, name: str, column: int) -> int:
    text = row.cells[column]
    if text.lower() not in PARTS:
        raise cell_error(path, row.line, name, "train, test or nothing", text)
    return PARTS[text.lower()]


def _read_picture(path: Path, row: Row, columns: dict[str, int]) -> tuple[float, float] | None:
    if "width" not in columns:
        return None
    width, height = (
        _read_float(path, row, columns, side, "a number of pixels", MAX_SIDE) for side in PICTURE
    )
    for side, value in zip(PICTURE, (width, height), strict=True):
        if not value:
            raise cell_error(path, row.line, side, "a number of pixels", row.cells[columns[side]])
    return width, height


def _read_stretch(path: Path, row: Row, columns: dict[str, int]) -> Stretch | None:
    names = SECONDS if columns.keys() & {*SECONDS} else FRAMES
    texts = [row.cells[columns[name]] if name in columns else "" for name in names]
    if not any(texts):
        return None
    if names == SECONDS:
        start, end = (
            _read_float(path, row, columns, name, "seconds since the recording began", MAX_SECONDS)
            if text
            else empty
            for name, text, empty in zip(names, texts, (-math.inf, math.inf), strict=True)
        )
    else:
        numbers = [_read_number(path, row, columns, name) for name in names]
        start = numbers[0] if texts[0] else -math.inf
        end = numbers[1] if texts[1] else math.inf
    if max(0, start) >= end:
        expected = f"more than the start, {texts[0]}" if texts[0] else "more than 0"
        raise cell_error(path, row.line, names[1], expected, texts[1])
    return Stretch(start, end, names == SECONDS)


def _read_float(
    path: Path, row: Row, columns: dict[str, int], name: str, what: str, limit: float
) -> float:
    text = row.cells[columns[name]]
    value = parse_number(text)
    if value is None or not 0 <= value <= limit:
        raise cell_error(path, row.line, name, what, text)
    return value
