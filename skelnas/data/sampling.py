"""Where in time the frames of a batch are taken, and poses at those positions.

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
class Rows:
    """Clips at their own lengths.

    Clip i has rows ``starts[i] + m * num_frames[i] + t`` for person m and frame t; rows that
    belong to none of the N clips may lie between.

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
    def of(cls, clips: Clips) -> Rows:
        """Return the clips of a cache, without a copy."""
        columns = (clips.poses, clips.present, clips.starts, clips.num_persons, clips.num_frames)
        return cls(*map(torch.from_numpy, columns))

    def to(self, device: torch.device) -> Rows:
        """Return the same on a device; from pinned memory without waiting for the copy."""
        return Rows(*(column.to(device, non_blocking=True) for column in vars(self).values()))


@dataclass(frozen=True)
class Stretch:
    """A part of a clip in time.

    Attributes:
        share: of its frames, from 0 to 1.
        place: where in what is left over it begins, from 0 to 1.
    """

    share: float
    place: float

    def of_clips(self, count: int) -> Tensor:
        """Return [2, N, 1], the same for every clip, as `positions` takes it."""
        return torch.tensor([self.share, self.place])[:, None, None].expand(2, count, 1)


def positions(num_frames: Tensor, settings: ClipSettings, stretch: Tensor | None) -> Tensor:
    """Return [N, T], where in each clip its T frames are taken, in (fractions of) frames.

    Args:
        num_frames: [N], how long each clip is.
        settings: T, and how frames are sampled.
        stretch: [2, N, 1], the share of each clip that is used and where in what is left it
            begins, both from 0 to 1; or None for whole clips.
    """
    last = (num_frames - 1).float()[:, None]
    begin, span = torch.zeros_like(last), last
    if stretch is not None:
        share, place = stretch
        span = last * share
        begin = (last - span) * place
    steps = torch.arange(settings.frames, device=last.device)
    if settings.interpolation == "linear":
        return begin + span * (steps / max(settings.frames - 1, 1))
    return (begin + (span + 1) * steps / settings.frames).floor().clamp(max=last)


def sample(rows: Rows, positions: Tensor, max_persons: int) -> tuple[Tensor, Tensor]:
    """Return poses [N, M, T, V, C] float32 and presence [N, M, T] at fractional positions [N, T].

    Between two frames a person is present if they are in the nearer one, and is moved in a
    straight line only if they are in both. Poses of who is absent mean nothing.
    """
    before = positions.floor().long()
    after = torch.minimum(before + 1, rows.num_frames[:, None] - 1)
    fraction = (positions - before)[:, None]

    persons = torch.arange(max_persons, device=positions.device)
    exists = (persons < rows.num_persons[:, None])[..., None]
    person_starts = rows.starts[:, None] + persons * rows.num_frames[:, None]
    rows_before, rows_after = (
        torch.where(exists, person_starts[..., None] + frames[:, None], 0)
        for frames in (before, after)
    )
    seen_before = rows.present[rows_before] & exists
    seen_after = rows.present[rows_after] & exists
    nearer_after = fraction > 0.5
    present = torch.where(nearer_after, seen_after, seen_before)
    weight = torch.where(seen_before & seen_after, fraction, nearer_after.to(fraction.dtype))
    weight = weight[..., None, None]
    poses = torch.lerp(rows.poses[rows_before].float(), rows.poses[rows_after].float(), weight)
    return poses, present
