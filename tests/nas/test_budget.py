"""The best genotype within a budget: against brute force, and against derivation without one."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.derivation import SKIP, choose_cell, count_skips
from skelnas.errors import UsageError
from skelnas.genotype import CELLS, Cell, Edge, Genotype
from skelnas.models.complexity import Complexity
from skelnas.models.cost import CostTable
from skelnas.nas.budget import Budget, CellScores, choose_genotype, find_front, score_of

OPS = ("max_pool_3x3", SKIP, "sep_conv_3x3")


def make_costs(generator: random.Random, num_edges: int = 5) -> CostTable:
    """Draw costs like real ones: the pool is free, and others cost the same on several edges."""
    per_kind = {}
    for kind in CELLS:
        values = [[0, 0], *([generator.randrange(40) for _ in range(2)] for _ in OPS[1:])]
        halved = [[2 * p // 3, m // 2] for p, m in values]
        rows = [values if generator.random() < 0.6 else halved for _ in range(num_edges)]
        per_kind[kind] = [{op: Complexity(*row[i]) for i, op in enumerate(OPS)} for row in rows]
    return CostTable(per_kind, Complexity(100, 1000))


def make_scores(
    generator: random.Random, levels: int, num_edges: int = 5
) -> dict[str, list[dict[str, float]]]:
    """Draw scores of a few levels, so that many are equal; "none" has one, too."""
    return {
        kind: [
            {op: generator.randrange(levels) / 7 - 0.2 for op in ("none", *OPS)}
            for _ in range(num_edges)
        ]
        for kind in CELLS
    }


def all_cells(num_nodes: int = 2) -> list[Cell]:
    """List all cells that keep two edges a node, whatever the order of the edges."""

    def nodes(num_sources: int) -> Iterator[tuple[Edge, ...]]:
        for pair in itertools.combinations(range(num_sources), 2):
            for ops in itertools.product(OPS, repeat=2):
                yield tuple(map(Edge, ops, pair))

    return list(itertools.product(*(nodes(2 + node) for node in range(num_nodes))))


def find_best_scores(scores: CellScores, costs: CostTable) -> dict[tuple[int, int], Fraction]:
    """Return the best score of all genotypes of each cost, by trying all of them."""
    zero = CostTable(costs.edges, Complexity(0, 0))
    pool: Cell = ((Edge("max_pool_3x3", 0),),) * 0
    by_kind = []
    for kind in CELLS:
        best: dict[tuple[int, int], Fraction] = {}
        for cell in all_cells():
            genotype = Genotype(*(cell if k == kind else pool for k in CELLS))
            cost = zero.total(genotype)
            key = cost.parameters, cost.macs
            score = exact_score(genotype, scores)
            best[key] = max(best.get(key, score), score)
        by_kind.append(best)
    total: dict[tuple[int, int], Fraction] = {}
    for (p, a), (q, b) in itertools.product(by_kind[0].items(), by_kind[1].items()):
        key = p[0] + q[0] + costs.rest.parameters, p[1] + q[1] + costs.rest.macs
        total[key] = max(total.get(key, a + b), a + b)
    return total


def exact_score(genotype: Genotype, scores: CellScores) -> Fraction:
    chosen = (Fraction(scores[kind][index][op]) for kind, index, op in genotype.chosen_ops())
    return sum(chosen, Fraction())


@pytest.mark.parametrize("seed", range(6))
def test_the_best_genotype_within_a_budget_is_found(seed: int) -> None:
    generator = random.Random(seed)
    costs, scores = make_costs(generator), make_scores(generator, levels=[3, 10_000][seed % 2])
    best_scores = find_best_scores(scores, costs)
    for _ in range(12):
        budget = Budget(
            generator.choice([None, 100 + generator.randrange(200)]),
            generator.choice([None, 1000 + generator.randrange(200)]),
        )
        fitting = [s for cost, s in best_scores.items() if budget.allows(Complexity(*cost))]
        genotype = choose_genotype(scores, costs, budget)
        assert budget.allows(costs.total(genotype))
        assert exact_score(genotype, scores) == max(fitting)


@pytest.mark.parametrize("by", ["parameters", "macs"])
@pytest.mark.parametrize("seed", range(3))
def test_the_front_holds_all_best_genotypes(seed: int, by: str) -> None:
    generator = random.Random(seed)
    costs, scores = make_costs(generator), make_scores(generator, levels=[3, 10_000][seed % 2])
    by_cost: dict[int, Fraction] = {}
    for cost, score in find_best_scores(scores, costs).items():
        key = cost[by == "macs"]
        by_cost[key] = max(by_cost.get(key, score), score)
    expected = []
    for cost in sorted(by_cost):
        if not expected or by_cost[cost] > expected[-1][1]:
            expected.append((cost, by_cost[cost]))
    front = find_front(scores, costs, by)
    assert len(front) > 3
    assert [
        (getattr(point.cost, by), exact_score(point.genotype, scores)) for point in front
    ] == expected
    for point in front:
        assert point.cost == costs.total(point.genotype)
        assert point.score == score_of(point.genotype, scores)
        limit = getattr(point.cost, by)
        budget = Budget(max_params=limit) if by == "parameters" else Budget(max_macs=limit)
        assert choose_genotype(scores, costs, budget) == point.genotype


FREE = CostTable(
    {kind: [{op: Complexity(0, 0) for op in OPS} for _ in range(14)] for kind in CELLS},
    Complexity(0, 0),
)
LEVELS = st.sampled_from([0.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 1e-300, 1 / 3, -0.1])


@st.composite
def tied_scores(draw: st.DrawFn) -> list[dict[str, float]]:
    num_edges = draw(st.sampled_from([2, 5, 9, 14]))
    ops = ("none", *draw(st.permutations(OPS)))
    return [{op: draw(LEVELS) for op in ops} for _ in range(num_edges)]


@given(tied_scores(), tied_scores(), st.integers(1, 4), st.integers(0, 8) | st.none())
@settings(max_examples=60, deadline=None)
def test_without_a_limit_the_result_is_that_of_derivation(
    normal: list[dict[str, float]],
    reduction: list[dict[str, float]],
    keep: int,
    max_skip: int | None,
) -> None:
    expected = Genotype(choose_cell(normal, keep, max_skip), choose_cell(reduction, keep))
    scores = {"normal": normal, "reduction": reduction}
    assert choose_genotype(scores, FREE, keep=keep, max_skip=max_skip) == expected
    loose = Budget(10**12, 10**12)
    assert choose_genotype(scores, FREE, loose, keep=keep, max_skip=max_skip) == expected


@given(tied_scores(), st.lists(LEVELS, min_size=14, max_size=14), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_edge_scores_decide_first(
    cell: list[dict[str, float]], edges: list[float], keep: int
) -> None:
    expected = choose_cell(cell, keep, None, edges)
    found = choose_genotype(
        {"normal": cell, "reduction": cell},
        FREE,
        keep=keep,
        edge_scores={"normal": edges, "reduction": edges},
    )
    assert found == Genotype(expected, expected)


def test_sums_are_not_rounded() -> None:
    """Beside a score of 1e17, a difference of 1 is lost in floating point."""
    scores = {
        kind: [{op: 1e17 + i * 16 if e else float(i) for i, op in enumerate(OPS)} for e in range(2)]
        for kind in CELLS
    }
    genotype = choose_genotype(scores, FREE)
    assert {edge.op for edge in genotype.normal[0]} == {OPS[-1]}


def test_max_skip_within_a_budget() -> None:
    generator = random.Random(5)
    costs, scores = make_costs(generator, 14), make_scores(generator, 10_000, 14)
    for ops in scores["normal"]:
        ops[SKIP] += 500  # so that many are chosen
    budget = Budget(max_params=100 + 200)
    genotypes = [choose_genotype(scores, costs, budget, max_skip=n) for n in (None, 3, 0)]
    assert [count_skips(genotype) for genotype in genotypes][1:] == [3, 0]
    assert count_skips(genotypes[0]) > 3
    for genotype in genotypes:
        assert budget.allows(costs.total(genotype))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(max_params=99), "--max-params 99: expected 100 or more, the parameters"),
        (Budget(0, 1000), "--max-params 0: expected 100 or more, the parameters"),
        (Budget(max_macs=999), "--max-macs 999: expected 1,000 or more, the multiply-adds"),
        (Budget(100, 999), "--max-macs 999: expected 1,000 or more, the multiply-adds"),
    ],
)
def test_an_impossible_budget_names_the_smallest_possible(budget: Budget, message: str) -> None:
    generator = random.Random(0)
    costs, scores = make_costs(generator), make_scores(generator, 10)
    with pytest.raises(UsageError) as caught:
        choose_genotype(scores, costs, budget)
    assert str(caught.value).startswith(message)
    smallest = {100: Budget(max_params=100), 1000: Budget(max_macs=1000)}
    for limit in smallest.values():
        assert limit.allows(costs.total(choose_genotype(scores, costs, limit)))


def test_limits_that_exclude_each_other_name_the_smallest_within_the_first() -> None:
    ops = {"max_pool_3x3": Complexity(1, 9), "sep_conv_3x3": Complexity(2, 3)}
    costs = CostTable({kind: [ops] * 2 for kind in CELLS}, Complexity(10, 10))
    scores = {kind: [dict.fromkeys(ops, 0.0)] * 2 for kind in CELLS}
    with pytest.raises(UsageError, match=r"--max-macs 30: expected 40 or more") as caught:
        choose_genotype(scores, costs, Budget(10 + 5, 30))
    assert "--max-params 15" in str(caught.value)


def test_scores_must_be_finite() -> None:
    scores = {kind: [dict.fromkeys(OPS, math.nan)] * 2 for kind in CELLS}
    with pytest.raises(ValueError):
        choose_genotype(scores, FREE)
