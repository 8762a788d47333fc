"""Curves over the epochs of a run, for a chart of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skelnas.reporting.plot_style import FAINT, GRID, INK, PALETTE, PAPER, QUIET, Stroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = (
    Stroke(PALETTE["first"][0]),
    Stroke(PALETTE["second"][0], (4, 1.5)),
    Stroke(PALETTE["green"][0], (1.5, 1.2)),
    Stroke(PALETTE["purple"][0], (5, 1.5, 1, 1.5)),
)
"""For curves that are of no operation, in their order."""

FEW = 3
"""So few points or less are marked: a line of one point cannot be seen."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart; `values` may be NaN where there is nothing to show."""

    label: str
    values: Sequence[float]
    stroke: Stroke
    width: float = 1.6


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        title: what they show.
        epochs: where each value stands.
        curves: the lines.
        is_share: the values are parts of 1, shown in per cent.
        is_count: the values are whole numbers.
        limits: lowest and highest value shown; None to fit the curves.
        level: a value to compare with.
    """

    title: str
    epochs: Sequence[int]
    curves: Sequence[Curve]
    is_share: bool = False
    is_count: bool = False
    limits: tuple[float, float] | None = None
    level: float | None = None


def draw_chart(axes: Axes, chart: Chart, size: float, *, roomy: bool = True) -> None:
    """Draw a chart into axes, its labels of `size` points.

    Where it is roomy, several curves have a legend above them, and the epochs are called so.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for curve in chart.curves:
        is_short = sum(map(math.isfinite, curve.values)) <= FEW
        axes.plot(
            list(chart.epochs),
            list(curve.values),
            color=curve.stroke.colour,
            dashes=curve.stroke.dashes or (None, None),
            linewidth=curve.width,
            marker="o" if is_short else None,
            markersize=3,
            label=curve.label,
            solid_capstyle="round",
        )
    if chart.level is not None:
        axes.axhline(chart.level, color=FAINT, linewidth=0.7, zorder=0.5)
    if chart.limits is not None:
        axes.set_ylim(*chart.limits)
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(labelsize=size, labelcolor=QUIET, color=FAINT, length=2.5, pad=2.5)
    axes.tick_params(axis="y", length=0)
    whole = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(whole)
    steps = [1, 2, 4, 5, 10] if chart.is_count else [1, 2, 2.5, 5, 10]
    values = MaxNLocator(nbins=4, steps=steps, integer=chart.is_count, min_n_ticks=2)
    axes.yaxis.set_major_locator(values)
    if len(chart.epochs) == 1:
        axes.set_xticks(list(chart.epochs))
    if chart.is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))
    if roomy:
        axes.set_xlabel("epoch", size=size, color=QUIET, labelpad=1)
    if roomy and len(chart.curves) > 1:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=len(chart.curves),
            frameon=False,
            fontsize=size,
            labelcolor=INK,
            handlelength=2.2,
            borderpad=0,
            borderaxespad=0.4,
            columnspacing=1.4,
            handletextpad=0.5,
        )
