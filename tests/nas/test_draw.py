"""Random genotypes within a budget: all of them, equally often, and none outside."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from test_budget import all_cells, make_costs

from skelnas.errors import UsageError
from skelnas.genotype import Cell, Genotype, random_genotype
from skelnas.models.cost import NetworkShape, make_cost_table
from skelnas.nas.budget import Budget
from skelnas.nas.draw import GenotypeSampler, draw_genotype
from skelnas.primitives import candidates


def sorted_cell(cell: Cell) -> Cell:
    return tuple(tuple(sorted(node, key=lambda edge: edge.source)) for node in cell)


def test_all_genotypes_within_a_budget_are_equally_likely() -> None:
    generator = random.Random(0)
    costs = make_costs(generator, num_edges=2)
    all_genotypes = [Genotype(a, b) for a in all_cells(1) for b in all_cells(1)]
    budget = Budget(100 + 50, 1000 + 40)
    fitting = [g for g in all_genotypes if budget.allows(costs.total(g))]
    assert 10 < len(fitting) < len(all_genotypes) / 2
    counts = Counter(GenotypeSampler(costs).sample(budget, 200 * len(fitting), seed=1))
    assert set(counts) == set(fitting)
    chi_square = sum((counts[g] - 200) ** 2 / 200 for g in fitting)
    assert chi_square < len(fitting) + 5 * (2 * len(fitting)) ** 0.5


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_nodes_keep_edges_from_different_sources(keep: int) -> None:
    costs = make_costs(random.Random(1), num_edges=9)
    for genotype in GenotypeSampler(costs, keep).sample(Budget(100 + 150), 30, seed=0):
        assert costs.total(genotype).parameters <= 250
        for cell in (genotype.normal, genotype.reduction):
            assert cell == sorted_cell(cell)
            assert [len({edge.source for edge in node}) for node in cell] == [
                min(keep, 2 + node) for node in range(3)
            ]


def test_a_random_genotype_within_the_budget_is_not_changed() -> None:
    shape = NetworkShape(layers=6, channels=8, frames=8, joints=5, num_classes=3, branches=(3,))
    costs = make_cost_table(shape, candidates("sar"))
    cost = costs.total(random_genotype(3))
    assert draw_genotype(3, costs, Budget(cost.parameters, cost.macs)) == random_genotype(3)
    smaller = Budget(max_params=cost.parameters - 1)
    drawn = draw_genotype(3, costs, smaller)
    assert smaller.allows(costs.total(drawn))
    assert drawn == draw_genotype(3, costs, smaller)
    assert drawn != draw_genotype(4, costs, smaller)


def test_an_impossible_budget_is_refused() -> None:
    costs = make_costs(random.Random(1))
    with pytest.raises(UsageError, match="--max-params 99: expected 100 or more"):
        draw_genotype(0, costs, Budget(max_params=99))
