"""The architecture gradient of the bilevel search (Paper: Eqs. (1)-(4); DARTS, section 2.3).

Written against two loss functions of tensors, not against a network. The finite difference moves
the weights in place and restores them bit for bit. No ``.grad`` is read or written, so gradients
of different passes cannot mix. Nothing here synchronises with the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from skelnas.nas.flat_weights import FlatWeights, gradients

Loss = Callable[[], Tensor]
"""Evaluates a loss at the current weights and alphas; each rank returns its own part."""

LossAt = Callable[[Sequence[Tensor]], Tensor]
"""Evaluates a loss at the given weights, which may depend on the alphas, and the current alphas."""

PERTURBATION = 0.01
"""Length of the finite-difference step, eps * ||v|| (DARTS, section 2.3)."""


@dataclass(frozen=True)
class ArchitectureGradient:
    """The gradient of the alphas.

    Attributes:
        alphas: one gradient for each tensor of alphas.
        validation_loss: L_val after the virtual step; this rank's part.
    """

    alphas: list[Tensor]
    validation_loss: Tensor


@dataclass(frozen=True)
class VirtualStep:
    """The step that the optimiser of w would take, without gradient clipping (Eq. 2).

    Attributes:
        lr: current learning rate.
        direction: maps the gradient and w, both [n], to the update before it is multiplied by the
            learning rate; differentiable.
    """

    lr: float | Tensor
    direction: Callable[[Tensor, Tensor], Tensor]


def first_order(
    validation_loss: Loss, weights: FlatWeights, alphas: Sequence[Tensor]
) -> ArchitectureGradient:
    """Return the gradient of L_val(w, alpha) with w held fixed: Eq. (4) with an inner rate of 0."""
    with without_weight_gradients(weights):
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

    Paper: Eq. (4), with its second term as a central difference (DARTS, Eqs. (7) and (8)):
    grad_alpha L_val(w', alpha)
    - lr * (grad_alpha L_train(w + eps v) - grad_alpha L_train(w - eps v)) / (2 eps)
    with v = grad_w' L_val(w', alpha) and eps = perturbation / ||v||, one norm over all weights.

    Args:
        training_loss: L_train on one batch, the same batch at each call.
        validation_loss: L_val on one batch.
        weights: w; unchanged on return.
        alphas: leaf tensors; unchanged.
        step: from w to w'.
        perturbation: length of the finite-difference step.
        perturbed_loss: L_train for the finite difference, in higher precision; None uses
            `training_loss`.
    """
    (grad_w,) = gradients(training_loss(), [weights])
    w = weights.values.clone()
    with virtual_step(weights, w, grad_w, step):
        loss = validation_loss()
        *direct, v = gradients(loss, [*alphas, weights])

    eps = perturbation_size(v, perturbation)
    hvp = hessian_vector_product(perturbed_loss or training_loss, weights, alphas, w, v, eps)
    return ArchitectureGradient(combine(direct, hvp, step.lr), loss.detach())


def virtual_step(
    weights: FlatWeights, w: Tensor, grad_w: Tensor, step: VirtualStep
) -> AbstractContextManager[None]:
    """Move the weights from w to w' inside the context."""
    return moved(weights, w, step.direction(grad_w, w), -step.lr)


def perturbation_size(v: Tensor, perturbation: float) -> Tensor:
    """Return eps, so that eps * v has the length `perturbation`."""
    norm = torch.linalg.vector_norm(v)
    eps: Tensor = perturbation / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return eps


def hessian_vector_product(
    training_loss: Loss,
    weights: FlatWeights,
    alphas: Sequence[Tensor],
    w: Tensor,
    v: Tensor,
    eps: Tensor,
) -> list[Tensor]:
    """Return grad_alpha grad_w L_train(w, alpha) v by a central difference (DARTS, Eq. (8))."""
    with moved(weights, w, v, eps), without_weight_gradients(weights):
        plus = gradients(training_loss(), alphas)
    with moved(weights, w, v, -eps), without_weight_gradients(weights):
        minus = gradients(training_loss(), alphas)
    return central_difference(plus, minus, eps)


def central_difference(
    plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor
) -> list[Tensor]:
    """Return (plus - minus) / (2 eps)."""
    return [(p - m) / (2 * eps) for p, m in zip(plus, minus, strict=True)]


def combine(direct: Sequence[Tensor], hvp: Sequence[Tensor], lr: float | Tensor) -> list[Tensor]:
    """Return the direct term minus lr times the Hessian-vector product (Eq. (4))."""
    return [d - lr * h for d, h in zip(direct, hvp, strict=True)]


def second_order_exact(
    training_loss: Loss,
    validation_loss: LossAt,
    weights: FlatWeights,
    alphas: Sequence[Tensor],
    step: VirtualStep,
) -> ArchitectureGradient:
    """Return the gradient of `second_order` exactly, by backpropagation through the virtual step.

    Keeps the graphs of both losses in memory, and needs losses that are twice differentiable.

    Args:
        training_loss: L_train on one batch.
        validation_loss: L_val on one batch, at the weights that it is given.
        weights: w; unchanged.
        alphas: leaf tensors; unchanged.
        step: from w to w'.
    """
    (grad_w,) = gradients(training_loss(), [weights], create_graph=True)
    loss = validation_loss(weights.split(differentiable_step(weights.values, grad_w, step)))
    return ArchitectureGradient(gradients(loss, alphas), loss.detach())


def differentiable_step(w: Tensor, grad_w: Tensor, step: VirtualStep) -> Tensor:
    """Return w', [n], as a function of w and its gradient."""
    return w - step.lr * step.direction(grad_w, w)


@contextmanager
def without_weight_gradients(weights: FlatWeights) -> Iterator[None]:
    """Disable weight gradients inside the context, in forward and backward."""
    for tensor in weights.tensors:
        tensor.requires_grad_(False)
    try:
        yield
    finally:
        for tensor in weights.tensors:
            tensor.requires_grad_(True)


@contextmanager
def moved(
    weights: FlatWeights, w: Tensor, direction: Tensor, length: float | Tensor
) -> Iterator[None]:
    """Set the weights to w + length * direction inside the context, and back to w afterwards."""
    weights.values.copy_(w + length * direction)
    try:
        yield
    finally:
        weights.values.copy_(w)
