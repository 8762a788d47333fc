"""Random changes of the clips of a batch: what is drawn, and the same on every device.

Shapes: N clips, M persons, T frames, V joints, D coordinates in space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skelnas.config import AugmentSettings


@dataclass(frozen=True)
class Changes:
    """What was drawn for a batch; None is no change of that kind.

    Attributes:
        stretch: [2, N, 1], the share of each clip that is used, and where in what is left it
            begins; both from 0 to 1.
        matrix: [N, D, D], what the coordinates of every joint are multiplied by.
    """

    stretch: Tensor | None = None
    matrix: Tensor | None = None

    def to(self, device: torch.device) -> Changes:
        """Return the same on a device."""
        moved = {name: None if it is None else it.to(device) for name, it in vars(self).items()}
        return Changes(**moved)


def draw(
    settings: AugmentSettings, count: int, size: int, generator: torch.Generator | None
) -> Changes:
    """Draw changes for a batch, on the CPU.

    Args:
        settings: what may change, and how much.
        count: N.
        size: D, 2 or 3.
        generator: of the CPU.
    """
    stretch = matrix = None
    if settings.crop < 1:
        share, place = torch.rand(2, count, 1, generator=generator)
        stretch = torch.stack([settings.crop + (1 - settings.crop) * share, place])
    if settings.rotate or settings.scale:
        matrix = _draw_turns(settings, count, size, generator)
    return Changes(stretch, matrix)


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
