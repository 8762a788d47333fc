"""Clips of any length → batches [N, C, T, V] on the device that learns from them.

All clips lie on the device as one tensor of poses. A batch is gathered, sampled to T frames,
normalised and augmented there, for all its clips at once.

Shapes: N clips, M persons, T frames, V joints (all persons side by side in a batch), C
channels of a joint, D of them coordinates in space.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skelnas.batches.augment import Changes, draw, find_partners
from skelnas.batches.placing import find_origins, find_turns, first_poses
from skelnas.batches.sampling import Rows, positions, sample
from skelnas.batches.streams import Streams, num_channels, num_spatial
from skelnas.cache import Clips
from skelnas.config import AugmentSettings, ClipSettings
from skelnas.sources.base import Layout


@dataclass(frozen=True)
class Batch:
    """Clips that are learned from or scored together.

    Attributes:
        x: [N, C, T, V].
        labels: [N], class indices.
    """

    x: Tensor
    labels: Tensor


def clip_shape(layout: Layout, max_persons: int, settings: ClipSettings) -> tuple[int, int, int]:
    """Return (C, T, V) of a clip in a batch."""
    channels = num_channels(settings.streams, layout)
    return channels, settings.frames, max_persons * len(layout.joints)


class ClipStore:
    """All clips of a piece of work on one device, and how they are made into batches.

    Args:
        clips: the clips, as the cache loads them.
        layout: joints and channels.
        max_persons: M of a batch; an absent person is all zero (paper).
        settings: number of frames, sampling, centring, alignment, streams.
        device: where clips and batches live.

    Raises:
        InputError: alignment is asked of joints that have no hips, spine or depth, or bones
            of a layout that has none.
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
        self.layout = layout
        self.labels = torch.from_numpy(clips.labels).to(device)
        self._rows = Rows(
            *(
                torch.from_numpy(array).to(device)
                for array in (
                    clips.poses,
                    clips.present,
                    clips.starts,
                    clips.num_persons,
                    clips.num_frames,
                )
            )
        )
        self._streams = Streams(settings.streams, layout, device)
        first = first_poses(self._rows)
        self._origins = find_origins(first, layout) if settings.center else None
        self._turns = find_turns(first, layout) if settings.align else None

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
    ) -> Batch:
        """Make a batch.

        Args:
            indices: [N] int64, which clips.
            augment: random changes, or None for clips as they are.
            generator: of the CPU; source of what `augment` draws.

        Raises:
            InputError: see `check`.
        """
        changes = Changes()
        if augment is not None:
            shape = (len(indices), self.max_persons, self.settings.frames)
            shape_of_pose = (len(self.layout.joints), num_spatial(self.layout))
            changes = draw(augment, (*shape, *shape_of_pose), generator).to(self.device)
        indices = indices.to(self.device)
        rows = Rows(
            self._rows.poses,
            self._rows.present,
            self._rows.starts[indices],
            self._rows.num_persons[indices],
            self._rows.num_frames[indices],
        )
        where = positions(rows.num_frames, self.settings, changes.stretch)
        poses, present = sample(rows, where, self.max_persons)
        poses = self._place(poses, indices, changes) * present[..., None, None]
        x = self._streams.make(poses, present)
        x = x.transpose(1, 2).flatten(2, 3).permute(0, 3, 1, 2)
        return Batch(x.contiguous(memory_format=torch.channels_last), self.labels[indices])

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
