"""Genotypes and their JSON form."""

from __future__ import annotations

import errno
import json
import random
import re
import stat
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas import json_text
from skelnas.errors import InputError
from skelnas.primitives import PRIMITIVES, SPACES, candidates

MAX_BYTES = 1 << 20
"""Of a genotype's text; the largest have a few thousand."""

MAX_NODES, MAX_EDGES = 100, 10_000
"""Of a cell. A search has at most as many nodes, each with an edge from every earlier one."""

FORMAT = "skelnas-genotype"
VERSION = 1
NUM_INPUT_NODES = 2

EDGES_PER_NODE = 2
"""Edges that a node keeps (DARTS, section 2.4)."""

CELLS = ("normal", "reduction")
"""The kinds of cells, as genotypes and alphas name them."""


@dataclass(frozen=True)
class Edge:
    """A chosen operation and its source node.

    Nodes 0 and 1 are the input nodes: the outputs of the last cell but one and of the last cell.
    """

    op: str
    source: int


Cell = tuple[tuple[Edge, ...], ...]
"""The incoming edges of each intermediate node, in order; their outputs are summed."""


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network; a cell's output concatenates its intermediate nodes."""

    normal: Cell
    reduction: Cell

    @property
    def identity(self) -> Hashable:
        """What genotypes have in common that differ in the order of a node's edges only."""
        return tuple(tuple(map(frozenset, cell)) for cell in (self.normal, self.reduction))

    def to_json(self) -> str:
        """Return the genotype as JSON, one node a line."""

        def lines(cell: Cell) -> str:
            nodes = [json.dumps([[edge.op, edge.source] for edge in node]) for node in cell]
            return "[\n    " + ",\n    ".join(nodes) + "\n  ]"

        return (
            f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n'
            f'  "normal": {lines(self.normal)},\n  "reduction": {lines(self.reduction)}\n}}\n'
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form as dictionaries and lists."""
        parsed: dict[str, Any] = json.loads(self.to_json())
        return parsed

    def chosen_ops(self) -> Iterator[tuple[str, int, str]]:
        """Yield the kind of cell, the edge's index in `possible_edges` and the op of each edge."""
        for kind, cell in zip(CELLS, (self.normal, self.reduction), strict=True):
            first = 0
            for num_sources, node in enumerate(cell, start=NUM_INPUT_NODES):
                for edge in node:
                    yield kind, first + edge.source, edge.op
                first += num_sources


def possible_edges(num_nodes: int) -> list[tuple[int, int]]:
    """List target and source of each edge that a cell may have, in the order of the alphas.

    Args:
        num_nodes: intermediate nodes; 4 have 14 edges.
    """
    nodes = range(NUM_INPUT_NODES, NUM_INPUT_NODES + num_nodes)
    return [(target, source) for target in nodes for source in range(target)]


def list_nodes(edges: Sequence[object]) -> list[range]:
    """Return the indices of the incoming edges of each intermediate node.

    Args:
        edges: something for each of the `possible_edges` of a cell.
    """
    nodes: list[range] = []
    while (first := nodes[-1].stop if nodes else 0) < len(edges):
        nodes.append(range(first, first + NUM_INPUT_NODES + len(nodes)))
    return nodes


def parse(text: str, origin: str) -> Genotype:
    """Parse a genotype from JSON.

    Args:
        text: the JSON document.
        origin: name of the text in errors: a file name or ``standard input``.

    Raises:
        InputError: the text is not a genotype.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{origin}: not a genotype: more than {MAX_BYTES:,} characters")
    try:
        document = json_text.parse(text.removeprefix("\ufeff"))  # byte order mark
    except ValueError as error:
        raise InputError(
            f"{origin}: not JSON ({error})",
            hint="a genotype is what `skelnas derive RUN` prints",
        ) from None
    return from_dict(document, origin)


def from_dict(document: object, origin: str) -> Genotype:
    """Read a genotype from its JSON form as dictionaries and lists; raises as `parse` does."""
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
    for key in CELLS:
        if key not in document:
            raise InputError(f'{origin}: the cell "{key}" is missing')
    return Genotype(
        normal=_parse_cell(document["normal"], f"{origin}: normal cell"),
        reduction=_parse_cell(document["reduction"], f"{origin}: reduction cell"),
    )


def _parse_cell(cell: object, where: str) -> Cell:
    if not isinstance(cell, list) or not cell:
        raise InputError(f"{where}: expected a list of nodes, got {_show(cell)}")
    num_edges = sum(len(node) for node in cell if isinstance(node, list))
    if len(cell) > MAX_NODES or num_edges > MAX_EDGES:
        raise InputError(
            f"{where}: {len(cell):,} nodes with {num_edges:,} edges, expected at most "
            f"{MAX_NODES} with {MAX_EDGES:,}"
        )
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


def random_genotype(seed: int, space: str = "sar", num_nodes: int = 4) -> Genotype:
    """Draw a genotype at random: the baseline a search has to beat."""
    ops = [op for op in candidates(space) if op != "none"]
    generator = random.Random(seed)

    def draw() -> Cell:
        return tuple(
            tuple(
                Edge(generator.choice(ops), source)
                for source in sorted(generator.sample(range(index), EDGES_PER_NODE))
            )
            for index in range(NUM_INPUT_NODES, NUM_INPUT_NODES + num_nodes)
        )

    return Genotype(normal=draw(), reduction=draw())


def read_random(spec: str) -> tuple[int, str] | None:
    """Return seed and space of ``random``, ``random:SEED`` or ``random:SEED:SPACE``, or None."""
    drawn = re.fullmatch(rf"random(?::([0-9]{{1,18}})(?::({'|'.join(SPACES)}))?)?", spec)
    return (int(drawn[1] or 0), drawn[2] or "sar") if drawn else None


def load(spec: str, stdin: str | None = None) -> Genotype:
    """Load a genotype by what a user typed.

    Args:
        spec: a name in `BUILT_IN`, ``random``, ``random:SEED``, ``random:SEED:SPACE``, a JSON file,
            or ``-``.
        stdin: contents of standard input, for ``-``.

    Raises:
        InputError: no such name or file, or not a genotype.
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
    if (drawn := read_random(spec)) is not None:
        return random_genotype(*drawn)
    path = Path(spec)
    try:
        text = _read_text(path)
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


def _read_text(path: Path) -> str:
    """Read a file or, by its name in /dev or /proc, a pipe that the shell made.

    Raises:
        OSError: it cannot be read, or is another pipe or a device, which may never end.
        UnicodeDecodeError: it is not UTF-8.
    """
    mode = path.stat().st_mode
    is_file = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    if not is_file and not re.match(r"/(dev/(stdin|fd)|proc)\b", str(path)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1).decode()


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
"""The genotypes that the authors released for NTU RGB+D, cross-subject and cross-view."""
