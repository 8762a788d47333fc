"""The best genotype within a budget of parameters and multiply-adds, found exactly.

Cost and score are sums over the edges that a genotype keeps. So a dynamic programme over the edges
finds the best of all genotypes: it extends partial choices, and drops one as soon as another costs
no more and scores no less (a Pareto front). That takes milliseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from skelnas.errors import UsageError
from skelnas.genotype import SKIP, Cell, Edge, Genotype, Scores
from skelnas.models.complexity import Complexity
from skelnas.models.cost import KINDS, CostTable, chosen_ops, list_nodes

CellScores = Mapping[str, Scores]
"""Scores of each operation on each edge, by kind of cell ("normal", "reduction"); edges are ordered
by target node, then source, as in the alphas."""

EdgeScores = Mapping[str, Sequence[float]]
"""A score for each edge, by kind of cell."""


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
    keep: int = 2,
    max_skip: int | None = None,
    edge_scores: EdgeScores | None = None,
) -> Genotype:
    """Choose the genotype with the highest sum of scores within a budget, exactly.

    Each node keeps `keep` edges from different sources, each with an operation other than ``none``.
    Without a limit the result is that of `skelnas.genotype.choose_cell` for each cell, ties
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
    allowed = {kind: [dict(ops) for ops in scores[kind]] for kind in KINDS}
    while True:
        nodes = _list_options(allowed, edge_scores, costs, keep)
        front = _find_front(nodes, _limits(budget, costs), keep)
        if not front:
            raise _explain(nodes, costs, budget, keep)
        best = max(front, key=lambda point: point.rank)
        genotype = _to_genotype(best, allowed, edge_scores)
        skips = [index for index, op in chosen_ops(genotype.normal) if op == SKIP]
        if max_skip is None or len(skips) <= max_skip:
            return genotype
        weakest = min(skips, key=lambda index: (scores["normal"][index][SKIP], -index))
        del allowed["normal"][weakest][SKIP]


def find_front(
    scores: CellScores,
    costs: CostTable,
    by: Literal["parameters", "macs"] = "parameters",
    *,
    keep: int = 2,
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
    for point in _find_front(_list_options(scores, edge_scores, costs, keep), limits, keep):
        genotype = _to_genotype(point, scores, edge_scores)
        of_edges = [edge_scores[kind][i] for kind, i, _ in _list_choices(genotype) if edge_scores]
        score = score_of(genotype, scores)
        if (math.fsum(of_edges), score) > best:  # else it is another only by how ties are resolved
            best = (math.fsum(of_edges), score)
            front.append(FrontPoint(genotype, costs.total(genotype), score))
    return front


def score_of(genotype: Genotype, scores: CellScores) -> float:
    """Return the sum of the scores of a genotype's operations."""
    return math.fsum(scores[kind][index][op] for kind, index, op in _list_choices(genotype))


class _Point(NamedTuple):
    """A choice of operations for some edges.

    Attributes:
        params, macs: what it costs.
        rank: what it scores, with ties resolved.
        choices: (kind, edge, op); or a pair of choices; or None.
    """

    params: int
    macs: int
    rank: int
    choices: Any


_Limits = tuple[float | None, float | None]
"""The most parameters and multiply-adds of all operations; None where the cost does not matter."""

_Options = list[list[list[_Point]]]
"""The operations of each edge of each node."""

_NOTHING = _Point(0, 0, 0, None)


def _limits(budget: Budget, costs: CostTable) -> _Limits:
    params, macs = budget.max_params, budget.max_macs
    return (
        None if params is None else params - costs.rest.parameters,
        None if macs is None else macs - costs.rest.macs,
    )


def _list_options(
    scores: CellScores, edge_scores: EdgeScores | None, costs: CostTable, keep: int
) -> _Options:
    """List what each edge of each node may hold, with ranks whose sums order genotypes."""
    names = [
        (kind, index, op)
        for kind in KINDS
        for index, ops in enumerate(scores[kind])
        for op in ops
        if op != "none"
    ]
    levels = [
        _to_integers([scores[kind][index][op] for kind, index, op in names]),
        [-index for _, index, _ in names],
        [-list(scores[kind][index]).index(op) for kind, index, op in names],
    ]
    if edge_scores is not None:
        of_edges = _to_integers([edge_scores[kind][index] for kind, index, _ in names])
        levels = [of_edges, levels[1], levels[0], levels[2]]
    nodes = [(kind, node) for kind in KINDS for node in list_nodes(scores[kind])]
    num_kept = sum(min(keep, len(node)) for _, node in nodes)
    options: dict[tuple[str, int], list[_Point]] = {}
    for (kind, index, op), rank in zip(names, _pack(levels, num_kept), strict=True):
        cost = costs.edges[kind][index][op]
        point = _Point(cost.parameters, cost.macs, rank, (kind, index, op))
        options.setdefault((kind, index), []).append(point)
    return [[options[kind, index] for index in node] for kind, node in nodes]


def _to_integers(values: Sequence[float]) -> list[int]:
    """Scale numbers by their common denominator, so that their sums are exact."""
    ratios = [value.as_integer_ratio() for value in values]
    scale = math.lcm(*(denominator for _, denominator in ratios))
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def _pack(levels: Sequence[Sequence[int]], num_summed: int) -> list[int]:
    """Make one number of several, so that sums compare by the first, then the second, and so on.

    Args:
        levels: the first, second and so on of all options.
        num_summed: number of options in every sum.
    """
    packed = [0] * len(levels[0])
    for values in levels:
        low = min(values)
        base = 1 + num_summed * (max(values) - low)  # exceeds every sum of value - low
        packed = [high * base + value - low for high, value in zip(packed, values, strict=True)]
    return packed


def _find_front(nodes: _Options, limits: _Limits, keep: int) -> list[_Point]:
    """Return the choices for all nodes within the limits that no other beats, cheapest first."""
    counts = [int(limit is not None) for limit in limits]
    most = limits[0] or 0, limits[1] or 0
    front = [_NOTHING]
    for edges in nodes:
        counted = [
            [
                point._replace(params=point.params * counts[0], macs=point.macs * counts[1])
                for point in options
            ]
            for options in edges
        ]
        front = _combine(front, _choose_edges(counted, keep, most), most)
    return front


def _choose_edges(edges: list[list[_Point]], keep: int, most: tuple[float, float]) -> list[_Point]:
    """Return the choices for one node that no other beats."""
    fronts: list[list[_Point]] = [[_NOTHING], *([] for _ in range(keep))]  # by number of edges
    for options in edges:
        for count in range(keep, 0, -1):
            extended = _combine(fronts[count - 1], options, most)
            fronts[count] = _prune([*fronts[count], *extended])
    return fronts[min(keep, len(edges))]


def _combine(left: list[_Point], right: list[_Point], most: tuple[float, float]) -> list[_Point]:
    """Return the sums of two choices that cost no more than `most` and that no other beats."""
    max_params, max_macs = most
    return _prune(
        _Point(params + more_params, macs + more_macs, rank + more_rank, (choices, more_choices))
        for params, macs, rank, choices in left
        for more_params, more_macs, more_rank, more_choices in right
        if params + more_params <= max_params and macs + more_macs <= max_macs
    )


def _prune(points: Iterable[_Point]) -> list[_Point]:
    """Drop each point for which another costs no more and ranks no lower; sort by cost."""
    front = []
    macs_steps: list[int] = []  # of the points so far, those that no other beats in macs and rank
    rank_steps: list[int] = []
    for point in sorted(points, key=lambda point: (point.params, point.macs, -point.rank)):
        below = bisect_right(macs_steps, point.macs)
        if below and rank_steps[below - 1] >= point.rank:
            continue
        front.append(point)
        start, end = bisect_left(macs_steps, point.macs), bisect_right(rank_steps, point.rank)
        macs_steps[start:end], rank_steps[start:end] = [point.macs], [point.rank]
    return front


def _to_genotype(point: _Point, scores: CellScores, edge_scores: EdgeScores | None) -> Genotype:
    """Return the genotype of a choice for all nodes; the edges of a node are sorted, best first."""
    chosen: dict[str, dict[int, str]] = {kind: {} for kind in KINDS}
    for kind, index, op in _flatten(point.choices):
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

    return Genotype(*map(make_cell, KINDS))


def _flatten(choices: Any) -> Iterator[tuple[str, int, str]]:
    if choices is None:
        return
    if len(choices) == 3:
        yield choices
        return
    for part in choices:
        yield from _flatten(part)


def _list_choices(genotype: Genotype) -> list[tuple[str, int, str]]:
    """List the kind of cell, the index and the operation of each edge."""
    cells = zip(KINDS, (genotype.normal, genotype.reduction), strict=True)
    return [(kind, index, op) for kind, cell in cells for index, op in chosen_ops(cell)]


def _explain(nodes: _Options, costs: CostTable, budget: Budget, keep: int) -> UsageError:
    """Return the error that names the smallest possible network."""
    unranked = [[[p._replace(rank=0) for p in options] for options in edges] for edges in nodes]
    smallest = [
        costs.rest + Complexity(point.params, point.macs)
        for point in _find_front(unranked, (math.inf, math.inf), keep)
    ]
    hint = "fewer --channels or --layers make a smaller network"
    fewest = min(cost.parameters for cost in smallest)
    if budget.max_params is not None and fewest > budget.max_params:
        return UsageError(
            f"--max-params {budget.max_params}: expected {fewest} or more, "
            "the parameters of the smallest possible network",
            hint=hint,
        )
    within = [cost for cost in smallest if Budget(budget.max_params).allows(cost)]
    fewest = min(cost.macs for cost in within)
    also = f" with --max-params {budget.max_params}" if len(within) < len(smallest) else ""
    return UsageError(
        f"--max-macs {budget.max_macs}: expected {fewest} or more, "
        f"the multiply-adds of the smallest possible network{also}",
        hint=hint,
    )
