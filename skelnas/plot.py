"""Pictures of genotypes: both cells as graphs from left to right (Paper: Figs. 3 and 4).

A cell is laid out in columns, as layered graph drawing does it: nodes that wait for equally
many others share a column, and each operation is a box in the column before the node that it
feeds. A line that passes a column without stopping has a lane there, which takes room as a box
does. So no line can run through a box and no two boxes can meet; what is left to choose is the
order in each column, for few crossings, and the heights, for level lines.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.errors import SkelnasError, UsageError
from skelnas.genotype import NUM_INPUT_NODES, Cell, Genotype, kind
from skelnas.runs import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "convolution": "#2f6db5",
    "pooling": "#d07a00",
    "skip connection": "#27a583",
    "squeeze-and-excitation": "#8e2f6f",
}
"""Kinds of operation and their colours, told apart with any kind of colour vision."""

INK = "#22272e"
NODE_FILL = "#f1f3f5"
QUIET = "#aab1bb"  # lines to the output node
CENTRED: dict[str, Any] = {"color": INK, "ha": "center", "va": "center_baseline"}

# Lengths are in points, 1/72 inch.
NODE_WIDTH = 32.0
NODE_HEIGHT = 28.0
OP_WIDTH = 82.0
OP_HEIGHT = 21.0
BOX_GAP = 9.0  # between boxes of a column
PORT_GAP = 9.0  # between the ends of lines on a side of a box
ARROW = 7.0
MARGIN = 18.0
CELL_GAP = 30.0
TITLE_HEIGHT = 26.0
LEGEND_HEIGHT = 34.0
FONT_SIZE = 9.0
PIXELS_PER_INCH = 200

TRIES = 40
"""How many orders to start from in the search for one with few crossings."""

STIFFNESS = (1.0, 2.0, 8.0)
"""How much a piece of a line wants to be level, by how many of its ends are lanes."""


@dataclass(eq=False)
class _Box:
    """A node, an operation or, without a label, the lane of a line that passes a column."""

    label: str
    width: float
    height: float
    colour: str
    is_node: bool = False
    x: float = 0.0  # of the middle, as y
    y: float = 0.0
    sources: list[_Box] = field(default_factory=list)
    targets: list[_Box] = field(default_factory=list)


_Column = list[_Box]


@dataclass(eq=False)
class _Drawing:
    """A laid out cell: its columns from left to right, and the boxes that each line visits."""

    columns: list[_Column]
    lines: list[list[_Box]]

    @property
    def boxes(self) -> list[_Box]:
        return [box for column in self.columns for box in column]

    @property
    def width(self) -> float:
        return max(box.x + box.width / 2 for box in self.boxes)

    @property
    def height(self) -> float:
        return max(box.y + box.height / 2 for box in self.boxes)


def draw_cells(genotype: Genotype, path: Path) -> None:
    """Draw both cells of a genotype into one picture.

    Boxes with a name are nodes, with the intermediate nodes counted from 0; rounded ones are
    operations. The same genotype always gives the same file.

    Args:
        genotype: the cells to draw.
        path: where to; the suffix says the format, ``.svg`` or ``.png``.

    Raises:
        UsageError: the suffix is another one.
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise UsageError(
            f"{path}: cannot draw a picture of this type",
            hint="name a file that ends in .svg or .png",
        )
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SkelnasError(
            f"drawing cells needs matplotlib ({error})", hint="pip install 'skelnas[plot]'"
        ) from None

    cells = [
        ("Normal cell", _lay_out(genotype.normal)),
        ("Reduction cell", _lay_out(genotype.reduction)),
    ]
    width = max(drawing.width for _, drawing in cells) + 2 * MARGIN
    height = 2 * MARGIN + CELL_GAP + LEGEND_HEIGHT
    height += sum(TITLE_HEIGHT + drawing.height for _, drawing in cells)
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style must not move labels out of their boxes
        mpl.rc("svg", fonttype="none", hashsalt="skelnas")
        figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        top = MARGIN
        for title, drawing in cells:
            axes.text(width / 2, top + 6, title, size=FONT_SIZE + 2, weight="bold", **CENTRED)
            _draw(axes, drawing, (width - drawing.width) / 2, top + TITLE_HEIGHT)
            top += TITLE_HEIGHT + drawing.height + CELL_GAP
        _draw_legend(axes, genotype, width / 2, height - MARGIN - 5)
        about = {"Creator": "skelnas", "Date": None} if kind == "svg" else {"Software": "skelnas"}
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=PIXELS_PER_INCH, metadata=about)
    atomic_write(path, picture.getvalue())


def _lay_out(cell: Cell) -> _Drawing:
    drawing = _build(cell)
    _order(drawing.columns)
    _place(drawing)
    return drawing


def _build(cell: Cell) -> _Drawing:
    """Put nodes, operations and lanes into columns, in the order of the genotype."""
    depths = [0] * NUM_INPUT_NODES
    for edges in cell:
        depths.append(1 + max(depths[edge.source] for edge in edges))
    where = [2 * depth for depth in depths]  # a node's column; operations are in the odd ones
    last = max(where) + 1
    columns: list[_Column] = [[] for _ in range(last + 1)]
    lines = []
    labels = ["$c_{k{-}2}$", "$c_{k{-}1}$", *(str(index) for index in range(len(cell)))]
    nodes = [_Box(label, NODE_WIDTH, NODE_HEIGHT, INK, is_node=True) for label in labels]
    output = _Box("$c_{k}$", NODE_WIDTH, NODE_HEIGHT, INK, is_node=True)
    for node, column in zip([*nodes, output], [*where, last], strict=True):
        columns[column].append(node)

    def connect(source: int, target: _Box, to: int, colour: str, op: str = "") -> None:
        line = [nodes[source]]
        for column in range(where[source] + 1, to):
            is_op = bool(op) and column == to - 1
            box = _Box(op, OP_WIDTH, OP_HEIGHT, colour) if is_op else _Box("", 0, 0, colour)
            columns[column].append(box)
            line.append(box)
        line.append(target)
        for before, after in pairwise(line):
            before.targets.append(after)
            after.sources.append(before)
        lines.append(line)

    for index, edges in enumerate(cell, start=NUM_INPUT_NODES):
        for edge in sorted(edges, key=lambda edge: edge.source):
            connect(edge.source, nodes[index], where[index], KINDS[kind(edge.op)], edge.op)
    for index in range(NUM_INPUT_NODES, len(nodes)):
        connect(index, output, last, QUIET)
    for node in [*nodes, output]:
        ports = max(len(node.sources), len(node.targets))
        node.height = max(NODE_HEIGHT, ports * PORT_GAP + 4)
    return _Drawing(columns, lines)


def _order(columns: list[_Column]) -> None:
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


def _flaws(columns: list[_Column], numbers: dict[_Box, int]) -> tuple[int, int]:
    """Count crossings; then, of those, the ones between operations and the nodes that they feed,
    and the pairs of nodes in a column that stand against their numbers.
    """
    crossings = [_crossings(columns, index) for index in range(len(columns) - 1)]
    unclear = sum(crossings[1::2])
    for column in columns:
        nodes = [numbers[box] for box in column if box.is_node]
        unclear += sum(upper > lower for i, upper in enumerate(nodes) for lower in nodes[i:])
    return sum(crossings), unclear


def _ranks(columns: list[_Column], index: int) -> dict[_Box, int]:
    column = columns[index] if 0 <= index < len(columns) else []
    return {box: rank for rank, box in enumerate(column)}


def _crossings(columns: list[_Column], index: int) -> int:
    """Count the crossings between a column and the next."""
    ranks = _ranks(columns, index + 1)
    ends = [[ranks[target] for target in box.targets] for box in columns[index]]
    return sum(_inversions(upper, lower) for i, upper in enumerate(ends) for lower in ends[i + 1 :])


def _inversions(upper: list[int], lower: list[int]) -> int:
    """Count the crossings of the lines of two boxes, by the ranks where those lines end."""
    return sum(high > low for high in upper for low in lower)


def _sort_by_neighbours(columns: list[_Column], index: int, *, ahead: bool) -> None:
    """Sort a column by the mean rank of what its boxes are joined to in the column beside it."""
    ranks = _ranks(columns, index + 1 if ahead else index - 1)
    own = _ranks(columns, index)

    def mean(box: _Box) -> float:
        neighbours = box.targets if ahead else box.sources
        total = sum(ranks[neighbour] for neighbour in neighbours)
        return total / len(neighbours) if neighbours else own[box]

    columns[index].sort(key=mean)


def _sift(columns: list[_Column]) -> None:
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


def _place(drawing: _Drawing) -> None:
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
        pieces = [_piece(source, box) for box in column for source in box.sources]
        if pieces:
            rise = max(abs(end - start) for start, end in pieces)
            right += min(max(28 + 0.42 * rise, 36), 110)
        width = max(box.width for box in column)
        for box in column:
            box.x = right + width / 2
            box.width = box.width or width  # a lane is as long as its column is wide
        right += width


def _port(side: list[_Box], neighbour: _Box) -> float:
    """Return how far below the middle of its side of a box the line to a neighbour ends."""
    return (side.index(neighbour) - (len(side) - 1) / 2) * PORT_GAP


def _piece(source: _Box, target: _Box) -> tuple[float, float]:
    """Return at which heights the line between neighbours starts and ends."""
    return source.y + _port(source.targets, target), target.y + _port(target.sources, source)


def _pulls(box: _Box, *, level: bool) -> Iterator[tuple[float, float]]:
    """Yield for each line at a box how far it pulls the box down, and how strongly."""
    pieces = [(source, box) for source in box.sources] + [(box, target) for target in box.targets]
    for source, target in pieces:
        start, end = _piece(source, target)
        rise = start - end if target is box else end - start
        num_lanes = (not source.label) + (not target.label)
        strength = STIFFNESS[num_lanes]
        if level and num_lanes:
            strength *= 10 / max(abs(rise), 0.2) ** 1.3
        yield rise, strength


def _settle(column: _Column, *, level: bool) -> None:
    """Move the boxes of a column to where their lines are most level, in order and apart."""
    # Boxes that would meet form a run, which moves as one to the mean of its boxes' wishes.
    runs: list[tuple[float, float, list[tuple[_Box, float]]]] = []  # wish, weight, members
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


def _draw(axes: Axes, drawing: _Drawing, left: float, top: float) -> None:
    """Draw a laid out cell with its upper left corner at the given point."""
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    # A white rim shows which of two crossing lines is above; those to the output lie lowest.
    output = drawing.columns[-1][0]
    for line in sorted(drawing.lines, key=lambda line: line[-1] is not output):
        colour = QUIET if line[-1] is output else line[1].colour
        points: list[tuple[float, float]] = []
        for source, target in pairwise(line):
            start, end = _piece(source, target)
            x0 = source.x + source.width / 2
            x1 = target.x - target.width / 2 - (ARROW if target.is_node else 0)
            middle = (x0 + x1) / 2
            points += [(x0, start), (middle, start), (middle, end), (x1, end)]
        points = [(left + x, top + y) for x, y in points]
        codes = [Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4] * (len(line) - 1)
        curve = Curve(points, [Curve.MOVETO, *codes[1:]])
        for stroke, width in (("white", 4.5), (colour, 1.4)):
            axes.add_patch(PathPatch(curve, fill=False, edgecolor=stroke, linewidth=width))
        x, y = points[-1]
        head = [(x + ARROW, y), (x - 1, y - ARROW / 2), (x - 1, y + ARROW / 2)]
        axes.add_patch(Polygon(head, facecolor=colour, edgecolor="none"))
    for box in drawing.boxes:
        if not box.label:
            continue
        x, y = left + box.x, top + box.y
        rounding = 5 if box.is_node else box.height / 2
        axes.add_patch(
            FancyBboxPatch(
                (x - box.width / 2, y - box.height / 2),
                box.width,
                box.height,
                boxstyle=f"round,pad=0,rounding_size={rounding}",
                facecolor=NODE_FILL if box.is_node else _tint(box.colour),
                edgecolor=box.colour,
                linewidth=1.2,
            )
        )
        if box.label.startswith("$"):
            # As an outline: a formula's pieces would not fit together in a viewer's own font.
            formula = TextPath((0, 0), box.label, size=FONT_SIZE + 2)
            shift = x - formula.get_extents().width / 2
            outline = formula.transformed(Affine2D().scale(1, -1).translate(shift, y + 2.5))
            axes.add_patch(PathPatch(outline, facecolor=INK, edgecolor="none"))
        else:
            axes.text(x, y, box.label, size=FONT_SIZE, **CENTRED)


def _tint(colour: str) -> str:
    """Mix a colour with much white."""
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 - 0.12 * (255 - part)):02x}" for part in parts)


def _draw_legend(axes: Axes, genotype: Genotype, centre: float, y: float) -> None:
    """Name the kinds of operation that the cells have, in a row."""
    from matplotlib.patches import Circle
    from matplotlib.textpath import TextPath

    used = {kind(edge.op) for node in genotype.normal + genotype.reduction for edge in node}
    kinds = [name for name in KINDS if name in used]
    size, dot, gap = FONT_SIZE - 0.5, 14.0, 24.0  # the dot with the space after it
    widths = [TextPath((0, 0), name, size=size).get_extents().width for name in kinds]
    x = centre - (sum(widths) + len(kinds) * dot + (len(kinds) - 1) * gap) / 2
    for name, width in zip(kinds, widths, strict=True):
        colour = KINDS[name]
        disc = Circle((x + 4, y), 4, facecolor=_tint(colour), edgecolor=colour, linewidth=1.2)
        axes.add_patch(disc)
        axes.text(x + dot, y, name, size=size, color=INK, va="center_baseline")
        x += dot + width + gap
