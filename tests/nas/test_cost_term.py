"""The cost in the alphas' objective: exact, kept by resuming, and able to meet a budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupting import stop_after
from test_alpha_updates import EPOCHS, STEPS_PER_EPOCH, Mixture, make_batch
from test_alpha_updates import run as run_steps
from test_search import assert_same
from test_target import SEARCH, TRAIN
from torch import Tensor

from skelnas.cli.config_file import make_settings
from skelnas.config import SearchSettings
from skelnas.errors import Interrupted, UsageError
from skelnas.genotype import CELLS, Edge, Genotype, list_nodes
from skelnas.models.complexity import Complexity
from skelnas.models.cost import NetworkShape
from skelnas.nas.alpha_updates import resolve_alpha_lr
from skelnas.nas.bilevel import Bilevel
from skelnas.nas.budget import Budget
from skelnas.nas.cost_term import DAMPING, CostTerm
from skelnas.nas.resume import resume
from skelnas.nas.search import search
from skelnas.nas.target import Target
from skelnas.training import run_dir
from skelnas.training.checkpoint import load_checkpoint

OPS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
SHAPE = NetworkShape(
    layers=4, channels=4, frames=6, joints=5, num_classes=3, branches=(3,), nodes=2
)
DOUBLE = torch.zeros((), dtype=torch.float64)


class Planted(Mixture):
    """Every edge sees the class with the last operation."""

    def op_weights(self) -> dict[str, Tensor]:
        return {cell: alpha.softmax(-1) for cell, alpha in self.alphas.items()}

    def forward(self, x: Tensor, op_weights: Mapping[str, Tensor] | None = None) -> Tensor:
        cells = op_weights or self.op_weights()
        weights = torch.cat(list(cells.values())).sum(0)  # [operations]
        return torch.einsum("o,nok->nk", weights * self.scales, x)


def make_target(
    nodes: int = 2, max_params: int | None = 2500, max_macs: int | None = 60_000
) -> Target:
    return Target({}, replace(SHAPE, nodes=nodes), Budget(max_params, max_macs), OPS)


def draw_alphas(num_edges: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = num_edges, len(OPS)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in CELLS
    ]


def softmax(alphas: list[Tensor]) -> list[Tensor]:
    return [alpha.softmax(-1) for alpha in alphas]


def expect_by_enumeration(weights: list[Tensor], target: Target) -> Complexity:
    """Sum over every ordered draw of two edges for each node, and every operation of each."""
    params, macs = target.costs.rest.parameters, target.costs.rest.macs
    for kind, cell in zip(CELLS, weights, strict=True):
        edges = target.costs.edges[kind]
        for node in list_nodes(edges):
            strengths = {e: max(cell[e, 1:].tolist()) for e in node}
            total = sum(strengths.values())
            for first, second in itertools.permutations(node, 2):
                chance = strengths[first] / total
                chance *= strengths[second] / (total - strengths[first])
                for edge, (index, op) in itertools.product((first, second), enumerate(OPS)):
                    if op != "none":
                        part = chance * (cell[edge, index] / cell[edge, 1:].sum()).item()
                        params += part * edges[edge][op].parameters
                        macs += part * edges[edge][op].macs
    return Complexity(params, macs)


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_the_expected_cost_is_that_of_all_draws(nodes: int) -> None:
    target = make_target(nodes)
    weights = softmax(draw_alphas({1: 2, 2: 5, 4: 14}[nodes]))
    expected = expect_by_enumeration(weights, target)
    found = CostTerm(target, 1, DOUBLE).expected(weights)
    assert found.tolist() == pytest.approx(
        [expected.parameters / 2500, expected.macs / 60_000], rel=1e-12
    )
    only_macs = CostTerm(make_target(nodes, max_params=None), 1, DOUBLE)
    assert only_macs.names == ["macs"]
    assert only_macs.expected(weights).item() == found[1].item()


def test_alphas_that_have_decided_cost_what_their_network_costs() -> None:
    target = make_target(nodes=1)
    decided = torch.full((2, 4), -1e4, dtype=torch.float64)
    decided[0, 3] = decided[1, 2] = 0
    cell = ((Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),)
    cost = target.costs.total(Genotype(cell, cell))
    found = CostTerm(target, 1, DOUBLE).expected(softmax([decided, decided]))
    assert found.tolist() == pytest.approx([cost.parameters / 2500, cost.macs / 60_000], rel=1e-9)


def test_an_edge_that_is_far_stronger_than_the_other_leaves_finite_chances() -> None:
    term = CostTerm(make_target(nodes=1), 1, torch.zeros(()))
    cell = torch.full((2, 4), 1e-10)
    cell[0, 3] = 0.9
    cell[1, 2] = 1e-9
    weights = [cell.clone().requires_grad_() for _ in CELLS]
    both = [torch.ones(2, 4).mul(1e-10) for _ in CELLS]
    for one in both:
        one[0, 3] = one[1, 2] = 0.5
    torch.testing.assert_close(term.expected(weights), term.expected(both), rtol=0.2, atol=0)
    assert all(gradient.isfinite().all() for gradient in term.gradients(weights, weights))


def test_weights_without_operations_cost_something_finite() -> None:
    weights = [torch.zeros(5, 4) for _ in CELLS]
    for cell in weights:
        cell[:, 0] = 1  # all of it is none's
        cell.requires_grad_()
    term = CostTerm(make_target(), 1, torch.zeros(()))
    term.ascend(weights)
    assert term.expected(weights).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in term.gradients(weights, weights))


def test_the_gradient_of_the_expected_cost() -> None:
    term = CostTerm(make_target(), 1, DOUBLE)
    alphas = draw_alphas(5)
    assert torch.autograd.gradcheck(lambda *cells: term.expected(softmax(list(cells))), alphas)


def test_the_gradient_of_the_term_has_a_closed_form() -> None:
    """A node with two edges keeps both: the gradient by an alpha is p (c - mean c)."""
    target = make_target(nodes=1, max_macs=None)
    alphas = draw_alphas(2)
    term = CostTerm(target, 10, DOUBLE)
    term.lambdas.fill_(0.7)
    term._steps_done.fill_(10)  # the approach is over
    room = 1 - target.costs.rest.parameters / 2500
    excess = (term.expected(softmax(alphas)).item() - 1) / room
    weight = max(0.7 + DAMPING * excess, 0)
    assert weight > 0
    found = term.gradients(softmax(alphas), alphas)
    for kind, alpha, gradient in zip(CELLS, alphas, found, strict=True):
        costs = torch.tensor(
            [[ops[op].parameters / 2500 for op in OPS[1:]] for ops in target.costs.edges[kind]],
            dtype=torch.float64,
        )
        p = alpha.detach()[:, 1:].softmax(-1)  # without none
        expected = weight / room * p * (costs - (p * costs).sum(1, keepdim=True))
        torch.testing.assert_close(gradient[:, 1:], expected, rtol=1e-11, atol=1e-14)
        assert gradient[:, 0].abs().max() < 1e-14


@pytest.mark.parametrize("update", ["adam", "exponentiated"])
@pytest.mark.parametrize(
    "method",
    [{"order": "first"}, {"order": "second"}, {"order": "second", "hessian": "exact"}],
    ids=["first", "difference", "exact"],
)
def test_only_the_direct_term_changes(method: dict[str, Any], update: str) -> None:
    torch.manual_seed(0)
    net = Planted(5, [1.0] * 4).double()
    settings = SearchSettings(alpha_update=update, max_params=2500, **method)
    batches = [make_batch(seed, [1.0, 0, 0, 0], 1.0) for seed in (0, 1)]
    batches = [replace(batch, x=batch.x.double()) for batch in batches]
    term = CostTerm(make_target(), 10, DOUBLE)
    term.lambdas.fill_(0.5)
    gradients = [
        Bilevel(net, settings, part).architecture_gradient(*batches, lr=0.1).alphas
        for part in (None, term)
    ]
    leaves = list(net.alphas.values())
    if update == "exponentiated":
        leaves = [leaf.detach().softmax(-1).requires_grad_() for leaf in leaves]
    weights = leaves if update == "exponentiated" else softmax(leaves)
    for without, with_term, of_term in zip(
        *gradients, term.gradients(weights, leaves), strict=True
    ):
        assert of_term.abs().max() > 1e-3
        torch.testing.assert_close(with_term, without + of_term, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "changes",
    [{"alpha_lr": "auto"}, {"alpha_update": "exponentiated", "alpha_lr": 1.0}],
    ids=["auto", "exponentiated"],
)
@pytest.mark.parametrize("max_params", [2200, 2500])
def test_a_budget_is_met_though_the_loss_is_against_it(
    changes: dict[str, Any], max_params: int
) -> None:
    """Only the convolution, the costliest operation, sees the class."""
    target = make_target(max_params=max_params, max_macs=None)
    ends = []
    for steer in (False, True):
        torch.manual_seed(0)
        net = Planted(5, [1.0] * 4).double()  # or each machine would end elsewhere
        settings = SearchSettings.model_validate({"epochs": EPOCHS, "order": "first", **changes})
        settings = resolve_alpha_lr(settings, STEPS_PER_EPOCH)
        term = CostTerm(target, EPOCHS * STEPS_PER_EPOCH, DOUBLE)
        run_steps(Bilevel(net, settings, term if steer else None), 0.01, [0, 0, 0, 1.0], 0.5)
        ends.append(term.expected(softmax(list(net.alphas.values()))).item())
    free, steered = ends
    assert free > 1.15
    assert 0.8 < steered < 1.03


STEERED = SEARCH.model_copy(update={"steer": True, "alpha_lr": 0.1, "lr_min": SEARCH.lr})


def test_a_steered_search_resumes_to_the_same_bytes(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    search(tiny_cache, whole, STEERED, training=TRAIN)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            search(tiny_cache, parts, STEERED, training=TRAIN)
    resume(parts)
    assert_same(whole, parts)
    tensors, _ = load_checkpoint(whole / run_dir.CHECKPOINT)
    assert tensors["cost_term/steps"].item() == 6
    for line in run_dir.read_lines(whole / run_dir.METRICS):
        assert line["expected_params"] > 0
        assert line["lambda_params"] >= 0
        assert "expected_macs" not in line
    last = run_dir.read_lines(whole / run_dir.METRICS)[-1]
    assert last["lambda_params"] == tensors["cost_term/lambdas"].item()
    with pytest.raises(UsageError, match=r"cannot be prolonged: .* determines --steer"):
        resume(whole, epochs=9)


def test_a_budget_that_is_met_anyway_changes_nothing(tiny_cache: Path, tmp_path: Path) -> None:
    for name, steer in (("free", False), ("steered", True)):
        loose = STEERED.model_copy(update={"max_params": 10**9, "epochs": 1, "steer": steer})
        search(tiny_cache, tmp_path / name, loose, training=TRAIN)
    free, steered = ((tmp_path / name / run_dir.ALPHAS).read_text() for name in ("free", "steered"))
    assert free == steered


def test_steering_needs_a_budget_and_a_gradient() -> None:
    with pytest.raises(UsageError, match="--steer True: expected --max-params or --max-macs"):
        make_settings(SearchSettings, {"steer": True})
    with pytest.raises(UsageError, match="--steer True: expected --method gradient"):
        make_settings(SearchSettings, {"steer": True, "max_macs": "1M", "method": "predict"})
