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
from skelnas.data.readers.clip_tables import ANY_TEXT, ClipArray, TextFormat
from skelnas.data.readers.files import are_found
from skelnas.data.readers.layouts import LAYOUTS, MAX_BONE_RATIO, mean_bone_length
from skelnas.data.readers.skeleton_file import Skeleton, find_skeleton
from skelnas.errors import InputError

MAX_CLIPS_JUDGED = 16
"""To find out what the numbers of a joint are where no name says so."""

MAX_FRAMES_JUDGED = 1000

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
    root: Path,
    paths: Sequence[Path],
    skeleton: Skeleton | None,
    channels: tuple[str, ...],
    text_format: TextFormat = ANY_TEXT,
) -> ClipLayout:
    """Find the joints and channels: as given, or else in the clips.

    Args:
        root: the table of the clips, for error messages.
        paths: the clips.
        skeleton: the joints as given.
        channels: as given for clips without names, in their order; or empty.
        text_format: what the user says of clips in text.

    Raises:
        InputError: no clip can be read, or it stays open what the numbers of a joint are.
    """
    notes: list[str] = []
    if not skeleton or not channels or skeleton.named:
        num_joints = len(skeleton.joints) if skeleton else None
        clips = _read_some(root, paths, num_joints, text_format, len(channels) or None)
        path, first = next(iter(clips.items()))
        notes += first.notes
        if not skeleton and first.layout:
            skeleton = find_skeleton(Path(first.layout))
            notes.append(f"joints of {first.layout}, as the files have")
        elif not skeleton:
            skeleton = Skeleton(first.joints or _number_joints(first, notes))
        if not channels and first.channels:
            channels = first.channels
            _check_names(path, channels)
        elif not channels:
            channels = _judge(root, list(clips.values()), skeleton, notes)
        if skeleton.named and (first.layout or not first.joints):
            _doubt(skeleton.named, list(clips.values()), channels, notes)
    return ClipLayout(skeleton.make_layout(sort_channels(channels)), channels, tuple(notes))


def _read_some(
    root: Path,
    paths: Sequence[Path],
    num_joints: int | None,
    text_format: TextFormat,
    num_channels: int | None,
) -> dict[Path, ClipArray]:
    """Read the first clip that can be read and, if it has no names, a few of the same shape."""
    step = -(-len(paths) // MAX_CLIPS_JUDGED)
    failure = InputError(f"{root}: expected clips with frames and joints, found none")
    clips: dict[Path, ClipArray] = {}
    shape: tuple[int, ...] = ()
    for number, path in enumerate(paths):
        if clips and number % step:
            continue
        try:
            clip = read_clip(path, num_joints, text_format, num_channels)
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


def _number_joints(clip: ClipArray, notes: list[str]) -> tuple[str, ...]:
    """Return numbered names, and note the layouts that the joints may be those of."""
    count, num_channels = clip.poses.shape[2:]
    lengths = _find_bone_lengths([clip], ("x", "y")) if num_channels > 1 else {}
    names = [name for name in lengths if lengths[name] <= MAX_BONE_RATIO * min(lengths.values())]
    if names:
        notes.append(
            f"{count} joints without names, bones and sides: if they are those of "
            f"{' or '.join(names)}, give --joints {names[0]}"
        )
    return tuple(f"joint_{joint}" for joint in range(count))


def _doubt(
    layout: Layout, clips: list[ClipArray], channels: tuple[str, ...], notes: list[str]
) -> None:
    """Note another layout of as many joints if its bones would be much shorter."""
    lengths = _find_bone_lengths(clips, channels)
    shortest = min(lengths, key=lengths.__getitem__)
    (given,) = (lengths[name] for name in lengths if LAYOUTS[name].layout == layout)
    if given > MAX_BONE_RATIO * lengths[shortest]:
        notes.append(
            f"are these joints in another order? With --joints {shortest}, bones would be "
            f"{given / lengths[shortest]:.1f} times shorter"
        )


def _find_bone_lengths(clips: list[ClipArray], channels: tuple[str, ...]) -> dict[str, float]:
    """Return the mean length of the bones of every layout with as many joints as the clips.

    Args:
        clips: of the same shape.
        channels: the first of each joint's numbers, in their order.
    """
    axes = [channels.index(name) for name in CHANNEL_ORDER[:3] if name in channels]
    frames = np.concatenate([np.concatenate([*clip.poses]) for clip in clips])  # [n, V, C]
    frames = frames[:: 1 + len(frames) // MAX_FRAMES_JUDGED, :, : len(channels)]
    points = np.where(are_found(frames, channels)[..., None], frames, np.nan)[..., axes]
    return {
        name: mean_bone_length(points, layout.bones)
        for name, (layout, _) in LAYOUTS.items()
        if len(layout.joints) == points.shape[1]
    }
