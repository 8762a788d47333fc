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
    """

    poses: Tensor
    present: Tensor
    starts: Tensor
    num_persons: Tensor
    num_frames: Tensor

    @classmethod
    def from_cache(cls, clips: Clips) -> PackedClips:
        """Wrap clips loaded from a cache, without copying them."""
        columns = (clips.poses, clips.present, clips.starts, clips.num_persons, clips.num_frames)
        return cls(*map(torch.from_numpy, columns))

    def to(self, device: torch.device) -> PackedClips:
        """Return a copy on a device; from pinned memory the copy is asynchronous."""
        return PackedClips(
            *(column.to(device, non_blocking=True) for column in vars(self).values())
        )


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


def sample_poses(clips: PackedClips, positions: Tensor, max_persons: int) -> tuple[Tensor, Tensor]:
    """Interpolate clips at fractional positions [N, T].

    Between two frames, a person counts as present if they are in the nearer one, and their pose
    is interpolated only if they are in both.

    Returns:
        Poses [N, M, T, V, C] float32, undefined where a person is absent, and presence
        [N, M, T] bool.
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
    nearer_after = fraction > 0.5
    present = torch.where(nearer_after, seen_after, seen_before)
    weight = torch.where(seen_before & seen_after, fraction, nearer_after.to(fraction.dtype))
    weight = weight[..., None, None]  # [N, M, T] -> [N, M, T, 1, 1]
    poses = torch.lerp(clips.poses[rows_before].float(), clips.poses[rows_after].float(), weight)
    return poses, present
