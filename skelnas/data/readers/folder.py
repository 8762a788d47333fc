"""Your own recordings in folders named after classes: ``CLASS/CLIP``, without a table.

A clip is a file or a folder of frames. ``train/CLASS/CLIP`` and ``test/CLASS/CLIP`` make the
protocol `official`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from skelnas.data.readers import frames
from skelnas.data.readers.archives import enter
from skelnas.data.readers.base import MAX_CLASSES, Catalogue, Test, Train, Unused, fold_name
from skelnas.data.readers.clip_files import ENDINGS
from skelnas.data.readers.files import find_files
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.manifest_table import MAX_CLIPS, OFFICIAL, Entry, Table, name_clip
from skelnas.errors import InputError
from skelnas.runtime.console import note

TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
"""Names of the folders of parts; validation is the test part where there is no other."""
SUBJECTS = [
    re.compile(rf"(?:^|[^a-z])(?:{words})[_-]?([0-9]{{1,9}})(?![0-9])")
    for words in ("subject|subj|person", "p", "s")
]
"""What comes before the number of a subject in a name: the first that occurs counts."""


@dataclass(frozen=True)
class Folder(Manifest):
    """The clips in folders named after classes; the attributes are a manifest's."""

    name = "folder"
    hint = "divide the folder into train/CLASS and test/CLASS"

    @staticmethod
    def read_table(root: Path) -> Table:
        """Return the clips of a folder."""
        return read_folder(root).table

    @property
    def _joints(self) -> Path | None:
        return self.joints

    def catalogue(self) -> Catalogue:
        """List the clips by class and name; raises as that of a manifest does."""
        found = read_folder(self.root)
        subjects = {entry.metadata[0] for entry in found.table.entries.values()}
        if self.test_subjects and found.without_subject:
            raise InputError(
                f"{self.root}: --test-subjects needs a subject in every name, such as wave/s03_1, "
                f"found {found.without_subject[:80]!r}",
                hint="or name them in the table of skelnas prepare manifest",
            )
        catalogue = super().catalogue()
        if not found.without_subject:
            first = next(iter(found.table.entries.values()))
            note(f"{len(subjects)} subjects by name: {first.name} is of {first.metadata[0]}")
        return replace(catalogue, skipped=found.skipped, side_files=[])


@dataclass(frozen=True)
class FoundClips:
    """What a folder holds.

    Attributes:
        table: the clips; with subjects if all their names have one.
        skipped: (file, reason) of what is no clip.
        without_subject: name of the first clip without subject; empty if there is none.
    """

    table: Table
    skipped: list[tuple[str, str]]
    without_subject: str


@cache
def read_folder(root: Path) -> FoundClips:
    """List the clips of a folder or an archive, once.

    Raises:
        InputError: it has no clips, or two classes or clips of the same name.
    """
    base = enter(root)
    files = [path.relative_to(base) for path in find_files(base, "")]
    files = [path for path in files if not any(part.startswith(".") for part in path.parts)]
    parts = _find_parts(path.parts[0] for path in files if len(path.parts) > 1)
    depth = 2 if parts else 1  # of the folder of a class
    clips: dict[Path, None] = {}
    skipped: list[tuple[str, str]] = []
    for path in sorted(files):
        if reason := _why_not(path, depth):
            skipped.append((str(path), reason))
        else:
            clips.setdefault(Path(*path.parts[: depth + 1]))
    if not clips:
        found = f"; the first file, {skipped[0][0]}, is {skipped[0][1]}" if skipped else ""
        raise InputError(
            f"{root}: expected clips in folders named after classes, such as wave/clip1.json or "
            f"wave/clip1/0.json, found none{found}",
            hint="if all frames in it are of one clip, name it in the table of skelnas prepare "
            "manifest",
        )
    if len(clips) > MAX_CLIPS:
        raise InputError(f"{root}: {len(clips):,} clips, expected at most {MAX_CLIPS:,}")
    classes = _sort_classes(root, {path.parts[depth - 1] for path in clips})
    subjects = [find_subject(path.name) for path in clips]
    nameless = [path for path, subject in zip(clips, subjects, strict=True) if subject < 0]
    entries: dict[Path, Entry] = {}
    names: dict[str, Path] = {}
    for path, subject in zip(clips, subjects, strict=True):
        name = name_clip(path)
        same = names.setdefault(unicodedata.normalize("NFC", name), path)
        if same != path:
            raise InputError(f"{root}: {same} and {path} have the same name, expected one")
        metadata = (-1 if nameless else subject, -1, -1)
        part = (parts[path.parts[0]],) if parts else ()
        label = classes.index(path.parts[depth - 1])
        entries[base / path] = Entry(0, base / path, name, label, metadata, part)
    table = Table(entries, classes, (OFFICIAL,) if parts else ())
    return FoundClips(table, skipped, str(nameless[0]) if nameless else "")


def find_subject(name: str) -> int:
    """Return the subject's number in the name of a clip; -1 if there is none, or several."""
    for pattern in SUBJECTS:
        numbers = set(map(int, pattern.findall(name.lower())))
        if numbers:
            return numbers.pop() if len(numbers) == 1 else -1
    return -1


def _find_parts(tops: Iterable[str]) -> dict[str, int]:
    """Return the part that each top folder is; nothing if one is the folder of a class."""
    names = set(tops)
    lower = {name.lower() for name in names}
    if not lower or not lower <= {*TRAIN, *TEST, *VALIDATION}:
        return {}
    validation = Unused if lower & {*TEST} else Test
    values = {**dict.fromkeys(TRAIN, Train), **dict.fromkeys(TEST, Test)}
    return {name: values.get(name.lower(), validation) for name in names}


def _why_not(path: Path, depth: int) -> str:
    """Return why a file is not a clip or a frame of one; empty if it is."""
    levels = len(path.parts) - depth
    if levels < 1:
        return "not in the folder of a class"
    if levels > 2:
        return "too deep, expected CLASS/CLIP or CLASS/CLIP/FRAME"
    endings = ENDINGS if levels == 1 else frames.ENDINGS
    if path.suffix.lower() not in endings:
        what = "clip" if levels == 1 else "frame of a clip"
        return f"not a {what}, which ends in {', '.join(endings)}"
    return ""


def _sort_classes(root: Path, names: set[str]) -> tuple[str, ...]:
    """Sort the names of classes; numbers by their value."""
    spellings: dict[str, str] = {}
    for name in sorted(names):
        spelling = spellings.setdefault(fold_name(" ".join(name.split())), name)
        if spelling != name:
            raise InputError(f"{root}: the classes {spelling!r} and {name!r}, expected one")
    if len(names) > MAX_CLASSES:
        raise InputError(f"{root}: {len(names):,} classes, expected at most {MAX_CLASSES:,}")
    if all(name.isascii() and name.isdigit() and len(name) < 19 for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
