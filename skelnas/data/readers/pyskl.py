"""PYSKL and MMAction2: pickles of 2-D or 3-D poses, read without running them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
from skelnas.data.readers.pickles import Array, PickleError, load
from skelnas.errors import InputError

_PART = re.compile(r"(?:^|[_-])(train|val|test)(?=$|[_\-\d])")
ROLES = {"train": Train, "val": Test, "test": Test}


@dataclass(frozen=True)
class Annotations:
    """A file, with the arrays still in it.

    Attributes:
        clips: annotation of each clip by its item, in the order of the file.
        protocols: part of each clip in it by name, for every protocol.
        skipped: (what, reason) of what cannot be used.
    """

    clips: dict[Path, dict[str, Any]]
    protocols: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]


@cache
def read_annotations(path: Path) -> Annotations:
    """Map the file into memory and read all but the arrays, once.

    Raises:
        InputError: it is no pickle, asks for more than data, or has another structure.
    """
    try:
        with path.open("rb") as file:
            content = load(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # an empty file cannot be mapped
        reason = str(error) if isinstance(error, PickleError) else "it is empty"
        raise InputError(
            f"{path}: expected a pickle of PYSKL: {reason}",
            hint="a pickle can run code when Python loads it; this one was not loaded",
        ) from None
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
            skipped.append((f"annotation {number}", f"a second one of the name {name}"))
        else:
            clips[item] = annotation
    if not clips:
        raise InputError(f"{path}: expected annotations with a 'frame_dir', found none")
    names = {annotation["frame_dir"] for annotation in clips.values()}
    protocols = _protocols(path, split, names, skipped)
    return Annotations(clips, protocols, skipped)


def _protocols(
    path: Path, split: Mapping[Any, Any], names: set[str], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, int]]:
    """Pair the splits to protocols: xsub_train and xsub_val to xsub; train and test to official."""
    pairs: dict[str, dict[str, str]] = {}
    for name in split:
        found = _PART.search(name) if isinstance(name, str) else None
        if found is None:
            skipped.append((f"split {name}", "its name has no train, val or test"))
            continue
        rest = (name[: found.start()] + name[found.end() :]).strip("_-")
        protocol = f"split{rest}" if rest.isdigit() else rest or "official"
        pairs.setdefault(protocol.replace("/", "_"), {})[found[1]] = name
    protocols: dict[str, dict[str, int]] = {}
    for protocol, of_role in pairs.items():
        if "test" in of_role and "val" in of_role:
            skipped.append((f"split {of_role.pop('val')}", f"{protocol} has a test part"))
        if "train" not in of_role or len(of_role) != 2:
            skipped.append((f"split {', '.join(of_role.values())}", "its other half is missing"))
            continue
        parts: dict[str, int] = {}
        protocols[protocol] = parts
        for role, name in of_role.items():
            members = split[name]
            if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
                raise InputError(f"{path}: expected split {name!r:.80} to be a list of names")
            for member in members:
                if parts.setdefault(member, ROLES[role]) != ROLES[role]:
                    raise InputError(
                        f"{path}: clip {member!r:.80} is in both parts of {protocol!r:.80}"
                    )
        if unknown := len(parts.keys() - names):
            skipped.append((f"split {protocol}", f"{unknown} of its clips have no annotation"))
    if not protocols:
        raise InputError(f"{path}: expected splits such as xsub_train and xsub_val, found none")
    return protocols


def take_array(annotation: dict[str, Any], key: str, item: Path) -> Array:
    """Return an array of an annotation. Raises InputError if there is none."""
    array = annotation.get(key)
    if not isinstance(array, Array):
        raise InputError(f"{item}: expected an array under {key!r}")
    return array


MAX_PERSONS = 2
COCO = Layout(
    joints=(
        *("nose", "eye_left", "eye_right", "ear_left", "ear_right"),
        *("shoulder_left", "shoulder_right", "elbow_left", "elbow_right"),
        *("wrist_left", "wrist_right", "hip_left", "hip_right"),
        *("knee_left", "knee_right", "ankle_left", "ankle_right"),
    ),
    # Towards the nose (0), as in PYSKL.
    bones=(
        *((1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (6, 0), (7, 5), (8, 6), (9, 7), (10, 8)),
        *((11, 5), (12, 6), (13, 11), (14, 12), (15, 13), (16, 14)),
    ),
    channels=("x", "y", "score"),
)
LAYOUTS: dict[tuple[int, ...], Layout] = {(17, 2): COCO, (25, 3): ntu_facts.LAYOUT}
"""By the number of joints and of coordinates in the file."""


@dataclass(frozen=True)
class Pyskl:
    """A pickle; its protocols are the splits in it.

    Attributes:
        root: the file.
    """

    root: Path

    name = "pyskl"
    max_persons = MAX_PERSONS

    @property
    def layout(self) -> Layout:
        """Joints by their number in the first annotation that has an array of a known kind."""
        for annotation in read_annotations(self.root).clips.values():
            keypoint = annotation.get("keypoint")
            if isinstance(keypoint, Array) and keypoint.shape[2:] in LAYOUTS:
                return LAYOUTS[keypoint.shape[2:]]
        known = ", ".join(f"{joints} in {axes}-D" for joints, axes in LAYOUTS)
        raise InputError(
            f"{self.root}: expected 'keypoint' with as many joints as {known}",
            hint="for other joints write .npy files and a table: `skelnas prepare manifest`",
        )

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed."""
        if self.layout.channels[2] == "score":
            return {
                "persons": "the two with the highest sum of scores over the clip",
                "coordinates": "x and y in shares of the picture, less 0.5; zero where score is 0",
            }
        return {"persons": "the first two", "coordinates": "as in the file"}

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Names of NTU's classes where all clips have its names, else `class 0` and so on."""
        names = [item.name for item in read_annotations(self.root).clips]
        if all(map(ntu_facts.parse_name, names)) and labels.max() < ntu_facts.NUM_CLASSES:
            return ntu_facts.class_names(labels)
        return [f"class {label}" for label in range(int(labels.max()) + 1)]

    def catalogue(self) -> Catalogue:
        """List the clips in the order of the file.

        Raises:
            InputError: if the file is no such pickle, or asks for more than data.
        """
        annotations = read_annotations(self.root)
        return Catalogue(list(annotations.clips), annotations.skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: if its annotation is malformed or shows nobody.
        """
        annotation = read_annotations(self.root).clips[item]
        name, label = annotation["frame_dir"], annotation.get("label")
        if not isinstance(label, int) or not 0 <= label < MAX_CLASSES:
            raise InputError(f"{item}: expected 'label' to be 0 to {MAX_CLASSES - 1}")
        layout = self.layout
        try:
            poses = self._read_poses(annotation, layout, item)
        except PickleError as error:
            raise InputError(f"{item}: {error}") from None
        seen = np.flatnonzero(poses.any(axis=(1, 2, 3)))
        if not len(seen):
            raise InputError(f"{item}: nobody in any of {poses.shape[1]} frames")
        if layout.channels[2] == "score":
            sure = poses[seen, ..., 2].sum(axis=(1, 2), dtype=np.float64)
            seen = seen[np.argsort(-sure, kind="stable")]
        poses = poses[seen[:MAX_PERSONS]]
        present: NDArray[np.bool_] = np.any(poses, axis=(2, 3))
        numbers = ntu_facts.parse_name(name)
        facts = (numbers.subject, numbers.camera, numbers.setup) if numbers else (-1, -1, -1)
        return Recording(name, label, poses, present, *facts)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Give the protocols of the file."""
        return {
            protocol: np.array([parts.get(name, Unused) for name in clips.names], np.int8)
            for protocol, parts in read_annotations(self.root).protocols.items()
        }

    def _read_poses(
        self, annotation: dict[str, Any], layout: Layout, item: Path
    ) -> NDArray[np.float32]:
        """Read the coordinates of all persons, [M, T, V, 3]; zero where a joint is not known."""
        keypoint = take_array(annotation, "keypoint", item).read()
        frames = annotation.get("total_frames", keypoint.shape[1:2] and keypoint.shape[1])
        if (
            keypoint.ndim != 4
            or LAYOUTS.get(keypoint.shape[2:]) is not layout
            or frames != keypoint.shape[1]
        ):
            raise InputError(
                f"{item}: 'keypoint' has the shape {keypoint.shape}, expected persons x "
                f"{frames!r:.20} frames x {len(layout.joints)} joints x coordinates"
            )
        if layout.channels[2] != "score":
            return as_joints(keypoint)
        score = np.any(keypoint, axis=-1).astype(np.float64)
        if annotation.get("keypoint_score") is not None:
            score = take_array(annotation, "keypoint_score", item).read().astype(np.float64)
        if score.shape != keypoint.shape[:3]:
            raise InputError(f"{item}: 'keypoint_score' {score.shape}, 'keypoint' {keypoint.shape}")
        with np.errstate(invalid="ignore"):  # a signalling nan
            shares = keypoint / _picture(annotation, keypoint, item) - 0.5
        poses = as_joints(np.concatenate([shares, score[..., None]], axis=-1))
        poses[~(poses[..., 2] > 0) | ~np.any(keypoint, axis=-1)] = 0
        return poses


def _picture(annotation: dict[str, Any], keypoint: NDArray[Any], item: Path) -> NDArray[np.float64]:
    """Find width and height of the picture; coordinates up to 1 are shares of it already."""
    picture = annotation.get("img_shape")
    if picture is None and not np.any(np.abs(keypoint) > 2):
        return np.ones(2)
    if (
        not isinstance(picture, tuple | list)
        or len(picture) < 2
        or not all(isinstance(side, int) and 0 < side < 100_000 for side in picture[:2])
    ):
        raise InputError(f"{item}: expected 'img_shape' to be (height, width) in pixels")
    return np.array([picture[1], picture[0]], np.float64)
