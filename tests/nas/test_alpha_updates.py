"""Updates of the alphas: exact, and able to decide on planted problems in few steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from interrupting import stop_after
from test_search import assert_same
from torch import Tensor, nn
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import SearchSettings
from skelnas.data.dataset import Batch
from skelnas.derivation import choose_epoch, entropy
from skelnas.errors import InputError, Interrupted, UsageError
from skelnas.genotype import Genotype, random_genotype
from skelnas.nas.alpha_updates import ExponentiatedGradient, resolve_alpha_lr
from skelnas.nas.bilevel import Bilevel
from skelnas.nas.derive import derive
from skelnas.nas.search import search
from skelnas.nas.supernet import Supernet
from skelnas.reporting.facts import run_facts, shown_epochs
from skelnas.reporting.history import read_history
from skelnas.training import run_dir

CLASSES = 5
STEPS_PER_EPOCH, EPOCHS = 15, 4
AUTO: dict[str, Any] = {"alpha_lr": "auto"}
EXPONENTIATED: dict[str, Any] = {"alpha_update": "exponentiated", "alpha_lr": 1.0}


class Mixture(nn.Module):
    """Operations that multiply their own part of the input by a weight, on edges in parallel.

    Args:
        num_edges: edges of each of the two cells; edge e finds the part of operation o at o + e.
        scales: of the operations at the start.
    """

    def __init__(self, num_edges: int, scales: list[float]) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.tensor(scales))
        shape = num_edges, len(scales)
        self.alphas = nn.ParameterDict(
            {cell: nn.Parameter(1e-3 * torch.randn(shape)) for cell in ("normal", "reduction")}
        )

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield "scales", self.scales

    def forward(self, x: Tensor, op_weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Map x [N, operations, classes] to logits [N, classes]."""
        cells = op_weights or {cell: alpha.softmax(-1) for cell, alpha in self.alphas.items()}
        parts = [edge.roll(e) for cell in cells.values() for e, edge in enumerate(cell)]
        return torch.einsum("o,nok->nk", torch.stack(parts).sum(0) * self.scales, x)


def make(net: Any, **changes: Any) -> Bilevel:
    settings = SearchSettings.model_validate({"epochs": EPOCHS, **changes})
    return Bilevel(net, resolve_alpha_lr(settings, STEPS_PER_EPOCH))


def make_batch(seed: int, signal: list[float], noise: float, count: int = 16) -> Batch:
    """Make inputs whose parts show the class this clearly, below noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    classes = F.one_hot(labels, CLASSES)[:, None]  # [N, 1, classes]
    x = noise * torch.randn(count, len(signal), CLASSES, generator=generator)
    return Batch(x + torch.tensor(signal)[:, None] * classes, labels, count)


def run(bilevel: Bilevel, lr: float, signal: list[float], noise: float) -> None:
    """Search for `EPOCHS` epochs; the first may be of the weights alone."""

    def make(seed: int) -> Batch:
        batch = make_batch(seed, signal, noise)
        return replace(batch, x=batch.x.to(bilevel.weights.values.dtype))

    for step in range(EPOCHS * STEPS_PER_EPOCH):
        alpha_learns = step >= bilevel.settings.weight_epochs * STEPS_PER_EPOCH
        bilevel.step(make(step), make(1000 + step) if alpha_learns else None, lr)


orders = pytest.mark.parametrize("order", ["first", "second"])


@orders
@pytest.mark.parametrize(
    ("changes", "limit"), [(AUTO, 0.8), (EXPONENTIATED, 0.4)], ids=["auto", "exponentiated"]
)
def test_few_steps_decide_on_the_planted_operations(
    order: str, changes: dict[str, Any], limit: float
) -> None:
    """One operation of each edge sees the class; with the default, 60 steps do not show it."""
    ends = {}
    for name, update in {"default": {}, "option": changes}.items():
        torch.manual_seed(0)
        ends[name] = make(Mixture(3, [1.0] * 4), order=order, **update)
        run(ends[name], 0.01, [1.0, 0, 0, 0], 1.0)
    for default, option in zip(ends["default"].alphas, ends["option"].alphas, strict=True):
        assert entropy(default.tolist()) > 0.999
        assert entropy(option.tolist()) < limit
        assert option.argmax(1).tolist() == [0, 3, 2]


@orders
@pytest.mark.parametrize("changes", [AUTO, {**EXPONENTIATED, "alpha_lr": 3.0}])
def test_weights_first_finds_what_must_be_learned(order: str, changes: dict[str, Any]) -> None:
    """The second operation is better than the first one once its weight has changed its sign."""
    found = {}
    for weights_first in (0.0, 0.5):
        torch.manual_seed(0)
        net = Mixture(1, [1.0, -1.0])
        net.scales.register_hook(lambda grad: grad * torch.tensor([0.0, 1.0]))
        bilevel = make(net, order=order, weights_first=weights_first, **changes)
        run(bilevel, 0.005, [1.0, 2.0], 0.5)
        found[weights_first] = [alpha.softmax(-1)[0, 1].item() for alpha in bilevel.alphas]
    assert max(found[0.0]) < 0.1
    assert min(found[0.5]) > 0.9


def test_a_step_is_that_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    alphas, grads = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    theta, grads = alphas.softmax(-1), 20 * grads
    optimizer = ExponentiatedGradient([alphas], lr=0.5)
    assert torch.equal(alphas.softmax(-1), torch.full_like(theta, 1 / 5))
    alphas.copy_(theta.log())
    alphas.grad = grads
    optimizer.step()

    moved = (theta * torch.exp(-0.5 * grads)).clamp(min=1e-5)
    assert (moved == 1e-5).any(), "or else the limit is not tested"
    expected = moved / moved.sum(-1, keepdim=True)
    torch.testing.assert_close(alphas.softmax(-1), expected)
    torch.testing.assert_close(alphas, expected.log())


def test_a_step_survives_gradients_that_overflow() -> None:
    alphas = torch.zeros(1, 3)
    optimizer = ExponentiatedGradient([alphas], lr=1.0)
    alphas.grad = torch.tensor([[-1e6, 0, 1e6]])
    optimizer.step()
    assert alphas.softmax(-1)[0, 0] == pytest.approx(1, abs=1e-4)
    assert alphas.isfinite().all()


def test_the_gradient_is_that_of_the_mixture() -> None:
    """In closed form, for cross-entropy of logits that are linear in theta."""
    net = Mixture(2, [0.5, 1.0, -2.0]).double()
    bilevel = make(net, order="first", **EXPONENTIATED)
    batch = make_batch(0, [1.0, 0, 2.0], 1.0)
    batch = Batch(batch.x.double(), batch.labels, batch.num_clips)
    with torch.no_grad():
        net.alphas["normal"].copy_(torch.randn(2, 3).double().log_softmax(-1))
    error = net(batch.x).softmax(-1) - F.one_hot(batch.labels, CLASSES)  # [N, classes]
    of_op = torch.einsum("nk,nok->o", error, batch.x) / len(batch.x) * net.scales
    expected = torch.stack([of_op, of_op.roll(-1)]).detach()  # [edges, operations]
    gradient = bilevel.architecture_gradient(batch, batch)
    torch.testing.assert_close(gradient.alphas, [expected, expected])


@pytest.mark.parametrize("changes", [{"order": "first"}, {}, {"hessian": "exact"}])
def test_gradients_of_theta_and_alpha_agree_by_the_chain_rule(changes: dict[str, Any]) -> None:
    """In a supernet, for both orders: d alpha = theta * (d theta - <theta, d theta>)."""
    gradients = {}
    for update in ("adam", "exponentiated"):
        torch.manual_seed(0)
        shape: dict[str, Any] = {"channels": 2, "num_layers": 3, "num_nodes": 1}
        ops = ["none", "skip_connect", "conv_3x3"]
        net = Supernet(in_channels=3, num_classes=4, primitives=ops, **shape).double()
        bilevel = make(net, alpha_update=update, **changes)
        torch.manual_seed(1)
        for alpha in bilevel.alphas:
            torch.nn.init.normal_(alpha)
        x, labels = torch.randn(2, 3, 3, 7, 5, dtype=torch.float64), torch.randint(4, (2, 3))
        batches = [Batch(*pair, 3) for pair in zip(x, labels, strict=True)]
        gradients[update] = bilevel.architecture_gradient(*batches, lr=0.1).alphas
        thetas = [alpha.softmax(-1) for alpha in bilevel.alphas]
    for theta, of_theta, of_alpha in zip(
        thetas, gradients["exponentiated"], gradients["adam"], strict=True
    ):
        mean = (theta * of_theta).sum(-1, keepdim=True)
        torch.testing.assert_close(theta * (of_theta - mean), of_alpha, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("with_alphas", [True, False])
def test_a_step_never_synchronises(monkeypatch: pytest.MonkeyPatch, with_alphas: bool) -> None:
    """On the meta device, as in a CUDA graph, reading a number fails."""
    bilevel = make(Mixture(2, [1.0, 1.0]).to("meta"), **EXPONENTIATED)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    batch = Batch(torch.empty(4, 2, CLASSES, device="meta"), torch.empty(4).long().to("meta"), 4)
    sums = bilevel.step(batch, batch if with_alphas else None, 0.1)
    with pytest.raises(RuntimeError, match="meta"):
        sums.tolist()


SMALL: dict[str, Any] = {
    "frames": 6,
    "layers": 1,
    "channels": 1,
    "nodes": 1,
    "epochs": 4,
    "batch_size": 6,
    "device": "cpu",
    "space": "none,skip_connect,max_pool_3x3",
}
"""A search of 3 steps an epoch."""


def settings(**changes: Any) -> SearchSettings:
    return SearchSettings.model_validate(SMALL | changes)


@pytest.mark.parametrize("changes", [AUTO, EXPONENTIATED])
def test_a_resumed_search_ends_with_the_same_bits(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Stopped among the weights' epochs, at their end, and after them."""
    chosen = settings(weights_first=0.5, **changes)
    search(tiny_cache, tmp_path / "whole", chosen)
    for number, steps in enumerate((4, 2, 3)):
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            with pytest.raises(Interrupted):
                search(tiny_cache, tmp_path / "run", chosen, resume=number > 0)
    search(tiny_cache, tmp_path / "run", chosen, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_auto_is_recorded_as_the_rate_of_the_steps_with_alphas(
    tiny_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    search(tiny_cache, out, settings(weights_first=0.25, **AUTO))
    recorded = run_dir.read_config(out)["settings"]
    assert recorded["alpha_lr"] == 5.9 / (3 * 3)
    assert recorded["weights_first"] == 0.25
    search(tiny_cache, out, settings(weights_first=0.25, **AUTO), resume=True)
    with pytest.raises(UsageError, match=r"started with weights_first = 0\.25"):
        search(tiny_cache, out, settings(**AUTO), resume=True)


def test_alphas_of_the_exponentiated_update_are_logarithms_of_weights(
    tiny_cache: Path, tmp_path: Path
) -> None:
    search(tiny_cache, tmp_path / "run", settings(epochs=1, **EXPONENTIATED))
    first, last = run_dir.read_lines(tmp_path / "run" / run_dir.ALPHAS)
    assert torch.tensor(first["reduction"]).exp() == pytest.approx(1 / 3)
    sums = torch.tensor(last["reduction"]).exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert first["reduction"] != last["reduction"]
    recorded = run_dir.read_config(tmp_path / "run")["settings"]
    assert (recorded["alpha_update"], recorded["alpha_weight_decay"]) == ("exponentiated", 0)
    best = torch.tensor(last["reduction"])[:, 1:].argmax(1).tolist()
    ops = run_dir.read_config(tmp_path / "run")["primitives"][1:]
    (node,) = derive(tmp_path / "run").reduction
    assert {edge.source: edge.op for edge in node} == {i: ops[o] for i, o in enumerate(best)}


@pytest.fixture(scope="module")
def weights_first_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose alphas hardly move, and only after two epochs."""
    out = tmp_path_factory.mktemp("search") / "run"
    still = settings(weights_first=0.5, stop_stable=1, alpha_lr=1e-9, alpha_weight_decay=0)
    search(tiny_cache, out, still)
    return out


def test_epochs_of_the_weights_leave_alphas_and_do_not_count_as_stable(
    weights_first_run: Path,
) -> None:
    alphas = [line["reduction"] for line in run_dir.read_lines(weights_first_run / run_dir.ALPHAS)]
    assert alphas[0] == alphas[1] == alphas[2] != alphas[3]
    metrics = run_dir.read_lines(weights_first_run / run_dir.METRICS)
    assert [line["stable"] for line in metrics] == [0, 0, 1]  # and then it ended
    assert ["validation_loss" in line for line in metrics] == [False, False, True]
    losses = [line["train_loss"] for line in metrics]
    assert losses == sorted(losses, reverse=True)


def test_epochs_of_the_weights_do_not_end_a_search_with_many_skips(
    tiny_cache: Path, tmp_path: Path
) -> None:
    """In this space every edge is a skip."""
    changes = {"weights_first": 0.5, "space": "none,skip_connect", "stop_skips": 1}
    search(tiny_cache, tmp_path / "run", settings(**changes))
    assert len(run_dir.read_lines(tmp_path / "run" / run_dir.METRICS)) == 3
    assert derive(tmp_path / "run") == derive(tmp_path / "run", epoch=3)


def test_epochs_of_the_weights_are_never_derived_for_their_few_skips() -> None:
    few, many = (
        next(g for g in map(random_genotype, range(99)) if skips(g) == count) for count in (0, 2)
    )
    genotypes = {0: few, 1: few, 2: few, 3: many, 4: many}
    assert choose_epoch(genotypes, 1, weight_epochs=2) == 4
    assert choose_epoch({**genotypes, 3: few}, 1, weight_epochs=2) == 3
    assert choose_epoch(genotypes, 1) == 2


def skips(genotype: Genotype) -> int:
    return sum(edge.op == "skip_connect" for node in genotype.normal for edge in node)


@pytest.mark.parametrize(("epoch", "is_noted"), [(0, True), (2, True), (3, False), (None, False)])
def test_deriving_from_alphas_that_have_not_learned_is_noted(
    weights_first_run: Path, capsys: pytest.CaptureFixture[str], epoch: int | None, is_noted: bool
) -> None:
    derive(weights_first_run, epoch=epoch)
    noted = (
        "the alphas have not learned yet: w trains alone for 2 epochs" in capsys.readouterr().err
    )
    assert noted == is_noted


def test_a_report_counts_the_epochs_with_alphas(weights_first_run: Path) -> None:
    history = read_history(weights_first_run)
    assert history.weight_epochs == 2
    assert history.derived_epoch == 3
    assert dict(run_facts(history))["Cells unchanged for"] == "1 epoch"
    assert list(shown_epochs(history)) == [2, 3]
    assert [math.isnan(loss) for loss in history.metrics["validation_loss"]] == [True, True, False]


def test_broken_weights_first_is_refused(weights_first_run: Path, tmp_path: Path) -> None:
    config = run_dir.read_config(weights_first_run)
    for file in (run_dir.ALPHAS, run_dir.METRICS):
        (tmp_path / file).write_bytes((weights_first_run / file).read_bytes())
    config["settings"]["weights_first"] = "half"
    (tmp_path / run_dir.CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match="expected settings with numbers weights_first, epochs"):
        derive(tmp_path)


DRY_RUN = ["search", "c.h5", "--out", "run", "--dry-run"]


@pytest.mark.parametrize("source", ["flag", "environment", "file"])
@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("0.07", 0.07)])
def test_the_rate_is_a_number_or_auto(
    tmp_path: Path, source: str, text: str, value: object
) -> None:
    file = tmp_path / "search.toml"
    file.write_text(f"alpha-lr = {json.dumps(value)}\n")
    words = {"flag": ["--alpha-lr", text], "environment": [], "file": ["--config", str(file)]}
    environment = {"SKELNAS_SEARCH_ALPHA_LR": text} if source == "environment" else {}
    result = CliRunner().invoke(app, [*DRY_RUN, *words[source]], env=environment)
    assert json.loads(result.stdout)["alpha_lr"] == value


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--alpha-lr abc", "a positive number or auto"),
        ("--alpha-lr 0", "a positive number or auto"),
        ("--alpha-lr nan", "a positive number or auto"),
        ("--alpha-update exponentiated --alpha-lr auto", "a number: auto needs"),
        ("--alpha-update exponentiated --alpha-weight-decay 0.1", "has no decay"),
        ("--weights-first 0.01", "0, or a share of 1 to 34 of the 35 epochs"),
        ("--weights-first 0.9 --epochs 4", "0, or a share of 1 to 3 of the 4 epochs"),
        ("--weights-first 0.5 --epochs 1", "0 where there is one epoch"),
        ("--weights-first 1", "less than 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: str, expected: str) -> None:
    error = CliRunner().invoke(app, [*DRY_RUN, *words.split()]).exception
    assert isinstance(error, UsageError)
    assert expected in str(error)
