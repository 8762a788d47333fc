"""The architecture gradient of the bilevel search, Eqs. (1)-(4) of the paper.

Written against plain functions of tensors: the architect knows two losses, not what they
are of. The difference changes weights in place and puts them back bit for bit; no ``.grad``
is read or written, so that gradients of different passes cannot mix. Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from skelnas.nas.flat_weights import FlatWeights, gradients

Loss = Callable[[], Tensor]
"""Evaluates a loss at the current weights and alphas; of several ranks each its own part."""

LossAt = Callable[[Sequence[Tensor]], Tensor]
"""Evaluates a loss at other weights, which may depend on the alphas, and the current alphas."""

PERTURBATION = 0.01
"""Length of the finite-difference step: eps times the norm of its direction (DARTS, 2.3)."""


@dataclass(frozen=True)
class ArchitectureGradient:
    """The gradient of alpha and what was seen on the way.

    Attributes:
        alphas: one tensor for each alpha.
        validation_loss: at the weights after the virtual step; this rank's part.
    """

    alphas: list[Tensor]
    validation_loss: Tensor


@dataclass(frozen=True)
class VirtualStep:
    """The step that the optimiser of w would take, but for its clip (Eq. 2).

    Attributes:
        lr: its current rate.
        direction: returns what is taken from w, before it is multiplied by the rate, given the
            gradient and w, both [n]; it can be differentiated.
    """

    lr: float | Tensor
    direction: Callable[[Tensor, Tensor], Tensor]


def first_order(
    validation_loss: Loss, weights: FlatWeights, alphas: Sequence[Tensor]
) -> ArchitectureGradient:
    """Return the gradient of L_val(w, alpha) alone: Eq. (4) with an inner rate of 0."""
    with _frozen(weights):
        loss = validation_loss()
        return ArchitectureGradient(gradients(loss, alphas), loss.detach())


def second_order(
    training_loss: Loss,
    validation_loss: Loss,
    weights: FlatWeights,
    alphas: Sequence[Tensor],
    step: VirtualStep,
    perturbation: float = PERTURBATION,
    perturbed_loss: Loss | None = None,
) -> ArchitectureGradient:
    """Return the gradient of L_val(w'(alpha), alpha), where w' is one training step from w.

    Eq. (4), its second term by a central difference (DARTS, Eqs. 7 and 8):
    grad_alpha L_val(w', alpha)
    - lr * (grad_alpha L_train(w + eps v) - grad_alpha L_train(w - eps v)) / (2 eps)
    with v = grad_w' L_val(w', alpha) and eps = perturbation / ||v||, one norm over all weights.

    Args:
        training_loss: L_train on one batch, the same in every call.
        validation_loss: L_val on one batch.
        weights: w; unchanged on return.
        alphas: leaves, unchanged.
        step: from w to w'.
        perturbation: length of the finite-difference step.
        perturbed_loss: L_train for the difference, where rounding counts for more; None if
            it is no other.
    """
    perturbed_loss = perturbed_loss or training_loss
    (slope,) = gradients(training_loss(), [weights])
    start = weights.values.clone()
    with _moved(weights, start, step.direction(slope, start), -step.lr):
        loss = validation_loss()
        *direct, v = gradients(loss, [*alphas, weights])

    norm = torch.linalg.vector_norm(v)
    eps = perturbation / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    with _moved(weights, start, v, eps), _frozen(weights):
        plus = gradients(perturbed_loss(), alphas)
    with _moved(weights, start, v, -eps), _frozen(weights):
        minus = gradients(perturbed_loss(), alphas)
    mixed = [(p - m) / (2 * eps) for p, m in zip(plus, minus, strict=True)]
    gradient = [d - step.lr * m for d, m in zip(direct, mixed, strict=True)]
    return ArchitectureGradient(gradient, loss.detach())


def second_order_exact(
    training_loss: Loss,
    validation_loss: LossAt,
    weights: FlatWeights,
    alphas: Sequence[Tensor],
    step: VirtualStep,
) -> ArchitectureGradient:
    """Return the same gradient without a difference: by backward through the virtual step.

    It keeps the graphs of both losses at once, and needs losses that can be differentiated twice.

    Args:
        training_loss: L_train on one batch.
        validation_loss: L_val on one batch, at the weights that it is given.
        weights: w; unchanged.
        alphas: leaves, unchanged.
        step: from w to w'.
    """
    (slope,) = gradients(training_loss(), [weights], create_graph=True)
    moved = weights.values - step.lr * step.direction(slope, weights.values)
    loss = validation_loss(weights.split(moved))
    return ArchitectureGradient(gradients(loss, alphas), loss.detach())


@contextmanager
def _frozen(weights: FlatWeights) -> Iterator[None]:
    """Spare a pass the gradients of the weights, forward and backward: that may run it again."""
    for tensor in weights.tensors:
        tensor.requires_grad_(False)
    try:
        yield
    finally:
        for tensor in weights.tensors:
            tensor.requires_grad_(True)


@contextmanager
def _moved(
    weights: FlatWeights, start: Tensor, direction: Tensor, length: float | Tensor
) -> Iterator[None]:
    """Let the weights be start + length * direction for a while, and start again after."""
    weights.values.copy_(start + length * direction)
    try:
        yield
    finally:
        weights.values.copy_(start)
