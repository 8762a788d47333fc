"""PYSKL and MMAction2: pickles of 2-D or 3-D poses, read without running them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers import ntu_facts
from skelnas.data.readers.base import (
    MAX_CLASSES,
    Catalogue,
    ClipTable,
    Layout,
    Recording,
    Test,
    Train,
    Unused,
)
from skelnas.data.readers.files import as_joints
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.pickles import Array, PickleError, load
from skelnas.errors import InputError, shown
from skelnas.runtime.files import check_is_regular

MAX_PERSONS = 2
COCO = find_layout("coco17")
LAYOUTS: dict[tuple[int, ...], Layout] = {(17, 2): COCO, (25, 3): ntu_facts.LAYOUT}
"""Layout for each number of joints and of coordinates in the file."""
MAX_FRACTION = 2
"""Without the size of the picture, larger coordinates must be pixels, not fractions of it."""
SPLITS = {"train": Train, "val": Test, "test": Test}
_SPLIT_NAME = re.compile(r"(?:^|[_-])(train|val|test)(?=$|[_\-\d])")


@dataclass(frozen=True)
class Pyskl:
    """A pickle, whose splits are the protocols.

    Attributes:
        root: the file.
    """

    root: Path

    name = "pyskl"
    max_persons = MAX_PERSONS

    @property
    def layout(self) -> Layout:
        """The layout that fits the first annotation with a familiar number of joints."""
        for annotation in read_annotations(self.root).clips.values():
            keypoint = annotation.get("keypoint")
            if isinstance(keypoint, Array) and keypoint.shape[2:] in LAYOUTS:
                return LAYOUTS[keypoint.shape[2:]]
        expected = ", ".join(f"{joints} in {axes}-D" for joints, axes in LAYOUTS)
        raise InputError(
            f"{self.root}: expected 'keypoint' with as many joints as {expected}",
            hint="for other joints write .npy files and a table: `skelnas prepare manifest`",
        )

    @property
    def in_picture(self) -> bool:
        """Whether x and y are fractions of the picture, less 0.5."""
        return _is_scored(self.layout)

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed."""
        if _is_scored(self.layout):
            # The wording is stored in caches.
            return {
                "persons": "the two with the highest sum of scores over the clip",
                "coordinates": "x and y in shares of the picture, less 0.5; zero where score is 0",
            }
        return {"persons": "the first two", "coordinates": "as in the file"}

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return NTU's class names if all names and labels are NTU's, else ``class 0``, ..."""
        annotations = read_annotations(self.root).clips.values()
        if all(map(_has_ntu_label, annotations)) and labels.max() < ntu_facts.NUM_CLASSES:
            return ntu_facts.class_names(labels)
        return [f"class {label}" for label in range(int(labels.max()) + 1)]

    def catalogue(self) -> Catalogue:
        """List the clips in the order of the file.

        Raises:
            InputError: the file is not such a pickle, or asks for more than data.
        """
        annotations = read_annotations(self.root)
        return Catalogue(list(annotations.clips), annotations.skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: its annotation is malformed or shows nobody.
        """
        annotation = read_annotations(self.root).clips[item]
        name, label = annotation["frame_dir"], annotation.get("label")
        if not _is_integer(label, 0, MAX_CLASSES):
            raise InputError(
                f"{item}: expected 'label' to be 0 to {MAX_CLASSES - 1}, found {shown(label)}"
            )
        layout = self.layout
        try:
            poses = _read_poses(annotation, layout, item)
        except PickleError as error:
            raise InputError(f"{item}: {error}") from None
        visible = np.flatnonzero(poses.any(axis=(1, 2, 3)))
        if not len(visible):
            raise InputError(f"{item}: nobody in any of {poses.shape[1]} frames")
        if _is_scored(layout):
            confidence = poses[visible, ..., 2].sum(axis=(1, 2), dtype=np.float64)
            visible = visible[np.argsort(-confidence, kind="stable")]
        poses = poses[visible[:MAX_PERSONS]]
        present: NDArray[np.bool_] = np.any(poses, axis=(2, 3))
        numbers = ntu_facts.parse_name(name)
        metadata = (numbers.subject, numbers.camera, numbers.setup) if numbers else (-1, -1, -1)
        return Recording(name, label, poses, present, *metadata)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the protocols of the file."""
        return {
            protocol: np.array([parts.get(name, Unused) for name in clips.names], np.int8)
            for protocol, parts in read_annotations(self.root).protocols.items()
        }


@dataclass(frozen=True)
class Annotations:
    """The content of a pickle, without the numbers of its arrays.

    Attributes:
        clips: item to annotation, in the order of the file.
        protocols: protocol to clip name to the part that the clip belongs to.
        skipped: (what, reason) of everything unusable.
    """

    clips: dict[Path, dict[str, Any]]
    protocols: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]


@cache
def read_annotations(path: Path) -> Annotations:
    """Map a file into memory and read all of it but the arrays, once.

    Raises:
        InputError: it is not a pickle, asks for more than data, or has another structure.
    """
    content = _load(path)
    if not isinstance(content, dict) or not {"split", "annotations"} <= content.keys():
        raise InputError(f"{path}: expected a dictionary with the keys 'split' and 'annotations'")
    annotations, split = content["annotations"], content["split"]
    if not isinstance(annotations, list) or not isinstance(split, dict):
        raise InputError(f"{path}: expected a list of 'annotations' and a dictionary 'split'")
    clips: dict[Path, dict[str, Any]] = {}
    skipped: list[tuple[str, str]] = []
    for number, annotation in enumerate(annotations, start=1):
        name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
        if not isinstance(name, str) or not name or not name.isprintable():
            skipped.append((f"annotation {number}", "it has no name under 'frame_dir'"))
        elif (item := path / name.lstrip("/")) in clips:
            skipped.append((f"annotation {number}", f"a second one named {name}"))
        else:
            clips[item] = annotation
    if not clips:
        raise InputError(f"{path}: expected annotations with a 'frame_dir', found none")
    names = {annotation["frame_dir"] for annotation in clips.values()}
    protocols = _read_protocols(path, split, names, skipped)
    return Annotations(clips, protocols, skipped)


def _load(path: Path) -> Any:
    check_is_regular(path)
    try:
        with path.open("rb") as file:
            return load(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # an empty file cannot be mapped
        reason = str(error) if isinstance(error, PickleError) else "it is empty"
        raise InputError(
            f"{path}: expected a pickle of PYSKL: {reason}",
            hint="a pickle can run code when Python loads it; this one was not loaded",
        ) from None


def _read_protocols(
    path: Path, split: Mapping[Any, Any], names: set[str], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, int]]:
    """Return the part of every clip in each protocol; append what is unusable to `skipped`."""
    protocols: dict[str, dict[str, int]] = {}
    for protocol, split_names in _pair_splits(split, skipped).items():
        if "test" in split_names and "val" in split_names:
            skipped.append((f"split {split_names.pop('val')}", f"{protocol} has a test part"))
        if "train" not in split_names or len(split_names) != 2:
            skipped.append(
                (f"split {', '.join(split_names.values())}", "its other half is missing")
            )
            continue
        parts: dict[str, int] = {}
        for kind, name in split_names.items():
            members = split[name]
            is_sequence = isinstance(members, list | tuple)
            if not is_sequence or not all(isinstance(member, str) for member in members):
                raise InputError(f"{path}: expected split {name!r:.80} to be a list of names")
            if num_repeated := len(members) - len(set(members)):
                skipped.append((f"split {name}", f"{num_repeated} of its entries are repeated"))
            for member in members:
                if parts.setdefault(member, SPLITS[kind]) != SPLITS[kind]:
                    raise InputError(
                        f"{path}: clip {member!r:.80} is in both parts of {protocol!r:.80}"
                    )
        if num_unknown := len(parts.keys() - names):
            skipped.append((f"split {protocol}", f"{num_unknown} of its clips have no annotation"))
        protocols[protocol] = parts
    if not protocols:
        raise InputError(f"{path}: expected splits such as xsub_train and xsub_val, found none")
    return protocols


def _pair_splits(
    split: Mapping[Any, Any], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, str]]:
    """Group splits by protocol: xsub_train and xsub_val make xsub, train and test make official."""
    pairs: dict[str, dict[str, str]] = {}
    for name in split:
        match = _SPLIT_NAME.search(name) if isinstance(name, str) else None
        if match is None:
            skipped.append((f"split {name}", "its name has no train, val or test"))
            continue
        rest = (name[: match.start()] + name[match.end() :]).strip("_-").replace("/", "_")
        protocol = f"split{rest}" if rest.isdigit() else rest or "official"
        first = pairs.setdefault(protocol, {}).setdefault(match[1], name)
        if first != name:
            skipped.append((f"split {name}", f"{first} is that part of {protocol}, too"))
    return pairs


def _has_ntu_label(annotation: dict[str, Any]) -> bool:
    """Whether the label, if there is one, is that of the action in the clip's name."""
    numbers, label = ntu_facts.parse_name(annotation["frame_dir"]), annotation.get("label")
    return numbers is not None and label in (None, numbers.action - 1)


def _is_scored(layout: Layout) -> bool:
    return layout.channels[2] == "score"


def _read_poses(annotation: dict[str, Any], layout: Layout, item: Path) -> NDArray[np.float32]:
    """Read the coordinates of all persons, [M, T, V, 3]; zero where a joint is not found."""
    keypoint = _read_array(annotation, "keypoint", item)
    num_frames = annotation.get("total_frames")
    if (
        keypoint.ndim != 4
        or LAYOUTS.get(keypoint.shape[2:]) is not layout
        or num_frames not in (None, keypoint.shape[1])
    ):
        raise InputError(
            f"{item}: 'keypoint' has the shape {keypoint.shape}, expected persons x "
            f"{'' if num_frames is None else f'{shown(num_frames)} '}frames x "
            f"{len(layout.joints)} joints x coordinates"
        )
    if keypoint.dtype == np.bool_:
        raise InputError(f"{item}: expected numbers under 'keypoint', found truth values")
    if not _is_scored(layout):
        return as_joints(keypoint)
    score = np.ones(keypoint.shape[:3])
    if annotation.get("keypoint_score") is not None:
        score = _read_array(annotation, "keypoint_score", item)
    if score.shape != keypoint.shape[:3]:
        raise InputError(f"{item}: 'keypoint_score' {score.shape}, 'keypoint' {keypoint.shape}")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        numbers = np.concatenate([keypoint, score[..., None]], axis=-1, dtype=np.float64)
        picture = _picture_size(annotation, numbers[..., :2], item)
    return as_joints(numbers, layout.channels, picture)


def _read_array(annotation: dict[str, Any], key: str, item: Path) -> NDArray[Any]:
    array = annotation.get(key)
    if not isinstance(array, Array):
        raise InputError(f"{item}: expected an array under {key!r}, found {shown(array)}")
    return array.read()


def _picture_size(
    annotation: dict[str, Any], keypoint: NDArray[Any], item: Path
) -> tuple[float, float]:
    """Return (width, height) to divide by: (1, 1) if coordinates are already relative."""
    picture = annotation.get("img_shape")
    if picture is None and not np.any(np.abs(keypoint) > MAX_FRACTION):
        return 1, 1
    if (
        not isinstance(picture, tuple | list)
        or len(picture) < 2
        or not all(_is_integer(side, 1, 100_000) for side in picture[:2])
    ):
        raise InputError(
            f"{item}: expected 'img_shape' to be (height, width) in pixels, found {shown(picture)}"
        )
    return picture[1], picture[0]


def _is_integer(value: Any, first: int, end: int) -> TypeGuard[int]:
    return type(value) is int and first <= value < end  # a truth value is an int, too
