"""What every raw format is turned into: recordings, and the source that yields them.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError

Poses: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""The poses [M, T, V, C] of a recording, and who is present [M, T], as `Recording` has them."""

Train, Test, Unused = 0, 1, -1
"""The values of a split: the part of a protocol that a clip belongs to."""


@dataclass(frozen=True)
class Layout:
    """The joints of one skeleton and what is known of each.

    Attributes:
        joints: name of each of the V joints, in the order of the data.
        bones: (child, parent) pairs of joint indices; may be empty.
        channels: name of each of the C numbers of a joint.
        center_joint: the joint that clips are centred on, or None where
            coordinates are already relative to the picture.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()
    channels: tuple[str, ...] = ("x", "y", "z")
    center_joint: int | None = None


@dataclass(frozen=True)
class Recording:
    """One labelled clip, with the persons that the source's rule has chosen.

    Attributes:
        name: unique within its source; the file name without its ending.
        label: class index, from 0.
        poses: [M, T, V, C] float32, M >= 1, T >= 1; all zero where a person is absent.
        present: [M, T] bool; whether the person is seen in that frame.
        subject, camera, setup: as numbered by the data set; -1 where unknown.
    """

    name: str
    label: int
    poses: NDArray[np.float32]
    present: NDArray[np.bool_]
    subject: int = -1
    camera: int = -1
    setup: int = -1


@dataclass(frozen=True)
class ClipTable:
    """The facts of many clips, one row a clip, in the order of the cache.

    Attributes:
        names: [N] str.
        labels, subjects, cameras, setups: [N] int32; -1 where unknown.
    """

    names: Sequence[str]
    labels: NDArray[np.int32]
    subjects: NDArray[np.int32]
    cameras: NDArray[np.int32]
    setups: NDArray[np.int32]


@dataclass(frozen=True)
class Catalogue:
    """What a source holds, found without reading a single clip.

    Attributes:
        items: one path a clip, in the fixed order in which the cache keeps them.
        skipped: (file name, reason) of what was left out on purpose.
        side_files: files besides the items that say something about clips, such as labels; where
            one has changed, a run that is resumed reads everything again.
    """

    items: list[Path]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    side_files: list[Path] = field(default_factory=list)


class Source(Protocol):
    """One raw format. Sources are small frozen dataclasses, so that workers can have a copy."""

    @property
    def name(self) -> str:
        """Short name, as in ``skelnas prepare NAME``."""

    @property
    def layout(self) -> Layout:
        """Joints, bones and channels."""

    @property
    def max_persons(self) -> int:
        """The most persons that a recording of this source has."""

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed: plain JSON, kept in the cache."""

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Class names in order of the class index, given the labels that occur."""

    def catalogue(self) -> Catalogue:
        """List the clips. Raises InputError where there are none."""

    def read(self, item: Path) -> Recording:
        """Read one clip. Raises InputError that names the file, the line and the reason."""

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Every protocol of the data set: name to [N] of Train, Test or Unused."""


MAX_CLASSES = 65_536
"""Labels from here on are taken for a mistake rather than for a class."""


def check_recording(recording: Recording, layout: Layout, max_persons: int) -> None:
    """Check that a recording is what its source promises.

    Raises:
        InputError: names the clip, the value and what was expected.
    """
    wrong = (
        _wrong_fact(recording)
        or _wrong_shape(recording, layout, max_persons)
        or _wrong_value(recording)
    )
    if wrong:
        raise InputError(f"clip {recording.name}: {wrong}")


def _wrong_fact(recording: Recording) -> str | None:
    name = recording.name
    if not name or "\0" in name or name != name.encode("utf-8", "replace").decode("utf-8"):
        return "the name is empty or no text, expected characters that UTF-8 can write"
    for fact, first, end in (
        ("label", 0, MAX_CLASSES),
        ("subject", -1, 2**31),
        ("camera", -1, 2**31),
        ("setup", -1, 2**31),
    ):
        value = getattr(recording, fact)
        if not isinstance(value, int | np.integer) or not first <= value < end:
            return f"{fact} {value}, expected a whole number from {first} to {end - 1}"
    return None


def _wrong_shape(recording: Recording, layout: Layout, max_persons: int) -> str | None:
    poses, present = recording.poses, recording.present
    joint_shape = (len(layout.joints), len(layout.channels))
    if poses.dtype != np.float32 or present.dtype != np.bool_:
        return f"poses are {poses.dtype} and present is {present.dtype}, expected float32 and bool"
    if poses.ndim != 4 or poses.shape[2:] != joint_shape:
        expected = f"persons x frames x {joint_shape[0]} joints x {joint_shape[1]} channels"
        return f"poses have the shape {poses.shape}, expected {expected}"
    if present.shape != poses.shape[:2]:
        return f"present has the shape {present.shape}, expected {poses.shape[:2]}"
    num_persons, num_frames = present.shape
    if not 1 <= num_persons <= max_persons:
        return f"{num_persons} persons, expected 1 to {max_persons}"
    if num_frames < 1:
        return "no frames, expected at least 1"
    return None


def _wrong_value(recording: Recording) -> str | None:
    poses, present = recording.poses, recording.present
    finite = np.isfinite(poses)
    if not finite.all():
        person, frame, joint, channel = np.argwhere(~finite)[0].tolist()
        value = poses[person, frame, joint, channel]
        where = f"person {person}, frame {frame}, joint {joint}, channel {channel} (from 0)"
        return f"{value} at {where}, expected finite numbers"
    if not present.any():
        return f"nobody is present in any of {present.shape[1]} frames"
    if not present.all() and poses[~present].any():
        person, frame = np.argwhere(~present & poses.any(axis=(2, 3)))[0].tolist()
        return f"person {person} is absent in frame {frame} (from 0), but its joints are not zero"
    return None
