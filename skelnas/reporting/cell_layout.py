"""The layout of a cell's picture (Paper: Figs. 3 and 4).

A cell is laid out in columns, as in layered graph drawing. Nodes at the same depth share a
column, and an operation is a box in the column before the node that it feeds. A line that passes
through a column has a lane there, which takes up room as a box does. So no line can run through
a box, and no two boxes can overlap. What remains to be chosen is the order in each column, for
few crossings, and the heights, for level lines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from skelnas.genotype import NUM_INPUT_NODES, Cell

# Lengths are in points, 1/72 inch.
NODE_WIDTH = 32.0
INPUT_WIDTH = 56.0
NODE_HEIGHT = 28.0
OP_WIDTH = 82.0
OP_HEIGHT = 21.0
BOX_GAP = 9.0  # between boxes of a column
PORT_GAP = 9.0  # between the ends of lines on a side of a box

INPUTS = ("$0\\quad c_{k{-}2}$", "$1\\quad c_{k{-}1}$")
OUTPUT = "$c_{k}$"
"""Labels of the input and output nodes; nodes are numbered as in a genotype's file."""

NUM_STARTS = 40
"""The number of initial orders in the search for one with few crossings."""

STIFFNESS = (1.0, 2.0, 8.0)
"""How strongly a segment of a line is pulled level, by how many of its ends are lanes."""


@dataclass(eq=False)
class Box:
    """A node, an operation or, without a label, the lane of a line that passes through a column.

    Attributes:
        label: the text in the box.
        width, height: its size.
        op: the operation on the line of an operation or a lane; empty for a node and for a line
            to the output.
        is_node: whether it is a node.
        x, y: its middle, y pointing down.
        sources, targets: the boxes that it is connected to in the columns before and after.
    """

    label: str
    width: float
    height: float
    op: str = ""
    is_node: bool = False
    x: float = 0.0
    y: float = 0.0
    sources: list[Box] = field(default_factory=list)
    targets: list[Box] = field(default_factory=list)


Column = list[Box]


@dataclass(eq=False)
class CellLayout:
    """A cell that is laid out: its columns from left to right, and the boxes along each line."""

    columns: list[Column]
    lines: list[list[Box]]

    @property
    def boxes(self) -> list[Box]:
        """Nodes, operations and lanes."""
        return [box for column in self.columns for box in column]

    @property
    def width(self) -> float:
        """From the input nodes to the output node."""
        return max(box.x + box.width / 2 for box in self.boxes)

    @property
    def height(self) -> float:
        """From the highest to the lowest box."""
        return max(box.y + box.height / 2 for box in self.boxes)


@lru_cache(maxsize=32)
def lay_out(cell: Cell) -> CellLayout:
    """Lay out a cell; the result depends on the cell alone and must not be changed."""
    layout = _build(cell)
    _order(layout.columns)
    _position(layout)
    return layout


def _build(cell: Cell) -> CellLayout:
    """Put nodes, operations and lanes into columns, in the order of the genotype."""
    depths = [0] * NUM_INPUT_NODES
    for edges in cell:
        depths.append(1 + max(depths[edge.source] for edge in edges))
    node_columns = [2 * depth for depth in depths]  # operations are in the odd columns
    output_column = max(node_columns) + 1
    columns: list[Column] = [[] for _ in range(output_column + 1)]
    lines = []
    nodes = [Box(label, INPUT_WIDTH, NODE_HEIGHT, is_node=True) for label in INPUTS]
    for number in range(len(nodes), len(nodes) + len(cell)):
        nodes.append(Box(str(number), NODE_WIDTH, NODE_HEIGHT, is_node=True))
    output = Box(OUTPUT, NODE_WIDTH, NODE_HEIGHT, is_node=True)
    for node, column in zip([*nodes, output], [*node_columns, output_column], strict=True):
        columns[column].append(node)

    def connect(source: int, target: Box, target_column: int, op: str = "") -> None:
        line = [nodes[source]]
        for column in range(node_columns[source] + 1, target_column):
            is_op = bool(op) and column == target_column - 1
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
            connect(edge.source, nodes[index], node_columns[index], edge.op)
    for index in range(NUM_INPUT_NODES, len(nodes)):
        connect(index, output, output_column)
    for node in [*nodes, output]:
        num_ports = max(len(node.sources), len(node.targets))
        node.height = max(NODE_HEIGHT, num_ports * PORT_GAP + 4)
    return CellLayout(columns, lines)


def _order(columns: list[Column]) -> None:
    """Order the boxes in each column so that few lines cross.

    The search starts from the order of the genotype, then from random ones with a fixed seed. Of
    equally good results the first is kept. The input nodes are not reordered: a mirrored cell
    has as many crossings.
    """
    shuffler = random.Random(0)
    numbers = {box: number for column in columns for number, box in enumerate(column)}
    best, fewest = [list(column) for column in columns], _count_flaws(columns, numbers)
    for _ in range(NUM_STARTS):
        for sweep in range(4):
            by_targets = sweep % 2 == 1
            inner = range(1, len(columns))
            for index in reversed(inner) if by_targets else inner:
                _sort_by_neighbours(columns, index, by_targets=by_targets)
            _sift(columns)
            flaws = _count_flaws(columns, numbers)
            if flaws < fewest:
                best, fewest = [list(column) for column in columns], flaws
        for column in columns[1:]:
            shuffler.shuffle(column)
    columns[:] = best


def _count_flaws(columns: list[Column], numbers: dict[Box, int]) -> tuple[int, int]:
    """Count the crossings, and what makes a layout hard to read among equally many of them.

    The second count is of crossings between operations and the nodes that they feed, and of
    pairs of nodes in a column that are not in the order of their numbers.
    """
    crossings = [_count_crossings(columns, index) for index in range(len(columns) - 1)]
    unclear = sum(crossings[1::2])
    for column in columns:
        nodes = [numbers[box] for box in column if box.is_node]
        unclear += sum(upper > lower for i, upper in enumerate(nodes) for lower in nodes[i:])
    return sum(crossings), unclear


def _ranks(columns: list[Column], index: int) -> dict[Box, int]:
    column = columns[index] if 0 <= index < len(columns) else []
    return {box: rank for rank, box in enumerate(column)}


def _count_crossings(columns: list[Column], index: int) -> int:
    """Count the crossings between a column and the next."""
    ranks = _ranks(columns, index + 1)
    ends = [[ranks[target] for target in box.targets] for box in columns[index]]
    return sum(
        high > low
        for i, upper in enumerate(ends)
        for lower in ends[i + 1 :]
        for high in upper
        for low in lower
    )


def _sort_by_neighbours(columns: list[Column], index: int, *, by_targets: bool) -> None:
    """Sort a column by the mean rank of each box's neighbours in the next or previous column."""
    neighbour_ranks = _ranks(columns, index + 1 if by_targets else index - 1)
    ranks = _ranks(columns, index)

    def mean_rank(box: Box) -> float:
        neighbours = box.targets if by_targets else box.sources
        total = sum(neighbour_ranks[neighbour] for neighbour in neighbours)
        return total / len(neighbours) if neighbours else ranks[box]

    columns[index].sort(key=mean_rank)


def _sift(columns: list[Column]) -> None:
    """Move single boxes to where their lines cross the fewest others, as long as that helps."""
    has_moved = True
    while has_moved:
        has_moved = False
        for index, column in enumerate(columns[1:], start=1):
            before, after = _ranks(columns, index - 1), _ranks(columns, index + 1)
            starts = {box: [before[source] for source in box.sources] for box in column}
            ends = {box: [after[target] for target in box.targets] for box in column}
            for box in list(column):
                others = [other for other in column if other is not box]
                # Crossings with the others at each position, relative to the highest position.
                costs = [0]
                for other in others:
                    saved = _excess_crossings(starts[box], starts[other])
                    saved += _excess_crossings(ends[box], ends[other])
                    costs.append(costs[-1] - saved)
                if min(costs) < costs[column.index(box)]:
                    others.insert(costs.index(min(costs)), box)
                    column[:] = others
                    has_moved = True


def _excess_crossings(upper: list[int], lower: list[int]) -> int:
    """Return how many crossings the lines of two boxes lose when the boxes are swapped.

    Args:
        upper, lower: the ranks of what each box is connected to, in the same column.
    """
    excess = 0
    for high in upper:
        for low in lower:
            excess += (high > low) - (high < low)
    return excess


def _position(layout: CellLayout) -> None:
    """Set the positions of all boxes, in points from the upper left corner of the cell."""
    columns = layout.columns
    for index, column in enumerate(columns):
        before, after = _ranks(columns, index - 1), _ranks(columns, index + 1)
        for box in column:
            box.sources.sort(key=before.__getitem__)
            box.targets.sort(key=after.__getitem__)
    segments = {box: _segments(box) for box in layout.boxes}
    # Least squares first, which is even but leaves long lines slightly tilted. Then the weight
    # of a tilt grows more slowly, which makes most segments level and gives the others one step.
    for sweep in range(300):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            _settle(column, segments, level=sweep >= 100)
    top = min(box.y - box.height / 2 for box in layout.boxes)
    for box in layout.boxes:
        box.y -= top
    right = 0.0
    for column in columns:
        heights = [segment(source, box) for box in column for source in box.sources]
        if heights:
            rise = max(abs(end - start) for start, end in heights)
            right += min(max(28 + 0.42 * rise, 36), 110)
        width = max(box.width for box in column)
        for box in column:
            box.x = right + width / 2
            box.width = box.width or width  # a lane is as long as its column is wide
        right += width


def segment(source: Box, target: Box) -> tuple[float, float]:
    """Return the heights at which the line between neighbours starts and ends."""
    start, end = _ports(source, target)
    return source.y + start, target.y + end


def _ports(source: Box, target: Box) -> tuple[float, float]:
    """Return where the line between neighbours is attached, relative to their middles."""
    sides = ((source.targets, target), (target.sources, source))
    start, end = ((side.index(box) - (len(side) - 1) / 2) * PORT_GAP for side, box in sides)
    return start, end


@dataclass(frozen=True)
class _Segment:
    """One side of the line between a box and a neighbour.

    Attributes:
        neighbour: the other box.
        port, neighbour_port: where the line is attached, relative to the middles of the boxes.
        num_lanes: how many of the two boxes are lanes.
    """

    neighbour: Box
    port: float
    neighbour_port: float
    num_lanes: int


def _segments(box: Box) -> list[_Segment]:
    """Return the segments at a box, once their order is final."""
    segments = []
    for source in box.sources:
        start, end = _ports(source, box)
        segments.append(_Segment(source, end, start, (not source.label) + (not box.label)))
    for target in box.targets:
        start, end = _ports(box, target)
        segments.append(_Segment(target, start, end, (not target.label) + (not box.label)))
    return segments


def _pulls(box: Box, segments: list[_Segment], *, level: bool) -> Iterator[tuple[float, float]]:
    """Yield how far each segment pulls a box down, and how strongly."""
    for line in segments:
        rise = (line.neighbour.y + line.neighbour_port) - (box.y + line.port)
        strength = STIFFNESS[line.num_lanes]
        if level and line.num_lanes:
            strength *= 10 / max(abs(rise), 0.2) ** 1.3
        yield rise, strength


def _settle(column: Column, segments: dict[Box, list[_Segment]], *, level: bool) -> None:
    """Move the boxes of a column to where their lines are most level, in order and apart."""
    # Boxes that would overlap form a run, which moves as one to the mean of their targets.
    runs: list[tuple[float, float, list[tuple[Box, float]]]] = []  # target, weight, members
    offset = 0.0
    for box in column:
        offset += box.height / 2
        pulls = list(_pulls(box, segments[box], level=level))
        weight = sum(strength for _, strength in pulls) or 1e-3  # an input may be unused
        target = box.y - offset + sum(rise * strength for rise, strength in pulls) / weight
        members = [(box, offset)]
        while runs and runs[-1][0] >= target:
            upper_target, upper_weight, upper_members = runs.pop()
            target = (upper_target * upper_weight + target * weight) / (upper_weight + weight)
            weight += upper_weight
            members = upper_members + members
        runs.append((target, weight, members))
        offset += box.height / 2 + BOX_GAP
    for target, _, members in runs:
        for box, distance in members:
            box.y = target + distance
