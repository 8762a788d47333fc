"""The dynamic programme behind budgets: choices of operations that no other choice beats.

Cost and score are sums over the edges that a genotype keeps. So partial choices are extended edge
by edge, and one is dropped as soon as another costs no more and scores no less.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from skelnas.derivation import Scores
from skelnas.genotype import CELLS, list_nodes
from skelnas.models.cost import CostTable

CellScores = Mapping[str, Scores]
"""Scores of each operation on each edge, by kind of cell."""

EdgeScores = Mapping[str, Sequence[float]]
"""A score for each edge, by kind of cell."""


class Point(NamedTuple):
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


Limits = tuple[float | None, float | None]
"""The most parameters and multiply-adds of all operations; None where the cost does not matter."""

Options = list[list[list[Point]]]
"""The operations of each edge of each node."""

_NOTHING = Point(0, 0, 0, None)


def list_options(
    scores: CellScores, edge_scores: EdgeScores | None, costs: CostTable, keep: int
) -> Options:
    """List what each edge of each node may hold, with ranks whose sums order genotypes."""
    names = [
        (kind, index, op)
        for kind in CELLS
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
    nodes = [(kind, node) for kind in CELLS for node in list_nodes(scores[kind])]
    num_kept = sum(min(keep, len(node)) for _, node in nodes)
    options: dict[tuple[str, int], list[Point]] = {}
    for (kind, index, op), rank in zip(names, _pack(levels, num_kept), strict=True):
        cost = costs.edges[kind][index][op]
        point = Point(cost.parameters, cost.macs, rank, (kind, index, op))
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


def find_points(nodes: Options, limits: Limits, keep: int) -> list[Point]:
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


def _choose_edges(edges: list[list[Point]], keep: int, most: tuple[float, float]) -> list[Point]:
    """Return the choices for one node that no other beats."""
    fronts: list[list[Point]] = [[_NOTHING], *([] for _ in range(keep))]  # by number of edges
    for options in edges:
        for count in range(keep, 0, -1):
            extended = _combine(fronts[count - 1], options, most)
            fronts[count] = _prune([*fronts[count], *extended])
    return fronts[min(keep, len(edges))]


def _combine(left: list[Point], right: list[Point], most: tuple[float, float]) -> list[Point]:
    """Return the sums of two choices that cost no more than `most` and that no other beats."""
    max_params, max_macs = most
    return _prune(
        Point(params + more_params, macs + more_macs, rank + more_rank, (choices, more_choices))
        for params, macs, rank, choices in left
        for more_params, more_macs, more_rank, more_choices in right
        if params + more_params <= max_params and macs + more_macs <= max_macs
    )


def _prune(points: Iterable[Point]) -> list[Point]:
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


def list_choices(point: Point) -> list[tuple[str, int, str]]:
    """Return the kind of cell, the edge and the operation of each choice of a point."""

    def flatten(choices: Any) -> Iterator[tuple[str, int, str]]:
        if choices is not None and len(choices) == 3:
            yield choices
        elif choices is not None:
            for part in choices:
                yield from flatten(part)

    return list(flatten(point.choices))
