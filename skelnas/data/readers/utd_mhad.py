"""UTD-MHAD: 27 actions before one Kinect v1; a `.mat` per clip with `d_skel` [V, C, T]."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Catalogue, ClipTable, Poses, Recording, Test, Train
from skelnas.data.readers.files import as_joints, find_files, packaged_names, read_bytes
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.mat import UTD_JOINTS, read_mat
from skelnas.errors import InputError

ENDING = ".mat"
NUM_ACTIONS = 27
_NAME = re.compile(r"(a(\d{1,2})_s([1-8])_t\d)(_skeleton)?", re.ASCII)
LAYOUT = replace(find_layout("kinect-v1"), frame_rate=30)
ORDER = [UTD_JOINTS.index(joint) for joint in LAYOUT.joints]
"""Index in the file of each joint."""


@dataclass(frozen=True)
class UtdMhad:
    """A folder of `aA_sS_tT_skeleton.mat` files."""

    root: Path

    name = "utd-mhad"
    layout = LAYOUT
    max_persons = 1

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates were changed; every clip has one person."""
        return {"coordinates": "metres, as recorded; a joint that is not finite is (0, 0, 0)"}

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the names of the 27 classes."""
        return list(packaged_names("utd_mhad_classes.txt"))

    def catalogue(self) -> Catalogue:
        """List the clips by name.

        Raises:
            InputError: the folder is missing or holds no clips.
        """
        items: list[Path] = []
        skipped: list[tuple[str, str]] = []
        names: set[str] = set()
        for path in find_files(self.root, ENDING):
            match = _NAME.fullmatch(path.stem)
            if match is None or not 1 <= int(match[2]) <= NUM_ACTIONS:
                skipped.append((path.name, "the name is not aA_sS_tT_skeleton"))
            elif match[1] in names:
                skipped.append((path.name, f"a second file of that clip, {path}"))
            else:
                names.add(match[1])
                items.append(path)
        if not items:
            raise InputError(f"{self.root}: expected files such as a1_s1_t1_skeleton{ENDING}")
        return Catalogue(items, skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip. Raises InputError if the file is malformed."""
        match = _NAME.fullmatch(item.stem)
        assert match is not None
        return Recording(match[1], int(match[2]) - 1, *self.poses(item), subject=int(match[3]))

    def poses(self, item: Path) -> Poses:
        """Read a clip of any name. Raises InputError if the file is malformed."""
        array = read_mat(read_bytes(item), str(item)).get("d_skel")
        if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[:2] != (20, 3):
            found = "none" if not isinstance(array, np.ndarray) else f"the shape {array.shape}"
            raise InputError(f"{item}: expected 'd_skel' of 20 joints x 3 x frames, found {found}")
        joints = as_joints(array.transpose(2, 0, 1)[:, ORDER])  # [V, C, T] -> [T, V, C]
        present: NDArray[np.bool_] = np.any(joints, axis=(1, 2))
        return joints[None], present[None]

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `xsub`: train on the subjects with odd numbers, test on the others."""
        return {"xsub": np.where(clips.subjects % 2 == 1, Train, Test).astype(np.int8)}
