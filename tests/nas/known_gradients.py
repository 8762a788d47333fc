"""A bilevel problem with a closed-form architecture gradient, and checks against it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from skelnas.nas import architect
from skelnas.nas.architect import ArchitectureGradient, VirtualStep
from skelnas.nas.flat_weights import FlatSGD, FlatWeights

LR, MOMENTUM, WEIGHT_DECAY, PERTURBATION = 0.1, 0.9, 3e-4, 0.05


class Quadratic:
    """L_train = |w - a|^2 / 2 and L_val = |w - target|^2 / 2 + c w a, with a closed form.

    w is split into two tensors. Finite differences of it are exact at any length, so a wrong
    length shows only in `seen`: w and a at each evaluation of L_train.
    """

    c = 0.3

    def __init__(self, started: bool = True) -> None:
        torch.manual_seed(0)
        start, self.a, self.target, buffer = torch.randn(4, 8, dtype=torch.float64)
        self.w = list(start.split((5, 3)))
        self.started = started
        self.buffer = started * buffer
        self.seen: list[tuple[Tensor, Tensor]] = []
        for leaf in (*self.w, self.a):
            leaf.requires_grad_()

    def problem(self) -> tuple[FlatWeights, list[Tensor], VirtualStep]:
        """Return w, the alphas and the virtual step."""
        weights = FlatWeights(self.w)
        sgd = FlatSGD(
            weights, ["first", "second"], momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, clip=5.0
        )
        if self.started:
            sgd.velocity.copy_(self.buffer)
        return weights, [self.a], VirtualStep(LR, sgd.direction)

    def training(self) -> Tensor:
        w = torch.cat(self.w)
        self.seen.append((w.detach().clone(), self.a.detach().clone()))
        return (w - self.a).square().sum() / 2

    def validation(self, weights: Sequence[Tensor] = ()) -> Tensor:
        w = torch.cat(list(weights or self.w))
        return (w - self.target).square().sum() / 2 + self.c * w @ self.a

    def moved(self) -> Tensor:
        w = torch.cat(self.w)
        return w - LR * ((w - self.a) + MOMENTUM * self.buffer + WEIGHT_DECAY * w)

    def v(self) -> Tensor:
        return self.moved() - self.target + self.c * self.a

    def hypergradient(self) -> Tensor:
        return self.c * self.moved() + LR * self.v()


def examine_difference() -> None:
    """Fail unless `architect.second_order` is right, as far as this problem can tell."""
    for started in (True, False):
        toy = Quadratic(started)
        problem = toy.training, toy.validation, *toy.problem()
        examine(architect.second_order(*problem, perturbation=PERTURBATION), toy)
        (w, a), *perturbed = toy.seen
        assert len(perturbed) == 2
        for sign, (moved, same) in zip((1, -1), perturbed, strict=True):
            v = Quadratic(started).v()
            torch.testing.assert_close(moved - w, (sign * PERTURBATION * v / v.norm()).detach())
            assert torch.equal(same, a), "alpha has moved"

    toy = Quadratic()
    with pytest.raises(ZeroDivisionError):
        architect.second_order(toy.training, lambda: 1 / 0, *toy.problem())
    untouched(toy)


def examine_exact() -> None:
    """Fail unless `architect.second_order_exact` is right."""
    for started in (True, False):
        toy = Quadratic(started)
        problem = toy.training, toy.validation, *toy.problem()
        examine(architect.second_order_exact(*problem), toy)


def examine(gradient: ArchitectureGradient, toy: Quadratic) -> None:
    fresh = Quadratic(toy.started)
    torch.testing.assert_close(gradient.alphas, [fresh.hypergradient().detach()])
    torch.testing.assert_close(gradient.validation_loss, fresh.validation([fresh.moved()]).detach())
    untouched(toy)


def untouched(toy: Quadratic) -> None:
    fresh = Quadratic()
    for leaf, other in zip([*toy.w, toy.a], [*fresh.w, fresh.a], strict=True):
        assert torch.equal(leaf, other), "weights or alphas are not what they were, bit for bit"
        assert leaf.grad is None
