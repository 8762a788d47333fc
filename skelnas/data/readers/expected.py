"""Fit a clip to the layout that is expected of it.

Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import MAX_COORDINATE, Layout, Poses
from skelnas.data.readers.channels import check_channels
from skelnas.data.readers.clip_tables import ClipArray
from skelnas.data.readers.files import are_found, as_joints
from skelnas.data.readers.joint_names import find_joint_order, order_channels, order_joints
from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, UsageError

Picture = tuple[float, float] | None
"""Width and height to divide x and y by, or None to leave coordinates as they are."""


def parse_picture(text: str) -> Picture:
    """Parse the option --picture, a width and a height in pixels."""
    if not text:
        return None
    if not re.fullmatch(r"[1-9]\d{0,5}x[1-9]\d{0,5}", text, re.ASCII):
        raise UsageError(f"--picture {text}: expected width x height such as 1920x1080")
    width, height = text.split("x")
    return float(width), float(height)


@dataclass(frozen=True)
class Expected:
    """What is expected of a clip.

    Attributes:
        layout: its joints and channels.
        max_persons: maximum number of persons.
        picture: see `Picture`.
        channels: those of an array without names, in its order; by default the layout's.
        are_channels_given: whether the user named them, so that they are not doubted.
        joints_note, persons_note: ends of the messages about a wrong number of joints or persons;
            say where the expected number comes from.
    """

    layout: Layout
    max_persons: int
    picture: Picture = None
    channels: tuple[str, ...] = ()
    are_channels_given: bool = False
    joints_note: str = ""
    persons_note: str = ""

    @property
    def channel_order(self) -> tuple[str, ...]:
        """The channels of an array without names, in its order."""
        return self.channels or self.layout.channels


def fit_poses(clip: ClipArray, where: str, expected: Expected) -> Poses:
    """Turn a clip into poses of the expected layout; named joints may be in any order.

    Args:
        clip: as read.
        where: name of the clip, for error messages.
        expected: what it has to be.

    Raises:
        InputError: it has other joints, too many persons or numbers that cannot be right.
    """
    poses, joints, layout = clip.poses, clip.joints, expected.layout
    if joints:
        poses = poses[:, :, order_known_joints(joints, clip.other_layout, layout, where)]
    if clip.channels:
        order_channels(clip.channels, layout, where)
    persons, frames, *joint_shape = poses.shape
    if joint_shape != [len(layout.joints), len(layout.channels)]:
        raise InputError(
            f"{where}: {joint_shape[0]} joints of {joint_shape[1]} numbers, expected "
            f"{len(layout.joints)} of {len(layout.channels)}{expected.joints_note}"
        )
    order = order_channels(clip.channels or expected.channel_order, layout, where)
    if not 1 <= persons <= expected.max_persons or not frames:
        raise InputError(
            f"{where}: {persons} persons in {frames} frames, expected 1 to "
            f"{expected.max_persons} persons and a frame{expected.persons_note}"
        )
    poses = poses[..., order]
    check_size(poses, where)
    if not clip.channels and not expected.are_channels_given:
        check_channels(poses, layout.channels, where)
    return to_poses(poses, layout.channels, expected.picture)


def order_known_joints(
    joints: tuple[str, ...], other: str, layout: Layout, where: str
) -> list[int]:
    """Return the index of each joint of the layout among those of a file.

    Args:
        joints: names in the file.
        other: name of another layout that the file may have as well, if any.
        layout: the expected one.
        where: for the message.

    Raises:
        InputError: others were found.
    """
    if other and find_joint_order(find_layout(other).joints, layout.joints) is not None:
        joints = find_layout(other).joints
    return order_joints(joints, layout, where)


def check_size(numbers: NDArray[np.float64], where: str) -> None:
    """Raise InputError if a number is implausibly large."""
    is_large = np.isfinite(numbers) & (np.abs(numbers) > MAX_COORDINATE)
    if is_large.any():
        raise InputError(
            f"{where}: expected numbers up to {MAX_COORDINATE:,.0f}, "
            f"found {numbers[is_large][0]:g} at {np.argwhere(is_large)[0].tolist()} (from 0)"
        )


def to_poses(array: NDArray[np.float64], channels: Sequence[str], picture: Picture = None) -> Poses:
    """Turn an array [M, T, V, C] into poses; a person without joints in a frame is absent."""
    present: NDArray[np.bool_] = np.any(are_found(array, channels), axis=-1)
    return as_joints(array, channels, picture), present
