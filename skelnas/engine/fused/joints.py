"""Mixing of the joints of each person, with gradients; see `reference.mix_joints`.

Mixing has no dilation: the argument only gives these functions the form of those in `images`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine import reference


def mix_joints(image: Tensor, mixing: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Mix the joints of each person by matrices [G, V', V]."""
    return reference.mix_joints(image, mixing, stride)


def mix_joints_grad_image(
    grad_y: Tensor, image: Tensor, mixing: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Return the gradient of `mix_joints` with respect to its image."""
    kept = image[:, :, ::stride]  # [N, C, T', W]
    n, c, t, w = kept.shape
    by_person = _by_person(grad_y, kept, mixing, mixing.shape[1]) @ mixing  # [N, G, P, V]
    grad_kept = by_person.reshape(n, c, t, -1)[..., :w]  # [N, C, T', M * V] -> [N, C, T', W]
    if stride == 1:
        return grad_kept
    grad_image = torch.zeros_like(image)
    grad_image[:, :, ::stride] = grad_kept
    return grad_image


def mix_joints_grad_mixing(
    grad_y: Tensor, image: Tensor, mixing: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Return the gradient of `mix_joints` with respect to its matrices."""
    kept = image[:, :, ::stride]  # [N, C, T', W]
    _, after, before = mixing.shape
    ends = (_by_person(each, kept, mixing, v) for each, v in ((grad_y, after), (kept, before)))
    grad_rows, rows = ends
    return (grad_rows.mT @ rows).sum(0)  # [N, G, V', P] @ [N, G, P, V] -> [G, V', V]


def _by_person(image: Tensor, kept: Tensor, mixing: Tensor, joints: int) -> Tensor:
    """Cut [N, C, T, W] into persons of some joints: [N, G, P, V], P = C / G * T * M.

    The number of persons is that of the image that is mixed.
    """
    persons = -(-kept.shape[3] // mixing.shape[2])
    padded = F.pad(image, (0, persons * joints - image.shape[3]))  # [N, C, T, M * V]
    return padded.reshape(len(image), len(mixing), -1, joints)  # [N, C, T * M, V]
