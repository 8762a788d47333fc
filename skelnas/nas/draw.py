"""Random genotypes within a budget: what a search within it has to beat.

Each genotype within the budget is as likely as any other. For that, the choices for the first edges
of a cell are counted by their cost, edge by edge; a draw follows the counts back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from skelnas.genotype import (
    CELLS,
    EDGES_PER_NODE,
    Cell,
    Edge,
    Genotype,
    list_nodes,
    random_genotype,
)
from skelnas.models.complexity import Complexity
from skelnas.models.cost import CostTable
from skelnas.nas.budget import Budget, choose_genotype

_State = tuple[int, int, int]
"""How many edges the current node has kept, and the parameters and multiply-adds so far."""


def draw_genotype(seed: int, costs: CostTable, budget: Budget) -> Genotype:
    """Draw a genotype at random from those within a budget.

    It is that of `skelnas.genotype.random_genotype`, if that is within the budget.

    Args:
        seed: of the random numbers.
        costs: of the network that will be trained, for the operations to draw from.
        budget: its limits.

    Raises:
        UsageError: no genotype is within the budget.
    """
    edges = costs.edges["normal"]
    space = ",".join(("none", *edges[0]))
    genotype = random_genotype(seed, space, len(list_nodes(edges)))
    if budget.allows(costs.total(genotype)):
        return genotype
    (drawn,) = GenotypeSampler(costs).sample(budget, 1, seed)
    return drawn


class GenotypeSampler:
    """Draws genotypes within budgets.

    Args:
        costs: of the network that will be trained, for the operations to draw from.
        keep: edges per node.
    """

    def __init__(self, costs: CostTable, keep: int = EDGES_PER_NODE) -> None:
        self._costs = costs
        self._keep = keep
        self._cells = [_CellCounts(costs.edges[kind], keep) for kind in CELLS]

    def sample(self, budget: Budget, count: int, seed: int) -> list[Genotype]:
        """Draw genotypes from those within a budget.

        Raises:
            UsageError: there are none.
        """
        normal, reduction = self._cells
        fits = self._fits(budget)  # [costs of the normal cell, costs of the reduction cell]
        weights = normal.fractions * (fits @ reduction.fractions)
        if not weights.any():
            edges = self._costs.edges
            unscored = {kind: [dict.fromkeys(ops, 0) for ops in edges[kind]] for kind in CELLS}
            choose_genotype(unscored, self._costs, budget, keep=self._keep)  # raises
        generator = random.Random(f"within a budget: {seed}")
        genotypes = []
        for first in generator.choices(range(len(weights)), weights.tolist(), k=count):
            others = (fits[first] * reduction.fractions).tolist()
            (second,) = generator.choices(range(len(others)), others)
            cells = normal.draw(first, generator), reduction.draw(second, generator)
            genotypes.append(Genotype(*cells))
        return genotypes

    def _fits(self, budget: Budget) -> NDArray[np.bool_]:
        """Return which costs of the two cells are within the budget together."""
        normal, reduction = (cell.costs for cell in self._cells)
        rest = self._costs.rest
        fits = np.ones((len(normal), len(reduction)), dtype=np.bool_)
        for index, (limit, spent) in enumerate(
            [(budget.max_params, rest.parameters), (budget.max_macs, rest.macs)]
        ):
            if limit is not None:
                fits &= normal[:, None, index] + reduction[:, index] <= limit - spent
        return fits


class _CellCounts:
    """The number of cells of each cost.

    Attributes:
        costs: [costs, 2], parameters and multiply-adds.
        fractions: [costs], of all cells.
    """

    def __init__(self, edges: Sequence[Mapping[str, Complexity]], keep: int) -> None:
        self._edges = [
            [(op, cost.parameters, cost.macs) for op, cost in costs.items()] for costs in edges
        ]
        self._nodes = list_nodes(edges)
        self._keep = keep
        self._before: list[Mapping[_State, int]] = []  # of each edge: choices for those before it
        counts: Mapping[_State, int] = {(0, 0, 0): 1}
        for node in self._nodes:
            for index in node:
                self._before.append(counts)
                counts = self._decide(index, counts)
            full = min(keep, len(node))
            counts = {(0, p, m): count for (kept, p, m), count in counts.items() if kept == full}
        total = sum(counts.values())
        self.costs = np.array([cost for _, *cost in counts], dtype=np.int64)
        self.fractions = np.array([count / total for count in counts.values()])

    def _decide(self, index: int, counts: Mapping[_State, int]) -> Mapping[_State, int]:
        """Count the choices that leave an edge out, or give it one of its operations."""
        decided = Counter(counts)
        for (kept, params, macs), count in counts.items():
            if kept < self._keep:
                for _, more_params, more_macs in self._edges[index]:
                    decided[kept + 1, params + more_params, macs + more_macs] += count
        return decided

    def draw(self, index: int, generator: random.Random) -> Cell:
        """Draw from the cells of one of the `costs`."""
        params, macs = self.costs[index].tolist()
        nodes = []
        for node in reversed(self._nodes):
            kept, chosen = min(self._keep, len(node)), []
            for edge in reversed(node):
                before = self._before[edge]
                options = [("", (kept, params, macs))] + [
                    (op, (kept - 1, params - less_params, macs - less_macs))
                    for op, less_params, less_macs in self._edges[edge]
                ]
                counts = [before.get(state, 0) for _, state in options]
                ((op, (kept, params, macs)),) = generator.choices(options, counts)
                if op:
                    chosen.append(Edge(op, edge - node.start))
            nodes.append(tuple(reversed(chosen)))
        return tuple(reversed(nodes))
