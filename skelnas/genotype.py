"""Genotypes: which operations a cell has and what each is fed from, and their JSON form."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.errors import InputError, UsageError
from skelnas.primitives import PRIMITIVES, candidates

FORMAT = "skelnas-genotype"
VERSION = 1
NUM_INPUT_NODES = 2


@dataclass(frozen=True)
class Edge:
    """A chosen operation and the node that it reads.

    Nodes count from the two input nodes, 0 (the cell before the last) and 1 (the last cell).
    """

    op: str
    source: int


Cell = tuple[tuple[Edge, ...], ...]
"""For each intermediate node, in order, the edges that are summed into it."""


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network; a cell's output concatenates its intermediate nodes."""

    normal: Cell
    reduction: Cell

    def to_json(self) -> str:
        """Write the genotype as JSON, one node a line."""

        def lines(cell: Cell) -> str:
            nodes = [json.dumps([[edge.op, edge.source] for edge in node]) for node in cell]
            return "[\n    " + ",\n    ".join(nodes) + "\n  ]"

        return (
            f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n'
            f'  "normal": {lines(self.normal)},\n  "reduction": {lines(self.reduction)}\n}}\n'
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form as plain containers."""
        parsed: dict[str, Any] = json.loads(self.to_json())
        return parsed


def parse(text: str, origin: str) -> Genotype:
    """Read a genotype from JSON text.

    Args:
        text: the JSON document.
        origin: what to call the text in an error (a file name, ``standard input``).

    Raises:
        InputError: the text is not a genotype; says where and what was expected.
    """
    try:
        document = json.loads(text.removeprefix("\ufeff"))  # a mark that Windows tools write
    except (ValueError, RecursionError) as error:  # too long a number, too deep a nesting
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"line {error.lineno}: {error.msg}"
        raise InputError(
            f"{origin}: not JSON ({reason})",
            hint="a genotype is what `skelnas derive RUN` prints",
        ) from None
    return from_dict(document, origin)


def from_dict(document: object, origin: str) -> Genotype:
    """Read a genotype from the plain containers of its JSON form; raises as `parse` does."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(
            f'{origin}: not a genotype: expected a JSON object with "format": "{FORMAT}"',
            hint="a genotype is what `skelnas derive RUN` prints",
        )
    version = document.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise InputError(
            f"{origin}: genotype version {_show(version)}, expected {VERSION}",
            hint="it was written by another version of skelnas; derive it again",
        )
    for key in ("normal", "reduction"):
        if key not in document:
            raise InputError(f'{origin}: the cell "{key}" is missing')
    return Genotype(
        normal=_parse_cell(document["normal"], f"{origin}: normal cell"),
        reduction=_parse_cell(document["reduction"], f"{origin}: reduction cell"),
    )


def _parse_cell(cell: object, where: str) -> Cell:
    if not isinstance(cell, list) or not cell:
        raise InputError(f"{where}: expected a list of nodes, got {_show(cell)}")
    return tuple(
        _parse_node(node, index + NUM_INPUT_NODES, f"{where}, node {index + NUM_INPUT_NODES}")
        for index, node in enumerate(cell)
    )


def _parse_node(node: object, index: int, where: str) -> tuple[Edge, ...]:
    if not isinstance(node, list) or not node:
        raise InputError(f"{where}: expected a list of [operation, node] pairs, got {_show(node)}")
    return tuple(_parse_edge(edge, index, where) for edge in node)


def _parse_edge(edge: object, index: int, where: str) -> Edge:
    if not isinstance(edge, list) or len(edge) != 2:
        raise InputError(f"{where}: expected an [operation, node] pair, got {_show(edge)}")
    op, source = edge
    if not isinstance(op, str) or op == "none" or op not in PRIMITIVES:
        known = ", ".join(name for name in PRIMITIVES if name != "none")
        raise InputError(f"{where}: unknown operation {_show(op)}", hint=f"known: {known}")
    if isinstance(source, bool) or not isinstance(source, int) or not 0 <= source < index:
        raise InputError(
            f"{where}: {op} reads node {_show(source)}, expected a node from 0 to {index - 1}"
        )
    return Edge(op, source)


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def random_genotype(seed: int, space: str = "sar", num_nodes: int = 4, keep: int = 2) -> Genotype:
    """Draw a genotype at random: the baseline that a search has to beat."""
    ops = [op for op in candidates(space) if op != "none"]
    generator = random.Random(seed)

    def draw() -> Cell:
        return tuple(
            tuple(
                Edge(generator.choice(ops), source)
                for source in sorted(generator.sample(range(index), min(keep, index)))
            )
            for index in range(NUM_INPUT_NODES, NUM_INPUT_NODES + num_nodes)
        )

    return Genotype(normal=draw(), reduction=draw())


def load(spec: str, stdin: str | None = None) -> Genotype:
    """Find a genotype by what a user typed: a built-in name, a file, or ``-``.

    Args:
        spec: name in `BUILT_IN`, ``random`` or ``random:SEED``, path of a JSON file, or ``-``.
        stdin: the text of standard input, needed for ``-``.

    Raises:
        InputError: there is no such name or file, or it is not a genotype.
    """
    if spec == "-":
        if not (stdin or "").strip():
            raise InputError(
                "standard input: expected a genotype, got nothing",
                hint="the command before the pipe may have failed",
            )
        return parse(stdin or "", "standard input")
    if spec in BUILT_IN:
        return BUILT_IN[spec]
    if re.fullmatch(r"random(:\d+)?", spec):
        return random_genotype(int(spec.partition(":")[2] or 0))
    path = Path(spec)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{spec}: no such genotype file",
            hint=f"a path, - for standard input, or one of: {', '.join(BUILT_IN)}, random:SEED",
        ) from None
    except OSError as error:
        raise InputError(
            f"{spec!r}: cannot be read as a genotype ({error.strerror or error})",
            hint="`skelnas derive RUN` writes the genotype of a run folder",
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{spec}: not a genotype: expected JSON text in UTF-8") from None
    return parse(text, spec)


def _cell(*nodes: Sequence[tuple[str, int]]) -> Cell:
    return tuple(tuple(Edge(op, source) for op, source in node) for node in nodes)


BUILT_IN: dict[str, Genotype] = {
    "ntu_cs112se30": Genotype(
        normal=_cell(
            [("sep_conv_3x3", 0), ("max_pool_3x3", 1)],
            [("max_pool_3x3", 0), ("max_pool_3x3", 1)],
            [("sep_conv_3x3", 1), ("max_pool_3x3", 0)],
            [("conv_3x3", 0), ("se_connect", 1)],
        ),
        reduction=_cell(
            [("avg_pool_3x3", 1), ("max_pool_3x3", 0)],
            [("max_pool_3x3", 0), ("dil_conv_3x3", 2)],
            [("max_pool_3x3", 2), ("max_pool_3x3", 0)],
            [("max_pool_3x3", 0), ("max_pool_3x3", 2)],
        ),
    ),
    "ntu_cv112se30": Genotype(
        normal=_cell(
            [("max_pool_3x3", 1), ("sep_conv_3x3", 0)],
            [("se_connect", 2), ("sep_conv_3x3", 0)],
            [("max_pool_3x3", 2), ("sep_conv_5x5", 0)],
            [("max_pool_3x3", 2), ("max_pool_3x3", 3)],
        ),
        reduction=_cell(
            [("max_pool_3x3", 0), ("max_pool_3x3", 1)],
            [("conv_3x3", 0), ("max_pool_3x3", 2)],
            [("max_pool_3x3", 0), ("max_pool_3x3", 3)],
            [("max_pool_3x3", 0), ("max_pool_3x3", 4)],
        ),
    ),
}
"""Genotypes that the authors released for NTU RGB+D, cross-subject and cross-view."""


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
