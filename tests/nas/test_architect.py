"""The architecture gradient: against closed forms, numerical and exact differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from known_gradients import Quadratic, examine_difference, examine_exact
from torch import Tensor
from torch.func import functional_call

from skelnas.nas import architect
from skelnas.nas.flat_weights import FlatSGD, FlatWeights
from skelnas.nas.supernet import Supernet
from skelnas.primitives import SPACES


def test_closed_form_by_difference() -> None:
    examine_difference()


def test_closed_form_by_double_backward() -> None:
    examine_exact()


def test_first_order_is_the_direct_term() -> None:
    toy = Quadratic()
    gradient = architect.first_order(toy.validation, *toy.problem()[:2])
    torch.testing.assert_close(gradient.alphas[0], toy.c * torch.cat(toy.w).detach())
    torch.testing.assert_close(gradient.validation_loss, toy.validation().detach())


def test_a_validation_loss_without_weights_has_no_second_term() -> None:
    toy = Quadratic()
    problem = toy.training, lambda weights=(): toy.a.sum(), *toy.problem()
    for method in (architect.second_order, architect.second_order_exact):
        torch.testing.assert_close(method(*problem).alphas[0], torch.ones_like(toy.a))


def test_the_difference_can_use_a_separate_loss() -> None:
    toy, more_exact = Quadratic(), Quadratic()
    more_exact.w, more_exact.a = toy.w, toy.a
    problem = toy.training, toy.validation, *toy.problem()
    gradient = architect.second_order(*problem, perturbed_loss=more_exact.training)
    torch.testing.assert_close(gradient.alphas[0], toy.hypergradient().detach())
    assert (len(toy.seen), len(more_exact.seen)) == (1, 2)


class Searching:
    """A small supernet in float64, a batch of each half, and a random momentum."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Supernet(
            in_channels=3,
            num_classes=4,
            primitives=SPACES["sar-joint"],
            channels=2,
            num_layers=3,
            num_nodes=2,
            joints=5,
        ).double()
        self.names, tensors = zip(*self.net.named_weights(), strict=True)
        self.weights = FlatWeights(tensors)
        self.alphas = list(self.net.alphas.values())
        for alpha in self.alphas:
            torch.nn.init.normal_(alpha, std=0.5)
        sgd = FlatSGD(self.weights, self.names, momentum=0.9, weight_decay=3e-4, clip=5)
        self.velocity = sgd.velocity.normal_(std=0.1)
        self.step = architect.VirtualStep(0.1, sgd.direction)
        self.batches = [
            (torch.randn(3, 3, 7, 5, dtype=torch.float64), torch.randint(4, (3,))) for _ in range(2)
        ]
        self.problem = partial(self.loss, 0), partial(self.loss, 1), self.weights, self.alphas

    def loss(self, part: int, weights: Sequence[Tensor] = ()) -> Tensor:
        x, labels = self.batches[part]
        named = dict(zip(self.names, weights or self.weights.tensors, strict=True))
        return F.cross_entropy(functional_call(self.net, named, (x,)), labels)

    def difference(self) -> Tensor:
        """Use a step so small that no ReLU or maximum switches, which float64 allows."""
        return flat(architect.second_order(*self.problem, self.step, perturbation=1e-6).alphas)

    def exact(self) -> Tensor:
        return flat(architect.second_order_exact(*self.problem, self.step).alphas)

    def moved(self) -> tuple[Tensor, ...]:
        """Take the virtual step by hand."""
        weights = self.weights.tensors
        gradients = torch.autograd.grad(self.loss(0), weights)
        buffers = self.weights.split(self.velocity)
        return tuple(
            (w - 0.1 * (g + 0.9 * buffer + 3e-4 * w)).detach()
            for w, g, buffer in zip(weights, gradients, buffers, strict=True)
        )

    def direct(self) -> Tensor:
        """Return the first term alone, at w'."""
        return flat(torch.autograd.grad(self.loss(1, self.moved()), self.alphas))

    def validation_loss(self, alphas: list[Tensor]) -> float:
        """Evaluate L_val(w'(alpha), alpha), whose gradient the architect computes."""
        with torch.no_grad():
            for target, alpha in zip(self.alphas, alphas, strict=True):
                target.copy_(alpha)
        return self.loss(1, self.moved()).item()


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a, b, dim=0).item()


@pytest.fixture(scope="module")
def searching() -> Searching:
    return Searching()


def test_exact_gradient_is_the_slope_of_the_function_itself() -> None:
    """Along random directions of alpha, without second derivatives."""
    searching = Searching()
    gradient, h = searching.exact(), 1e-5
    start = [alpha.detach().clone() for alpha in searching.alphas]
    for _ in range(3):
        direction = [torch.randn_like(alpha) for alpha in start]
        ahead, behind = (
            searching.validation_loss(
                [a + s * h * d for a, d in zip(start, direction, strict=True)]
            )
            for s in (1, -1)
        )
        slope = torch.dot(gradient, flat(direction)).item()
        assert (ahead - behind) / (2 * h) == pytest.approx(slope, rel=1e-5)


def test_difference_against_exact(searching: Searching) -> None:
    difference, exact = searching.difference(), searching.exact()
    assert cosine(difference, exact) > 0.999999
    torch.testing.assert_close(difference, exact, rtol=1e-4, atol=1e-9)


def test_mixed_term_alone_against_exact(searching: Searching) -> None:
    """The second term is so much smaller than the first that an error in the sum goes unnoticed."""
    direct = searching.direct()
    mixed, exact = searching.difference() - direct, searching.exact() - direct
    assert cosine(direct, searching.exact()) < 0.9999, "or else this is no test"
    assert cosine(mixed, exact) > 0.999999
    assert mixed.norm().item() == pytest.approx(exact.norm().item(), rel=1e-4)
