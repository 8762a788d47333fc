"""The architecture gradient of the bilevel search, Eqs. (1)-(4) of the paper.

Written against plain functions of tensors: the architect knows two losses, not what they
are of. The difference changes weights in place and puts them back bit for bit; no ``.grad``
is read or written, so that gradients of different passes cannot mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from skelnas import parallel

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
        momentum, buffers: SGD's; no buffers before its first step.
        weight_decay: likewise.
    """

    lr: float
    momentum: float
    buffers: Sequence[Tensor] | None
    weight_decay: float

    def direction(self, gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """Return what is taken from the weights, before it is multiplied by the rate."""
        steps = torch._foreach_add(list(gradients), list(weights), alpha=self.weight_decay)
        if self.buffers is not None:
            steps = torch._foreach_add(steps, list(self.buffers), alpha=self.momentum)
        return list(steps)


def first_order(
    validation_loss: Loss, weights: Sequence[Tensor], alphas: Sequence[Tensor]
) -> ArchitectureGradient:
    """Return the gradient of L_val(w, alpha) alone: Eq. (4) with an inner rate of 0."""
    with _frozen(weights):
        loss = validation_loss()
        return ArchitectureGradient(_gradient(loss, alphas), loss.detach())


def second_order(
    training_loss: Loss,
    validation_loss: Loss,
    weights: Sequence[Tensor],
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
        weights: w; leaves, unchanged on return.
        alphas: leaves, unchanged.
        step: from w to w'.
        perturbation: length of the finite-difference step.
        perturbed_loss: L_train for the difference, where rounding counts for more; None if
            it is no other.
    """
    perturbed_loss = perturbed_loss or training_loss
    gradients = _gradient(training_loss(), weights)
    with torch.no_grad():
        start = [weight.clone() for weight in weights]
        direction = step.direction(gradients, start)

    with _moved(weights, start, direction, -step.lr):
        loss = validation_loss()
        gradients = _gradient(loss, [*alphas, *weights])
    direct, direction = gradients[: len(alphas)], gradients[len(alphas) :]

    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(direction)))
    eps = perturbation / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    with _moved(weights, start, direction, eps), _frozen(weights):
        plus = _gradient(perturbed_loss(), alphas)
    with _moved(weights, start, direction, -eps), _frozen(weights):
        minus = _gradient(perturbed_loss(), alphas)
    mixed = [(p - m) / (2 * eps) for p, m in zip(plus, minus, strict=True)]
    gradient = [d - step.lr * m for d, m in zip(direct, mixed, strict=True)]
    return ArchitectureGradient(gradient, loss.detach())


def second_order_exact(
    training_loss: Loss,
    validation_loss: LossAt,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    step: VirtualStep,
) -> ArchitectureGradient:
    """Return the same gradient without a difference: by backward through the virtual step.

    It keeps the graphs of both losses at once, and needs losses that can be differentiated twice.

    Args:
        training_loss: L_train on one batch.
        validation_loss: L_val on one batch, at the weights that it is given.
        weights: w; leaves, unchanged.
        alphas: leaves, unchanged.
        step: from w to w'.
    """
    gradients = _gradient(training_loss(), weights, create_graph=True)
    direction = step.direction(gradients, weights)
    loss = validation_loss([w - step.lr * d for w, d in zip(weights, direction, strict=True)])
    return ArchitectureGradient(_gradient(loss, alphas), loss.detach())


def _gradient(loss: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Differentiate the loss that all ranks make up together.

    An input that the loss does not depend on has a gradient of 0.
    """
    gradients = torch.autograd.grad(
        loss, list(inputs), create_graph=create_graph, allow_unused=True
    )
    return parallel.all_reduce(
        [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)]
    )


@contextmanager
def _frozen(weights: Sequence[Tensor]) -> Iterator[None]:
    """Spare a pass the gradients of the weights, forward and backward: that may run it again."""
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


@contextmanager
def _moved(
    weights: Sequence[Tensor],
    start: Sequence[Tensor],
    direction: Sequence[Tensor],
    length: float | Tensor,
) -> Iterator[None]:
    """Let the weights be start + length * direction for a while, and start again after."""
    moves = torch._foreach_mul(list(direction), length)
    with torch.no_grad():
        torch._foreach_add_(list(weights), moves)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(weights), list(start))
