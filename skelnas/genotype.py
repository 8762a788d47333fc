"""Genotypes: which operations a cell has and what each is fed from, and their JSON form."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.errors import InputError, shown

FORMAT = "skelnas-genotype"
VERSION = 1
NUM_INPUT_NODES = 2

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
    "se_connect",
)
"""Every operation id that is known; a genotype may name any of them but ``none``."""

SPACES: dict[str, tuple[str, ...]] = {
    "sar": (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "conv_3x3",
        "sep_conv_3x3",
        "dil_conv_3x3",
        "se_connect",
    ),
    "sar-no-se": (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "conv_3x3",
        "sep_conv_3x3",
        "dil_conv_3x3",
    ),
    "darts": (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
}
"""Spaces with a name: Table I, Table V's ablation, Tables III-IV's row "DARTS"."""


def candidates(space: str) -> tuple[str, ...]:
    """Return the candidate operations of an edge, in the order of `PRIMITIVES`.

    Args:
        space: name in `SPACES`, or operation ids with commas between, in any order.

    Raises:
        ValueError: it is neither, or nothing can be chosen from it; the text is what was expected.
    """
    if space in SPACES:
        return SPACES[space]
    ops = [op.strip() for op in space.split(",")]
    for op in ops:
        if op not in PRIMITIVES:
            raise ValueError(
                f"one of {', '.join(SPACES)}, or operations with commas between; "
                f"{shown(op)} is none of: {', '.join(PRIMITIVES)}"
            )
        if ops.count(op) > 1:
            raise ValueError(f"each operation once, {op} is named {ops.count(op)} times")
    if len(ops) < 2:
        raise ValueError("two operations or more, so that there is something to choose")
    return tuple(op for op in PRIMITIVES if op in ops)


def kind(op: str) -> str:
    """Say which of the four kinds an operation is of."""
    if op == "se_connect":
        return "squeeze-and-excitation"
    if op == "skip_connect":
        return "skip connection"
    return "pooling" if "pool" in op else "convolution"


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
    if op == "none" or op not in PRIMITIVES:
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
