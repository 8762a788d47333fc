"""PYSKL and MMAction2: pickles of 2-D or 3-D poses, read without running them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers import ntu_facts
from skelnas.data.readers.annotations import Annotations, read_annotations
from skelnas.data.readers.base import (
    MAX_CLASSES,
    Catalogue,
    ClipTable,
    Layout,
    Poses,
    Recording,
    Unused,
)
from skelnas.data.readers.channels import check_channels
from skelnas.data.readers.detections import group_by_frame, list_pose_files, read_detections
from skelnas.data.readers.division import Division
from skelnas.data.readers.files import as_joints
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.pickles import Array, PickleError
from skelnas.errors import InputError, shown

MAX_PERSONS = 2
COCO = find_layout("coco17")
LAYOUTS: dict[tuple[int, ...], Layout] = {(17, 2): COCO, (25, 3): ntu_facts.LAYOUT}
"""Layout for each number of joints and of coordinates in the file."""
MAX_FRACTION = 2
"""Without the size of the picture, larger coordinates must be pixels, not fractions of it."""
DIVIDE = (
    "give a second file with the clips for testing, --test val.pkl, or --test-share 0.2 or "
    "--folds 5"
)
UNDIVIDED = Division()
MAX_SEARCHED = 1000
"""Annotations to search for one whose joints are known."""


@dataclass(frozen=True)
class Pyskl:
    """A pickle, whose splits are the protocols, or one for training and one for testing.

    Attributes:
        root: the file.
        test: the file with the clips for testing, if `root` has no splits.
        poses_folder: folder of the files that hold the poses of a clip each, if `root` does not.
        division: protocols beside those of the files.
    """

    root: Path
    # Not in the representation, by which runs of version 0.1.0 are resumed.
    test: Path | None = field(default=None, repr=False)
    poses_folder: Path | None = field(default=None, repr=False)
    division: Division = field(default=UNDIVIDED, repr=False)

    name = "pyskl"
    max_persons = MAX_PERSONS

    @property
    def layout(self) -> Layout:
        """The layout that fits the first annotation with a familiar number of joints."""
        annotations = self._annotations.clips.values()
        shape = None
        for annotation in islice(annotations, MAX_SEARCHED):
            keypoint = annotation.get("keypoint")
            if isinstance(keypoint, Array):
                shape = keypoint.shape
                if shape[2:] in LAYOUTS:
                    return LAYOUTS[shape[2:]]
            if _has_detections(annotation) or self._find_poses(annotation):
                return COCO
        if shape is None:
            first = next(iter(annotations))
            file = list_pose_files(first, self._folder)[0]
            raise InputError(
                f"{self.root}: expected 'keypoint' in the annotations, or a file of poses for "
                f"each, such as {file}; found neither",
                hint="give the folder of these files: --poses DIR",
            )
        expected = ", ".join(f"{joints} in {axes}-D" for joints, axes in LAYOUTS)
        raise InputError(
            f"{self.root}: expected 'keypoint' with as many joints as {expected}, found {shape}",
            hint="for other joints write .npy files and a table: `skelnas prepare manifest`",
        )

    @property
    def in_picture(self) -> bool:
        """Whether x and y are fractions of the picture, less 0.5."""
        return _is_scored(self.layout)

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed."""
        division = self.division.rule if self.division != UNDIVIDED else {}
        if _is_scored(self.layout):
            # The wording is stored in caches.
            return {
                "persons": "the two with the highest sum of scores over the clip",
                "coordinates": "x and y in shares of the picture, less 0.5; zero where score is 0",
                **division,
            }
        return {"persons": "the first two", "coordinates": "as in the file", **division}

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return NTU's class names if all names and labels are NTU's, else ``class 0``, ..."""
        annotations = self._annotations.clips.values()
        if all(map(_has_ntu_label, annotations)) and labels.max() < ntu_facts.NUM_CLASSES:
            return ntu_facts.class_names(labels)
        return [f"class {label}" for label in range(int(labels.max()) + 1)]

    def catalogue(self) -> Catalogue:
        """List the clips in the order of the file.

        Raises:
            InputError: a file is not such a pickle, asks for more than data, or nothing says what
                is for testing.
        """
        annotations = self._annotations
        protocols = [*annotations.protocols, *self.division.protocols]
        if annotations.splits is None and not protocols:
            raise InputError(
                f"{self.root}: nothing says which of its {len(annotations.clips)} annotations are "
                "for testing: it has no 'split'",
                hint=DIVIDE,
            )
        if not protocols:
            found = ", ".join(map(repr, annotations.splits or ())) or "none"
            raise InputError(
                f"{self.root}: expected splits such as xsub_train and xsub_val, found {found:.80}",
                hint=DIVIDE,
            )
        if self.division != UNDIVIDED:
            clips = _tabulate(annotations.clips.values())
            self.division.check(self.root, clips, list(annotations.protocols))
        return Catalogue(
            list(annotations.clips),
            annotations.skipped,
            side_files=[self.test] if self.test else [],
        )

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: its annotation is malformed or shows nobody.
        """
        annotation = self._annotations.clips[item]
        name, label = annotation["frame_dir"], annotation.get("label")
        if not _is_integer(label, 0, MAX_CLASSES):
            raise InputError(
                f"{item}: expected 'label' to be 0 to {MAX_CLASSES - 1}, found {shown(label)}"
            )
        poses, present = self.poses(item)
        return Recording(name, label, poses, present, *_find_metadata(name))

    def poses(self, item: Path) -> Poses:
        """Read the two most confident persons of a clip, whatever its label.

        Raises:
            InputError: its annotation is malformed or shows nobody.
        """
        annotation = self._annotations.clips[item]
        layout = self.layout
        try:
            poses = _read_poses(self._with_poses(annotation, item), layout, item)
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
        return poses, present

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the protocols of the file, and those that were asked for."""
        splits = {
            protocol: np.array([parts.get(name, Unused) for name in clips.names], np.int8)
            for protocol, parts in self._annotations.protocols.items()
        }
        return splits | self.division.split(clips)

    @property
    def _annotations(self) -> Annotations:
        return read_annotations(self.root, self.test)

    @property
    def _folder(self) -> Path:
        return self.poses_folder or self.root.parent

    def _find_poses(self, annotation: dict[str, Any]) -> Path | None:
        """Return the file with the poses of a clip, if there is one."""
        files = list_pose_files(annotation, self._folder)
        return next((file for file in files if file.is_file() and file != self.root), None)

    def _with_poses(self, annotation: dict[str, Any], item: Path) -> dict[str, Any]:
        """Return an annotation with its poses by person, which may come from another file."""
        if annotation.get("keypoint") is None and annotation.get("frame_inds") is not None:
            file = self._find_poses(annotation)
            if file is None:
                first = list_pose_files(annotation, self._folder)[0]
                raise InputError(f"{item}: no 'keypoint', and no file with its poses, as {first}")
            detections = read_detections(file)
        elif _has_detections(annotation):
            detections = _read_array(annotation, "keypoint", item)
        else:
            return annotation
        frames = _read_array(annotation, "frame_inds", item)
        keypoint, score = group_by_frame(detections, frames, str(item))
        return {**annotation, "keypoint": keypoint, "keypoint_score": score, "total_frames": None}


def find_single(path: Path) -> tuple[Path, Path]:
    """Return a pickle, and its only item or the one that the path names: ``clips.pkl/NAME``.

    Raises:
        InputError: there is no such pickle, or it holds several clips and the path names none.
    """
    file = next((outer for outer in (path, *path.parents) if outer.is_file()), path)
    items = read_annotations(file).clips
    if path in items or (path == file and len(items) == 1):
        return file, path if path in items else next(iter(items))
    found = f"{len(items):,} annotations" if path == file else "no annotation of this name"
    raise InputError(
        f"{path}: expected a single annotation, found {found}",
        hint=f"name one of them, such as {next(iter(items))}",
    )


def _tabulate(annotations: Collection[dict[str, Any]]) -> ClipTable:
    """Return what is known of clips before their poses are read; a broken label is 0."""
    names = [annotation["frame_dir"] for annotation in annotations]
    labels = [annotation.get("label") for annotation in annotations]
    known = [label if _is_integer(label, 0, MAX_CLASSES) else 0 for label in labels]
    metadata = np.array(list(map(_find_metadata, names)), np.int32)  # [N, 3]
    return ClipTable(names, np.array(known, np.int32), *metadata.T)


def _find_metadata(name: str) -> tuple[int, int, int]:
    """Return subject, camera and setup from a name of NTU's; -1 in others."""
    numbers = ntu_facts.parse_name(name)
    return (numbers.subject, numbers.camera, numbers.setup) if numbers else (-1, -1, -1)


def _has_ntu_label(annotation: dict[str, Any]) -> bool:
    """Whether the label, if there is one, is that of the action in the clip's name."""
    numbers, label = ntu_facts.parse_name(annotation["frame_dir"]), annotation.get("label")
    return numbers is not None and label in (None, numbers.action - 1)


def _has_detections(annotation: dict[str, Any]) -> bool:
    """Whether the poses are in the annotation, but not by person."""
    keypoint, frames = annotation.get("keypoint"), annotation.get("frame_inds")
    return isinstance(keypoint, Array) and isinstance(frames, Array) and len(keypoint.shape) == 3


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
        hint = "for other joints write .npy files and a table: `skelnas prepare manifest`"
        check_channels(keypoint, layout.channels, f"{item}: 'keypoint'", hint)
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
    if isinstance(array, np.ndarray):
        return array
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
