"""The architecture gradient: against closed forms and exact double backward."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from skelnas import architect
from skelnas.genotype import SPACES
from skelnas.models.supernet import Supernet

SETTINGS = {"inner_lr": 0.1, "momentum": 0.9, "weight_decay": 3e-4}


class Quadratic:
    """L_train = |w - a|^2 / 2 and L_val = |w - target|^2 / 2 + c |a|^2 / 2, solved by hand."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.w, self.a, self.target, self.buffer = torch.randn(4, 5, dtype=torch.float64)
        self.c = 0.3
        self.w.requires_grad_()
        self.a.requires_grad_()

    def training(self) -> Tensor:
        return (self.w - self.a).square().sum() / 2

    def validation(self) -> Tensor:
        return (self.w - self.target).square().sum() / 2 + self.c * self.a.square().sum() / 2

    def hypergradient(self, inner_lr: float, momentum: float, weight_decay: float) -> Tensor:
        step = (self.w - self.a) + momentum * self.buffer + weight_decay * self.w
        moved = self.w - inner_lr * step
        return self.c * self.a + inner_lr * (moved - self.target)


def test_closed_form_with_momentum_and_weight_decay() -> None:
    toy = Quadratic()
    before = toy.w.detach().clone()
    gradient = architect.second_order(
        toy.training, toy.validation, [toy.w], [toy.a], momentum_buffers=[toy.buffer], **SETTINGS
    )
    torch.testing.assert_close(gradient.alphas[0], toy.hypergradient(**SETTINGS).detach())
    assert torch.equal(toy.w, before)
    assert toy.w.grad is None
    assert toy.a.grad is None


def test_first_step_has_no_momentum() -> None:
    toy = Quadratic()
    toy.buffer.zero_()
    gradient = architect.second_order(
        toy.training, toy.validation, [toy.w], [toy.a], momentum_buffers=None, **SETTINGS
    )
    torch.testing.assert_close(gradient.alphas[0], toy.hypergradient(**SETTINGS).detach())


def test_first_order_is_the_direct_term() -> None:
    toy = Quadratic()
    gradient = architect.first_order(toy.validation, [toy.a])
    torch.testing.assert_close(gradient.alphas[0], toy.c * toy.a.detach())
    torch.testing.assert_close(gradient.validation_loss, toy.validation().detach())


def test_a_validation_loss_without_weights_has_no_second_term() -> None:
    toy = Quadratic()
    gradient = architect.second_order(
        toy.training, lambda: toy.a.sum(), [toy.w], [toy.a], momentum_buffers=None, **SETTINGS
    )
    torch.testing.assert_close(gradient.alphas[0], torch.ones_like(toy.a))


def test_weights_come_back_when_a_pass_fails() -> None:
    toy = Quadratic()
    before = toy.w.detach().clone()

    def broken() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        architect.second_order(
            toy.training, broken, [toy.w], [toy.a], momentum_buffers=None, **SETTINGS
        )
    assert torch.equal(toy.w, before)


class Searching:
    """A small supernet in float64 with a batch of each half and a momentum of its own."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Supernet(
            in_channels=3,
            num_classes=4,
            primitives=SPACES["sar"],
            channels=2,
            num_layers=3,
            num_nodes=2,
        ).double()
        self.weights = dict(self.net.named_weights())
        self.alphas = list(self.net.alphas.values())
        for alpha in self.alphas:
            torch.nn.init.normal_(alpha, std=0.5)
        self.buffers = [0.1 * torch.randn_like(w) for w in self.weights.values()]
        self.batches = [
            (torch.randn(3, 3, 7, 5, dtype=torch.float64), torch.randint(4, (3,))) for _ in range(2)
        ]

    def loss(self, part: int) -> Tensor:
        x, labels = self.batches[part]
        return F.cross_entropy(self.net(x), labels)

    def finite_difference(self, perturbation: float = 1e-6) -> Tensor:
        """Take so small a step that no ReLU or maximum changes sides: float64 allows it."""
        gradient = architect.second_order(
            lambda: self.loss(0),
            lambda: self.loss(1),
            list(self.weights.values()),
            self.alphas,
            momentum_buffers=self.buffers,
            perturbation=perturbation,
            **SETTINGS,
        )
        return flat(gradient.alphas)

    def exact(self) -> Tensor:
        """Differentiate through the virtual step."""
        w = list(self.weights.values())
        gradients = torch.autograd.grad(self.loss(0), w, create_graph=True)
        moved = {
            name: weight - 0.1 * (g + 0.9 * buffer + 3e-4 * weight)
            for (name, weight), g, buffer in zip(
                self.weights.items(), gradients, self.buffers, strict=True
            )
        }
        x, labels = self.batches[1]
        loss = F.cross_entropy(functional_call(self.net, moved, (x,)), labels)
        return flat(torch.autograd.grad(loss, self.alphas))


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a, b, dim=0).item()


def test_supernet_against_exact_double_backward() -> None:
    searching = Searching()
    actual, exact = searching.finite_difference(), searching.exact()
    assert cosine(actual, exact) > 0.999999
    direct = flat(architect.first_order(lambda: searching.loss(1), searching.alphas).alphas)
    assert cosine(direct, exact) < 0.9999, "the second term must matter for this to be a test"


def test_mixed_term_alone_against_exact_double_backward() -> None:
    """The second term by itself: far smaller than the direct one, it could be wrong unseen."""
    searching = Searching()
    start = [w.detach().clone() for w in searching.weights.values()]
    w = list(searching.weights.values())
    gradients = torch.autograd.grad(searching.loss(0), w)
    with torch.no_grad():
        for weight, g, buffer in zip(w, gradients, searching.buffers, strict=True):
            weight -= 0.1 * (g + 0.9 * buffer + 3e-4 * weight)
    direct = flat(torch.autograd.grad(searching.loss(1), searching.alphas))
    with torch.no_grad():
        for weight, value in zip(w, start, strict=True):
            weight.copy_(value)
    mixed = searching.finite_difference() - direct
    exact = searching.exact() - direct
    assert cosine(mixed, exact) > 0.999999
    assert mixed.norm().item() == pytest.approx(exact.norm().item(), rel=1e-4)


def test_perturbation_has_one_norm_over_all_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    moved = architect._moved

    def spy(weights, start, direction, length):  # type: ignore[no-untyped-def]
        lengths.append(float(length) * math.sqrt(sum(float(d.square().sum()) for d in direction)))
        return moved(weights, start, direction, length)

    monkeypatch.setattr(architect, "_moved", spy)
    Searching().finite_difference(0.01)
    assert lengths[1:] == [pytest.approx(0.01), pytest.approx(-0.01)]
