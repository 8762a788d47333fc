"""What every recording has to be, whichever source it comes from."""

from __future__ import annotations

import numpy as np

from skelnas.errors import InputError
from skelnas.sources.base import Layout, Recording

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
