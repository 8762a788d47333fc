"""Your own recordings: a table of clips, each an array in a file; any joints, 2-D or 3-D."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import is_file
from skelnas.data.readers.base import (
    MAX_CLASSES,
    Catalogue,
    ClipTable,
    Layout,
    Recording,
    Test,
    Train,
    Unused,
    fold_name,
)
from skelnas.data.readers.clip_files import Picture, read_poses
from skelnas.data.readers.clip_layout import ClipLayout, find_clip_layout
from skelnas.data.readers.clip_tables import ANY_TEXT, TextFormat
from skelnas.data.readers.division import Division
from skelnas.data.readers.skeleton_file import Skeleton, find_skeleton
from skelnas.data.readers.tables import Row, cell_error, check_widths, parse_integer, read_table
from skelnas.errors import InputError
from skelnas.runtime.console import note

MAX_CLIPS = 1_000_000
METADATA = ("subject", "camera", "setup")
COLUMNS = ("path", "label", "name", *METADATA, "split")
PARTS = {"train": Train, "test": Test, "": Unused}
OFFICIAL = "official"
"""The protocol of a column `split`; a column `split_xsub` defines the protocol `xsub`."""


@dataclass(frozen=True)
class Manifest:
    """The clips listed in a table; `clip_files` describes the format of a clip.

    Attributes:
        root: the table.
        joints: name of a layout, or a file that names joints, bones and channels; see
            `skeleton_file`.
        persons: maximum number of persons in a clip.
        test_subjects, test_cameras: the test parts of the protocols `xsub` and `xview`; if empty,
            there is no such protocol.
        channels: standard names of the numbers of a joint in clips without names, in their order;
            by default those of `joints`, or what the numbers show.
        picture: width and height to divide x and y by; by default those of `joints`.
        text_format: what the user says of clips in text.
        test_share, folds, split_seed: protocols that are divided at random, see `Division`.
    """

    root: Path
    joints: Path | None = None
    persons: int = 1
    test_subjects: tuple[int, ...] = ()
    test_cameras: tuple[int, ...] = ()
    # Not in the representation, by which runs of version 0.1.0 are resumed; `rule` has them.
    channels: tuple[str, ...] = field(default=(), repr=False)
    picture: Picture = field(default=None, repr=False)
    text_format: TextFormat = field(default=ANY_TEXT, repr=False)
    test_share: float = field(default=0.0, repr=False)
    folds: int = field(default=0, repr=False)
    split_seed: int = field(default=0, repr=False)

    name = "manifest"

    @property
    def layout(self) -> Layout:
        """Joints, bones and channels from `joints` and `channels`, or else from the clips."""
        return self._found.layout

    @property
    def max_persons(self) -> int:
        """Maximum number of persons in a clip."""
        return self.persons

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates were changed; the persons are those of the file."""
        picture, channels = self._picture, self._channels
        changed = f"x / {picture[0]:g} - 0.5, y / {picture[1]:g} - 0.5" if picture else "as given"
        # The wording is stored in caches; without score and picture the rule is an old one.
        state = "finite" if self.layout.channels == ("x", "y", "z") else "found"
        return {
            "coordinates": f"{changed}; a joint that is not {state} is zero",
            **({"picture": list(picture)} if picture else {}),
            **({"channels": list(channels)} if channels != self.layout.channels else {}),
            **self.text_format.to_dict(),
            **self._division.rule,
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the class names of the table; ``class 0`` and so on if it has class indices."""
        return list(read_manifest(self.root).classes)

    def catalogue(self) -> Catalogue:
        """List the clips in the order of the table.

        Raises:
            InputError: the table or the file of joints is malformed, there is no protocol, or
                one has nothing to test; or it stays open what the numbers of a joint are.
        """
        table = read_manifest(self.root)
        self._division.check(self.root, table.clips(), table.protocols)
        for line in self._found.notes:
            note(line)
        return Catalogue(list(table.entries), side_files=[self.root])

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: the file is malformed, or its joints differ from those of the first.
        """
        entry = read_manifest(self.root).entries[item]
        poses = read_poses(
            item,
            self.layout,
            self.persons,
            self._picture,
            self._channels,
            are_channels_given=bool(self._given_channels),
            text_format=self.text_format,
            joints_note=" as --joints says" if self.joints else " as in the first clip",
            persons_note="; see --persons",
        )
        return Recording(entry.name, entry.label, *poses, *entry.metadata)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the protocols of the table, and those that were asked for."""
        table = read_manifest(self.root)
        parts = {entry.name: entry.parts for entry in table.entries.values()}
        unused = (Unused,) * len(table.protocols)
        splits = {
            protocol: np.array([parts.get(name, unused)[column] for name in clips.names], np.int8)
            for column, protocol in enumerate(table.protocols)
        }
        return splits | self._division.split(clips)

    @property
    def _division(self) -> Division:
        return Division(
            self.test_subjects, self.test_cameras, self.test_share, self.folds, self.split_seed
        )

    @property
    def _picture(self) -> Picture:
        skeleton = _find_skeleton(self.joints)
        return self.picture or (skeleton.picture if skeleton else None)

    @property
    def in_picture(self) -> bool:
        """Whether x and y are fractions of the picture, less 0.5."""
        return self._picture is not None

    @property
    def _channels(self) -> tuple[str, ...]:
        """The channels of clips without names, in their order."""
        return self._given_channels or self._found.channels

    @property
    def _given_channels(self) -> tuple[str, ...]:
        skeleton = _find_skeleton(self.joints)
        return self.channels or (skeleton.channels if skeleton else ())

    @property
    def _found(self) -> ClipLayout:
        return _find_layout(self.root, self.joints, self._given_channels, self.text_format)


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip: one row of the table.

    Attributes:
        line: of the table.
        name: of the clip.
        label: class index.
        metadata: subject, camera and setup; -1 where unknown.
        parts: the part it belongs to in each protocol of the table, in order.
    """

    line: int
    name: str
    label: int
    metadata: tuple[int, int, int]
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """A manifest.

    Attributes:
        entries: path to clip, in the order of the table.
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


@cache
def read_manifest(path: Path) -> Table:
    """Read a manifest, once.

    Raises:
        InputError: names the file, the line, the column, what was expected and what was found.
    """
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
        file = _find_file(path.parent, file)
        name = row.cells[columns["name"]] if "name" in columns else ""
        name = name or Path(file).with_suffix("").as_posix()
        for what, key in (
            (f"the name {name!r}", unicodedata.normalize("NFC", name)),
            (f"the clip {file!r}", f"/{os.path.normpath(file)}"),
        ):
            if lines.setdefault(key, row.line) != row.line:
                raise InputError(f"{path}: line {row.line}: {what} is already in line {lines[key]}")
        clip = path.parent / file
        subject, camera, setup = (_read_number(path, row, columns, field) for field in METADATA)
        parts = tuple(_read_part(path, row, split, column) for split, column in splits.items())
        entries[clip] = Entry(row.line, name, label, (subject, camera, setup), parts)
    protocols = tuple(split.partition("_")[2] or OFFICIAL for split in splits)
    return Table(entries, classes, protocols)


def _find_file(folder: Path, file: str) -> str:
    r"""Return the path as it is spelled on the disk: with / for \, in another Unicode form."""
    if (file.isascii() and "\\" not in file) or is_file(folder / file):
        return file
    slashed = file.replace("\\", "/")
    forms = [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    return next((form for form in (slashed, *forms) if is_file(folder / form)), file)


def _find_columns(path: Path, header: Row) -> dict[str, int]:
    """Return the index of each column by its name."""
    columns: dict[str, int] = {}
    for column, cell in enumerate(header.cells):
        name = cell.lower() if cell.lower() in COLUMNS else cell
        where = f"{path}: line {header.line}, column {column + 1}"
        protocol = name.removeprefix("split_")
        if name not in COLUMNS and (protocol in ("", name, OFFICIAL) or "/" in protocol):
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
    return columns


def _read_labels(path: Path, rows: list[Row], column: int) -> tuple[list[int], tuple[str, ...]]:
    """Read the class indices, or number the class names in alphabetical order."""
    texts = [row.cells[column] for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if not text:
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


@cache
def _find_layout(
    root: Path, joints: Path | None, channels: tuple[str, ...], text_format: TextFormat
) -> ClipLayout:
    paths = list(read_manifest(root).entries)
    return find_clip_layout(root, paths, _find_skeleton(joints), channels, text_format)


@cache
def _find_skeleton(joints: Path | None) -> Skeleton | None:
    return None if joints is None else find_skeleton(joints)
