"""Pictures of confusion matrices: what each class was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skelnas.reporting.plot_style import FAINT, GRID, INK, PALETTE, PAPER, QUIET, drawing, save
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

PICTURES = (".png", ".svg", ".pdf")
"""Endings of files that can be drawn into."""

LONGEST_NAME = 40
"""Longer names of classes are cut."""

# Lengths are in points, 1/72 inch.
MARGIN = 14.0
LABEL_GAP = 5.0


def draw_confusion(classes: Sequence[str], confusion: NDArray[np.int64], path: Path) -> None:
    """Draw a confusion matrix: a row a true class, a column a predicted one.

    A square is as dark as the share of its row, and has the number of clips in it where there
    is room. The same matrix always gives the same file.

    Args:
        classes: their names.
        confusion: [classes, classes] counts.
        path: where to; ends in one of `PICTURES`.

    Raises:
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    number = len(classes)
    side = 26.0 if number <= 20 else 9.5
    size = 8.0 if number <= 20 else 6.5
    names = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in classes]
    with drawing("a confusion matrix") as make_figure:
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

        font = FontProperties(size=size)
        widths = [TextPath((0, 0), name or " ", prop=font).get_extents().width for name in names]
        room = max(widths) + 2 * LABEL_GAP
        left, bottom = MARGIN + room + 12, MARGIN + room + 12
        extent = number * side
        width, height = left + extent + MARGIN, bottom + extent + MARGIN
        figure = make_figure(figsize=(width / 72, height / 72), facecolor=PAPER)
        place = (left / width, bottom / height, extent / width, extent / height)
        axes = figure.add_axes(place)
        draw_matrix(axes, confusion, names, size, with_numbers=number <= 20)
        picture = save(figure, path.suffix.lower().removeprefix("."))
    atomic_write(path, picture)


def draw_matrix(
    axes: Axes,
    confusion: NDArray[np.int64],
    names: Sequence[str],
    size: float,
    *,
    with_numbers: bool,
) -> None:
    """Draw a confusion matrix on axes that are square, with text of a size in points."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    number = len(names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shades = _shades()
    found = [(int(row), int(column)) for row, column in np.argwhere(confusion)]
    squares = [Rectangle((column, row), 1, 1) for row, column in found]
    colours = [shades(shares[place] ** 0.5) for place in found]  # so that rare mistakes are seen
    axes.add_collection(PatchCollection(squares, facecolor=colours, edgecolor="none"))
    if with_numbers:
        for row, column in found:
            colour = PAPER if shares[row, column] > 0.25 else INK
            axes.text(
                column + 0.5,
                row + 0.5,
                str(confusion[row, column]),
                size=size,
                color=colour,
                ha="center",
                va="center_baseline",
            )
    axes.set_xlim(0, number)
    axes.set_ylim(number, 0)
    middles = np.arange(number) + 0.5
    axes.set_xticks(middles, names, rotation=90)
    axes.set_yticks(middles, names)
    axes.tick_params(labelsize=size, labelcolor=INK, length=0, pad=LABEL_GAP)
    axes.set_xlabel("taken for", size=size, color=QUIET)
    axes.set_ylabel("true class", size=size, color=QUIET)
    for line in range(1, number):
        strong = line % 10 == 0 and number > 20
        colour, width = (FAINT, 0.6) if strong else (GRID, 0.4)
        axes.axhline(line, color=colour, linewidth=width, zorder=0.5)
        axes.axvline(line, color=colour, linewidth=width, zorder=0.5)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)


def _shades() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    stops = [PAPER, PALETTE["light-blue"][0], PALETTE["deep-blue"][0]]
    return LinearSegmentedColormap.from_list("shares", stops)
