"""Known bugs of architecture searches are planted one at a time and caught.

The checks that catch them are the ones that the real code passes elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import test_derivation
import torch
from known_gradients import examine_difference, examine_exact
from test_search import SMALL, examine_resume
from torch import Tensor, nn

from skelnas import derivation
from skelnas.errors import InputError
from skelnas.nas import architect
from skelnas.nas.architect import ArchitectureGradient, VirtualStep
from skelnas.nas.flat_weights import FlatSGD, FlatWeights, gradients
from skelnas.nas.search import search
from skelnas.training import loop

Softmax = Callable[[Sequence[float]], list[float]]
Tensors = Sequence[Tensor]

virtual_step, moved, second_order, hvp = (
    architect.virtual_step,
    architect.moved,
    architect.second_order,
    architect.hessian_vector_product,
)


def difference_with(divisor: Callable[[Tensor], Tensor]) -> Callable[..., list[Tensor]]:
    def central_difference(plus: Tensors, minus: Tensors, eps: Tensor) -> list[Tensor]:
        return [(p - m) / divisor(eps) for p, m in zip(plus, minus, strict=True)]

    return central_difference


def combine_with(factor: Callable[[float], float]) -> Callable[..., list[Tensor]]:
    def combine(direct: Tensors, hvp: Tensors, lr: float) -> list[Tensor]:
        return [d + factor(lr) * h for d, h in zip(direct, hvp, strict=True)]

    return combine


def one_sided(loss: Any, weights: FlatWeights, alphas: Tensors, w: Tensor, v: Tensor, eps: Tensor):
    with moved(weights, w, v, eps):
        plus = gradients(loss(), alphas)
    with moved(weights, w, v, 0 * eps):
        minus = gradients(loss(), alphas)
    return architect.central_difference(plus, minus, eps)


def difference_on_the_validation_batch(training: Any, validation: Any, *rest: Any, **more: Any):
    return second_order(training, validation, *rest, **more, perturbed_loss=validation)


def difference_around_the_virtual_weights(training: Any, validation: Any, *rest: Any, **more: Any):
    step = rest[-1]

    def hvp_at_virtual_weights(
        loss: Any, weights: FlatWeights, alphas: Tensors, w: Tensor, v: Any, eps: Any
    ):
        (grad_w,) = gradients(training(), [weights])
        with virtual_step(weights, w, grad_w, step):
            return hvp(loss, weights, alphas, weights.values.clone(), v, eps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architect, "hessian_vector_product", hvp_at_virtual_weights)
        return second_order(training, validation, *rest, **more)


def gradients_by_backward(loss: Tensor, inputs: Sequence[Any], **_: Any) -> list[Tensor]:
    """Accumulate in ``.grad``, as ``loss.backward()`` does."""
    leaves = [x.tensors if isinstance(x, FlatWeights) else [x] for x in inputs]
    for leaf in (leaf for group in leaves for leaf in group):
        leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.zero_()
    loss.backward()
    return [
        x.join([leaf.grad for leaf in group]) if isinstance(x, FlatWeights) else group[0].grad
        for x, group in zip(inputs, leaves, strict=True)
    ]


def hvp_that_moves_alpha(
    loss: Any, weights: FlatWeights, alphas: Tensors, w: Tensor, v: Tensor, eps: Tensor
) -> list[Tensor]:
    original = [alpha.detach().clone() for alpha in alphas]
    grads = []
    for length in (eps, -eps):
        for alpha in alphas:
            alpha.data = alpha.data + length
        with moved(weights, w, v, length):
            grads.append(gradients(loss(), alphas))
        for alpha, values in zip(alphas, original, strict=True):
            alpha.data = values
    return architect.central_difference(*grads, eps)


def virtual_step_with(length: float) -> Callable[..., Any]:
    def wrong(weights: FlatWeights, w: Tensor, grad_w: Tensor, step: VirtualStep) -> Any:
        return moved(weights, w, step.direction(grad_w, w), length * step.lr)

    return wrong


def direct_term_at_w(training: Any, validation: Any, *rest: Any, **more: Any):
    weights, alphas, step = rest
    right = second_order(training, validation, *rest, **more)
    (grad_w,) = gradients(training(), [weights])
    with virtual_step(weights, weights.values.clone(), grad_w, step):
        at_virtual = gradients(validation(), alphas)
    at_w = gradients(validation(), alphas)
    grad = [r - t + h for r, t, h in zip(right.alphas, at_virtual, at_w, strict=True)]
    return ArchitectureGradient(grad, right.validation_loss)


def v_at_w(training: Any, validation: Any, *rest: Any, **more: Any) -> ArchitectureGradient:
    weights, _, _ = rest
    (v,) = gradients(validation(), [weights])

    def hvp_of(loss: Any, weights: FlatWeights, alphas: Tensors, w: Tensor, _: Any, __: Any):
        eps = architect.perturbation_size(v, more.get("perturbation", architect.PERTURBATION))
        return hvp(loss, weights, alphas, w, v, eps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architect, "hessian_vector_product", hvp_of)
        return second_order(training, validation, *rest, **more)


@contextmanager
def moved_without_return(weights: FlatWeights, w: Tensor, d: Tensor, length: Any) -> Iterator[None]:
    weights.values.copy_(w + length * d)
    yield


@contextmanager
def moved_and_subtracted(weights: FlatWeights, w: Tensor, d: Tensor, length: Any) -> Iterator[None]:
    weights.values.copy_(w + length * d)
    try:
        yield
    finally:
        weights.values.sub_(length * d)


@contextmanager
def moved_unless_it_fails(
    weights: FlatWeights, w: Tensor, d: Tensor, length: Any
) -> Iterator[None]:
    weights.values.copy_(w + length * d)
    yield
    weights.values.copy_(w)


def direction_without(*omitted: str) -> Callable[..., Tensor]:
    def direction(self: FlatSGD, grad_w: Tensor, w: Tensor) -> Tensor:
        decay = 0 if "weight decay" in omitted else self.weight_decay
        momentum = 0 if "momentum" in omitted else self.momentum
        return grad_w + decay * w + momentum * self.velocity

    return direction


def size_by(norm: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda v, perturbation: perturbation / norm(v)


def step_with(factor: Callable[[float], float]) -> Callable[..., Tensor]:
    return lambda w, grad_w, step: w + factor(step.lr) * step.direction(grad_w, w)


ARCHITECT = {
    "multiplies by eps": ("central_difference", difference_with(lambda eps: 1 / (2 * eps))),
    "divides by 2, multiplies by eps": ("central_difference", difference_with(lambda e: 2 / e)),
    "divides by eps": ("central_difference", difference_with(lambda eps: eps)),
    "mixed term added": ("combine", combine_with(lambda lr: lr)),
    "mixed term without the rate": ("combine", combine_with(lambda lr: -1)),
    "no mixed term": ("combine", combine_with(lambda lr: 0)),
    "one-sided difference": ("hessian_vector_product", one_sided),
    "difference on the validation batch": ("second_order", difference_on_the_validation_batch),
    "difference around w'": ("second_order", difference_around_the_virtual_weights),
    "both gradients in one .grad": ("gradients", gradients_by_backward),
    "alpha moved with w": ("hessian_vector_product", hvp_that_moves_alpha),
    "eps not divided by the norm": ("perturbation_size", size_by(lambda v: v.new_ones(()))),
    "eps by the norm of one tensor": ("perturbation_size", size_by(lambda v: v[:5].norm())),
    "no virtual step": ("virtual_step", virtual_step_with(0.0)),
    "virtual step uphill": ("virtual_step", virtual_step_with(1.0)),
    "steps that move nothing": ("moved", lambda *_: nullcontext()),
    "direct term at w": ("second_order", direct_term_at_w),
    "v at w": ("second_order", v_at_w),
    "weights not put back": ("moved", moved_without_return),
    "weights put back by subtraction": ("moved", moved_and_subtracted),
    "weights not put back after a failure": ("moved", moved_unless_it_fails),
}
"""Bugs of the finite difference: the function of `architect` to replace, and its replacement."""

DIRECTION = {
    "virtual step without momentum": direction_without("momentum"),
    "virtual step without weight decay": direction_without("weight decay"),
}

EXACT = {
    "virtual step cut from alpha": lambda w, grad_w, step: (
        w - step.lr * step.direction(grad_w, w).detach()
    ),
    "virtual step uphill": step_with(lambda lr: lr),
    "virtual step without the rate": step_with(lambda lr: -1),
    "loss at w": lambda w, grad_w, step: w + 0 * grad_w,
}
"""Bugs of the double backward: replacements of `architect.differentiable_step`."""


@pytest.mark.parametrize("bug", ARCHITECT)
def test_wrong_differences_are_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = ARCHITECT[bug]
    assert callable(getattr(architect, name))
    monkeypatch.setattr(architect, name, wrong)
    with pytest.raises(AssertionError):
        examine_difference()


@pytest.mark.parametrize("bug", DIRECTION)
def test_wrong_directions_are_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlatSGD, "direction", DIRECTION[bug])
    for examine in (examine_difference, examine_exact):
        with pytest.raises(AssertionError):
            examine()


@pytest.mark.parametrize("bug", EXACT)
def test_wrong_double_backward_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architect, "differentiable_step", EXACT[bug])
    with pytest.raises(AssertionError):
        examine_exact()


def test_replacements_without_a_bug_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above catch is the bug, not the way it is planted."""
    monkeypatch.setattr(architect, "central_difference", difference_with(lambda eps: 2 * eps))
    monkeypatch.setattr(architect, "combine", combine_with(lambda lr: -lr))
    monkeypatch.setattr(architect, "perturbation_size", size_by(torch.linalg.vector_norm))
    monkeypatch.setattr(architect, "virtual_step", virtual_step_with(-1.0))
    monkeypatch.setattr(architect, "differentiable_step", step_with(lambda lr: -lr))
    monkeypatch.setattr(FlatSGD, "direction", direction_without())
    examine_difference()
    examine_exact()


def softmax_of_ops(alphas: Sequence[float], softmax: Softmax = derivation.softmax) -> list[float]:
    """Leave `none`, the first operation, out of the softmax."""
    return [0.0, *softmax(alphas[1:])]


@pytest.mark.parametrize(
    "wrong", [list, softmax_of_ops], ids=["raw alphas", "softmax without none"]
)
def test_wrong_ranking_is_caught(monkeypatch: pytest.MonkeyPatch, wrong: Softmax) -> None:
    monkeypatch.setattr(derivation, "softmax", wrong)
    with pytest.raises(AssertionError):
        test_derivation.TestFromAlphas().test_none_counts_in_the_softmax_but_is_never_chosen()


@pytest.fixture(scope="module")
def whole_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted") / "run"
    search(tiny_cache, out, SMALL)
    return out


@pytest.mark.parametrize("lost", ["model/alphas", "alpha_optimizer/", "weight_optimizer/"])
def test_incomplete_checkpoints_are_caught(
    tiny_cache: Path,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    save, load = loop.save_checkpoint, nn.Module.load_state_dict

    def save_incomplete(
        path: Path, tensors: Mapping[str, Tensor], position: Mapping[str, int]
    ) -> None:
        if position[
            "step"
        ]:  # the last checkpoint stays complete, or its names would reveal the bug
            tensors = {name: t for name, t in tensors.items() if not name.startswith(lost)}
        save(path, tensors, position)

    def load_partially(model: nn.Module, state: Mapping[str, Tensor]) -> None:
        load(model, state, strict=False)

    monkeypatch.setattr(loop, "save_checkpoint", save_incomplete)
    monkeypatch.setattr(nn.Module, "load_state_dict", load_partially)
    with pytest.raises((AssertionError, InputError)):
        examine_resume(tiny_cache, whole_run, tmp_path / "run", monkeypatch)
