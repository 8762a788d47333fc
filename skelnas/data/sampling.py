"""Temporal sampling: where in each clip the frames of a batch are taken, and the poses there.

Shapes: N clips of a batch, R rows (one person in one frame), M persons, T frames, V joints, C
channels of a joint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skelnas.config import ClipSettings
from skelnas.data.cache import Clips


@dataclass(frozen=True)
class PackedClips:
    """Clips of different lengths in one tensor, without padding.

    Frame t of person m of clip i is row ``starts[i] + m * num_frames[i] + t``. There may be rows
    in between that belong to none of the N clips.

    Attributes:
        poses: [R, V, C] float32 or float16.
        present: [R] bool, whether the person is seen in that frame.
        starts, num_persons, num_frames: [N] int64.
        found: [R, V] bool, which joints were found; None if all joints of present persons were.
    """

    poses: Tensor
    present: Tensor
    starts: Tensor
    num_persons: Tensor
    num_frames: Tensor
    found: Tensor | None = None

    @classmethod
    def from_cache(cls, clips: Clips) -> PackedClips:
        """Wrap clips loaded from a cache, without copying them."""
        columns = (clips.poses, clips.present, clips.starts, clips.num_persons, clips.num_frames)
        return cls(*map(torch.from_numpy, columns))

    def to(self, device: torch.device) -> PackedClips:
        """Return a copy on a device; from pinned memory the copy is asynchronous."""
        columns = (
            None if column is None else column.to(device, non_blocking=True)
            for column in vars(self).values()
        )
        return PackedClips(*columns)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TemporalCrop:
    """A contiguous part of a clip.

    Attributes:
        length: fraction of the clip, from 0 to 1.
        start: 0 for a crop at the start of the clip, 1 for one at its end.
    """

    length: float
    start: float

    def expand(self, num_clips: int) -> Tensor:
        """Return [2, N, 1]: the same crop for every clip, as `frame_positions` takes it."""
        crop = torch.tensor([self.length, self.start])
        return crop[:, None, None].expand(2, num_clips, 1)  # [2] -> [2, N, 1]


def frame_positions(num_frames: Tensor, settings: ClipSettings, crop: Tensor | None) -> Tensor:
    """Return the positions [N, T] at which each clip is sampled, in (fractions of) frames.

    Args:
        num_frames: [N], the length of each clip.
        settings: T, and how frames are sampled.
        crop: [2, N, 1], length and start of each clip's `TemporalCrop`; None for whole clips.
    """
    last = (num_frames - 1).float()[:, None]  # [N, 1]
    begin, span = torch.zeros_like(last), last
    if crop is not None:
        length, start = crop
        span = last * length
        begin = (last - span) * start
    steps = torch.arange(settings.frames, device=last.device)  # [T]
    if settings.interpolation == "linear":
        return begin + span * (steps / max(settings.frames - 1, 1))
    return (begin + (span + 1) * steps / settings.frames).floor().clamp(max=last)


def sample_poses(
    clips: PackedClips, positions: Tensor, max_persons: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Interpolate clips at fractional positions [N, T].

    Between two frames, a person counts as present if they are in the nearer one, and their pose
    is interpolated only if they are in both. The same goes for each joint that was not found.

    Returns:
        Poses [N, M, T, V, C] float32, undefined where a person is absent or a joint not found;
        presence [N, M, T] bool; and which joints were found, [N, M, T, V] bool, or None if all
        joints of present persons were.
    """
    before = positions.floor().long()  # [N, T]
    after = torch.minimum(before + 1, clips.num_frames[:, None] - 1)
    fraction = (positions - before)[:, None]  # [N, 1, T]

    persons = torch.arange(max_persons, device=positions.device)
    exists = (persons < clips.num_persons[:, None])[..., None]  # [N, M, 1]
    person_starts = clips.starts[:, None] + persons * clips.num_frames[:, None]  # [N, M]
    rows_before, rows_after = (
        torch.where(exists, person_starts[..., None] + frames[:, None], 0)  # [N, M, T]
        for frames in (before, after)
    )
    seen_before = clips.present[rows_before] & exists
    seen_after = clips.present[rows_after] & exists
    present, weight = _choose_nearer(seen_before, seen_after, fraction)  # [N, M, T]
    weight, found = weight[..., None], None
    if clips.found is not None:
        found, weight = _choose_nearer(
            clips.found[rows_before] & seen_before[..., None],  # [N, M, T, V]
            clips.found[rows_after] & seen_after[..., None],
            fraction[..., None],
        )
    poses_before, poses_after = clips.poses[rows_before], clips.poses[rows_after]
    poses = torch.lerp(poses_before.float(), poses_after.float(), weight[..., None])
    return poses, present, found


def _choose_nearer(before: Tensor, after: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether something is seen between two frames, and the weight of the later frame.

    Args:
        before, after: bool, whether it is seen in each of the frames.
        fraction: from 0 at the earlier frame to 1 at the later one.
    """
    is_nearer_after = fraction > 0.5
    weight = torch.where(before & after, fraction, is_nearer_after.to(fraction.dtype))
    return torch.where(is_nearer_after, after, before), weight
