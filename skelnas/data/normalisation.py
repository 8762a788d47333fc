"""What normalises a clip: which of its joints were found, its origin and the axes of its body.

A joint that was not found is all zero in the cache. It is never an origin or an end of an axis,
and stays zero.

Shapes: N clips, R rows (one person in one frame), V joints, C channels of a joint, D of them
spatial coordinates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skelnas.data.readers.base import Layout
from skelnas.data.sampling import PackedClips
from skelnas.data.streams import num_spatial
from skelnas.errors import InputError

SPINE = ("spine_base", "spine_mid")
HIPS = ("hip_right", "hip_left")
"""Joints that define an aligned body: the spine points along y, the hips lie along x."""

MAX_STEP, MAX_OFFSET, MAX_CENTER_OFFSET = 0.1, 0.25, 0.5
"""In sizes of the body, see `_mark_roots` (ours)."""

ROWS_AT_A_TIME = 10_000
"""These fit into a processor's cache."""


def find_joints(clips: PackedClips, layout: Layout) -> PackedClips:
    """Fill in `found`, unless every joint of every present person was found.

    All R rows must belong to the N clips.
    """
    found = _find_nonzero(clips)
    if found is None:
        return clips
    if num_spatial(layout) == len(layout.channels):  # no score says which zeros are positions
        _mark_roots(replace(clips, found=found), layout.center_joint)
    if bool((found | ~clips.present[:, None]).all()):
        return clips
    return replace(clips, found=found)


def find_origins(clips: PackedClips, layout: Layout) -> tuple[Tensor | None, Tensor]:
    """Find the origin of each clip: its centre joint in the first row in which that was found.

    Without such a row, it is the mean of the joints found in the first row.

    Returns:
        [N, D], or None if the layout has no centre joint; and [N] bool, where it is a mean.
    """
    center, size = layout.center_joint, num_spatial(layout)
    if center is None:
        return None, torch.zeros(len(clips.starts), dtype=torch.bool)
    rows = _find_first_rows(clips, _rows_with(clips, [center]))
    is_missing = rows == len(clips.poses)
    origins = clips.poses[rows.clamp(max=len(clips.poses) - 1), center, :size]
    if is_missing.any():
        rows = _find_first_rows(clips, clips.present)[is_missing]
        origins[is_missing] = _mean_of_found(clips, rows, size)
    return origins, is_missing


def find_middle(clips: PackedClips, layout: Layout) -> Tensor | None:
    """Find the middle of coordinates that are measured from a corner, such as pixels.

    Returns:
        [D], the middle of the joints that were found in any clip; None if some are negative.
    """
    size = num_spatial(layout)
    space = clips.poses[..., :size]  # [R, V, D]
    if not len(space) or bool(space.min() < 0):
        return None
    found = clips.present[:, None] if clips.found is None else clips.found  # [R, V] or [R, 1]
    low = [
        poses.masked_fill(~seen[..., None], torch.inf).amin((0, 1))
        for poses, seen in zip(_chunks(space), _chunks(found), strict=True)
    ]
    return (torch.stack(low).amin(0) + space.amax((0, 1))) / 2


def find_rotations(clips: PackedClips, layout: Layout) -> tuple[Tensor, Tensor]:
    """Find rotations whose rows are the body's axes, in the first row with hips and spine.

    The spine then points up: along y, or against it where y grows downwards. A body without such
    a row, or whose axes are undefined because joints coincide, is not rotated.

    Returns:
        [N, 3, 3]; and [N] bool, the clips in which hips and spine are never found together.

    Raises:
        InputError: the layout lacks hips, spine or depth.
    """
    joints = {name: index for index, name in enumerate(layout.joints)}
    if num_spatial(layout) != 3 or not set(SPINE + HIPS) <= set(joints):
        raise InputError(
            f"clips cannot be aligned: that takes the 3-D joints {', '.join(SPINE + HIPS)}",
            hint="leave out --align for this cache",
        )
    rows = _find_first_rows(clips, _rows_with(clips, [joints[name] for name in SPINE + HIPS]))
    is_missing = rows == len(clips.poses)
    poses = clips.poses[rows.clamp(max=len(clips.poses) - 1)]  # [N, V, C]

    def direction(start: str, end: str) -> Tensor:  # [N, 3]
        return poses[:, joints[end], :3] - poses[:, joints[start], :3]

    up = torch.nn.functional.normalize(direction(*SPINE), dim=1)
    side = direction(*HIPS)
    side = side - (side * up).sum(1, keepdim=True) * up
    side = torch.nn.functional.normalize(side, dim=1)
    y = -up if layout.y_down else up
    rotations = torch.stack([side, y, torch.linalg.cross(side, y)], dim=1)  # [N, 3, 3]
    undefined = is_missing | (up.norm(dim=1) < 0.5) | (side.norm(dim=1) < 0.5)
    rotations[undefined] = torch.eye(3)
    return rotations, is_missing


def _chunks(values: Tensor) -> tuple[Tensor, ...]:
    """Split values [R, ...] so that intermediate tensors are small."""
    return torch.split(values, ROWS_AT_A_TIME)


def _find_nonzero(clips: PackedClips) -> Tensor | None:
    """Return [R, V] bool, which joints are not all zero; None if those of present persons are not.

    In complete clips, this reads x alone.
    """
    poses, present = clips.poses.numpy(), clips.present.numpy()  # several times as fast
    nonzero = np.empty(poses.shape[:2], dtype=np.bool_)
    has_gaps = False
    for start in range(0, len(poses), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        np.not_equal(poses[rows, :, 0], 0, out=nonzero[rows])
        if not nonzero[rows].all():
            gaps = start + np.flatnonzero(present[rows] & ~nonzero[rows].all(axis=1))
            nonzero[gaps] = poses[gaps].any(axis=2)
            has_gaps |= not nonzero[gaps].all()
    return torch.from_numpy(nonzero) if has_gaps else None


def _mark_roots(clips: PackedClips, center: int | None) -> None:
    """Mark as found the joint of each clip that its coordinates are relative to, if there is one.

    Its zeros are a position. In every frame, it is the centre joint or the only joint that is
    never found, and the body is around it. In the first frame alone, it is the centre joint, and
    its next position is a small step away.

    Args:
        clips: with `found`, which changes; all channels are coordinates.
        center: index of the centre joint, or None.
    """
    assert clips.found is not None
    first = _find_first_rows(clips, clips.present)
    rows = first.clamp(max=len(clips.poses) - 1)
    is_zero = ~clips.found[rows]  # [N, V]
    if not is_zero.any():
        return
    poses = clips.poses[rows]  # [N, V, C]
    high = poses.masked_fill(is_zero[..., None], -torch.inf).amax(1)
    low = poses.masked_fill(is_zero[..., None], torch.inf).amin(1)
    body_size = (high - low).clamp(min=0).norm(dim=1)  # [N]
    offset = _mean_of_found(clips, rows, poses.shape[2]).norm(dim=1)

    never = is_zero & ~_ever_found(clips)  # [N, V]
    is_root = never & (never.sum(1) == 1)[:, None] & (offset < MAX_OFFSET * body_size)[:, None]
    if center is not None:
        person = (first - clips.starts) // clips.num_frames
        end = clips.starts + (person + 1) * clips.num_frames  # of the rows of this person
        next_rows = _find_first_rows(clips, clips.found[:, center])
        step = clips.poses[next_rows.clamp(max=len(clips.poses) - 1), center].norm(dim=1)
        is_center = torch.where(
            next_rows < end, step < MAX_STEP * body_size, offset < MAX_CENTER_OFFSET * body_size
        )
        is_root[is_zero[:, center]] = False
        is_root[:, center] = is_zero[:, center] & is_center
    if is_root.any():
        clip = _repeat_over_rows(torch.arange(len(first)), clips)  # [R]
        for found, present, index in zip(
            _chunks(clips.found), _chunks(clips.present), _chunks(clip), strict=True
        ):
            found |= is_root[index] & present[:, None]


def _ever_found(clips: PackedClips) -> Tensor:
    """Return [N, V] bool, which joints are found in some frame of some person."""
    assert clips.found is not None
    counts = torch.zeros(len(clips.starts), clips.found.shape[1], dtype=torch.int32)
    clip = _repeat_over_rows(torch.arange(len(clips.starts)), clips)
    for clip_of_row, found in zip(_chunks(clip), _chunks(clips.found), strict=True):
        counts.index_add_(0, clip_of_row, found.int())
    return counts > 0


def _mean_of_found(clips: PackedClips, rows: Tensor, size: int) -> Tensor:
    """Return [n, D], the mean of the joints found in each of n rows; others are zero."""
    assert clips.found is not None
    total = clips.poses[rows, :, :size].sum(1)  # [n, V, D] -> [n, D]
    return total / clips.found[rows].sum(1, keepdim=True).clamp(min=1)


def _rows_with(clips: PackedClips, joints: list[int]) -> Tensor:
    """Return [R] bool, the rows with a person in which all of these joints were found."""
    return clips.present if clips.found is None else clips.found[:, joints].all(1)


def _find_first_rows(clips: PackedClips, eligible: Tensor) -> Tensor:
    """Return [N], the first eligible row of each clip; R, one past the end, without one.

    The rows of a clip are all frames of the first person, then those of the second.

    Args:
        clips: all R rows belong to the N clips.
        eligible: [R] bool.
    """
    num_rows = len(eligible)
    clip = _repeat_over_rows(torch.arange(len(clips.starts)), clips)
    row = torch.where(eligible, torch.arange(num_rows), num_rows)
    first = torch.full((len(clips.starts),), num_rows)
    return first.scatter_reduce(0, clip, row, "amin")  # [R] -> [N]


def _repeat_over_rows(values: Tensor, clips: PackedClips) -> Tensor:
    """Repeat values [N] over the rows [R] of the clips."""
    return values.repeat_interleave(clips.num_persons * clips.num_frames)
