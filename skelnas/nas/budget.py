"""The best genotype within a budget of parameters and multiply-adds, found exactly.

Cost and score are sums over the edges that a genotype keeps, so `skelnas.nas.pareto` finds the best
of all genotypes, in milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from skelnas.derivation import SKIP
from skelnas.errors import UsageError
from skelnas.genotype import CELLS, EDGES_PER_NODE, Cell, Edge, Genotype, list_nodes
from skelnas.models.complexity import Complexity
from skelnas.models.cost import CostTable
from skelnas.nas.pareto import (
    CellScores,
    EdgeScores,
    Limits,
    Options,
    Point,
    find_points,
    list_choices,
    list_options,
)

CostName = Literal["parameters", "macs"]


@dataclass(frozen=True)
class Budget:
    """Upper limits for the network that will be trained; None for no limit."""

    max_params: int | None = None
    max_macs: int | None = None

    def allows(self, cost: Complexity) -> bool:
        """Return whether a cost is within the budget."""
        pairs = (cost.parameters, self.max_params), (cost.macs, self.max_macs)
        return all(limit is None or value <= limit for value, limit in pairs)


UNLIMITED = Budget()


@dataclass(frozen=True)
class FrontPoint:
    """A genotype that no other beats in both cost and score.

    Attributes:
        cost: of its network.
        score: sum of the scores of its operations.
    """

    genotype: Genotype
    cost: Complexity
    score: float


def choose_genotype(
    scores: CellScores,
    costs: CostTable,
    budget: Budget = UNLIMITED,
    *,
    keep: int = EDGES_PER_NODE,
    max_skip: int | None = None,
    edge_scores: EdgeScores | None = None,
) -> Genotype:
    """Choose the genotype with the highest sum of scores within a budget, exactly.

    Each node keeps `keep` edges from different sources, each with an operation other than ``none``.
    Without a limit the result is that of `skelnas.derivation.choose_cell` for each cell, ties
    included. So with `edge_scores`: the best edges are kept, as far as the budget allows, and then
    `scores` decide on their operations. `max_skip` works as there, too: it rules out the weakest
    surplus skip of the normal cell and chooses again.

    Args:
        scores: finite numbers, of any scale and sign; their sums are not rounded. An operation
            missing from an edge's mapping is not chosen there.
        costs: of the network that will be trained.
        budget: its limits.
        keep: edges per node; a node with fewer incoming edges keeps all.
        max_skip: maximum number of skips in the normal cell; None for no limit.
        edge_scores: decide on edges before `scores` decide on operations.

    Raises:
        UsageError: no genotype is within the budget; or skips are limited, and the space has no
            other operation.
    """
    if max_skip is not None and not set(scores["normal"][0]) - {"none", SKIP}:
        raise UsageError(f"--max-skip {max_skip}: the search had no operation but {SKIP}")
    allowed = {kind: [dict(ops) for ops in scores[kind]] for kind in CELLS}
    while True:
        nodes = list_options(allowed, edge_scores, costs, keep)
        front = find_points(nodes, _limits(budget, costs), keep)
        if not front:
            raise _explain(nodes, costs, budget, keep)
        best = max(front, key=lambda point: point.rank)
        genotype = _to_genotype(best, allowed, edge_scores)
        skips = [
            index for kind, index, op in genotype.chosen_ops() if (kind, op) == ("normal", SKIP)
        ]
        if max_skip is None or len(skips) <= max_skip:
            return genotype
        weakest = min(skips, key=lambda index: (scores["normal"][index][SKIP], -index))
        del allowed["normal"][weakest][SKIP]


def find_front(
    scores: CellScores,
    costs: CostTable,
    by: CostName = "parameters",
    *,
    keep: int = EDGES_PER_NODE,
    edge_scores: EdgeScores | None = None,
) -> list[FrontPoint]:
    """Find the genotypes that no other beats in both cost and score, cheapest first.

    With a point's cost as the budget, `choose_genotype` returns its genotype.

    Args:
        scores, costs, keep, edge_scores: as for `choose_genotype`.
        by: the cost.
    """
    limits = (math.inf, None) if by == "parameters" else (None, math.inf)
    front = []
    best = (-math.inf, -math.inf)
    for point in find_points(list_options(scores, edge_scores, costs, keep), limits, keep):
        genotype = _to_genotype(point, scores, edge_scores)
        of_edges = [edge_scores[kind][i] for kind, i, _ in genotype.chosen_ops() if edge_scores]
        score = score_of(genotype, scores)
        if (math.fsum(of_edges), score) > best:  # else it is another only by how ties are resolved
            best = (math.fsum(of_edges), score)
            front.append(FrontPoint(genotype, costs.total(genotype), score))
    return front


def score_of(genotype: Genotype, scores: CellScores) -> float:
    """Return the sum of the scores of a genotype's operations."""
    return math.fsum(scores[kind][index][op] for kind, index, op in genotype.chosen_ops())


def _limits(budget: Budget, costs: CostTable) -> Limits:
    params, macs = budget.max_params, budget.max_macs
    return (
        None if params is None else params - costs.rest.parameters,
        None if macs is None else macs - costs.rest.macs,
    )


def _to_genotype(point: Point, scores: CellScores, edge_scores: EdgeScores | None) -> Genotype:
    """Return the genotype of a choice for all nodes; the edges of a node are sorted, best first."""
    chosen: dict[str, dict[int, str]] = {kind: {} for kind in CELLS}
    for kind, index, op in list_choices(point):
        chosen[kind][index] = op

    def make_cell(kind: str) -> Cell:
        def order(index: int) -> tuple[float, int]:
            op = chosen[kind][index]
            return -(edge_scores[kind][index] if edge_scores else scores[kind][index][op]), index

        return tuple(
            tuple(
                Edge(chosen[kind][index], index - node.start)
                for index in sorted(set(node) & chosen[kind].keys(), key=order)
            )
            for node in list_nodes(scores[kind])
        )

    return Genotype(*map(make_cell, CELLS))


def _explain(nodes: Options, costs: CostTable, budget: Budget, keep: int) -> UsageError:
    """Return the error that names the smallest possible network."""
    unranked = [[[p._replace(rank=0) for p in options] for options in edges] for edges in nodes]
    smallest = [
        costs.rest + Complexity(point.params, point.macs)
        for point in find_points(unranked, (math.inf, math.inf), keep)
    ]
    hint = (
        "a network of fewer channels or layers is smaller; --channels and --layers of `derive` and "
        "`train` give them, --train-config those of `search`"
    )
    fewest = min(cost.parameters for cost in smallest)
    if budget.max_params is not None and fewest > budget.max_params:
        return UsageError(
            f"--max-params {budget.max_params:,}: expected {fewest:,} or more, "
            "the parameters of the smallest possible network",
            hint=hint,
        )
    within = [cost for cost in smallest if Budget(budget.max_params).allows(cost)]
    fewest = min(cost.macs for cost in within)
    also = f" with --max-params {budget.max_params:,}" if len(within) < len(smallest) else ""
    return UsageError(
        f"--max-macs {budget.max_macs:,}: expected {fewest:,} or more, "
        f"the multiply-adds of the smallest possible network{also}",
        hint=hint,
    )
