"""Clip names, classes, joints and protocols of NTU RGB+D 60 and 120.

Shared by all readers of its clips: raw files, pickles, `.npz` and the synthetic source.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import ClipTable, Test, Train, Unused
from skelnas.data.readers.files import packaged_names
from skelnas.data.readers.layouts import find_layout

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

LAYOUT = replace(find_layout("kinect-v2"), frame_rate=30)


class ClipName(NamedTuple):
    """The five numbers of a clip's name, such as S001C002P003R001A010."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    def __str__(self) -> str:
        return "S{:03}C{:03}P{:03}R{:03}A{:03}".format(*self)


def parse_name(name: str) -> ClipName | None:
    """Parse the numbers in a clip's name; return None if it is not such a name."""
    numbers = _NAME.fullmatch(name)
    return ClipName(*map(int, numbers.groups())) if numbers else None


def class_names(labels: NDArray[np.int32]) -> list[str]:
    """Return the 60 class names of NTU RGB+D 60, or all 120 if a later one occurs."""
    names = packaged_names("ntu_classes.txt")
    return list(names[:NUM_CLASSES_NTU60] if _is_ntu60(labels).all() else names)


def official_splits(clips: ClipTable) -> dict[str, NDArray[np.int8]]:
    """Return the protocols of NTU RGB+D 60, and those of 120 if there are later clips.

    `xsub` and `xview` are those of NTU RGB+D 60 and leave later clips unused; `xsub120` and `xset`
    use all clips.
    """
    is_ntu60 = _is_ntu60(clips.labels)
    splits = {
        "xsub": _split(np.isin(clips.subjects, TRAIN_SUBJECTS), is_ntu60),
        "xview": _split(np.isin(clips.cameras, TRAIN_CAMERAS), is_ntu60),
    }
    if not is_ntu60.all():
        is_used = np.ones_like(is_ntu60)
        is_train = np.isin(clips.subjects, TRAIN_SUBJECTS_NTU120)
        splits["xsub120"] = _split(is_train, is_used)
        splits["xset"] = _split(clips.setups % 2 == 0, is_used)
    return splits


def _is_ntu60(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each clip belongs to NTU RGB+D 60: later recordings have new classes."""
    return np.less(labels, NUM_CLASSES_NTU60)


def _split(is_train: NDArray[np.bool_], is_used: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(is_used, np.where(is_train, Train, Test), Unused).astype(np.int8)
