"""Pictures of genotypes: both cells as graphs from left to right (Paper: Figs. 3 and 4)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.genotype import Cell, Genotype
from skelnas.primitives import PRIMITIVES
from skelnas.reporting.cell_layout import Box, CellLayout, lay_out, segment
from skelnas.reporting.plot_style import (
    FAINT,
    INK,
    KINDS,
    NODE,
    PAPER,
    drawing,
    stroke,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CENTRED: dict[str, Any] = {"color": INK, "ha": "center", "va": "center_baseline"}
TINT = 0.12
"""The opacity of the colour inside a box."""

# Lengths are in points, 1/72 inch.
ARROW = 7.0
MARGIN = 18.0
CELL_GAP = 30.0
TITLE_HEIGHT = 26.0
LEGEND_HEIGHT = 34.0
FONT_SIZE = 9.0


def draw_cells(genotype: Genotype, path: Path) -> None:
    """Draw both cells of a genotype into one picture.

    Rectangles are nodes, numbered as in the genotype's file; rounded boxes are operations.
    The same genotype always gives the same file.

    Args:
        genotype: the cells to draw.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        UsageError: the suffix is none of these.
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    layouts = {
        "Normal cell": lay_out(genotype.normal),
        "Reduction cell": lay_out(genotype.reduction),
    }
    width = max(layout.width for layout in layouts.values()) + 2 * MARGIN
    height = 2 * MARGIN + CELL_GAP + LEGEND_HEIGHT
    height += sum(TITLE_HEIGHT + layout.height for layout in layouts.values())
    with drawing("cells") as make_figure:
        figure, axes = _make_figure(make_figure, width, height)
        top = MARGIN
        for title, layout in layouts.items():
            axes.text(width / 2, top + 6, title, size=FONT_SIZE + 2, weight="bold", **CENTRED)
            _draw_layout(axes, layout, (width - layout.width) / 2, top + TITLE_HEIGHT)
            top += TITLE_HEIGHT + layout.height + CELL_GAP
        _draw_legend(axes, genotype, width / 2, height - MARGIN - 5)
        write(figure, path)


def cell_figure(make_figure: type[Figure], cell: Cell) -> Figure:
    """Draw one cell as a figure that fits it, without a title."""
    layout = lay_out(cell)
    margin = 4.0  # for the strokes of the outermost boxes
    figure, axes = _make_figure(make_figure, layout.width + 2 * margin, layout.height + 2 * margin)
    _draw_layout(axes, layout, margin, margin)
    return figure


def _make_figure(make_figure: type[Figure], width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure whose axes are in points, y pointing down."""
    figure = make_figure(figsize=(width / 72, height / 72), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def _draw_layout(axes: Axes, layout: CellLayout, left: float, top: float) -> None:
    """Draw a cell with its upper left corner at the given point."""
    # A rim shows which of two crossing lines is above; those to the output are at the bottom.
    output = layout.columns[-1][0]
    for line in sorted(layout.lines, key=lambda line: line[-1] is not output):
        _draw_line(axes, line, left, top, is_output=line[-1] is output)
    for box in layout.boxes:
        if box.label:
            _draw_box(axes, box, left + box.x, top + box.y)


def _draw_line(axes: Axes, line: list[Box], left: float, top: float, *, is_output: bool) -> None:
    """Draw a line from box to box, with an arrowhead at its end."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    colour = FAINT if is_output else stroke(line[1].op).colour
    points: list[tuple[float, float]] = []
    for source, target in pairwise(line):
        start, end = segment(source, target)
        x0 = source.x + source.width / 2
        x1 = target.x - target.width / 2 - (ARROW if target.is_node else 0)
        middle = (x0 + x1) / 2
        points += [(x0, start), (middle, start), (middle, end), (x1, end)]
    points = [(left + x, top + y) for x, y in points]
    codes = [Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4] * (len(line) - 1)
    curve = Curve(points, [Curve.MOVETO, *codes[1:]])
    for edge_colour, width in ((PAPER, 4.5), (colour, 1.4)):
        axes.add_patch(PathPatch(curve, fill=False, edgecolor=edge_colour, linewidth=width))
    x, y = points[-1]
    head = [(x + ARROW, y), (x - 1, y - ARROW / 2), (x - 1, y + ARROW / 2)]
    axes.add_patch(Polygon(head, facecolor=colour, edgecolor="none"))


def _draw_box(axes: Axes, box: Box, x: float, y: float) -> None:
    """Draw a node or an operation around the given point."""
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

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
        # As an outline: the parts of a formula would not align in another font.
        formula = TextPath((0, 0), box.label, size=FONT_SIZE + 2)
        shift = x - formula.get_extents().width / 2
        outline = formula.transformed(Affine2D().scale(1, -1).translate(shift, y + 2.5))
        axes.add_patch(PathPatch(outline, facecolor=INK, edgecolor="none"))
    else:
        axes.text(x, y, box.label, size=FONT_SIZE, **CENTRED)


def _draw_legend(axes: Axes, genotype: Genotype, centre: float, y: float) -> None:
    """Name the kinds of operation in the cells, in a row."""
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
