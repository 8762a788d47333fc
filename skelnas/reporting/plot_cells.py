"""Pictures of genotypes: both cells as graphs from left to right (Paper: Figs. 3 and 4)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.errors import UsageError
from skelnas.genotype import Cell, Genotype
from skelnas.primitives import PRIMITIVES
from skelnas.reporting.cell_layout import Drawing, lay_out, piece
from skelnas.reporting.plot_style import FAINT, INK, KINDS, NODE, PAPER, drawing, save, stroke
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CENTRED: dict[str, Any] = {"color": INK, "ha": "center", "va": "center_baseline"}
TINT = 0.12
"""How opaque the colour inside of a box is."""

# Lengths are in points, 1/72 inch.
ARROW = 7.0
MARGIN = 18.0
CELL_GAP = 30.0
TITLE_HEIGHT = 26.0
LEGEND_HEIGHT = 34.0
FONT_SIZE = 9.0


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
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in ("svg", "png"):
        raise UsageError(
            f"{path}: cannot draw a picture of this type",
            hint="name a file that ends in .svg or .png",
        )
    cells = [
        ("Normal cell", lay_out(genotype.normal)),
        ("Reduction cell", lay_out(genotype.reduction)),
    ]
    width = max(graph.width for _, graph in cells) + 2 * MARGIN
    height = 2 * MARGIN + CELL_GAP + LEGEND_HEIGHT
    height += sum(TITLE_HEIGHT + graph.height for _, graph in cells)
    with drawing("cells") as make_figure:
        figure, axes = _sheet(make_figure, width, height)
        top = MARGIN
        for title, graph in cells:
            axes.text(width / 2, top + 6, title, size=FONT_SIZE + 2, weight="bold", **CENTRED)
            draw_graph(axes, graph, (width - graph.width) / 2, top + TITLE_HEIGHT)
            top += TITLE_HEIGHT + graph.height + CELL_GAP
        _draw_legend(axes, genotype, width / 2, height - MARGIN - 5)
        picture = save(figure, suffix)
    atomic_write(path, picture)


def cell_figure(make_figure: type[Figure], cell: Cell) -> Figure:
    """Draw one cell as a figure of its own size, without a title."""
    graph = lay_out(cell)
    margin = 4.0  # for the strokes of the outermost boxes
    figure, axes = _sheet(make_figure, graph.width + 2 * margin, graph.height + 2 * margin)
    draw_graph(axes, graph, margin, margin)
    return figure


def _sheet(make_figure: type[Figure], width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with axes in points, from the upper left corner."""
    figure = make_figure(figsize=(width / 72, height / 72), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def draw_graph(axes: Axes, graph: Drawing, left: float, top: float) -> None:
    """Draw a laid out cell with its upper left corner at the given point.

    Args:
        axes: in points of the cell's own size, y downwards.
        graph: the cell.
        left, top: where to.
    """
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    # A rim shows which of two crossing lines is above; those to the output lie lowest.
    output = graph.columns[-1][0]
    for line in sorted(graph.lines, key=lambda line: line[-1] is not output):
        colour = FAINT if line[-1] is output else stroke(line[1].op).colour
        points: list[tuple[float, float]] = []
        for source, target in pairwise(line):
            start, end = piece(source, target)
            x0 = source.x + source.width / 2
            x1 = target.x - target.width / 2 - (ARROW if target.is_node else 0)
            middle = (x0 + x1) / 2
            points += [(x0, start), (middle, start), (middle, end), (x1, end)]
        points = [(left + x, top + y) for x, y in points]
        codes = [Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4] * (len(line) - 1)
        curve = Curve(points, [Curve.MOVETO, *codes[1:]])
        for edge, width in ((PAPER, 4.5), (colour, 1.4)):
            axes.add_patch(PathPatch(curve, fill=False, edgecolor=edge, linewidth=width))
        x, y = points[-1]
        head = [(x + ARROW, y), (x - 1, y - ARROW / 2), (x - 1, y + ARROW / 2)]
        axes.add_patch(Polygon(head, facecolor=colour, edgecolor="none"))
    for box in graph.boxes:
        if not box.label:
            continue
        x, y = left + box.x, top + box.y
        rounding = 5 if box.is_node else box.height / 2
        colour = INK if box.is_node else stroke(box.op).colour
        fills = [NODE] if box.is_node else [PAPER, (colour, TINT)]  # the line ends under paper
        for fill in fills:
            axes.add_patch(
                FancyBboxPatch(
                    (x - box.width / 2, y - box.height / 2),
                    box.width,
                    box.height,
                    boxstyle=f"round,pad=0,rounding_size={rounding}",
                    facecolor=fill,
                    edgecolor=colour,
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


def _draw_legend(axes: Axes, genotype: Genotype, centre: float, y: float) -> None:
    """Name the kinds of operation that the cells have, in a row."""
    from matplotlib.patches import Circle
    from matplotlib.textpath import TextPath

    used = {
        PRIMITIVES[edge.op].kind for node in genotype.normal + genotype.reduction for edge in node
    }
    kinds = [name for name in KINDS if name in used]
    size, dot, gap = FONT_SIZE - 0.5, 14.0, 24.0  # the dot with the space after it
    widths = [TextPath((0, 0), name, size=size).get_extents().width for name in kinds]
    x = centre - (sum(widths) + len(kinds) * dot + (len(kinds) - 1) * gap) / 2
    for name, width in zip(kinds, widths, strict=True):
        disc = Circle(
            (x + 4, y), 4, facecolor=(KINDS[name], TINT), edgecolor=KINDS[name], linewidth=1.2
        )
        axes.add_patch(disc)
        axes.text(x + dot, y, name, size=size, color=INK, va="center_baseline")
        x += dot + width + gap
