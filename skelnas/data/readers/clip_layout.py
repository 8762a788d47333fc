"""The joints and channels of own recordings: as given, or else as the clips show.

What no name says is told in a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skelnas.data.readers.base import CHANNEL_ORDER, MAX_JOINTS, Layout, sort_channels
from skelnas.data.readers.channels import guess_channels
from skelnas.data.readers.clip_files import read_clip
from skelnas.data.readers.clip_tables import ClipArray
from skelnas.data.readers.layouts import LAYOUTS
from skelnas.data.readers.skeleton_file import Skeleton
from skelnas.errors import InputError

MAX_CLIPS_JUDGED = 16
"""To find out what the numbers of a joint are where no name says so."""

EXAMPLES = {3: "x,y,z or --channels x,y,score", 4: "x,y,z,score"}
"""Of names, by how many there are."""


@dataclass(frozen=True)
class ClipLayout:
    """What clips have in common.

    Attributes:
        layout: joints, bones and channels.
        channels: those of clips without names, in their order.
        notes: lines about what no name says.
    """

    layout: Layout
    channels: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_clip_layout(
    root: Path, paths: Sequence[Path], skeleton: Skeleton | None, channels: tuple[str, ...]
) -> ClipLayout:
    """Find the joints and channels: as given, or else in the clips.

    Args:
        root: the table of the clips, for error messages.
        paths: the clips.
        skeleton: the joints as given.
        channels: as given for clips without names, in their order; or empty.

    Raises:
        InputError: no clip can be read, or it stays open what the numbers of a joint are.
    """
    notes: list[str] = []
    if not skeleton or not channels:
        clips = _read_some(root, paths, len(skeleton.joints) if skeleton else None)
        path, first = next(iter(clips.items()))
        if not skeleton:
            skeleton = Skeleton(first.joints or _number_joints(first.poses.shape[2], notes))
        if not channels and first.channels:
            channels = first.channels
            _check_names(path, channels)
        elif not channels:
            channels = _judge(root, list(clips.values()), skeleton, notes)
    return ClipLayout(skeleton.make_layout(sort_channels(channels)), channels, tuple(notes))


def _read_some(root: Path, paths: Sequence[Path], num_joints: int | None) -> dict[Path, ClipArray]:
    """Read the first clip that can be read and, if it has no names, a few of the same shape."""
    step = -(-len(paths) // MAX_CLIPS_JUDGED)
    failure = InputError(f"{root}: expected clips with frames and joints, found none")
    clips: dict[Path, ClipArray] = {}
    shape: tuple[int, ...] = ()
    for number, path in enumerate(paths):
        if clips and number % step:
            continue
        try:
            clip = read_clip(path, num_joints)
        except InputError as error:
            failure = error if number == 0 else failure
            continue
        if not clip.poses.size or clip.poses.shape[2] > MAX_JOINTS:
            continue
        shape = shape or clip.poses.shape[2:]
        if clip.poses.shape[2:] == shape:
            clips[path] = clip
        if clip.channels:
            break
    if not clips:
        raise failure
    return clips


def _check_names(path: Path, channels: tuple[str, ...]) -> None:
    if not {"x", "y"} <= {*channels} <= {*CHANNEL_ORDER}:
        names = ", ".join(channels)
        raise InputError(
            f"{path}: expected the channels x, y and maybe z and score, found {names}",
            hint="if you mean them, name them all, such as --channels x,y,time",
        )


def _judge(
    root: Path, clips: list[ClipArray], skeleton: Skeleton, notes: list[str]
) -> tuple[str, ...]:
    """Return the channels that the numbers of clips without names show."""
    num_channels = clips[0].poses.shape[3]
    numbers = np.concatenate(
        [clip.poses.reshape(-1, num_channels) for clip in clips if not clip.channels]
    )
    usual = skeleton.named.channels if skeleton.named else ()
    channels, reason = guess_channels(numbers, usual)
    if not channels:
        names = EXAMPLES.get(num_channels, "x,y,...")
        raise InputError(
            f"{root}: nothing says what the {num_channels} numbers of a joint are: {reason}",
            hint=f"name them in their order: --channels {names}",
        )
    notes.append(f"channels {', '.join(channels)}: {reason} (--channels overrides)")
    return channels


def _number_joints(count: int, notes: list[str]) -> tuple[str, ...]:
    names = [name for name, named in LAYOUTS.items() if len(named.layout.joints) == count]
    if names:
        notes.append(
            f"{count} joints without names, bones and sides: if they are those of "
            f"{' or '.join(names)}, give --joints {names[0]}"
        )
    return tuple(f"joint_{joint}" for joint in range(count))
