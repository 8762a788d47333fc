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

from skelnas import architect, job, selection
from skelnas.search import search

Softmax = Callable[[Sequence[float]], list[float]]

MOVED = "_moved(weights, start, direction, {})"
ALL_MOVED = (
    "_moved([*weights, *alphas], [*start, *(a.detach().clone() for a in alphas)], "
    "[*direction, *direct], {})"
)
PUT_BACK = "torch._foreach_copy_(list(weights), list(start))"
SPLIT = "direct, direction = gradients[: len(alphas)], gradients[len(alphas) :]"

THROUGH_GRAD = """
def _through_grad(loss, inputs, **_):
    for x in inputs:
        x.grad = torch.zeros_like(x) if x.grad is None else x.grad.zero_()
    loss.backward()
    return [x.grad for x in inputs]
"""

BUGS_OF_THE_DIFFERENCE = {
    "multiplies by eps": {"/ (2 * eps)": "* (2 * eps)"},
    "divides by 2 and multiplies by eps": {"/ (2 * eps)": "/ 2 * eps"},
    "divides by eps": {"/ (2 * eps)": "/ eps"},
    "mixed term added": {"d - step.lr * m": "d + step.lr * m"},
    "mixed term without the rate": {"d - step.lr * m": "d - m"},
    "no mixed term": {"d - step.lr * m": "d"},
    "difference to one side": {"direction, -eps)": "direction, 0 * eps)"},
    "difference on the validation batch": {"us = _gradient(perturbed": "us = _gradient(validation"},
    "difference around w'": {
        SPLIT: f"first = direction\n    {SPLIT}",
        MOVED.format("eps"): f"_moved(weights, start, first, -step.lr), {MOVED.format('eps')}",
        MOVED.format("-eps"): f"_moved(weights, start, first, -step.lr), {MOVED.format('-eps')}",
    },
    "both gradients in one .grad": {"= torch.autograd.grad(": "= _through_grad("},
    "alpha moved with w": {
        MOVED.format("eps"): ALL_MOVED.format("eps"),
        MOVED.format("-eps"): ALL_MOVED.format("-eps"),
    },
    "eps not divided by the norm": {"perturbation / norm": "perturbation / norm.new_ones(())"},
    "eps by the norm of one tensor": {"_norm(direction))": "_norm(direction[:1]))"},
    "no virtual step": {"direction, -step.lr)": "direction, 0.0)"},
    "virtual step uphill": {"direction, -step.lr)": "direction, step.lr)"},
    "virtual step without momentum": {"if self.buffers is not None": "if False"},
    "virtual step without weight decay": {"alpha=self.weight_decay": "alpha=0"},
    "steps that rebind a local name": {
        "torch._foreach_add_(list(weights)": "weights = torch._foreach_add(list(weights)"
    },
    "direct term at w": {SPLIT: f"{SPLIT}\n    direct = _gradient(validation_loss(), alphas)"},
    "v at w": {SPLIT: f"{SPLIT}\n    direction = _gradient(validation_loss(), weights)"},
    "weights not put back": {PUT_BACK: "pass"},
    "weights put back by subtraction": {PUT_BACK: "torch._foreach_sub_(list(weights), moves)"},
    "weights not put back after a failure": {"try:": "if True:", "finally:": "if True:"},
}

BUGS_OF_DOUBLE_BACKWARD = {
    "virtual step cut from alpha": {"create_graph=True": "create_graph=False"},
    "virtual step uphill": {"w - step.lr * d": "w + step.lr * d"},
    "virtual step without the rate": {"w - step.lr * d": "w - d"},
    "loss at w": {
        "loss = validation_loss([": "loss = validation_loss(); _ = ([",
        "for w, d in zip": "for w, d in zip",
    },
}


def plant(bug: Mapping[str, str]) -> ModuleType:
    """Return the architect with pieces of its source replaced."""
    source = Path(architect.__file__).read_text(encoding="utf-8")
    for old, new in bug.items():
        assert old in source
        source = source.replace(old, new)
    module = ModuleType(architect.__name__)
    exec(compile(source + THROUGH_GRAD, "planted", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("bug", BUGS_OF_THE_DIFFERENCE)
def test_wrong_differences(bug: str) -> None:
    planted = plant(BUGS_OF_THE_DIFFERENCE[bug])
    with pytest.raises(AssertionError):
        examine_difference(planted)


@pytest.mark.parametrize("bug", BUGS_OF_DOUBLE_BACKWARD)
def test_wrong_double_backward(bug: str) -> None:
    planted = plant(BUGS_OF_DOUBLE_BACKWARD[bug])
    with pytest.raises(AssertionError):
        examine_exact(planted)


def test_without_a_bug_nothing_is_caught() -> None:
    examine_difference(plant({}))
    examine_exact(plant({}))


def softmax_of_ops(alphas: Sequence[float], softmax: Softmax = selection.softmax) -> list[float]:
    """Leave `none`, the first operation, out of the softmax."""
    return [0.0, *softmax(alphas[1:])]


@pytest.mark.parametrize(
    "wrong", [list, softmax_of_ops], ids=["raw alphas", "softmax without none"]
)
def test_wrong_ranking(monkeypatch: pytest.MonkeyPatch, wrong: Softmax) -> None:
    monkeypatch.setattr(selection, "softmax", wrong)
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
    save, load = job.save_checkpoint, nn.Module.load_state_dict

    def forget(path: Path, tensors: Mapping[str, Tensor], place: Mapping[str, int]) -> None:
        if place["step"]:  # the last checkpoint is whole, or its names would give it away
            tensors = {name: t for name, t in tensors.items() if not name.startswith(lost)}
        save(path, tensors, place)

    def load_what_is_there(model: nn.Module, state: Mapping[str, Tensor]) -> None:
        load(model, state, strict=False)

    monkeypatch.setattr(job, "save_checkpoint", forget)
    monkeypatch.setattr(nn.Module, "load_state_dict", load_what_is_there)
    with pytest.raises(AssertionError):
        examine_resume(tiny_cache, whole_run, tmp_path / "run", monkeypatch)
