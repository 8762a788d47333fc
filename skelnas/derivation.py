"""Genotypes from scores of operations, such as the alphas of a search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from skelnas.errors import InputError, UsageError
from skelnas.genotype import EDGES_PER_NODE, Cell, Edge, Genotype, from_dict, list_nodes

SKIP = "skip_connect"

Alphas = Sequence[Sequence[float]]
"""Alphas of a cell, [edges][operations]; the edges are those of `possible_edges`."""

Scores = Sequence[Mapping[str, float]]
"""Scores of the operations of each edge of a cell, in the same order."""


def from_alphas(
    normal: Alphas,
    reduction: Alphas,
    primitives: Sequence[str],
    keep: int = EDGES_PER_NODE,
    max_skip: int | None = None,
) -> Genotype:
    """Derive a genotype from alphas (Paper: section III; DARTS, section 2.4).

    The score of an operation is its weight in the softmax over all operations of the edge,
    ``none`` included.

    Args:
        normal, reduction: alphas of the two cells.
        primitives: ids of the operations.
        keep: incoming edges to keep per node.
        max_skip: maximum number of skips in the normal cell; None for no limit.

    Raises:
        InputError: an alpha is infinite or NaN.
        UsageError: skips are limited, and the space has no other operation.
    """
    return Genotype(
        normal=choose_cell(op_weights(normal, primitives), keep, max_skip),
        reduction=choose_cell(op_weights(reduction, primitives), keep),
    )


def from_line(line: Mapping[str, Any], primitives: Sequence[str]) -> Genotype:
    """Return the genotype of one line of ``alphas.jsonl``.

    A search within a budget records it, since alphas alone do not determine it. Otherwise it is
    derived by `from_alphas`, which raises what is wrong with the alphas.
    """
    if "genotype" in line:
        return from_dict(line["genotype"], "genotype")
    return from_alphas(line["normal"], line["reduction"], primitives)


def choose_cell(
    scores: Scores,
    keep: int = EDGES_PER_NODE,
    max_skip: int | None = None,
    edge_scores: Sequence[float] | None = None,
) -> Cell:
    """Choose the operation of each edge and the edges of each node.

    An edge takes its best operation other than ``none``; a node keeps the `keep` incoming edges
    with the highest scores, best first. Ties go to the lower index of operation and node.

    With `max_skip`, while too many edges are skips, the skip with the lowest score (the last of
    equals) is ruled out for its edge and the cell is chosen again. A surplus skip is thus replaced
    by the next best operation of its edge, or by another edge of its node that now scores higher.
    (P-DARTS and DARTS+ limit the skips of the normal cell.)

    Args:
        scores: of each operation on each edge.
        keep: edges per node; a node with fewer incoming edges keeps all.
        max_skip: maximum number of skips; None for no limit.
        edge_scores: one per edge; None uses the score of its chosen operation.

    Raises:
        UsageError: skips are limited, and the space has no other operation.
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
    """Return the edges of each node by index; edges in `no_skips` may not be skips."""
    nodes: list[dict[int, Edge]] = []
    for node in list_nodes(scores):
        ranked = []
        for source, index in enumerate(node):
            left_out = {"none", SKIP} if index in no_skips else {"none"}
            allowed = {op: score for op, score in scores[index].items() if op not in left_out}
            op = max(allowed, key=allowed.__getitem__)
            score = allowed[op] if edge_scores is None else edge_scores[index]
            ranked.append((-score, index, Edge(op, source)))
        nodes.append({index: edge for _, index, edge in sorted(ranked)[:keep]})
    return nodes


def count_skips(genotype: Genotype) -> int:
    """Return the number of skips in the normal cell; many are a sign of a collapsed search."""
    return sum(edge.op == SKIP for node in genotype.normal for edge in node)


def choose_epoch(
    genotypes: Mapping[int, Genotype], max_skips: int | None, weight_epochs: int = 0
) -> int:
    """Return the epoch whose genotype is the result of a search.

    That is the last epoch or, with a limit for skips, the last epoch within the limit, if any in
    which the alphas learned.

    Args:
        genotypes: by epoch; 0 is before the first step.
        max_skips: ``--stop-skips`` of the search.
        weight_epochs: number of epochs, from the first, that trained the weights only.
    """
    last = max(genotypes)
    if max_skips is None:
        return last
    learned = {e: found for e, found in genotypes.items() if e > weight_epochs}
    within = (e for e, found in learned.items() if count_skips(found) <= max_skips)
    return max(within, default=last)


def count_stable(genotypes: Sequence[Genotype]) -> int:
    """Return the number of epochs since the genotype last changed.

    Args:
        genotypes: before the first epoch and after each; the order of a node's edges is ignored.
    """
    stable = 0
    for after, before in itertools.pairwise(reversed(genotypes)):
        if before.identity != after.identity:
            break
        stable += 1
    return stable


def op_weights(alphas: Alphas, primitives: Sequence[str]) -> Scores:
    """Return the softmax of a cell's alphas, by operation for each edge.

    Raises:
        InputError: an alpha is infinite or NaN.
    """
    for index, values in enumerate(alphas):
        if not all(map(math.isfinite, values)):
            raise InputError(
                f"the alphas of edge {index} are not all finite numbers",
                hint="the search has diverged; derive from an earlier epoch",
            )
    return [dict(zip(primitives, softmax(values), strict=True)) for values in alphas]


def softmax(values: Sequence[float]) -> list[float]:
    """Return the softmax of one edge's alphas."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def entropy(alphas: Alphas) -> float:
    """Return the mean entropy of the softmax over a cell's edges, relative to its maximum.

    1 means that all operations weigh the same, 0 that each edge has decided on one.
    """
    edges = [-sum(p * math.log(p) for p in softmax(edge) if p > 0) for edge in alphas]
    return sum(edges) / len(edges) / math.log(max(len(alphas[0]), 2))
