"""Northwestern-UCLA Multiview Action 3D: ten actions seen by three Kinect v1; one JSON per clip."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import is_folder
from skelnas.data.readers.base import Catalogue, ClipTable, Poses, Recording, Test, Train
from skelnas.data.readers.files import as_array, as_joints, find_files, read_json, strip_ending
from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, shown

ENDING = ".json"
SUBFOLDER = "all_sqe"
TRAIN_CAMERAS = (1, 2)
_NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)", re.ASCII)

ACTIONS = {
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
"""Action number in the file names to class name, in the order of the class index."""

LAYOUT = replace(find_layout("kinect-v1"), frame_rate=30)


@dataclass(frozen=True)
class NwUcla:
    """A folder of `aXX_sYY_eZZ_vWW.json` files, or the folder above `all_sqe`."""

    root: Path

    name = "nw-ucla"
    layout = LAYOUT
    max_persons = 1

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates were changed; every clip has one person."""
        return {"coordinates": "metres, as recorded; a joint that is not finite is (0, 0, 0)"}

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the names of the ten classes."""
        return list(ACTIONS.values())

    def catalogue(self) -> Catalogue:
        """List the clips by name.

        Raises:
            InputError: the folder is missing or holds no clips.
        """
        inner = self.root / SUBFOLDER
        items: list[Path] = []
        skipped: list[tuple[str, str]] = []
        for path in find_files(inner if is_folder(inner) else self.root, ENDING):
            numbers = _NAME.fullmatch(strip_ending(path, ENDING))
            if numbers is None:
                skipped.append((path.name, "the name is not aXX_sYY_eZZ_vWW"))
            elif int(numbers[1]) not in ACTIONS:
                skipped.append((path.name, f"there is no action {numbers[1]}"))
            elif items and strip_ending(items[-1], ENDING) == numbers[0]:
                skipped.append((path.name, f"a second file of that name, {path}"))
            else:
                items.append(path)
        if not items:
            raise InputError(f"{self.root}: expected files such as a01_s01_e00_v01{ENDING}")
        return Catalogue(items, skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: the file is malformed, or its label differs from that in its name.
        """
        numbers = _NAME.fullmatch(strip_ending(item, ENDING))
        if numbers is None or int(numbers[1]) not in ACTIONS:
            raise InputError(f"{item}: expected a name such as a01_s01_e00_v01{ENDING}")
        action, subject, _, camera = map(int, numbers.groups())
        label = list(ACTIONS).index(action)

        clip = _read_clip(item, "skeletons", "label")
        if clip["label"] is True or clip["label"] != label + 1:
            raise InputError(
                f"{item}: expected the label {label + 1} of action {action} in the name, "
                f"found {shown(clip['label'])}"
            )
        return Recording(numbers[0], label, *_poses(clip, item), subject, camera)

    def poses(self, item: Path) -> Poses:
        """Read a clip of any name, with or without a label; raises as `read` does."""
        return _poses(_read_clip(item, "skeletons"), item)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `xview`: train on the first two cameras, test on the third."""
        in_training = np.isin(clips.cameras, TRAIN_CAMERAS)
        return {"xview": np.where(in_training, Train, Test).astype(np.int8)}


def _read_clip(item: Path, *keys: str) -> dict[str, Any]:
    clip = read_json(item)
    if not isinstance(clip, dict) or not set(keys) <= clip.keys():
        names = " and ".join(map(repr, keys))
        raise InputError(f"{item}: expected an object with the key{'s' * (len(keys) > 1)} {names}")
    return clip


def _poses(clip: dict[str, Any], item: Path) -> Poses:
    joints = _joints(clip["skeletons"], str(item))
    present: NDArray[np.bool_] = np.any(joints, axis=(1, 2))
    if not present.any():
        raise InputError(f"{item}: no body in any frame")
    return joints[None], present[None]


def _joints(skeletons: Any, where: str) -> NDArray[np.float32]:
    """Convert nested lists to joints [T, V, 3]."""
    shape = (len(LAYOUT.joints), len(LAYOUT.channels))
    if not isinstance(skeletons, list) or not skeletons:
        raise InputError(f"{where}: expected 'skeletons' to be a list of frames")
    array = as_array(skeletons)
    if array is None or array.shape != (len(skeletons), *shape):
        frames = map(as_array, skeletons)
        first_bad = [frame is None or frame.shape != shape for frame in frames].index(True)
        raise InputError(
            f"{where}: frame {first_bad + 1} of {len(skeletons)}: "
            f"expected {shape[0]} joints of {shape[1]} numbers"
        )
    if np.isinf(array).any():
        raise InputError(f"{where}: expected finite numbers or null, found an infinite one")
    return as_joints(array)
