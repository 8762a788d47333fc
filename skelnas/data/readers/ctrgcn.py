"""CTR-GCN: NTU RGB+D as one `.npz`, all clips padded to the same length; read clip by clip.

x_train, x_test   [N, T, 150], 2 persons x 25 joints x 3
y_train, y_test   [N, classes], one-hot
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers import ntu_facts
from skelnas.data.readers.archives import Archive
from skelnas.data.readers.base import MAX_CLASSES, Catalogue, ClipTable, Recording, Test, Train
from skelnas.data.readers.channels import check_channels
from skelnas.data.readers.files import as_joints, packaged_names
from skelnas.data.readers.npy import Rows, read_npy
from skelnas.errors import InputError

PARTS = {"train": Train, "test": Test}
MAX_PERSONS = 2
CLIP_SHAPE = (MAX_PERSONS, len(ntu_facts.LAYOUT.joints), len(ntu_facts.LAYOUT.channels))
MAX_FRAMES = 10_000
MAX_CLIPS = 1_000_000
MAX_LABEL_BYTES = 256 << 20


@dataclass(frozen=True)
class CtrGcn:
    """An `.npz`; its clips, which have no names, are called train_000000 and so on.

    Attributes:
        root: the file.
    """

    root: Path

    name = "ctrgcn"
    layout = ntu_facts.LAYOUT
    max_persons = MAX_PERSONS

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates and frames were changed; how persons were chosen is unknown."""
        return {
            "coordinates": "as in the file; a joint that is not finite is (0, 0, 0)",
            "frames": "cut after the last in which somebody is seen",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return NTU's class names if there are 60 or 120, else ``class 0`` and so on."""
        count = _open(self.root).num_classes
        if count in (ntu_facts.NUM_CLASSES_NTU60, ntu_facts.NUM_CLASSES):
            return list(packaged_names("ntu_classes.txt")[:count])
        return [f"class {label}" for label in range(count)]

    def catalogue(self) -> Catalogue:
        """List the clips, those for training first.

        Raises:
            InputError: the file is not such an archive.
        """
        labels = _open(self.root).labels
        items = [
            self.root / f"{part}_{index:06}" for part in PARTS for index in range(len(labels[part]))
        ]
        if not items:
            raise InputError(f"{self.root}: expected clips in x_train and x_test, found none")
        return Catalogue(items)

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: the archive is damaged, the label is not one-hot, or the clip shows nobody.
        """
        part, _, number = item.name.partition("_")
        file, index = _open(self.root), int(number)
        label = int(file.labels[part][index])
        if label < 0:
            raise InputError(f"{item}: expected a single 1 in row {index} of y_{part}")
        flat = file.rows[part].read(index)
        numbers = flat.reshape(len(flat), *CLIP_SHAPE).swapaxes(0, 1)  # [M, T, V, C]
        hint = "for other joints write .npy files and a table: `skelnas prepare manifest`"
        check_channels(numbers, self.layout.channels, str(item), hint)
        poses = as_joints(numbers)
        present: NDArray[np.bool_] = np.any(poses, axis=(2, 3))
        frames = np.flatnonzero(present.any(axis=0))
        if not len(frames):
            raise InputError(f"{item}: nobody in any of {len(flat)} frames")
        persons, end = np.flatnonzero(present.any(axis=1)), frames[-1] + 1
        return Recording(item.name, label, poses[persons, :end], present[persons, :end])

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `official`: the two parts of the file."""
        parts = [PARTS[name.partition("_")[0]] for name in clips.names]
        return {"official": np.array(parts, np.int8)}


@dataclass(frozen=True)
class _File:
    """What is read of a file on opening: the labels, -1 where invalid, and the array headers."""

    labels: dict[str, NDArray[np.int64]]
    rows: dict[str, Rows]
    num_classes: int


@cache
def _open(path: Path) -> _File:
    archive = Archive(path)
    labels: dict[str, NDArray[np.int64]] = {}
    rows: dict[str, Rows] = {}
    num_classes: set[int] = set()
    for part in PARTS:
        for name in (f"x_{part}", f"y_{part}"):
            if f"{name}.npy" not in archive.members:
                raise InputError(f"{path}: expected an array {name}, found none")
        rows[part] = Rows(path, archive, f"x_{part}")
        shape = rows[part].shape
        if (
            len(shape) != 3
            or shape[2] != np.prod(CLIP_SHAPE)
            or not 1 <= shape[1] <= MAX_FRAMES
            or shape[0] > MAX_CLIPS
        ):
            raise InputError(
                f"{path}: x_{part} has the shape {shape}, expected at most {MAX_CLIPS} clips x "
                f"1 to {MAX_FRAMES} frames x {np.prod(CLIP_SHAPE)}"
            )
        if rows[part].dtype == np.bool_:
            raise InputError(f"{path}: x_{part}: expected numbers, found truth values")
        one_hot = _read_one_hot(path, archive, part, shape[0])
        is_one_hot = (one_hot == 1).any(axis=1) & (np.count_nonzero(one_hot, axis=1) == 1)
        labels[part] = np.where(is_one_hot, one_hot.argmax(axis=1), -1)
        num_classes.add(one_hot.shape[1])
    if len(num_classes) != 1:
        raise InputError(
            f"{path}: y_train and y_test have {num_classes} classes, expected the same number"
        )
    return _File(labels, rows, num_classes.pop())


def _read_one_hot(path: Path, archive: Archive, part: str, num_clips: int) -> NDArray[Any]:
    # One-hot rows compress to almost nothing, which looks like a zip bomb.
    data = archive.read(f"y_{part}.npy", MAX_LABEL_BYTES, check_ratio=False)
    one_hot = read_npy(data, f"{path}: y_{part}")
    if one_hot.ndim != 2 or len(one_hot) != num_clips or not 1 <= one_hot.shape[1] <= MAX_CLASSES:
        raise InputError(
            f"{path}: y_{part} has the shape {one_hot.shape}, expected {num_clips} x classes"
        )
    return one_hot
