"""The poses of a recording, out of arrays: of a whole clip in a file, or of one frame in a line.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError, shown
from skelnas.sources.base import Layout, Poses
from skelnas.sources.clip_files import KEY, as_array, read_clip
from skelnas.sources.files import as_joints

Picture = tuple[float, float] | None
"""Width and height by which x and y are divided, or None for coordinates as they are."""


def read_poses(
    path: Path,
    layout: Layout,
    max_persons: int,
    picture: Picture = None,
    *,
    joints_by: str = "",
    persons_by: str = "",
) -> Poses:
    """Read a clip of known joints; see `clip_files` for the file.

    Args:
        path: the file.
        layout: the joints and channels that it has to have.
        max_persons: the most persons that it may have.
        picture: see `Picture`.
        joints_by, persons_by: ends of the messages: who asks for so many.

    Raises:
        InputError: the file is malformed, or has other joints or too many persons.
    """
    clip = read_clip(path, len(layout.joints))
    for what, found, expected in (
        ("joints", clip.joints, layout.joints),
        ("channels", clip.channels, layout.channels),
    ):
        if found and found != expected:
            raise InputError(f"{path}: expected the {what} {_some(expected)}; {_some(found)}")
    persons, frames, *joint_shape = clip.poses.shape
    if joint_shape != [len(layout.joints), len(layout.channels)]:
        raise InputError(
            f"{path}: {joint_shape[0]} joints of {joint_shape[1]} numbers, expected "
            f"{len(layout.joints)} of {len(layout.channels)}{joints_by}"
        )
    if not 1 <= persons <= max_persons or not frames:
        raise InputError(
            f"{path}: {persons} persons in {frames} frames, expected 1 to {max_persons} "
            f"persons and a frame{persons_by}"
        )
    return to_poses(clip.poses, picture)


def to_poses(array: NDArray[np.float64], picture: Picture = None) -> Poses:
    """Turn an array [M, T, V, C] into poses; a person without a joint in a frame is absent."""
    poses = as_joints(array)
    if picture:
        known = poses.any(axis=-1)
        poses[known, :2] = poses[known, :2] / np.array(picture, np.float32) - 0.5
    present: NDArray[np.bool_] = np.any(poses, axis=(2, 3))
    return poses, present


def parse_frame(line: str, where: str, layout: Layout, max_persons: int) -> NDArray[np.float64]:
    """Read one frame: JSON, [joints, channels] or [persons, joints, channels].

    An object has that under the key ``poses``. A number that is not known is null; nobody is
    null or an empty list.

    Args:
        line: the text.
        where: what it is, for the error.
        layout: the joints and channels that it has to have.
        max_persons: the most persons that it may have.

    Returns:
        [M, V, C], M from 0 on, nan where a number is not known.

    Raises:
        InputError: it is no such frame.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # too long a number, too deep a nesting
        found = shown(line.strip())
        raise InputError(f"{where}: expected a frame as JSON, found {found}") from None
    if isinstance(value, dict):
        value = value.get(KEY)
    shape = (len(layout.joints), len(layout.channels))
    if value is None or value == []:
        return np.empty((0, *shape))
    array = as_array(value)
    if array is None or array.ndim not in (2, 3) or array.shape[-2:] != shape:
        found = "something else" if array is None else f"an array {list(array.shape)}"
        raise InputError(
            f"{where}: found {found}, expected {shape[0]} joints of {shape[1]} numbers, or a list "
            "of persons with so many"
        )
    frame = array.astype(np.float64).reshape(-1, *shape)
    if len(frame) > max_persons:
        raise InputError(f"{where}: {len(frame)} persons, expected at most {max_persons}")
    return frame


def _some(names: tuple[str, ...]) -> str:
    """Write some of many names."""
    return ", ".join(names[:6]) + (f"... ({len(names)})" if len(names) > 6 else "")
