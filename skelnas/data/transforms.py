"""Random changes of the clips of a batch.

All is drawn on the CPU, so that it is the same on every device, and in a fixed order, so that
no change depends on whether one that is drawn after it is asked for.

Shapes: N clips, M persons, T frames, V joints, D coordinates in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skelnas.config import AugmentSettings
from skelnas.data.readers.base import Layout
from skelnas.data.sampling import Rows
from skelnas.data.streams import num_spatial
from skelnas.errors import InputError

VERTICAL = ("spine_base", "spine_mid")
SIDEWAYS = ("hip_right", "hip_left")
"""Joints that a clip is aligned by: the spine points along y, the hips lie along x."""


def first_poses(rows: Rows) -> Tensor:
    """Return [N, V, C], each clip's first row with a person in it: mostly person 1, frame 1."""
    num_rows, num_clips = len(rows.present), len(rows.starts)
    row = torch.arange(num_rows, device=rows.present.device)
    clip = torch.arange(num_clips, device=row.device)
    clip = clip.repeat_interleave(rows.num_persons * rows.num_frames)
    seen = torch.where(rows.present, row, num_rows - 1)
    first = torch.full((num_clips,), num_rows - 1, device=row.device)
    return rows.poses[first.scatter_reduce(0, clip, seen, "amin")]


def find_origins(first: Tensor, layout: Layout) -> Tensor | None:
    """Return [N, D], where the centre joint is in the first poses; None if there is no such."""
    if layout.center_joint is None:
        return None
    return first[:, layout.center_joint, : num_spatial(layout)]


def find_turns(first: Tensor, layout: Layout) -> Tensor:
    """Return rotations [N, 3, 3] whose rows are the body's own axes in the first poses.

    Raises:
        InputError: the joints have no hips, spine or depth.
    """
    joints = {name: index for index, name in enumerate(layout.joints)}
    if num_spatial(layout) != 3 or not set(VERTICAL + SIDEWAYS) <= set(joints):
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


OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Changes:
    """What was drawn for a batch; None is no change of that kind.

    Attributes:
        stretch: [2, N, 1], the share of each clip that is used, and where in what is left it
            begins; both from 0 to 1.
        matrix: [N, D, D], what the coordinates of every joint are multiplied by.
        flipped: [N] bool, in which clips left and right joints change places; that x is
            mirrored is in `matrix`.
        noise: [N, M, T, V, D], what is added to the coordinates in the end.
    """

    stretch: Tensor | None = None
    matrix: Tensor | None = None
    flipped: Tensor | None = None
    noise: Tensor | None = None

    def to(self, device: torch.device) -> Changes:
        """Return the same on a device."""
        moved = {name: None if it is None else it.to(device) for name, it in vars(self).items()}
        return Changes(**moved)

    def of(self, clips: slice) -> Changes:
        """Return the same of some of the clips."""
        cut = {name: None if it is None else it[clips] for name, it in vars(self).items()}
        if self.stretch is not None:
            cut["stretch"] = self.stretch[:, clips]
        return Changes(**cut)


def draw(
    settings: AugmentSettings,
    shape: tuple[int, int, int, int, int],
    generator: torch.Generator | None,
) -> Changes:
    """Draw the changes of a batch.

    Args:
        settings: what may change, and how much.
        shape: (N, M, T, V, D) of the batch; D is 2 or 3.
        generator: of the CPU.

    Returns:
        The changes, on the CPU.
    """
    count, size = shape[0], shape[-1]
    stretch = matrix = flipped = noise = None
    if settings.crop < 1:
        share, place = torch.rand(2, count, 1, generator=generator)
        stretch = torch.stack([settings.crop + (1 - settings.crop) * share, place])
    if settings.rotate or settings.scale:
        matrix = _draw_turns(settings, count, size, generator)
    if settings.shear:
        shears = _draw_shears(settings.shear, count, size, generator)
        matrix = shears if matrix is None else shears @ matrix
    if settings.flip:
        flipped = torch.rand(count, generator=generator) < settings.flip
        mirrors = torch.eye(size).repeat(count, 1, 1)
        mirrors[flipped, 0, 0] = -1
        matrix = mirrors if matrix is None else matrix @ mirrors
    if settings.jitter:
        noise = settings.jitter * torch.randn(shape, generator=generator)
    return Changes(stretch, matrix, flipped, noise)


def _draw_turns(
    settings: AugmentSettings, count: int, size: int, generator: torch.Generator | None
) -> Tensor:
    """Return [N, D, D], for each clip a random rotation times a random scale of each axis."""
    axes = 3 if size == 3 else 1
    angles = (2 * torch.rand(count, axes, generator=generator) - 1) * np.deg2rad(settings.rotate)
    factors = 1 + (2 * torch.rand(count, size, generator=generator) - 1) * settings.scale
    rotation = torch.eye(size).repeat(count, 1, 1)
    for axis in range(axes):
        i, j = ((1, 2), (2, 0), (0, 1))[axis] if size == 3 else (0, 1)
        turn = torch.eye(size).repeat(count, 1, 1)
        turn[:, i, i] = turn[:, j, j] = angles[:, axis].cos()
        turn[:, i, j] = -angles[:, axis].sin()
        turn[:, j, i] = angles[:, axis].sin()
        rotation = rotation @ turn
    return rotation * factors[:, None, :]


def _draw_shears(most: float, count: int, size: int, generator: torch.Generator | None) -> Tensor:
    """Return [N, D, D], ones on the diagonal and elsewhere numbers of at most `most`."""
    shears = most * (2 * torch.rand(count, size, size, generator=generator) - 1)
    shears.diagonal(dim1=1, dim2=2).fill_(1)
    return shears


def find_partners(joints: Sequence[str]) -> list[int]:
    """Return for each joint the same one of the other side; itself, if it is of neither.

    Args:
        joints: names; a side is ``left`` or ``right``, before the first ``_`` or after the last.

    Raises:
        InputError: no joint has a side, or one has no partner.
    """
    partners = [_name_of_partner(name) for name in joints]
    alone = [name for name, partner in zip(joints, partners, strict=True) if partner not in joints]
    if alone or partners == list(joints):
        reason = f"{alone[0]} has no partner" if alone else "none is of the left or the right"
        raise InputError(
            f"joints cannot change sides: {reason}",
            hint="--flip needs pairs of names such as hand_left and hand_right; 0 is without it",
        )
    return [list(joints).index(partner) for partner in partners]


def _name_of_partner(name: str) -> str:
    words = name.split("_")
    for place in (0, -1):
        if len(words) > 1 and words[place] in OTHER_SIDE:
            words[place] = OTHER_SIDE[words[place]]
            break
    return "_".join(words)
