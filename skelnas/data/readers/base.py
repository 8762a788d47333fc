"""The interface of a reader: `Source`, and the `Recording` that every raw format becomes.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError

Poses: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""`poses` [M, T, V, C] and `present` [M, T] of a `Recording`."""

Train, Test, Unused = 0, 1, -1
"""The values of a split: the part of a protocol that a clip belongs to."""

MAX_CLASSES = 65_536
"""A label this large is a mistake in the data, not a class."""

MAX_JOINTS = 10_000
"""Of a person; also the maximum number of bones."""

MAX_CHANNELS = 64
"""Of a joint."""

MAX_COORDINATE = 1e6
"""A larger number is a mistake in the data: a kilometre in millimetres is not beyond it."""

CHANNEL_ORDER = ("x", "y", "z", "score")
"""The order in which the numbers of a joint are stored."""

SCORE_NAMES = frozenset(
    (
        *("score", "confidence", "conf", "c", "s", "likelihood", "probability"),
        *("visibility", "visible", "vis", "v"),
    )
)
"""Names of the channel that says how certain a joint is; 0 means that it was not found."""


def fold_name(name: str) -> str:
    """Return the form in which names of joints and channels are compared."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def channel_name(name: str) -> str:
    """Return the standard name of a channel: x, y, z or score; of others, the folded name."""
    folded = fold_name(name)
    return "score" if folded in SCORE_NAMES else folded


def sort_channels(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Sort standard names by `CHANNEL_ORDER`; others follow in their order."""
    return (
        *(name for name in CHANNEL_ORDER if name in channels),
        *(name for name in channels if name not in CHANNEL_ORDER),
    )


def num_coordinates(channels: Sequence[str]) -> int:
    """Return how many of the first channels are coordinates: 3, or 2 unless they are x, y, z."""
    return 3 if tuple(channels[:3]) == ("x", "y", "z") else 2


@dataclass(frozen=True)
class Layout:
    """The joints of a skeleton.

    Attributes:
        joints: names of the V joints, in the order of the data.
        bones: (child, parent) pairs of joint indices; may be empty.
        channels: names of the C numbers of a joint.
        center_joint: index of the joint that clips are centred on; None where coordinates are
            already relative to the picture.
        y_down: whether y grows downwards. None becomes True without a z, as in pictures, and
            False with one.
        frame_rate: frames per second, where all clips have the same; None where it is not known.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()
    channels: tuple[str, ...] = ("x", "y", "z")
    center_joint: int | None = None
    y_down: bool | None = None
    frame_rate: float | None = None

    def __post_init__(self) -> None:
        """Resolve `y_down`."""
        if self.y_down is None:
            object.__setattr__(self, "y_down", self._is_picture)

    @property
    def _is_picture(self) -> bool:
        return "z" not in map(str.casefold, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers, without the last two where they say nothing."""
        fields = asdict(self)
        if self.y_down == self._is_picture:
            del fields["y_down"]
        if self.frame_rate is None:
            del fields["frame_rate"]
        return fields


@dataclass(frozen=True)
class Recording:
    """One labelled clip, with the persons chosen by the rule of its source.

    Attributes:
        name: unique within its source; usually the file name without its extension.
        label: class index, from 0.
        poses: [M, T, V, C] float32, M >= 1, T >= 1; zero where a person is absent.
        present: [M, T] bool; whether the person is visible in the frame.
        subject, camera, setup: numbers assigned by the dataset; -1 where unknown.
    """

    name: str
    label: int
    poses: NDArray[np.float32]
    present: NDArray[np.bool_]
    subject: int = -1
    camera: int = -1
    setup: int = -1


class BrokenFile(NamedTuple):
    """A file without a usable recording, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class ClipTable:
    """Metadata of the clips in a cache, one row per clip.

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
    """The clips of a source, listed without reading any.

    Attributes:
        items: one path per clip, in the order of the cache.
        skipped: (file name, reason) of the files left out on purpose.
        side_files: other files that describe the clips, such as label lists. If one has changed,
            a resumed run reads everything again.
    """

    items: list[Path]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    side_files: list[Path] = field(default_factory=list)


class Source(Protocol):
    """A reader of one raw format: a small frozen dataclass, so that workers can unpickle it.

    One whose x and y are fractions of the picture, less 0.5, may say so by a true `in_picture`:
    then clips with joints far outside it are noted.
    """

    @property
    def name(self) -> str:
        """Short name, as in ``skelnas prepare NAME``."""

    @property
    def layout(self) -> Layout:
        """Joints, bones and channels."""

    @property
    def max_persons(self) -> int:
        """Maximum number of persons in a recording."""

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed: plain JSON, stored in the cache."""

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the class names in label order, given the labels that occur."""

    def catalogue(self) -> Catalogue:
        """List the clips. Raises InputError if there are none."""

    def read(self, item: Path) -> Recording:
        """Read one clip. Raises InputError naming the file, the line and the reason."""

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Map each protocol of the dataset to [N] values of Train, Test or Unused."""


def find_layout_problem(layout: Layout) -> str | None:
    """Return what is wrong with a layout, or None."""
    num_joints = len(layout.joints)
    for kind, names, most in (
        ("joints", layout.joints, MAX_JOINTS),
        ("channels", layout.channels, MAX_CHANNELS),
    ):
        if not 1 <= len(names) <= most or len(set(names)) < len(names):
            return f"{len(names)} {kind}, expected 1 to {most} of different names"
    if len(layout.bones) > MAX_JOINTS:
        return f"{len(layout.bones)} bones, expected at most {MAX_JOINTS}"
    center = layout.center_joint or 0
    if not all(0 <= joint < num_joints for joint in chain(*layout.bones, [center])):
        return f"a bone or the centre is not one of joints 0 to {num_joints - 1}"
    children = TopologicalSorter[int]()
    for child, parent in layout.bones:
        children.add(child, parent)
    try:
        children.prepare()
    except CycleError as error:
        circle = " - ".join(layout.joints[joint] for joint in error.args[1][:8])
        return f"the bones form a circle: {circle}"
    if layout.frame_rate is not None and not 0 < layout.frame_rate < math.inf:
        return f"a frame rate of {layout.frame_rate}, expected a number above 0"
    return None


def check_recording(recording: Recording, layout: Layout, max_persons: int) -> None:
    """Check a recording against what its source promises.

    Raises:
        InputError: names the clip, the value and what was expected.
    """
    if problem := find_problem(recording, layout, max_persons):
        raise InputError(f"clip {recording.name}: {problem}")


def find_problem(recording: Recording, layout: Layout, max_persons: int) -> str | None:
    """Return how a recording breaks the promise of its source, or None if it does not."""
    return (
        _metadata_problem(recording)
        or _shape_problem(recording, layout, max_persons)
        or _value_problem(recording)
    )


def _metadata_problem(recording: Recording) -> str | None:
    name = recording.name
    if not name or "\0" in name or name != name.encode("utf-8", "replace").decode("utf-8"):
        return "the name is empty or cannot be encoded as UTF-8"
    for field_name, first, end in (
        ("label", 0, MAX_CLASSES),
        ("subject", -1, 2**31),
        ("camera", -1, 2**31),
        ("setup", -1, 2**31),
    ):
        value = getattr(recording, field_name)
        if not isinstance(value, int | np.integer) or not first <= value < end:
            return f"{field_name} {value}, expected a whole number from {first} to {end - 1}"
    return None


def _shape_problem(recording: Recording, layout: Layout, max_persons: int) -> str | None:
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


def _value_problem(recording: Recording) -> str | None:
    poses, present = recording.poses, recording.present
    finite = np.isfinite(poses)
    if not finite.all():
        person, frame, joint, channel = np.argwhere(~finite)[0].tolist()
        value = poses[person, frame, joint, channel]
        where = f"person {person}, frame {frame}, joint {joint}, channel {channel} (from 0)"
        return f"{value} at {where}, expected finite numbers"
    if np.abs(poses).max() > MAX_COORDINATE:
        person, frame, joint, channel = np.argwhere(np.abs(poses) > MAX_COORDINATE)[0].tolist()
        value = poses[person, frame, joint, channel]
        where = f"person {person}, frame {frame}, joint {joint}, channel {channel} (from 0)"
        return f"{value:g} at {where}, expected at most {MAX_COORDINATE:,.0f}"
    if not present.any():
        return f"nobody is present in any of {present.shape[1]} frames"
    if not present.all() and poses[~present].any():
        person, frame = np.argwhere(~present & poses.any(axis=(2, 3)))[0].tolist()
        return f"person {person} is absent in frame {frame} (from 0), but its joints are not zero"
    return None
