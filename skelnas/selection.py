"""Which operations and edges a cell keeps, from scores of its operations.

A score is a share of a softmax over alphas, or what else tells how much an operation is worth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from skelnas.errors import InputError, UsageError
from skelnas.genotype import NUM_INPUT_NODES, Cell, Edge, Genotype

SKIP = "skip_connect"

Alphas = Sequence[Sequence[float]]
"""[edges][operations] of a cell, edges ordered by target node, then source."""

Scores = Sequence[Mapping[str, float]]
"""For each edge of a cell, ordered likewise, the score of each operation."""


def from_alphas(
    normal: Alphas,
    reduction: Alphas,
    primitives: Sequence[str],
    keep: int = 2,
    max_skip: int | None = None,
) -> Genotype:
    """Derive the genotype that alphas stand for (paper, section III; DARTS, section 2.4).

    The score of an operation is its share in the softmax over all operations of the edge,
    ``none`` included; `choose_cell` says what is kept.

    Args:
        normal, reduction: the alphas.
        primitives: the operation ids.
        keep: edges a node; a node with fewer incoming edges keeps all.
        max_skip: the most edges of the normal cell that may be a skip; None for no limit.

    Raises:
        InputError: an alpha is infinite or not a number.
        UsageError: skips are limited where there is nothing else.
    """
    return Genotype(
        normal=choose_cell(_shares(normal, primitives), keep, max_skip),
        reduction=choose_cell(_shares(reduction, primitives), keep),
    )


def choose_cell(
    scores: Scores,
    keep: int = 2,
    max_skip: int | None = None,
    edge_scores: Sequence[float] | None = None,
) -> Cell:
    """Choose the operation of each edge and the edges of each node.

    An edge takes its best operation other than ``none``; a node keeps the `keep` incoming
    edges with the highest scores. Ties go to the lower index, of operations and of nodes; a
    node's edges come best first.

    With `max_skip`, while more edges than that are skips, the one whose skip has the lowest
    score (of equals the last) may not be a skip any more, and the cell is chosen anew. So a
    surplus skip gives way to the next best operation of its edge, or to another edge of its
    node where that now scores higher. (P-DARTS and DARTS+ limit the skips of the normal cell.)

    Args:
        scores: of each operation on each edge, in the order of the operations.
        keep: edges a node; a node with fewer incoming edges keeps all.
        max_skip: the most edges that may be a skip; None for no limit.
        edge_scores: of each edge; None for that of the operation it takes.

    Raises:
        UsageError: skips are limited where there is nothing else.
    """
    if max_skip is not None and not set(scores[0]) - {"none", SKIP}:
        raise UsageError(f"--max-skip {max_skip}: the search had no operation but {SKIP}")
    no_skips: set[int] = set()
    while True:
        nodes = _choose_edges(scores, keep, edge_scores, no_skips)
        skips = [index for node in nodes for index, edge in node.items() if edge.op == SKIP]
        if max_skip is None or len(skips) <= max_skip:
            return tuple(tuple(node.values()) for node in nodes)
        no_skips.add(min(skips, key=lambda index: (scores[index][SKIP], -index)))


def _choose_edges(
    scores: Scores, keep: int, edge_scores: Sequence[float] | None, no_skips: set[int]
) -> list[dict[int, Edge]]:
    """Choose the edges of each node, by their index; `no_skips` are those that may not skip."""
    nodes: list[dict[int, Edge]] = []
    first = 0
    while first < len(scores):
        num_sources = NUM_INPUT_NODES + len(nodes)
        ranked = []
        for source in range(num_sources):
            index = first + source
            left_out = {"none", SKIP} if index in no_skips else {"none"}
            allowed = {op: score for op, score in scores[index].items() if op not in left_out}
            op = max(allowed, key=allowed.__getitem__)
            score = allowed[op] if edge_scores is None else edge_scores[index]
            ranked.append((-score, index, Edge(op, source)))
        nodes.append({index: edge for _, index, edge in sorted(ranked)[:keep]})
        first += num_sources
    return nodes


def count_skips(genotype: Genotype) -> int:
    """Count the edges of the normal cell that are skips: many of them tell of a collapse."""
    return sum(edge.op == SKIP for node in genotype.normal for edge in node)


def last_kept(genotypes: Mapping[int, Genotype], most_skips: int | None) -> int:
    """Return the epoch whose genotype a search stands for: the last one.

    Where skips end a search it is the last one that kept to the limit, if there is one after the
    start.

    Args:
        genotypes: by epoch, from 0 for the start.
        most_skips: ``--stop-skips`` of the search.
    """
    last = max(genotypes)
    if most_skips is None:
        return last
    kept = (e for e, found in genotypes.items() if e and count_skips(found) <= most_skips)
    return max(kept, default=last)


def count_stable(genotypes: Sequence[Genotype]) -> int:
    """Count the epochs, back from the last, that have left the genotype as it was.

    Args:
        genotypes: at the start, and after each epoch. The order of a node's edges is no change.
    """
    networks = [
        [frozenset(node) for node in (*genotype.normal, *genotype.reduction)]
        for genotype in genotypes
    ]
    stable = 0
    for before, after in itertools.pairwise(reversed(networks)):
        if before != after:
            break
        stable += 1
    return stable


def _shares(alphas: Alphas, primitives: Sequence[str]) -> Scores:
    for index, values in enumerate(alphas):
        if not all(map(math.isfinite, values)):
            raise InputError(
                f"the alphas of edge {index} are not all finite numbers",
                hint="the search has diverged; derive from an earlier epoch",
            )
    return [dict(zip(primitives, softmax(values), strict=True)) for values in alphas]


def softmax(values: Sequence[float]) -> list[float]:
    """Turn one edge's alphas into shares that add up to 1."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def entropy(alphas: Alphas) -> float:
    """Say how undecided the edges of a cell are: 1 if all operations weigh the same, 0 if one does.

    The mean over the edges of the entropy of their shares, as a part of the largest there is.
    """
    edges = [-sum(p * math.log(p) for p in softmax(edge) if p > 0) for edge in alphas]
    return sum(edges) / len(edges) / math.log(max(len(alphas[0]), 2))
