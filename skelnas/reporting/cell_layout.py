"""Where the parts of a cell's picture go (Paper: Figs. 3 and 4).

A cell is laid out in columns, as layered graph drawing does it: nodes that wait for equally
many others share a column, and each operation is a box in the column before the node that it
feeds. A line that passes a column without stopping has a lane there, which takes room as a box
does. So no line can run through a box and no two boxes can meet; what is left to choose is the
order in each column, for few crossings, and the heights, for level lines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from skelnas.genotype import NUM_INPUT_NODES, Cell

# Lengths are in points, 1/72 inch.
NODE_WIDTH = 32.0
NODE_HEIGHT = 28.0
OP_WIDTH = 82.0
OP_HEIGHT = 21.0
BOX_GAP = 9.0  # between boxes of a column
PORT_GAP = 9.0  # between the ends of lines on a side of a box

INPUTS = ("$c_{k{-}2}$", "$c_{k{-}1}$")
OUTPUT = "$c_{k}$"
"""Names of the nodes that are no intermediate ones; those are counted from 0."""

TRIES = 40
"""How many orders to start from in the search for one with few crossings."""

STIFFNESS = (1.0, 2.0, 8.0)
"""How much a piece of a line wants to be level, by how many of its ends are lanes."""


@dataclass(eq=False)
class Box:
    """A node, an operation or, without a label, the lane of a line that passes a column.

    `op` is the operation of the line that a box or a lane is on; a node and a line to the output
    have none.
    """

    label: str
    width: float
    height: float
    op: str = ""
    is_node: bool = False
    x: float = 0.0  # of the middle, as y
    y: float = 0.0
    sources: list[Box] = field(default_factory=list)
    targets: list[Box] = field(default_factory=list)


Column = list[Box]


@dataclass(eq=False)
class Drawing:
    """A laid out cell: its columns from left to right, and the boxes that each line visits."""

    columns: list[Column]
    lines: list[list[Box]]

    @property
    def boxes(self) -> list[Box]:
        """Nodes, operations and lanes."""
        return [box for column in self.columns for box in column]

    @property
    def width(self) -> float:
        """From the input nodes to the output."""
        return max(box.x + box.width / 2 for box in self.boxes)

    @property
    def height(self) -> float:
        """From the uppermost box to the lowest."""
        return max(box.y + box.height / 2 for box in self.boxes)


def lay_out(cell: Cell) -> Drawing:
    """Find a place for everything in a cell; equal cells get equal places."""
    drawing = _build(cell)
    _order(drawing.columns)
    _place(drawing)
    return drawing


def _build(cell: Cell) -> Drawing:
    """Put nodes, operations and lanes into columns, in the order of the genotype."""
    depths = [0] * NUM_INPUT_NODES
    for edges in cell:
        depths.append(1 + max(depths[edge.source] for edge in edges))
    where = [2 * depth for depth in depths]  # a node's column; operations are in the odd ones
    last = max(where) + 1
    columns: list[Column] = [[] for _ in range(last + 1)]
    lines = []
    labels = [*INPUTS, *(str(index) for index in range(len(cell)))]
    nodes = [Box(label, NODE_WIDTH, NODE_HEIGHT, is_node=True) for label in labels]
    output = Box(OUTPUT, NODE_WIDTH, NODE_HEIGHT, is_node=True)
    for node, column in zip([*nodes, output], [*where, last], strict=True):
        columns[column].append(node)

    def connect(source: int, target: Box, to: int, op: str = "") -> None:
        line = [nodes[source]]
        for column in range(where[source] + 1, to):
            is_op = bool(op) and column == to - 1
            box = Box(op, OP_WIDTH, OP_HEIGHT, op) if is_op else Box("", 0, 0, op)
            columns[column].append(box)
            line.append(box)
        line.append(target)
        for before, after in pairwise(line):
            before.targets.append(after)
            after.sources.append(before)
        lines.append(line)

    for index, edges in enumerate(cell, start=NUM_INPUT_NODES):
        for edge in sorted(edges, key=lambda edge: edge.source):
            connect(edge.source, nodes[index], where[index], edge.op)
    for index in range(NUM_INPUT_NODES, len(nodes)):
        connect(index, output, last)
    for node in [*nodes, output]:
        ports = max(len(node.sources), len(node.targets))
        node.height = max(NODE_HEIGHT, ports * PORT_GAP + 4)
    return Drawing(columns, lines)


def _order(columns: list[Column]) -> None:
    """Order the boxes in each column so that few lines cross.

    Tries the genotype's own order first, then shuffled ones (from a fixed seed); of equally good
    ones the first stays. The input nodes keep their order: a mirrored cell has as many crossings.
    """
    shuffler = random.Random(0)
    numbers = {box: number for column in columns for number, box in enumerate(column)}
    best, least = [list(column) for column in columns], _flaws(columns, numbers)
    for _ in range(TRIES):
        for sweep in range(4):
            ahead = sweep % 2 == 1
            inner = range(1, len(columns))
            for index in reversed(inner) if ahead else inner:
                _sort_by_neighbours(columns, index, ahead=ahead)
            _sift(columns)
            flaws = _flaws(columns, numbers)
            if flaws < least:
                best, least = [list(column) for column in columns], flaws
        for column in columns[1:]:
            shuffler.shuffle(column)
    columns[:] = best


def _flaws(columns: list[Column], numbers: dict[Box, int]) -> tuple[int, int]:
    """Count crossings; then, of those, the ones between operations and the nodes that they feed,
    and the pairs of nodes in a column that stand against their numbers.
    """
    crossings = [_crossings(columns, index) for index in range(len(columns) - 1)]
    unclear = sum(crossings[1::2])
    for column in columns:
        nodes = [numbers[box] for box in column if box.is_node]
        unclear += sum(upper > lower for i, upper in enumerate(nodes) for lower in nodes[i:])
    return sum(crossings), unclear


def _ranks(columns: list[Column], index: int) -> dict[Box, int]:
    column = columns[index] if 0 <= index < len(columns) else []
    return {box: rank for rank, box in enumerate(column)}


def _crossings(columns: list[Column], index: int) -> int:
    """Count the crossings between a column and the next."""
    ranks = _ranks(columns, index + 1)
    ends = [[ranks[target] for target in box.targets] for box in columns[index]]
    return sum(_inversions(upper, lower) for i, upper in enumerate(ends) for lower in ends[i + 1 :])


def _inversions(upper: list[int], lower: list[int]) -> int:
    """Count the crossings of the lines of two boxes, by the ranks where those lines end."""
    return sum(high > low for high in upper for low in lower)


def _sort_by_neighbours(columns: list[Column], index: int, *, ahead: bool) -> None:
    """Sort a column by the mean rank of what its boxes are joined to in the column beside it."""
    ranks = _ranks(columns, index + 1 if ahead else index - 1)
    own = _ranks(columns, index)

    def mean(box: Box) -> float:
        neighbours = box.targets if ahead else box.sources
        total = sum(ranks[neighbour] for neighbour in neighbours)
        return total / len(neighbours) if neighbours else own[box]

    columns[index].sort(key=mean)


def _sift(columns: list[Column]) -> None:
    """Move single boxes to where their lines cross the fewest others, as long as that helps."""
    moved = True
    while moved:
        moved = False
        for index, column in enumerate(columns[1:], start=1):
            before, after = _ranks(columns, index - 1), _ranks(columns, index + 1)
            into = {box: [before[source] for source in box.sources] for box in column}
            out = {box: [after[target] for target in box.targets] for box in column}
            for box in list(column):
                others = [other for other in column if other is not box]
                # Crossings with the others for each place, less those at the uppermost one.
                costs = [0]
                for other in others:
                    gain = _inversions(into[box], into[other]) + _inversions(out[box], out[other])
                    loss = _inversions(into[other], into[box]) + _inversions(out[other], out[box])
                    costs.append(costs[-1] - gain + loss)
                if min(costs) < costs[column.index(box)]:
                    others.insert(costs.index(min(costs)), box)
                    column[:] = others
                    moved = True


def _place(drawing: Drawing) -> None:
    """Give every box its place, in points from the upper left corner of the cell."""
    columns = drawing.columns
    for index, column in enumerate(columns):
        before, after = _ranks(columns, index - 1), _ranks(columns, index + 1)
        for box in column:
            box.sources.sort(key=before.__getitem__)
            box.targets.sort(key=after.__getitem__)
    # Least squares first, which is even but leaves long lines a little askew; then these count
    # by less than their rise, which makes most pieces level and leaves others one clear step.
    for sweep in range(300):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            _settle(column, level=sweep >= 100)
    top = min(box.y - box.height / 2 for box in drawing.boxes)
    for box in drawing.boxes:
        box.y -= top
    right = 0.0
    for column in columns:
        pieces = [piece(source, box) for box in column for source in box.sources]
        if pieces:
            rise = max(abs(end - start) for start, end in pieces)
            right += min(max(28 + 0.42 * rise, 36), 110)
        width = max(box.width for box in column)
        for box in column:
            box.x = right + width / 2
            box.width = box.width or width  # a lane is as long as its column is wide
        right += width


def _port(side: list[Box], neighbour: Box) -> float:
    """Return how far below the middle of its side of a box the line to a neighbour ends."""
    return (side.index(neighbour) - (len(side) - 1) / 2) * PORT_GAP


def piece(source: Box, target: Box) -> tuple[float, float]:
    """Return at which heights the line between neighbours starts and ends."""
    return source.y + _port(source.targets, target), target.y + _port(target.sources, source)


def _pulls(box: Box, *, level: bool) -> Iterator[tuple[float, float]]:
    """Yield for each line at a box how far it pulls the box down, and how strongly."""
    pieces = [(source, box) for source in box.sources] + [(box, target) for target in box.targets]
    for source, target in pieces:
        start, end = piece(source, target)
        rise = start - end if target is box else end - start
        num_lanes = (not source.label) + (not target.label)
        strength = STIFFNESS[num_lanes]
        if level and num_lanes:
            strength *= 10 / max(abs(rise), 0.2) ** 1.3
        yield rise, strength


def _settle(column: Column, *, level: bool) -> None:
    """Move the boxes of a column to where their lines are most level, in order and apart."""
    # Boxes that would meet form a run, which moves as one to the mean of its boxes' wishes.
    runs: list[tuple[float, float, list[tuple[Box, float]]]] = []  # wish, weight, members
    offset = 0.0
    for box in column:
        offset += box.height / 2
        pulls = list(_pulls(box, level=level))
        weight = sum(strength for _, strength in pulls) or 1e-3  # an input may be unused
        wish = box.y - offset + sum(rise * strength for rise, strength in pulls) / weight
        members = [(box, offset)]
        while runs and runs[-1][0] >= wish:
            upper_wish, upper_weight, upper = runs.pop()
            wish = (upper_wish * upper_weight + wish * weight) / (upper_weight + weight)
            weight += upper_weight
            members = upper + members
        runs.append((wish, weight, members))
        offset += box.height / 2 + BOX_GAP
    for wish, _, members in runs:
        for box, distance in members:
            box.y = wish + distance
