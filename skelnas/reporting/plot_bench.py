"""Pictures of a benchmark: every genotype by cost and accuracy, and the front of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skelnas.reporting.plot_style import PALETTE, PAPER, QUIET, drawing, legend, style_axes, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 8.0
COLOURS = {"random": PALETTE["amber"][0], "given": PALETTE["first"][0]}


@dataclass(frozen=True)
class Point:
    """A genotype.

    Attributes:
        kind: "random" or "given".
        parameters: of its network.
        top1: from 0 to 1.
        error: standard error of `top1`, or None.
        on_front: whether the front of its kind goes through it.
    """

    kind: str
    parameters: int
    top1: float
    error: float | None
    on_front: bool


def draw_bench(points: Sequence[Point], path: Path) -> None:
    """Draw genotypes by their parameters and top-1; the same points always give the same file.

    Args:
        points: in ascending order of parameters.
        path: the file to write, ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        UsageError: the suffix is none of these.
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    with drawing("a benchmark") as make_figure:
        figure = make_figure(figsize=(5.4, 3.6), facecolor=PAPER, layout="constrained")
        axes = figure.add_subplot()
        for name, colour in COLOURS.items():
            of_kind = [point for point in points if point.kind == name]
            if of_kind:
                _draw_kind(axes, of_kind, name, colour)
        _style(axes)
        write(figure, path)


def _draw_kind(axes: Axes, points: Sequence[Point], kind: str, colour: str) -> None:
    axes.errorbar(
        [point.parameters for point in points],
        [100 * point.top1 for point in points],
        yerr=[100 * (point.error or 0) for point in points],
        fmt="o",
        color=colour,
        markersize=3.5,
        elinewidth=0.7,
        alpha=0.75,
        label=kind,
    )
    front = [point for point in points if point.on_front]
    ends = [*(point.parameters for point in front), points[-1].parameters]
    heights = [100 * point.top1 for point in front]
    axes.plot(
        ends,
        [*heights, heights[-1]],
        drawstyle="steps-post",
        color=colour,
        linewidth=1.3,
        label=f"best {kind} within the cost",
    )


def _style(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    style_axes(axes, FONT_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("parameters", size=FONT_SIZE, color=QUIET)
    axes.set_ylabel("top-1 on held-out clips, %", size=FONT_SIZE, color=QUIET)
    legend(axes, FONT_SIZE, 2, handlelength=2.2, borderaxespad=0.6)
