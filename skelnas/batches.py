"""Clips of any length → batches [N, C, T, V] on the device that learns from them.

All clips lie on the device as one tensor of poses. A batch is gathered, sampled to T frames,
normalised and augmented there, for all its clips at once.

Shapes: N clips, M persons, T frames, V joints (all persons side by side in a batch), C
channels of a joint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelnas.cache import Clips
from skelnas.config import AugmentSettings, ClipSettings
from skelnas.errors import InputError
from skelnas.sources.base import Layout

VERTICAL = ("spine_base", "spine_mid")
SIDEWAYS = ("hip_right", "hip_left")
"""Joints that a clip is aligned by: the spine points along y, the hips lie along x."""


@dataclass(frozen=True)
class Batch:
    """Clips that are learned from or scored together.

    Attributes:
        x: [N, C, T, V].
        labels: [N], class indices.
    """

    x: Tensor
    labels: Tensor


class ClipStore:
    """All clips of a piece of work on one device, and how they are made into batches.

    Args:
        clips: the clips, as the cache loads them.
        layout: joints and channels.
        max_persons: M of a batch; an absent person is all zero (paper).
        settings: number of frames, sampling, centring, alignment.
        device: where clips and batches live.

    Raises:
        InputError: alignment is asked of joints that have no hips, spine or depth.
    """

    def __init__(
        self,
        clips: Clips,
        layout: Layout,
        max_persons: int,
        settings: ClipSettings,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.device = device
        self.max_persons = max_persons
        self.labels = torch.from_numpy(clips.labels).to(device)
        self._poses = torch.from_numpy(clips.poses).to(device)
        self._present = torch.from_numpy(clips.present).to(device)
        self._starts = torch.from_numpy(clips.starts).to(device)
        self._num_persons = torch.from_numpy(clips.num_persons).to(device)
        self._num_frames = torch.from_numpy(clips.num_frames).to(device)
        self._spatial = 3 if layout.channels[:3] == ("x", "y", "z") else 2
        first = self._first_poses()
        self._origins = self._find_origins(first, layout) if settings.center else None
        self._turns = self._find_turns(first, layout) if settings.align else None

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, T, V) of a clip in a batch."""
        _, joints, channels = self._poses.shape
        return channels, self.settings.frames, self.max_persons * joints

    def batch(
        self,
        indices: Tensor,
        augment: AugmentSettings | None = None,
        generator: torch.Generator | None = None,
    ) -> Batch:
        """Make a batch.

        Args:
            indices: [N] int64, which clips.
            augment: random changes, or None for clips as they are.
            generator: of the CPU; source of what `augment` draws.
        """
        indices = indices.to(self.device)
        positions = self._positions(indices, augment, generator)
        poses, present = self._sample(indices, positions)
        space = poses[..., : self._spatial]
        if self._origins is not None:
            space = space - self._origins[indices, None, None, None]
        turn = None if self._turns is None else self._turns[indices]
        if augment is not None and (augment.rotate or augment.scale):
            change = self._random_change(len(indices), augment, generator)
            turn = change if turn is None else change @ turn
        if turn is not None:
            space = torch.einsum("nij,nmtvj->nmtvi", turn, space)
        poses = torch.cat([space, poses[..., self._spatial :]], dim=-1)
        poses = poses * present[..., None, None]
        x = poses.permute(0, 4, 2, 1, 3).flatten(3)
        return Batch(x.contiguous(memory_format=torch.channels_last), self.labels[indices])

    def _positions(
        self,
        indices: Tensor,
        augment: AugmentSettings | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return [N, T], where in each clip its T frames are taken, in (fractions of) frames."""
        last = (self._num_frames[indices] - 1).float()[:, None]
        begin, span = torch.zeros_like(last), last
        if augment is not None and augment.crop < 1:
            share, place = torch.rand(2, len(indices), 1, generator=generator).to(last.device)
            span = last * (augment.crop + (1 - augment.crop) * share)
            begin = (last - span) * place
        steps = torch.arange(self.settings.frames, device=last.device)
        if self.settings.interpolation == "linear":
            return begin + span * (steps / max(self.settings.frames - 1, 1))
        return (begin + (span + 1) * steps / self.settings.frames).floor().clamp(max=last)

    def _sample(self, indices: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return poses [N, M, T, V, C] and presence [N, M, T] at fractional positions [N, T].

        Between two frames a person is present if they are in the nearer one, and is moved
        in a straight line only if they are in both.
        """
        before = positions.floor().long()
        after = torch.minimum(before + 1, self._num_frames[indices, None] - 1)
        fraction = (positions - before)[:, None]

        persons = torch.arange(self.max_persons, device=positions.device)
        exists = (persons < self._num_persons[indices, None])[..., None]
        person_starts = self._starts[indices, None] + persons * self._num_frames[indices, None]
        rows_before, rows_after = (
            torch.where(exists, person_starts[..., None] + frames[:, None], 0)
            for frames in (before, after)
        )
        seen_before = self._present[rows_before] & exists
        seen_after = self._present[rows_after] & exists
        nearer_after = fraction > 0.5
        present = torch.where(nearer_after, seen_after, seen_before)
        weight = torch.where(seen_before & seen_after, fraction, nearer_after.to(fraction.dtype))
        weight = weight[..., None, None]
        poses = torch.lerp(self._poses[rows_before], self._poses[rows_after], weight)
        return poses, present

    def _first_poses(self) -> Tensor:
        """Return [N, V, C], each clip's first row with a person in it: mostly person 1, frame 1."""
        num_rows = len(self._present)
        rows = torch.arange(num_rows, device=self._present.device)
        clip = torch.arange(len(self), device=rows.device)
        clip = clip.repeat_interleave(self._num_persons * self._num_frames)
        seen = torch.where(self._present, rows, num_rows - 1)
        first = torch.full((len(self),), num_rows - 1, device=rows.device)
        return self._poses[first.scatter_reduce(0, clip, seen, "amin")]

    def _find_origins(self, first: Tensor, layout: Layout) -> Tensor | None:
        if layout.center_joint is None:
            return None
        return first[:, layout.center_joint, : self._spatial]

    def _find_turns(self, first: Tensor, layout: Layout) -> Tensor:
        """Return rotations [N, 3, 3] whose rows are the body's own axes."""
        joints = {name: index for index, name in enumerate(layout.joints)}
        if self._spatial != 3 or not set(VERTICAL + SIDEWAYS) <= set(joints):
            raise InputError(
                f"clips cannot be aligned: that needs 3-D joints {', '.join(VERTICAL + SIDEWAYS)}",
                hint="leave --align out for this cache",
            )

        def direction(start: str, end: str) -> Tensor:
            return first[:, joints[end], :3] - first[:, joints[start], :3]

        up = torch.nn.functional.normalize(direction(*VERTICAL), dim=1)
        side = direction(*SIDEWAYS)
        side = side - (side * up).sum(1, keepdim=True) * up
        side = torch.nn.functional.normalize(side, dim=1)
        turns = torch.stack([side, up, torch.linalg.cross(side, up)], dim=1)
        degenerate = (up.norm(dim=1) < 0.5) | (side.norm(dim=1) < 0.5)
        return torch.where(degenerate[:, None, None], torch.eye(3, device=turns.device), turns)

    def _random_change(
        self, count: int, augment: AugmentSettings, generator: torch.Generator | None
    ) -> Tensor:
        """Return [N, D, D], for each clip a random rotation times a random scale of each axis."""
        size = self._spatial
        axes = 3 if size == 3 else 1
        angles = (2 * torch.rand(count, axes, generator=generator) - 1) * np.deg2rad(augment.rotate)
        factors = 1 + (2 * torch.rand(count, size, generator=generator) - 1) * augment.scale
        rotation = torch.eye(size).repeat(count, 1, 1)
        for axis in range(axes):
            i, j = ((1, 2), (2, 0), (0, 1))[axis] if size == 3 else (0, 1)
            turn = torch.eye(size).repeat(count, 1, 1)
            turn[:, i, i] = turn[:, j, j] = angles[:, axis].cos()
            turn[:, i, j] = -angles[:, axis].sin()
            turn[:, j, i] = angles[:, axis].sin()
            rotation = rotation @ turn
        return (rotation * factors[:, None, :]).to(self._poses.device)


def shuffled(indices: NDArray[np.int64], batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the batches of one epoch in random order; a ragged last batch is left out.

    The order is a function of the seed alone. With fewer clips than a batch holds, the one
    batch is all of them.
    """
    order = np.random.default_rng(seed).permutation(indices)
    size = min(batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield torch.from_numpy(order[start : start + size])


def num_batches(num_clips: int, batch_size: int) -> int:
    """Count the batches that `shuffled` yields."""
    return num_clips // min(batch_size, num_clips)
