"""Clips of any length → batches [N, C, T, V] on the device that learns from them.

A batch is sampled to T frames, centred, aligned, augmented and turned into streams on the
device, for all its clips at once.

Shapes: N clips, M persons, T frames, V joints (all persons side by side in a batch), C
channels of a joint, D of them coordinates in space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skelnas.batches.augment import Changes, draw, find_partners
from skelnas.batches.memory import OnDevice, OnHost, choose, to_float16
from skelnas.batches.placing import find_origins, find_turns, first_poses
from skelnas.batches.sampling import Rows, Stretch, positions, sample
from skelnas.batches.streams import Streams, num_channels, num_spatial
from skelnas.cache import Clips
from skelnas.config import AugmentSettings, ClipSettings, Store
from skelnas.sources.base import Layout

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


class ClipStore:
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
