"""Clips of any length, and the batches [N, C, T, V] made from them on the training device.

All clips of a batch are sampled to T frames, centred, aligned, augmented and turned into streams
at once, on the device.

Shapes: N clips, R rows (one person in one frame), M persons, T frames, V joints (M times as many
in a batch, where persons lie side by side), C channels of a joint, D of them spatial coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelnas.config import AugmentSettings, ClipSettings, Store
from skelnas.data.cache import Clips
from skelnas.data.normalisation import (
    find_joints,
    find_middle,
    find_origins,
    find_rotations,
)
from skelnas.data.readers.base import Layout
from skelnas.data.sampling import PackedClips, TemporalCrop, frame_positions, sample_poses
from skelnas.data.sides import find_mirrored_joints
from skelnas.data.streams import Streams, num_channels, num_spatial
from skelnas.data.transforms import Augmentation, draw_augmentation
from skelnas.errors import InputError
from skelnas.runtime.console import note

MAX_MEMORY_FRACTION = 0.25
"""The part of the device's memory for clips, see `choose_store`; the network needs the rest."""

ROUNDED_ROWS = 100_000
"""Rows rounded to float16 at a time, so that no second copy in float32 is needed."""

WHOLE_BATCH = slice(None)


@dataclass(frozen=True)
class Batch:
    """A batch of clips, or one rank's slice of it.

    Attributes:
        x: [N, C, T, V].
        labels: [N], class indices.
        num_clips: clips in the whole batch, over all ranks.
    """

    x: Tensor
    labels: Tensor
    num_clips: int

    @property
    def fraction(self) -> float:
        """N / num_clips, the weight of a mean over this slice in the mean over the whole batch."""
        return len(self.labels) / self.num_clips


class Dataset:
    """Clips that are made into batches on a device.

    Args:
        clips: the clips, as loaded from a cache.
        layout: joints and channels.
        max_persons: M of a batch; an absent person is all zero (paper).
        settings: number of frames, sampling, centring, alignment, streams.
        device: where batches are made.
        store: where and how the clips are stored; the attribute holds what 'auto' resolves to.

    Raises:
        InputError: the layout lacks the joints or depth for alignment, or the bones for the bone
            stream, or a coordinate is too large for float16.
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
        self._store = store
        self._streams = Streams(settings.streams, layout, device)
        self._notes: set[str] = set()
        self.load(clips)

    def load(self, clips: Clips) -> None:
        """Replace the clips by others of the same layout."""
        self.labels = torch.from_numpy(clips.labels).to(self.device)
        packed = find_joints(PackedClips.from_cache(clips), self.layout)
        self._origins = self._rotations = None
        if self.settings.center:
            self._origins = self._find_origins(packed, clips.names)
        if self.settings.align:
            self._rotations = self._find_rotations(packed, clips.names)
        is_placed = self._origins is not None or self._rotations is not None
        middle = None if is_placed else find_middle(packed, self.layout)
        self._middle = None if middle is None else middle.to(self.device)

        self.store = choose_store(self._store, clips.poses.nbytes, self.device)
        if self.store == "float16":
            packed = round_to_float16(packed, self._origins)
            self._origins = None  # the stored clips are centred
        self._clips = (HostClips if self.store == "host" else DeviceClips)(packed, self.device)

    def _find_origins(self, packed: PackedClips, names: Sequence[str]) -> Tensor | None:
        """Return [N, D] on the device, with a note on clips whose centre joint is never found."""
        origins, is_missing = find_origins(packed, self.layout)
        if origins is None:
            return None
        center = self.layout.joints[self.layout.center_joint or 0]
        self._note(names, is_missing, f"{center} is never found: centred on the mean of the joints")
        return origins.to(self.device)

    def _find_rotations(self, packed: PackedClips, names: Sequence[str]) -> Tensor:
        """Return [N, 3, 3] on the device, with a note on clips that cannot be aligned."""
        rotations, is_missing = find_rotations(packed, self.layout)
        self._note(names, is_missing, "hips and spine are never found together: not aligned")
        return rotations.to(self.device)

    def _note(self, names: Sequence[str], applies: Tensor, text: str) -> None:
        """Print a note on some of the clips, unless it is the same as before."""
        clips = applies.nonzero()[:, 0].tolist()
        if not clips:
            return
        others = len(clips) - 1
        and_others = f" and {others} other clip{'s' * (others > 1)}" if others else ""
        line = f"{names[clips[0]]}{and_others}: {text}"
        if line not in self._notes:
            self._notes.add(line)
            note(line)

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
        rank_slice: slice = WHOLE_BATCH,
        crop: TemporalCrop | None = None,
    ) -> Batch:
        """Make a batch, or one rank's slice of it, augmented as part of the whole batch.

        Args:
            indices: [N] int64, the clips of the whole batch.
            augment: random changes, or None for clips as they are.
            generator: of the CPU; source of the random numbers for `augment`.
            rank_slice: which of the clips to make.
            crop: the part of every clip to use, or None for all of it; has no effect with
                `augment`, which draws its own.

        Raises:
            InputError: clips are to be flipped, but their joints have no sides.
        """
        num_clips = len(indices)
        if augment is not None:
            sizes = (self.max_persons, self.settings.frames, len(self.layout.joints))
            shape = (num_clips, *sizes, num_spatial(self.layout))
            augmentation = draw_augmentation(augment, shape, generator)
        else:
            augmentation = Augmentation(None if crop is None else crop.expand(num_clips))
        augmentation = augmentation.select(rank_slice).to(self.device)
        indices = indices[rank_slice]
        clips = self._clips.fetch(indices)
        indices = indices.to(self.device)
        positions = frame_positions(clips.num_frames, self.settings, augmentation.crop)  # [N, T]
        poses, present, found = sample_poses(clips, positions, self.max_persons)
        poses = self._transform(poses, indices, augmentation)  # [N, M, T, V, C]
        poses = poses * (present[..., None] if found is None else found)[..., None]
        if augmentation.flipped is not None:
            poses, found = self._flip(augmentation.flipped, poses, found)
        x = self._streams.make(poses, present, found)  # [N, M, T, V, C]
        x = x.transpose(1, 2).flatten(2, 3)  # -> [N, T, M, V, C] -> [N, T, M*V, C]
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)  # [N, C, T, M*V]
        return Batch(x, self.labels[indices], num_clips)

    def _transform(self, poses: Tensor, indices: Tensor, augmentation: Augmentation) -> Tensor:
        """Centre, align and augment the poses [N, M, T, V, C] of the clips `indices`.

        Joints are not swapped, and those of absent persons and those not found are not zero.
        """
        size = num_spatial(self.layout)
        space, scores = poses[..., :size], poses[..., size:]
        if self._origins is not None:
            space = space - self._origins[indices, None, None, None]  # [N, D] -> [N, 1, 1, 1, D]
        matrix = augmentation.matrix
        if self._rotations is not None:
            rotations = self._rotations[indices]
            matrix = rotations if matrix is None else matrix @ rotations  # [N, D, D]
        if matrix is not None:
            if self._middle is not None:
                space = space - self._middle
            space = torch.einsum("nij,nmtvj->nmtvi", matrix, space)  # [N, M, T, V, D]
            if self._middle is not None:
                space = space + self._middle
        if augmentation.noise is not None:
            space = space + augmentation.noise
        return torch.cat([space, scores], dim=-1)  # [N, M, T, V, C]

    def _flip(
        self, flipped: Tensor, poses: Tensor, found: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Swap left and right joints in the clips `flipped`, whose x is mirrored already."""
        flipped = flipped[:, None, None, None]  # [N] -> [N, 1, 1, 1]
        swapped = poses[:, :, :, self._mirrored_joints]  # [N, M, T, V, C]
        poses = torch.where(flipped[..., None], swapped, poses)
        if found is not None:
            found = torch.where(flipped, found[..., self._mirrored_joints], found)
        return poses, found

    @cached_property
    def _mirrored_joints(self) -> Tensor:
        """[V], see `find_mirrored_joints`."""
        return torch.tensor(find_mirrored_joints(self.layout.joints), device=self.device)


def clip_shape(layout: Layout, max_persons: int, settings: ClipSettings) -> tuple[int, int, int]:
    """Return (C, T, V) of a clip in a batch."""
    channels = num_channels(settings.streams, layout)
    return channels, settings.frames, max_persons * len(layout.joints)


def shuffled_batches(indices: NDArray[np.int64], batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the indices of each batch of an epoch in random order; drop a ragged last batch.

    The order depends on the seed alone. Fewer clips than `batch_size` make a single batch.
    """
    order = np.random.default_rng(seed).permutation(indices)
    size = min(batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield torch.from_numpy(order[start : start + size])


def num_batches(num_clips: int, batch_size: int) -> int:
    """Return how many batches `shuffled_batches` yields."""
    return num_clips // min(batch_size, num_clips)


def choose_store(store: Store, num_bytes: int, device: torch.device) -> Store:
    """Resolve 'auto' to the first store that fits.

    It depends on the total memory of the device, not on what is free at the moment, so that the
    same command always does the same.

    Args:
        store: the setting.
        num_bytes: size of the poses in float32.
        device: where batches are made.
    """
    if store != "auto":
        return store
    max_bytes = MAX_MEMORY_FRACTION * device_memory_bytes(device)
    if num_bytes <= max_bytes:
        return "float32"
    chosen: Store = "float16" if num_bytes / 2 <= max_bytes else "host"
    note(f"clips take {num_bytes / 1e9:.1f} GB, more than {max_bytes / 1e9:.1f}: --store {chosen}")
    return chosen


def device_memory_bytes(device: torch.device) -> float:
    """Return the memory of a device; infinite for a CPU, which holds the poses anyway."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return math.inf


class DeviceClips:
    """Clips stored on the device, in float32 or float16."""

    def __init__(self, clips: PackedClips, device: torch.device) -> None:
        self._clips = clips.to(device)

    def fetch(self, indices: Tensor) -> PackedClips:
        """Return the clips `indices` [N], without copying; all others lie in between."""
        clips = self._clips
        indices = indices.to(clips.starts.device)
        return PackedClips(
            clips.poses,
            clips.present,
            clips.starts[indices],
            clips.num_persons[indices],
            clips.num_frames[indices],
            clips.found,
        )


class HostClips:
    """Clips stored in host memory; those of a batch move to the device when it is made.

    They are gathered by one indexed copy, into pinned memory for CUDA, and moved asynchronously.
    Since CUDA work is queued, this overlaps with the training step on the batch before.
    """

    def __init__(self, clips: PackedClips, device: torch.device) -> None:
        self._clips = clips
        self._device = device

    def fetch(self, indices: Tensor) -> PackedClips:
        """Return the clips `indices` [N] on the device, with no other rows in between."""
        clips, indices = self._clips, indices.cpu()
        num_rows = clips.num_persons[indices] * clips.num_frames[indices]  # [N]
        starts = num_rows.cumsum(0) - num_rows
        shifts = (clips.starts[indices] - starts).repeat_interleave(num_rows)  # [N] -> [R]
        rows = shifts + torch.arange(len(shifts))
        gathered = PackedClips(
            self._gather(clips.poses, rows),
            self._gather(clips.present, rows),
            starts,
            clips.num_persons[indices],
            clips.num_frames[indices],
            None if clips.found is None else self._gather(clips.found, rows),
        )
        return gathered.to(self._device)

    def _gather(self, values: Tensor, rows: Tensor) -> Tensor:
        pinned = self._device.type == "cuda"
        shape = (len(rows), *values.shape[1:])
        out = torch.empty(shape, dtype=values.dtype, pin_memory=pinned)
        return torch.index_select(values, 0, rows, out=out)


def round_to_float16(clips: PackedClips, origins: Tensor | None) -> PackedClips:
    """Round poses to float16, relative to the origin of each clip if there is one.

    A float16 has 11 significant bits, so it is more precise near zero: clips are centred before
    rounding.

    Args:
        clips: float32 clips on the CPU with no other rows in between.
        origins: [N, D] on any device, or None.

    Raises:
        InputError: a coordinate is too large for float16.
    """
    origins = None if origins is None else origins.cpu()
    clip = torch.arange(len(clips.starts))
    clip = clip.repeat_interleave(clips.num_persons * clips.num_frames)  # [N] -> [R]
    poses = torch.empty_like(clips.poses, dtype=torch.float16)
    for start in range(0, len(poses), ROUNDED_ROWS):
        rows = slice(start, start + ROUNDED_ROWS)
        exact = clips.poses[rows].clone()
        if origins is not None:
            exact[..., : origins.shape[1]] -= origins[clip[rows], None]  # [r, V, D] - [r, 1, D]
        poses[rows] = exact
        if not poses[rows].isfinite().all():
            raise InputError(
                f"a coordinate of {exact.abs().max():g} is too large for float16",
                hint="--store float32 or --store host keeps full precision",
            )
    return replace(clips, poses=poses)
