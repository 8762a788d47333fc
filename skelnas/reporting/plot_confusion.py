"""Pictures of confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skelnas.reporting.plot_style import (
    FAINT,
    GRID,
    INK,
    PALETTE,
    PAPER,
    QUIET,
    drawing,
    text_colour,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

SUFFIXES = (".png", ".svg", ".pdf")
"""Suffixes of the files that a matrix can be drawn into."""

MAX_NUMBERED_CLASSES = 20
"""A matrix of at most this many classes has the number of clips in its squares."""

MAX_NAME_LENGTH = 40
"""In characters; longer names of classes are cut."""

# Lengths are in points, 1/72 inch.
MARGIN = 14.0
LABEL_GAP = 5.0


def draw_confusion(classes: Sequence[str], confusion: NDArray[np.int64], path: Path) -> None:
    """Draw a confusion matrix: a row is a true class, a column a predicted one.

    The darkness of a square is its fraction of the row. Small matrices also have the number of
    clips in each square. Classes without clips have no row, see `shown_classes`. The same matrix
    always gives the same file.

    Args:
        classes: their names.
        confusion: [classes, classes] counts.
        path: the file to write, with one of `SUFFIXES`.

    Raises:
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    rows, columns = shown_classes(confusion)
    confusion = confusion[np.ix_(rows, columns)]
    is_small = len(columns) <= MAX_NUMBERED_CLASSES
    side, font_size = (26.0, 8.0) if is_small else (9.5, 6.5)
    names = [shorten_name(classes[index]) for index in columns]  # those of the rows come first
    with drawing("a confusion matrix") as make_figure:
        from matplotlib import rc
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

        rc("text", parse_math=False)  # a dollar sign in a name is one
        font = FontProperties(size=font_size)
        widths = [TextPath((0, 0), name or " ", prop=font).get_extents().width for name in names]
        margin = MARGIN + max(widths) + 2 * LABEL_GAP + 12  # left and below, with the labels
        width, height = len(columns) * side, len(rows) * side
        size = margin + width + MARGIN, margin + height + MARGIN
        figure = make_figure(figsize=(size[0] / 72, size[1] / 72), facecolor=PAPER)
        box = (margin / size[0], margin / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(box)
        _draw_squares(axes, confusion, font_size, with_numbers=is_small)
        _draw_labels(axes, names, len(rows), font_size)
        write(figure, path)


def shown_classes(confusion: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return the classes that have a row, and those that have a column.

    The rows are the classes with clips. The columns are the same, followed by the classes without
    clips that some clip was taken for.
    """
    has_clips, is_predicted = confusion.any(axis=1), confusion.any(axis=0)
    rows: list[int] = np.flatnonzero(has_clips).tolist()
    others: list[int] = np.flatnonzero(is_predicted & ~has_clips).tolist()
    return rows, [*rows, *others]


def shorten_name(name: str) -> str:
    """Cut the name of a class to `MAX_NAME_LENGTH`; escape what is not a character."""
    name = name.encode(errors="backslashreplace").decode()
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


def _draw_squares(
    axes: Axes, confusion: NDArray[np.int64], font_size: float, *, with_numbers: bool
) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    colormap = _make_colormap()
    squares = [(int(row), int(column)) for row, column in np.argwhere(confusion)]
    # The square root makes rare mistakes visible.
    colours = [to_hex(colormap(fractions[square] ** 0.5)) for square in squares]
    rectangles = [Rectangle((column, row), 1, 1) for row, column in squares]
    axes.add_collection(PatchCollection(rectangles, facecolor=colours, edgecolor="none"))
    if not with_numbers:
        return
    for (row, column), colour in zip(squares, colours, strict=True):
        axes.text(
            column + 0.5,
            row + 0.5,
            str(confusion[row, column]),
            size=font_size,
            color=text_colour(colour),
            ha="center",
            va="center_baseline",
        )


def _draw_labels(axes: Axes, names: Sequence[str], num_rows: int, font_size: float) -> None:
    num_classes = len(names)
    axes.set_xlim(0, num_classes)
    axes.set_ylim(num_rows, 0)
    middles = np.arange(num_classes) + 0.5
    axes.set_xticks(middles, names, rotation=90)
    axes.set_yticks(middles[:num_rows], names[:num_rows])
    axes.tick_params(labelsize=font_size, labelcolor=INK, length=0, pad=LABEL_GAP)
    axes.set_xlabel("predicted class", size=font_size, color=QUIET)
    axes.set_ylabel("true class", size=font_size, color=QUIET)
    for line in range(1, num_classes):
        is_tenth = line % 10 == 0 and num_classes > MAX_NUMBERED_CLASSES
        colour, width = (FAINT, 0.6) if is_tenth else (GRID, 0.4)
        if line < num_rows:
            axes.axhline(line, color=colour, linewidth=width, zorder=0.5)
        axes.axvline(line, color=colour, linewidth=width, zorder=0.5)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)


def _make_colormap() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    stops = [PAPER, PALETTE["light-blue"][0], PALETTE["deep-blue"][0]]
    return LinearSegmentedColormap.from_list("fractions", stops)
