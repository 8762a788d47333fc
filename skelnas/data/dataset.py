"""Clips of any length → batches [N, C, T, V] on the device that learns from them.

A batch is sampled to T frames, centred, aligned, augmented and turned into streams on the
device, for all its clips at once.

Shapes: N clips, M persons, T frames, V joints (all persons side by side in a batch), C
channels of a joint, D of them coordinates in space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelnas.config import AugmentSettings, ClipSettings, Store
from skelnas.data.cache import Clips
from skelnas.data.readers.base import Layout
from skelnas.data.sampling import Rows, Stretch, positions, sample
from skelnas.data.streams import Streams, num_channels, num_spatial
from skelnas.data.transforms import (
    Changes,
    draw,
    find_origins,
    find_partners,
    find_turns,
    first_poses,
)
from skelnas.errors import InputError
from skelnas.runtime.console import note


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


SHARE = 0.25
"""Of the device's memory: the most that `choose` lets clips take. The rest is for the network."""

ROWS_AT_ONCE = 100_000
"""How many rows are rounded together, so that no second copy in float32 is needed."""


def choose(store: Store, num_bytes: int, device: torch.device) -> Store:
    """Decide where clips are kept, if that is left open.

    It is decided by all the memory that the device has, not by what is free at the moment, so
    that the same command does the same tomorrow.

    Args:
        store: what was asked.
        num_bytes: of the poses in float32.
        device: that learns from them.
    """
    if store != "auto":
        return store
    room = SHARE * memory_of(device)
    if num_bytes <= room:
        return "float32"
    chosen: Store = "float16" if num_bytes / 2 <= room else "host"
    note(f"clips take {num_bytes / 1e9:.1f} GB, more than {room / 1e9:.1f}: --store {chosen}")
    return chosen


def memory_of(device: torch.device) -> float:
    """Return the bytes of a device; no bound for a CPU, where poses are already."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return math.inf


class OnDevice:
    """All clips on the device, in float32 or float16."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self._rows = rows.to(device)

    def fetch(self, indices: Tensor) -> Rows:
        """Return the clips `indices`, [N]; all others lie between them."""
        rows = self._rows
        indices = indices.to(rows.starts.device)
        return Rows(
            rows.poses,
            rows.present,
            rows.starts[indices],
            rows.num_persons[indices],
            rows.num_frames[indices],
        )


class OnHost:
    """All clips in the host's memory; those of a batch come to the device when it is made.

    They are put together by one indexed copy, for CUDA into pinned memory, and moved from there
    without waiting. Work for a CUDA device is queued, so that all this is done for a batch while
    the device still learns from the one before.
    """

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self._rows = rows
        self._device = device

    def fetch(self, indices: Tensor) -> Rows:
        """Return the clips `indices`, [N], on the device, with no other rows between them."""
        rows, indices = self._rows, indices.cpu()
        counts = rows.num_persons[indices] * rows.num_frames[indices]
        starts = counts.cumsum(0) - counts
        moved = (rows.starts[indices] - starts).repeat_interleave(counts)
        chosen = moved + torch.arange(len(moved))
        batch = Rows(
            self._gather(rows.poses, chosen),
            self._gather(rows.present, chosen),
            starts,
            rows.num_persons[indices],
            rows.num_frames[indices],
        )
        return batch.to(self._device)

    def _gather(self, values: Tensor, chosen: Tensor) -> Tensor:
        pinned = self._device.type == "cuda"
        shape = (len(chosen), *values.shape[1:])
        out = torch.empty(shape, dtype=values.dtype, pin_memory=pinned)
        return torch.index_select(values, 0, chosen, out=out)


def to_float16(rows: Rows, origins: Tensor | None) -> Rows:
    """Round poses to float16, relative to the origin of each clip if there is one.

    A float16 has 11 significant bits, so it is the finer, the nearer it is to zero: a clip is
    centred first and rounded then.

    Args:
        rows: clips in float32 with no other rows between them, on the CPU.
        origins: [N, D], on any device, or None.

    Raises:
        InputError: a coordinate is too large for a float16.
    """
    origins = None if origins is None else origins.cpu()
    clip = torch.arange(len(rows.starts)).repeat_interleave(rows.num_persons * rows.num_frames)
    poses = torch.empty_like(rows.poses, dtype=torch.float16)
    for begin in range(0, len(poses), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        exact = rows.poses[part].clone()
        if origins is not None:
            exact[..., : origins.shape[1]] -= origins[clip[part], None]
        poses[part] = exact
        if not poses[part].isfinite().all():
            raise InputError(
                f"a coordinate of {exact.abs().max():g} is too large for float16",
                hint="--store float32 or --store host keeps the clips as they are",
            )
    return Rows(poses, rows.present, rows.starts, rows.num_persons, rows.num_frames)


ALL = slice(None)


@dataclass(frozen=True)
class Batch:
    """Clips that are learned from or scored together.

    Attributes:
        x: [N, C, T, V].
        labels: [N], class indices.
        share: N divided by the clips of this batch on all ranks.
    """

    x: Tensor
    labels: Tensor
    share: float = 1.0


def clip_shape(layout: Layout, max_persons: int, settings: ClipSettings) -> tuple[int, int, int]:
    """Return (C, T, V) of a clip in a batch."""
    channels = num_channels(settings.streams, layout)
    return channels, settings.frames, max_persons * len(layout.joints)


class Dataset:
    """All clips of a piece of work, and how they are made into batches on a device.

    Args:
        clips: the clips, as the cache loads them.
        layout: joints and channels.
        max_persons: M of a batch; an absent person is all zero (paper).
        settings: number of frames, sampling, centring, alignment, streams.
        device: where batches are made.
        store: where and how the clips are kept; the attribute `kept` says what 'auto' became.

    Raises:
        InputError: alignment is asked of joints that have no hips, spine or depth, bones of a
            layout that has none, or float16 of numbers that are too large for it.
    """

    def __init__(
        self,
        clips: Clips,
        layout: Layout,
        max_persons: int,
        settings: ClipSettings,
        device: torch.device,
        store: Store = "auto",
    ) -> None:
        self.settings = settings
        self.device = device
        self.max_persons = max_persons
        self.layout = layout
        self.labels = torch.from_numpy(clips.labels).to(device)
        self._streams = Streams(settings.streams, layout, device)

        rows = Rows.of(clips)
        first = first_poses(rows).to(device)
        self._origins = find_origins(first, layout) if settings.center else None
        self._turns = find_turns(first, layout) if settings.align else None

        self.kept = choose(store, clips.poses.nbytes, device)
        if self.kept == "float16":
            rows = to_float16(rows, self._origins)
            self._origins = None  # the clips are centred now
        self._clips = OnHost(rows, device) if self.kept == "host" else OnDevice(rows, device)

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, T, V) of a clip in a batch."""
        return clip_shape(self.layout, self.max_persons, self.settings)

    def batch(
        self,
        indices: Tensor,
        augment: AugmentSettings | None = None,
        generator: torch.Generator | None = None,
        share: slice = ALL,
        stretch: Stretch | None = None,
    ) -> Batch:
        """Make a batch, or a share of it, with the changes that the whole batch would have.

        Args:
            indices: [N] int64, which clips.
            augment: random changes, or None for clips as they are.
            generator: of the CPU; source of what `augment` draws.
            share: which of the clips are made.
            stretch: what of every clip is used where `augment` does not draw it; or all of it.

        Raises:
            InputError: see `check`.
        """
        count = len(indices)
        changes = Changes(None if stretch is None else stretch.of_clips(count)).to(self.device)
        if augment is not None:
            of_clip = (self.max_persons, self.settings.frames)
            of_pose = (len(self.layout.joints), num_spatial(self.layout))
            shape = (count, *of_clip, *of_pose)
            changes = draw(augment, shape, generator).of(share).to(self.device)
        indices = indices[share]
        rows = self._clips.fetch(indices)
        indices = indices.to(self.device)
        where = positions(rows.num_frames, self.settings, changes.stretch)
        poses, present = sample(rows, where, self.max_persons)
        poses = self._place(poses, indices, changes) * present[..., None, None]
        x = self._streams.make(poses, present)
        x = x.transpose(1, 2).flatten(2, 3).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        return Batch(x, self.labels[indices], len(indices) / count)

    def check(self, augment: AugmentSettings) -> None:
        """Check that these clips can be changed so.

        Raises:
            InputError: they are to be flipped, but their joints have no sides.
        """
        if augment.flip:
            find_partners(self.layout.joints)

    @cached_property
    def _partners(self) -> Tensor:
        """[V], for each joint the same one of the other side."""
        return torch.tensor(find_partners(self.layout.joints), device=self.device)

    def _place(self, poses: Tensor, indices: Tensor, changes: Changes) -> Tensor:
        """Centre, align and change poses [N, M, T, V, C] of the clips `indices`."""
        size = num_spatial(self.layout)
        space, scores = poses[..., :size], poses[..., size:]
        if self._origins is not None:
            space = space - self._origins[indices, None, None, None]
        matrix = changes.matrix
        if self._turns is not None:
            turns = self._turns[indices]
            matrix = turns if matrix is None else matrix @ turns
        if matrix is not None:
            space = torch.einsum("nij,nmtvj->nmtvi", matrix, space)
        if changes.noise is not None:
            space = space + changes.noise
        poses = torch.cat([space, scores], dim=-1)
        if changes.flipped is not None:
            swapped = poses[:, :, :, self._partners]
            poses = torch.where(changes.flipped[:, None, None, None, None], swapped, poses)
        return poses
