"""Penn Action: 15 actions in videos, 13 joints marked by hand; a `.mat` per clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Catalogue, ClipTable, Poses, Recording, Test, Train
from skelnas.data.readers.files import as_joints, find_files, read_bytes
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.mat import read_mat
from skelnas.errors import InputError, shown

ENDING = ".mat"
SUBFOLDER = "labels"
LAYOUT = find_layout("penn13")
PARTS = {1: Train, -1: Test}
ACTIONS = (
    *("baseball_pitch", "baseball_swing", "bench_press", "bowl", "clean_and_jerk"),
    *("golf_swing", "jump_rope", "jumping_jacks", "pullup", "pushup"),
    *("situp", "squat", "strum_guitar", "tennis_forehand", "tennis_serve"),
)


@dataclass(frozen=True)
class PennAction:
    """The folder `labels` with `0001.mat` and so on, or the one above it."""

    root: Path

    name = "penn-action"
    layout = LAYOUT
    max_persons = 1
    in_picture = True

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates were changed; every clip has one person."""
        return {
            "coordinates": "x and y in shares of the picture, less 0.5; zero where not visible",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the names of the 15 classes."""
        return list(ACTIONS)

    def catalogue(self) -> Catalogue:
        """List the clips by name.

        Raises:
            InputError: the folder is missing or holds no clips.
        """
        paths = find_files(self.root, ENDING)
        items = {path.stem: path for path in reversed(paths) if path.stem.isdecimal()}
        if not items:
            raise InputError(f"{self.root}: expected files such as {SUBFOLDER}/0001{ENDING}")
        skipped = [
            (path.name, "the name is not a number, or occurs twice")
            for path in paths
            if items.get(path.stem) != path
        ]
        return Catalogue([items[name] for name in sorted(items)], skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip. Raises InputError if the file is malformed."""
        variables = read_mat(read_bytes(item), str(item))
        action = variables.get("action")
        if action not in ACTIONS:
            raise InputError(f"{item}: expected an 'action' such as bowl, found {shown(action)}")
        _read_part(variables, item)
        return Recording(item.stem, ACTIONS.index(str(action)), *_poses(variables, item))

    def poses(self, item: Path) -> Poses:
        """Read a clip of any name and action. Raises InputError if the file is malformed."""
        return _poses(read_mat(read_bytes(item), str(item)), item)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `official`: the part that each file names."""
        parts = _read_parts(self.root)
        return {"official": np.array([parts[name] for name in clips.names], np.int8)}


@cache
def _read_parts(root: Path) -> dict[str, int]:
    """Return the part of every readable clip by name."""
    parts: dict[str, int] = {}
    for item in PennAction(root).catalogue().items:
        try:
            parts[item.stem] = _read_part(read_mat(read_bytes(item), str(item)), item)
        except InputError:
            continue  # it was left out when it was read
    return parts


def _read_part(variables: dict[str, NDArray[Any] | str], item: Path) -> int:
    train = variables.get("train")
    if not isinstance(train, np.ndarray) or train.size != 1 or train.flat[0] not in PARTS:
        raise InputError(f"{item}: expected 'train' to be 1 or -1, found {shown(train)}")
    return PARTS[int(train.flat[0])]


def _poses(variables: dict[str, NDArray[Any] | str], item: Path) -> Poses:
    """Return joints; where the file calls none visible in any frame, all that are marked."""
    num_joints = len(LAYOUT.joints)
    arrays: list[NDArray[np.float64]] = []
    for name in ("x", "y", "visibility"):
        array = variables.get(name)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != num_joints:
            found = f"the shape {array.shape}" if isinstance(array, np.ndarray) else "none"
            raise InputError(f"{item}: expected {name!r} of frames x {num_joints}, found {found}")
        arrays.append(array.astype(np.float64))
    if not arrays[0].shape == arrays[1].shape == arrays[2].shape:
        shapes = [array.shape for array in arrays]
        raise InputError(f"{item}: 'x', 'y' and 'visibility' have the shapes {shapes}")
    x, y, visible = arrays
    with np.errstate(invalid="ignore"):  # a signalling NaN
        if not visible.any():
            visible = ((x != 1) | (y != 1)).astype(np.float64)  # (1, 1): a joint that is not marked
    size = variables.get("dimensions")
    if not isinstance(size, np.ndarray) or size.size < 2 or not (size.flat[:2] >= 1).all():
        raise InputError(f"{item}: expected 'dimensions', height and width, found {shown(size)}")
    height, width = map(float, size.flat[:2])
    numbers = np.stack([x, y, visible], axis=-1)  # [T, V, C]
    joints = as_joints(numbers, LAYOUT.channels, (width, height))
    present: NDArray[np.bool_] = np.any(joints, axis=(1, 2))
    return joints[None], present[None]
