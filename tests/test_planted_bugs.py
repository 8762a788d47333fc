"""Bugs that searches are known to have had, each planted into ours and each caught.

What catches them are the checks that the real code passes elsewhere; none is made for them here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import test_selection
from known_gradients import examine_difference, examine_exact
from test_search import SMALL, examine_resume
from torch import Tensor, nn

from skelnas import genotype
from skelnas.errors import InputError
from skelnas.nas import architect, flat_weights
from skelnas.nas.search import search
from skelnas.training import loop

Softmax = Callable[[Sequence[float]], list[float]]

AFTER_V = "    norm = torch.linalg.vector_norm(v)"
PUT_BACK = "weights.values.copy_(start)"

HELPERS = """
from contextlib import contextmanager
def _through_grad(loss, inputs, **_):
    for x in inputs:
        x.grad = torch.zeros_like(x) if x.grad is None else x.grad.zero_()
    loss.backward()
    return [x.grad for x in inputs]

@contextmanager
def _nudged(alphas, direct, length):
    start = [alpha.detach().clone() for alpha in alphas]
    for alpha, d in zip(alphas, direct):
        alpha.data += length * d
    yield
    for alpha, s in zip(alphas, start):
        alpha.data = s
"""

BUGS_OF_THE_DIFFERENCE = {
    "multiplies by eps": {"/ (2 * eps)": "* (2 * eps)"},
    "divides by 2 and multiplies by eps": {"/ (2 * eps)": "/ 2 * eps"},
    "divides by eps": {"/ (2 * eps)": "/ eps"},
    "mixed term added": {"d - step.lr * m": "d + step.lr * m"},
    "mixed term without the rate": {"d - step.lr * m": "d - m"},
    "no mixed term": {"d - step.lr * m": "d"},
    "difference to one side": {"start, v, -eps)": "start, v, 0 * eps)"},
    "difference on the validation batch": {"gradients(perturbed_loss": "gradients(validation_loss"},
    "difference around w'": {
        "start, v, eps)": "start, v - step.lr / eps * step.direction(slope, start), eps)",
        "start, v, -eps)": "start, v + step.lr / eps * step.direction(slope, start), -eps)",
    },
    "both gradients in one .grad": {"torch.autograd.grad(": "_through_grad("},
    "alpha moved with w": {
        "start, v, eps)": "start, v, eps), _nudged(alphas, direct, eps)",
        "start, v, -eps)": "start, v, -eps), _nudged(alphas, direct, -eps)",
    },
    "eps not divided by the norm": {"perturbation / norm": "perturbation / norm.new_ones(())"},
    "eps by the norm of one tensor": {"vector_norm(v)": "vector_norm(v[:5])"},
    "no virtual step": {", -step.lr):": ", 0.0):"},
    "virtual step uphill": {", -step.lr):": ", step.lr):"},
    "virtual step without momentum": {"alpha=self.momentum": "alpha=0"},
    "virtual step without weight decay": {"alpha=self.weight_decay": "alpha=0"},
    "steps that rebind a local name": {"weights.values.copy_(start + ": "moved = (start + "},
    "direct term at w": {AFTER_V: f"    direct = gradients(validation_loss(), alphas)\n{AFTER_V}"},
    "v at w": {AFTER_V: f"    (v,) = gradients(validation_loss(), [weights])\n{AFTER_V}"},
    "weights not put back": {PUT_BACK: "pass"},
    "weights put back by subtraction": {PUT_BACK: "weights.values.sub_(length * direction)"},
    "weights not put back after a failure": {"try:": "if True:", "finally:": "if True:"},
}

BUGS_OF_DOUBLE_BACKWARD = {
    "virtual step cut from alpha": {"create_graph=True": "create_graph=False"},
    "virtual step uphill": {"weights.values - step.lr": "weights.values + step.lr"},
    "virtual step without the rate": {"values - step.lr * step": "values - step"},
    "loss at w": {"validation_loss(weights.split(moved))": "validation_loss()"},
}


def plant(bug: Mapping[str, str]) -> tuple[ModuleType, ModuleType]:
    """Return the architect, and the flat weights under it, with pieces of their source replaced."""
    modules = flat_weights, architect
    sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules]
    planted = [ModuleType(module.__name__) for module in modules]
    for old, new in bug.items():
        assert any(old in source for source in sources)
        sources = [source.replace(old, new) for source in sources]
    for module, source in zip(planted, sources, strict=True):
        exec(compile(source + HELPERS, "planted", "exec"), module.__dict__)
    below, above = planted
    vars(above).update(FlatWeights=below.FlatWeights, gradients=below.gradients)
    return above, below


@pytest.mark.parametrize("bug", BUGS_OF_THE_DIFFERENCE)
def test_wrong_differences(bug: str) -> None:
    planted = plant(BUGS_OF_THE_DIFFERENCE[bug])
    with pytest.raises(AssertionError):
        examine_difference(*planted)


@pytest.mark.parametrize("bug", BUGS_OF_DOUBLE_BACKWARD)
def test_wrong_double_backward(bug: str) -> None:
    planted = plant(BUGS_OF_DOUBLE_BACKWARD[bug])
    with pytest.raises(AssertionError):
        examine_exact(*planted)


def test_without_a_bug_nothing_is_caught() -> None:
    examine_difference(*plant({}))
    examine_exact(*plant({}))


def softmax_of_ops(alphas: Sequence[float], softmax: Softmax = genotype.softmax) -> list[float]:
    """Leave `none`, the first operation, out of the softmax."""
    return [0.0, *softmax(alphas[1:])]


@pytest.mark.parametrize(
    "wrong", [list, softmax_of_ops], ids=["raw alphas", "softmax without none"]
)
def test_wrong_ranking(monkeypatch: pytest.MonkeyPatch, wrong: Softmax) -> None:
    monkeypatch.setattr(genotype, "softmax", wrong)
    with pytest.raises(AssertionError):
        test_selection.TestFromAlphas().test_none_takes_its_share_but_is_never_chosen()


@pytest.fixture(scope="module")
def whole_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted") / "run"
    search(tiny_cache, out, SMALL)
    return out


@pytest.mark.parametrize("lost", ["model/alphas", "alpha_optimizer/", "weight_optimizer/"])
def test_incomplete_checkpoint(
    tiny_cache: Path,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    save, load = loop.save_checkpoint, nn.Module.load_state_dict

    def forget(path: Path, tensors: Mapping[str, Tensor], place: Mapping[str, int]) -> None:
        if place["step"]:  # the last checkpoint is whole, or its names would give it away
            tensors = {name: t for name, t in tensors.items() if not name.startswith(lost)}
        save(path, tensors, place)

    def load_what_is_there(model: nn.Module, state: Mapping[str, Tensor]) -> None:
        load(model, state, strict=False)

    monkeypatch.setattr(loop, "save_checkpoint", forget)
    monkeypatch.setattr(nn.Module, "load_state_dict", load_what_is_there)
    with pytest.raises((AssertionError, InputError)):
        examine_resume(tiny_cache, whole_run, tmp_path / "run", monkeypatch)
