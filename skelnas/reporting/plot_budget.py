"""Pictures of fronts: the best score at every cost, above that of random genotypes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skelnas.reporting.plot_style import PALETTE, PAPER, QUIET, drawing, legend, style_axes, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 8.0
SEARCHED, RANDOM = PALETTE["first"][0], PALETTE["amber"][0]


def draw_budget_front(
    path: Path,
    costs: Sequence[int],
    scores: Sequence[float],
    random: Sequence[Sequence[float]],
    cost_name: str,
    limit: int | None = None,
) -> None:
    """Draw the best score within each cost, and the range of random genotypes within it.

    The same values always give the same file.

    Args:
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.
        costs: in ascending order.
        scores: the best within each cost.
        random: for each cost, a low, a middle and a high score of random genotypes within it.
        cost_name: label of the axis.
        limit: a cost to mark; None for none.

    Raises:
        UsageError: the suffix is none of these.
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    low, middle, high = zip(*random, strict=True)
    with drawing("a front") as make_figure:
        figure = make_figure(figsize=(5.4, 3.4), facecolor=PAPER, layout="constrained")
        axes = figure.add_subplot()
        axes.fill_between(
            costs,
            low,
            high,
            step="post",
            color=RANDOM,
            alpha=0.18,
            linewidth=0,
            label="random, 5 to 95 %",
        )
        axes.plot(
            costs,
            middle,
            drawstyle="steps-post",
            color=RANDOM,
            linewidth=1.2,
            dashes=(4, 1.5),
            label="median",
        )
        axes.plot(
            costs,
            scores,
            drawstyle="steps-post",
            color=SEARCHED,
            linewidth=1.6,
            marker="o",
            markersize=3,
            label="best within the cost",
        )
        if limit is not None and costs[0] <= limit <= costs[-1]:
            axes.axvline(limit, color=QUIET, linewidth=1, dashes=(1.5, 1.2))
            axes.annotate(
                f"limit {limit:,}",
                (limit, 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                size=FONT_SIZE,
                color=QUIET,
            )
        axes.set_xlabel(cost_name, size=FONT_SIZE, color=QUIET)
        axes.set_ylabel("score", size=FONT_SIZE, color=QUIET)
        _style(axes)
        write(figure, path)


def _style(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    style_axes(axes, FONT_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    legend(axes, FONT_SIZE, 3, handlelength=2.2, borderaxespad=0.6, columnspacing=1.4)
