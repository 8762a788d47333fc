"""Kinetics-Skeleton: OpenPose joints of YouTube clips, JSON, as released with ST-GCN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import enter, is_file, is_folder
from skelnas.data.readers.base import (
    Catalogue,
    ClipTable,
    Poses,
    Recording,
    Test,
    Train,
    Unused,
)
from skelnas.data.readers.files import (
    as_joints,
    find_files,
    packaged_names,
    read_json,
    strip_ending,
)
from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, shown

ENDING = ".json"
PARTS = {"train": Train, "val": Test}
MAX_PERSONS = 2
MAX_FRAMES = 10_000
"""Clips of the release have at most 300; a larger frame index is an error, not a long clip."""
MAX_LABEL_BYTES = 256 << 20
"""The largest label file of the release has 27 MB."""
MAX_CLASSES = 10_000
"""A larger class index is an error: the list of all class names has to fit into memory."""

LAYOUT = replace(find_layout("openpose18"), center_joint=None, frame_rate=30)
"""Not centred, since coordinates are relative to the picture; the release's videos have 30 frames
per second."""
NUM_JOINTS = len(LAYOUT.joints)


@dataclass(frozen=True)
class Kinetics:
    """A folder with `train/` and `val/` (or one of them) and the label file of each.

    Attributes:
        root: the folder, or a zip archive of it.
        person_rule: how to choose two persons. `clip` (the paper of ST-GCN) takes the two slots of
            the frames' lists with the highest confidence over the whole clip. The data hold no
            identities; a slot comes closest, since OpenPose tends to list persons in the same
            order. `frame` (the release of ST-GCN) takes the two most confident persons of each
            frame, so that a slot may switch from one person to another.
    """

    root: Path
    person_rule: Literal["clip", "frame"] = "clip"

    name = "kinetics"
    layout = LAYOUT
    max_persons = MAX_PERSONS
    in_picture = True

    @property
    def _folder(self) -> Path:
        """The folder that holds the parts: in an archive, usually one level down."""
        return enter(self.root)

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed."""
        return {
            "person_rule": self.person_rule,
            "coordinates": "x - 0.5 and y - 0.5 of the picture; zero where the score is 0",
            "frames": "cut before the first and after the last in which a chosen person is seen",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the names of the 400 classes, or of the label files if those have their own."""
        return list(read_labels(self._folder).classes)

    def catalogue(self) -> Catalogue:
        """List the clips of `train`, then those of `val`, each by name.

        Raises:
            InputError: a folder or a label file is missing, or there is no clip.
        """
        folder = self._folder
        labels = read_labels(folder)
        items: list[Path] = []
        skipped: list[tuple[str, str]] = []
        for part, part_folder in _part_folders(folder).items():
            names: set[str] = set()
            for path in find_files(part_folder, ENDING):
                name = strip_ending(path, ENDING)
                if name in labels.in_both:
                    skipped.append((path.name, "it is in both label files"))
                elif name not in labels.clips or labels.clips[name].part != part:
                    skipped.append((path.name, f"it is not in {_label_file(folder, part).name}"))
                elif not labels.clips[name].has_skeleton:
                    skipped.append((path.name, "the label file says that it has no skeleton"))
                elif name in names:
                    skipped.append((path.name, f"a second file of that name, {path}"))
                else:
                    names.add(name)
                    items.append(path)
        if not items:
            others = f"; {len(skipped)} files were skipped: {skipped[0][1]}" if skipped else ""
            raise InputError(f"{self.root}: expected clips such as val/--07WQ2iBlw{ENDING}{others}")
        return Catalogue(items, skipped, [_label_file(folder, part) for part in PARTS])

    def read(self, item: Path) -> Recording:
        """Read one clip and choose its persons.

        Raises:
            InputError: the file is malformed, disagrees with the label file, or shows nobody.
        """
        name = strip_ending(item, ENDING)
        label = read_labels(self._folder).clips.get(name)
        if label is None:
            raise InputError(f"{item}: the clip is in no label file of {self.root}")
        clip = _read_clip(item)
        if clip.get("label", label.class_name) != label.class_name:
            raise InputError(
                f"{item}: expected the label {label.class_name!r} of the label file, "
                f"found {shown(clip['label'])}"
            )
        return Recording(name, label.index, *self._poses(clip, item))

    def poses(self, item: Path) -> Poses:
        """Read a clip that need not be in a label file; raises as `read` does."""
        return self._poses(_read_clip(item), item)

    def _poses(self, clip: dict[str, Any], item: Path) -> Poses:
        return _choose_persons(_read_persons(clip["data"], str(item)), self.person_rule)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `official`: train on `train`, test on `val`."""
        labels = read_labels(self._folder).clips
        parts = [PARTS[labels[name].part] if name in labels else Unused for name in clips.names]
        return {"official": np.array(parts, np.int8)}


@dataclass(frozen=True, slots=True)
class Label:
    """The entry of a clip in a label file; `index` is that of the class in the cache."""

    part: str
    has_skeleton: bool
    class_name: str
    index: int


@dataclass(frozen=True)
class Labels:
    """The label files of a folder.

    Attributes:
        clips: clip name to label; without clips that are in both files.
        classes: class names in order of the class index.
        in_both: clips in both files, usable for neither training nor testing.
    """

    clips: dict[str, Label]
    classes: tuple[str, ...]
    in_both: frozenset[str]


@cache
def read_labels(root: Path) -> Labels:
    """Read the label files of a folder, once.

    Raises:
        InputError: one is malformed, or the two disagree on their classes.
    """
    files = [(part, _label_file(root, part)) for part in PARTS]
    entries = {part: _read_entries(file) for part, file in files if is_file(file)}
    pairs = {(index, name) for part in entries.values() for _, name, index in part.values()}
    classes = _number_classes(pairs, root)
    index_of = {name: index for index, name in enumerate(classes)}
    clips: dict[str, Label] = {}
    in_both: set[str] = set()
    for part, part_entries in entries.items():
        in_both |= clips.keys() & part_entries.keys()
        for clip, (has_skeleton, name, _) in part_entries.items():
            clips[clip] = Label(part, has_skeleton, name, index_of[name])
    for clip in in_both:
        del clips[clip]
    return Labels(clips, classes, frozenset(in_both))


def _label_file(root: Path, part: str) -> Path:
    return root / f"kinetics_{part}_label.json"


def _read_entries(file: Path) -> dict[str, tuple[bool, str, int]]:
    """Read a label file: clip name to (has skeleton, class name, class index)."""
    content = read_json(file, MAX_LABEL_BYTES, unique_keys=True)
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected an object with an entry for each clip")
    return {
        clip: _parse_entry(entry, f"{file}: clip {shown(clip)}") for clip, entry in content.items()
    }


def _parse_entry(entry: Any, where: str) -> tuple[bool, str, int]:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, found {shown(entry)}")
    has_skeleton, name, index = map(entry.get, ("has_skeleton", "label", "label_index"))
    if not isinstance(has_skeleton, bool):
        raise InputError(f"{where}: expected 'has_skeleton' to be true or false")
    if not isinstance(name, str):
        raise InputError(f"{where}: expected 'label' to be a class name")
    if type(index) is not int or not 0 <= index < MAX_CLASSES:
        raise InputError(f"{where}: expected 'label_index' to be 0 to {MAX_CLASSES - 1}")
    return has_skeleton, name, index


def _number_classes(pairs: set[tuple[int, str]], root: Path) -> tuple[str, ...]:
    """Return the class names in order, given every (class index, class name) that occurs.

    Indices and names of the release give its 400 classes. Label files that number their classes
    differently keep their order. If they contradict each other, as when one part was renumbered,
    the names decide, provided that all are names of the release.
    """
    official = packaged_names("kinetics_classes.txt")
    if pairs <= set(enumerate(official)):
        return official
    names = dict(sorted(pairs))
    if len(names) == len(set(names.values())) == len(pairs):
        return tuple(names.get(index, f"class {index}") for index in range(max(names) + 1))
    if {name for _, name in pairs} <= set(official):
        return official
    raise InputError(
        f"{root}: the label files give one class several indices, or one index several classes",
        hint="number the classes of both label files the same way",
    )


def _part_folders(root: Path) -> dict[str, Path]:
    """Find the folders `train` or `kinetics_train`, and `val` or `kinetics_val`.

    Raises:
        InputError: there is none, or one has no label file.
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
            hint="name kinetics-skeleton.zip, or the folder in it that holds the label files",
        )
    for part, folder in folders.items():
        if not is_file(_label_file(root, part)):
            raise InputError(f"{folder}: expected its labels in {_label_file(root, part)}")
    return folders


@dataclass(frozen=True)
class _Persons:
    """All persons of a clip, P in total, by frame and in the order of each frame's list.

    Attributes:
        frames: [P] int64, index of the frame.
        slots: [P] int64, position in the frame's list.
        joints: [P, V, 3] float32, x and y centred; zero where not found.
    """

    frames: NDArray[np.int64]
    slots: NDArray[np.int64]
    joints: NDArray[np.float32]


def _read_clip(item: Path) -> dict[str, Any]:
    clip = read_json(item)
    if not isinstance(clip, dict) or not isinstance(clip.get("data"), list):
        raise InputError(f"{item}: expected an object with a list of frames under 'data'")
    return clip


def _read_persons(data: list[Any], where: str) -> _Persons:
    """Read the frames of a clip; persons without any joint are left out."""
    frames: list[int] = []
    slots: list[int] = []
    poses: list[list[float]] = []
    scores: list[list[float]] = []
    previous = -1
    for number, frame in enumerate(data, start=1):
        frame_name = f"{where}: frame {number} of {len(data)}"
        index, persons = _pair(frame, "frame_index", "skeleton")
        if type(index) is not int or not previous < index < MAX_FRAMES:
            raise InputError(
                f"{frame_name}: expected a 'frame_index' after {previous}, found {shown(index)}"
            )
        if not isinstance(persons, list):
            raise InputError(f"{frame_name}: expected a list of persons under 'skeleton'")
        previous = index
        for slot, person in enumerate(persons):
            pose, score = _pair(person, "pose", "score")
            if not _are_numbers(pose, 2 * NUM_JOINTS) or not _are_numbers(score, NUM_JOINTS):
                raise InputError(
                    f"{frame_name}: person {slot + 1}: "
                    f"expected a 'pose' of {2 * NUM_JOINTS} numbers and {NUM_JOINTS} of 'score'"
                )
            frames.append(index)
            slots.append(slot)
            poses.append(pose)
            scores.append(score)

    joints = _to_joints(poses, scores, where)
    visible = np.flatnonzero(joints.any(axis=(1, 2)))
    if not len(visible):
        raise InputError(f"{where}: no person in any of {len(data)} frames")
    return _Persons(np.array(frames)[visible], np.array(slots)[visible], joints[visible])


def _pair(value: Any, first: str, second: str) -> tuple[Any, Any]:
    """Return two members of a JSON object, None for those missing."""
    return (value.get(first), value.get(second)) if isinstance(value, dict) else (None, None)


def _are_numbers(value: Any, count: int) -> bool:
    """Whether this is a list of `count` numbers."""
    return isinstance(value, list) and len(value) == count and set(map(type, value)) <= {int, float}


def _to_joints(
    poses: list[list[float]], scores: list[list[float]], where: str
) -> NDArray[np.float32]:
    """Return the joints of P persons [P, V, 3], centred; zero where not found."""
    joints = np.zeros((len(poses), NUM_JOINTS, 3))
    try:
        joints[..., :2] = np.reshape(poses, (-1, NUM_JOINTS, 2))  # [P, 2V] -> [P, V, 2]
        joints[..., 2] = np.reshape(scores, (-1, NUM_JOINTS))
    except OverflowError:
        raise InputError(
            f"{where}: expected numbers from 0 to 1, found one of hundreds of digits"
        ) from None
    if np.isinf(joints).any():
        raise InputError(f"{where}: expected numbers from 0 to 1, found an infinite one")
    return as_joints(joints, LAYOUT.channels, picture=(1, 1))


def _choose_persons(persons: _Persons, rule: Literal["clip", "frame"]) -> Poses:
    """Return the most confident persons, as poses [M, T, V, 3] and present [M, T]."""
    confidence = persons.joints[..., 2].sum(axis=1, dtype=np.float64)
    if rule == "clip":
        # An empty slot adds 0 to the confidence over the whole clip.
        slot_confidence = np.bincount(persons.slots, confidence)
        best_slots = np.argsort(-slot_confidence, kind="stable")
        rank = np.argsort(best_slots)[persons.slots]
    else:
        order = np.lexsort((-confidence, persons.frames))
        sorted_frames = persons.frames[order]
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.searchsorted(sorted_frames, sorted_frames)

    chosen = rank < MAX_PERSONS
    person, frame = rank[chosen], persons.frames[chosen]
    frame = frame - frame.min()
    present = np.zeros((person.max() + 1, frame.max() + 1), np.bool_)
    poses = np.zeros((*present.shape, *persons.joints.shape[1:]), np.float32)
    present[person, frame] = True
    poses[person, frame] = persons.joints[chosen]
    return poses, present
