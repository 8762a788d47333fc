"""Random augmentation of clips.

Random numbers are drawn on the CPU, so that they are the same on every device, and in a fixed
order, so that no draw depends on whether a later one is enabled.

Shapes: N clips, M persons, T frames, V joints, D spatial coordinates of a joint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skelnas.config import AugmentSettings


@dataclass(frozen=True)
class Augmentation:
    """The random changes drawn for a batch; None for no change of that kind.

    Attributes:
        crop: [2, N, 1], length and start of each clip's `TemporalCrop`.
        matrix: [N, D, D], by which the coordinates of every joint are multiplied.
        flipped: [N] bool, the clips whose left and right joints are swapped; that x is mirrored
            is part of `matrix`.
        noise: [N, M, T, V, D], added to the coordinates last.
    """

    crop: Tensor | None = None
    matrix: Tensor | None = None
    flipped: Tensor | None = None
    noise: Tensor | None = None

    def to(self, device: torch.device) -> Augmentation:
        """Return a copy on a device."""
        fields = vars(self).items()
        return Augmentation(**{k: None if v is None else v.to(device) for k, v in fields})

    def select(self, clips: slice) -> Augmentation:
        """Return what was drawn for some of the clips."""
        fields = vars(self).items()
        selected = {k: None if v is None else v[clips] for k, v in fields if k != "crop"}
        crop = None if self.crop is None else self.crop[:, clips]
        return Augmentation(crop, **selected)


def draw_augmentation(
    settings: AugmentSettings,
    shape: tuple[int, int, int, int, int],
    generator: torch.Generator | None,
) -> Augmentation:
    """Draw the random changes of a batch.

    Args:
        settings: what may change, and by how much.
        shape: (N, M, T, V, D) of the batch; D is 2 or 3.
        generator: of the CPU.

    Returns:
        The changes, on the CPU.
    """
    num_clips, num_dims = shape[0], shape[-1]
    crop = matrix = flipped = noise = None
    if settings.crop < 1:
        length, start = torch.rand(2, num_clips, 1, generator=generator)
        crop = torch.stack([settings.crop + (1 - settings.crop) * length, start])  # [2, N, 1]
    if settings.rotate or settings.scale:
        matrix = _draw_rotations_and_scales(settings, num_clips, num_dims, generator)
    if settings.shear:
        shears = _draw_shears(settings.shear, num_clips, num_dims, generator)
        matrix = shears if matrix is None else shears @ matrix  # [N, D, D]
    if settings.flip:
        flipped = torch.rand(num_clips, generator=generator) < settings.flip
        mirrors = torch.eye(num_dims).repeat(num_clips, 1, 1)
        mirrors[flipped, 0, 0] = -1
        matrix = mirrors if matrix is None else matrix @ mirrors  # [N, D, D]
    if settings.jitter:
        noise = settings.jitter * torch.randn(shape, generator=generator)
    return Augmentation(crop, matrix, flipped, noise)


def _draw_rotations_and_scales(
    settings: AugmentSettings, num_clips: int, num_dims: int, generator: torch.Generator | None
) -> Tensor:
    """Return [N, D, D]: for each clip, a random rotation times a random scale of each axis."""
    num_axes = 3 if num_dims == 3 else 1
    max_angle = np.deg2rad(settings.rotate)
    angles = (2 * torch.rand(num_clips, num_axes, generator=generator) - 1) * max_angle
    scales = 1 + (2 * torch.rand(num_clips, num_dims, generator=generator) - 1) * settings.scale
    rotation = torch.eye(num_dims).repeat(num_clips, 1, 1)  # [N, D, D]
    for axis in range(num_axes):
        i, j = ((1, 2), (2, 0), (0, 1))[axis] if num_dims == 3 else (0, 1)
        about_axis = torch.eye(num_dims).repeat(num_clips, 1, 1)
        about_axis[:, i, i] = about_axis[:, j, j] = angles[:, axis].cos()
        about_axis[:, i, j] = -angles[:, axis].sin()
        about_axis[:, j, i] = angles[:, axis].sin()
        rotation = rotation @ about_axis
    return rotation * scales[:, None, :]  # [N, D, D] * [N, 1, D]


def _draw_shears(
    max_shear: float, num_clips: int, num_dims: int, generator: torch.Generator | None
) -> Tensor:
    """Return [N, D, D]: ones on the diagonal, elsewhere at most `max_shear` in magnitude."""
    shears = max_shear * (2 * torch.rand(num_clips, num_dims, num_dims, generator=generator) - 1)
    shears.diagonal(dim1=1, dim2=2).fill_(1)
    return shears
