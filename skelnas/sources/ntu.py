"""NTU RGB+D 60 and 120: raw `.skeleton` files of a Kinect v2, one a clip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError
from skelnas.sources import bodies
from skelnas.sources.base import Catalogue, ClipTable, Layout, Recording, Test, Train, Unused
from skelnas.sources.files import find_files, packaged_names, read_bytes
from skelnas.sources.ntu_file import parse

ENDING = ".skeleton"
NUM_CLASSES, NUM_CLASSES_NTU60 = 120, 60
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)

TRAIN_CAMERAS = (2, 3)
TRAIN_SUBJECTS = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)
TRAIN_SUBJECTS_NTU120 = (
    *TRAIN_SUBJECTS,
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87)),
    *(89, *range(91, 96), 97, 98, 100, 103),
)

LAYOUT = Layout(
    joints=(
        *("spine_base", "spine_mid", "neck", "head"),
        *("shoulder_left", "elbow_left", "wrist_left", "hand_left"),
        *("shoulder_right", "elbow_right", "wrist_right", "hand_right"),
        *("hip_left", "knee_left", "ankle_left", "foot_left"),
        *("hip_right", "knee_right", "ankle_right", "foot_right"),
        *("spine_shoulder", "hand_tip_left", "thumb_left", "hand_tip_right", "thumb_right"),
    ),
    # Towards the spine shoulder (20); a hand tip hangs on its thumb, as in ST-GCN and 2s-AGCN.
    bones=(
        *((0, 1), (1, 20), (2, 20), (3, 2)),
        *((4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9), (11, 10)),
        *((12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18)),
        *((21, 22), (22, 7), (23, 24), (24, 11)),
    ),
    center_joint=1,
)


@dataclass(frozen=True)
class Ntu:
    """A folder of NTU RGB+D clips; whether it is 60 or 120 shows in the clips it holds.

    Attributes:
        root: the folder, whose subfolders and links are searched too, or a zip archive.
        body_rule: which of the bodies in a frame are persons; see `bodies.choose_persons`.
        keep_missing: read also the 535 clips whose skeletons the authors call missing or
            incomplete (302 of them in NTU RGB+D 60).
    """

    root: Path
    body_rule: bodies.BodyRule = "denoise"
    keep_missing: bool = False

    name = "ntu"
    layout = LAYOUT
    max_persons = bodies.MAX_PERSONS

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed."""
        return {
            "body_rule": self.body_rule,
            "keep_missing": self.keep_missing,
            "coordinates": "metres, as recorded; a joint that is not finite is (0, 0, 0)",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Names of the 60 classes of NTU RGB+D 60, or all 120 if a later one occurs."""
        names = packaged_names("ntu_classes.txt")
        return list(names[:NUM_CLASSES_NTU60] if _is_ntu60(labels).all() else names)

    def catalogue(self) -> Catalogue:
        """List the clips by name.

        Raises:
            InputError: if the folder is missing or holds no clip.
        """
        missing = frozenset() if self.keep_missing else frozenset(packaged_names("ntu_missing.txt"))
        found: dict[str, Path] = {}
        skipped: list[tuple[str, str]] = []
        for path in find_files(self.root, ENDING):
            name = path.name.removesuffix(ENDING)
            numbers = _NAME.fullmatch(name)
            if numbers is None:
                skipped.append((path.name, "the name is not SsssCcccPpppRrrrAaaa"))
            elif not 1 <= int(numbers[5]) <= NUM_CLASSES:
                skipped.append((path.name, f"the action {numbers[5]} is not 001 to {NUM_CLASSES}"))
            elif name in missing:
                skipped.append((path.name, "its skeletons are missing or incomplete"))
            elif name in found:
                skipped.append((path.name, f"a second file of that name, {path}"))
            else:
                found[name] = path
        if not found:
            others = f"; {len(skipped)} files were skipped: {skipped[0][1]}" if skipped else ""
            raise InputError(
                f"{self.root}: expected files such as S001C001P001R001A001{ENDING}{others}",
                hint="Name nturgbd_skeletons_s001_to_s017.zip or the folder of its files",
            )
        return Catalogue(list(found.values()), skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip and choose its persons.

        Raises:
            InputError: if the file is malformed or shows no body.
        """
        name = item.name.removesuffix(ENDING)
        numbers = _NAME.fullmatch(name)
        if numbers is None:
            raise InputError(f"{item}: expected a name such as S001C001P001R001A001{ENDING}")
        setup, camera, subject, _, action = map(int, numbers.groups())
        detections = parse(read_bytes(item), str(item))
        poses, present = bodies.choose_persons(detections, self.body_rule, str(item))
        return Recording(name, action - 1, poses, present, subject, camera, setup)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Give NTU RGB+D 60's protocols, and 120's where the clips go beyond 60.

        `xsub` and `xview` are those of NTU RGB+D 60 and leave the later clips unused; `xsub120`
        and `xset` take all.
        """
        is_ntu60 = _is_ntu60(clips.labels)
        splits = {
            "xsub": _split(np.isin(clips.subjects, TRAIN_SUBJECTS), is_ntu60),
            "xview": _split(np.isin(clips.cameras, TRAIN_CAMERAS), is_ntu60),
        }
        if not is_ntu60.all():
            everything = np.ones_like(is_ntu60)
            in_training = np.isin(clips.subjects, TRAIN_SUBJECTS_NTU120)
            splits["xsub120"] = _split(in_training, everything)
            splits["xset"] = _split(clips.setups % 2 == 0, everything)
        return splits


def _is_ntu60(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which clips belong to NTU RGB+D 60: the later recordings have classes of their own."""
    return np.less(labels, NUM_CLASSES_NTU60)


def _split(in_training: NDArray[np.bool_], used: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(used, np.where(in_training, Train, Test), Unused).astype(np.int8)
