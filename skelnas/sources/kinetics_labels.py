"""Label files of Kinetics-Skeleton: which clips there are, in which part, of which class.

One file a part, `kinetics_train_label.json` and `kinetics_val_label.json`:
``{clip: {"has_skeleton": bool, "label": class name, "label_index": int}}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from skelnas.errors import InputError
from skelnas.sources.archives import is_file, is_folder
from skelnas.sources.files import packaged_names, read_json

PARTS = ("train", "val")
MAX_BYTES = 256 << 20
"""The largest label file of the release has 27 MB."""
MAX_CLASSES = 10_000
"""A class index from here on is an error: the list of all class names has to fit in memory."""


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What the label files say of one clip; `label` is the class index that is used for it."""

    part: str
    has_skeleton: bool
    class_name: str
    label: int


@dataclass(frozen=True)
class Labels:
    """All label files of a folder.

    Attributes:
        clips: facts of each clip by its name; not of one that is in both files.
        classes: class names in order of the class index.
        in_both: clips in both files, which can be used for neither training nor testing.
    """

    clips: dict[str, ClipFacts]
    classes: tuple[str, ...]
    in_both: frozenset[str]


def label_file(root: Path, part: str) -> Path:
    """Where the labels of a part are."""
    return root / f"kinetics_{part}_label.json"


def part_folders(root: Path) -> dict[str, Path]:
    """Find the folders of the parts, `train` or `kinetics_train`, likewise `val`.

    Raises:
        InputError: if there is none, or one without its label file.
    """
    folders = {}
    for part in PARTS:
        for folder in (root / part, root / f"kinetics_{part}"):
            if is_folder(folder):
                folders[part] = folder
                break
    if not folders:
        raise InputError(
            f"{root}: expected a folder that holds the folders train and val",
            hint="Name kinetics-skeleton.zip, or the folder with the label files that is in it",
        )
    for part, folder in folders.items():
        if not is_file(label_file(root, part)):
            raise InputError(f"{folder}: expected its labels in {label_file(root, part)}")
    return folders


@cache
def read_labels(root: Path) -> Labels:
    """Read the label files that there are, once.

    Raises:
        InputError: if one is malformed, or the two disagree on their classes.
    """
    files = [(part, label_file(root, part)) for part in PARTS]
    entries = {part: _read_entries(file) for part, file in files if is_file(file)}
    numbering = {(index, name) for part in entries.values() for _, name, index in part.values()}
    classes = _number_classes(numbering, root)
    label_of = {name: label for label, name in enumerate(classes)}
    clips: dict[str, ClipFacts] = {}
    in_both: set[str] = set()
    for part, of_part in entries.items():
        in_both |= clips.keys() & of_part.keys()
        for clip, (has_skeleton, name, _) in of_part.items():
            clips[clip] = ClipFacts(part, has_skeleton, name, label_of[name])
    for clip in in_both:
        del clips[clip]
    return Labels(clips, classes, frozenset(in_both))


def _number_classes(numbering: set[tuple[int, str]], root: Path) -> tuple[str, ...]:
    """Class names in order, given every pair of class index and name that occurs.

    Indices and names of the release give its 400 classes. Label files with an order of their own
    keep it. Two that contradict each other, such as one of a renumbered part, count by the names,
    if those are all the release's.
    """
    official = packaged_names("kinetics_classes.txt")
    if numbering <= set(enumerate(official)):
        return official
    names = dict(sorted(numbering))
    if len(names) == len(set(names.values())) == len(numbering):
        return tuple(names.get(index, f"class {index}") for index in range(max(names) + 1))
    if {name for _, name in numbering} <= set(official):
        return official
    raise InputError(
        f"{root}: the label files give one class several indices, or one index several classes",
        hint="Number the classes of kinetics_train_label.json and kinetics_val_label.json alike",
    )


def _read_entries(file: Path) -> dict[str, tuple[bool, str, int]]:
    """Read whether each clip has a skeleton, its class name and its class index."""
    content = read_json(file, MAX_BYTES)
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected an object with an entry for each clip")
    return {clip: _entry(entry, f"{file}: clip {clip!r}") for clip, entry in content.items()}


def _entry(entry: Any, where: str) -> tuple[bool, str, int]:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, found {entry!r}")
    has_skeleton, name, index = map(entry.get, ("has_skeleton", "label", "label_index"))
    if not isinstance(has_skeleton, bool):
        raise InputError(f"{where}: expected 'has_skeleton' to be true or false")
    if not isinstance(name, str):
        raise InputError(f"{where}: expected 'label' to be a class name")
    if not isinstance(index, int) or not 0 <= index < MAX_CLASSES:
        raise InputError(f"{where}: expected 'label_index' to be 0 to {MAX_CLASSES - 1}")
    return has_skeleton, name, index
