"""Charts of a run's history: curves over epochs, and the weights of each edge's operations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skelnas.derivation import count_skips
from skelnas.genotype import CELLS, possible_edges
from skelnas.reporting.history import History
from skelnas.reporting.plot_style import FAINT, PALETTE, QUIET, Stroke, legend, stroke, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = (
    Stroke(PALETTE["first"][0]),
    Stroke(PALETTE["second"][0], (4, 1.5)),
    Stroke(PALETTE["green"][0], (1.5, 1.2)),
    Stroke(PALETTE["purple"][0], (5, 1.5, 1, 1.5)),
)
"""Strokes of the curves that do not belong to an operation, in order."""

MAX_MARKED = 3
"""A curve of at most this many points has markers: a line of one point cannot be seen."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart; a NaN among the values is a gap."""

    label: str
    values: Sequence[float]
    stroke: Stroke
    width: float = 1.6


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        title: what the curves show.
        epochs: the epoch of each value.
        curves: the lines.
        is_percent: whether the values are fractions, shown in per cent.
        is_count: whether the values are whole numbers.
        limits: lowest and highest value shown; None fits them to the curves.
        level: where a thin horizontal line is drawn for comparison.
    """

    title: str
    epochs: Sequence[int]
    curves: Sequence[Curve]
    is_percent: bool = False
    is_count: bool = False
    limits: tuple[float, float] | None = None
    level: float | None = None


@dataclass(frozen=True)
class EdgeChart:
    """The weights of the operations on one edge of a cell.

    Attributes:
        target: the number of the node that the edge ends at, as in a genotype's file.
        source: the number of the node that it starts from; 0 and 1 are the input nodes.
        op: the operation that the derived cell has on this edge; None if the edge is not in it.
        chart: one curve for each operation.
    """

    target: int
    source: int
    op: str | None
    chart: Chart


def learning_curves(history: History) -> list[Chart]:
    """Return the charts of a run's metrics, without empty ones."""
    metrics, epochs = history.metrics, history.epochs
    charts = [
        Chart("Loss (cross-entropy)", epochs, _curves(_ending_in("_loss", metrics))),
        Chart("Top-1 accuracy", epochs, _curves(_ending_in("_top1", metrics)), is_percent=True),
    ]
    if "lr" in metrics:
        charts.append(Chart("Learning rate", epochs, _curves({"lr": metrics["lr"]})))
    if history.has_alpha_curves:
        charts.append(
            Chart(
                "Entropy of the alphas",
                list(history.alphas),
                _curves({cell: history.entropy(cell) for cell in CELLS}),
                is_percent=True,
            )
        )
        genotypes = history.genotypes
        num_edges = sum(map(len, next(iter(genotypes.values())).normal))
        charts.append(
            Chart(
                "Skips in the normal cell",
                list(genotypes),
                _curves({"skips": [float(count_skips(g)) for g in genotypes.values()]}),
                is_count=True,
                limits=(-0.04 * num_edges, 1.04 * num_edges),
            )
        )
    expected = {name: metrics[name] for name in metrics if name.startswith("expected_")}
    if expected:
        curves = _curves({name.removeprefix("expected_"): expected[name] for name in expected})
        charts.append(
            Chart("Expected cost over its limit", epochs, curves, is_percent=True, level=1.0)
        )
    return [chart for chart in charts if chart.curves]


def _ending_in(suffix: str, metrics: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name.removesuffix(suffix): metrics[name] for name in metrics if name.endswith(suffix)}


def _curves(values: dict[str, list[float]]) -> list[Curve]:
    return [
        Curve(name.replace("_", " "), column, SERIES[index % len(SERIES)])
        for index, (name, column) in enumerate(values.items())
    ]


def edge_charts(history: History, cell: str) -> Iterator[EdgeChart]:
    """Yield a chart for each edge of a cell, all on the scale that fits both cells."""
    both = np.concatenate([history.op_weights(name).ravel() for name in CELLS])
    margin = 0.06 * max(both.max() - both.min(), 0.01)
    limits = float(both.min() - margin), float(both.max() + margin)
    genotype = history.genotypes[history.derived_epoch]
    derived_ops = {index: op for kind, index, op in genotype.chosen_ops() if kind == cell}
    op_weights = history.op_weights(cell)  # [epochs, edges, operations]
    for index, (target, source) in enumerate(possible_edges(len(genotype.normal))):
        derived_op = derived_ops.get(index)
        curves = [
            Curve(
                op,
                op_weights[:, index, column].tolist(),
                stroke(op),
                width=2.4 if op == derived_op else 1.1,
            )
            for column, op in enumerate(history.primitives)
        ]
        chart = Chart(
            "",
            list(history.alphas),
            curves,
            is_percent=True,
            limits=limits,
            level=1 / len(history.primitives),
        )
        yield EdgeChart(target, source, derived_op, chart)


def draw_chart(axes: Axes, chart: Chart, font_size: float, *, with_labels: bool = True) -> None:
    """Draw a chart.

    Args:
        axes: where to draw it.
        chart: what to draw.
        font_size: of all text, in points.
        with_labels: whether to label the axis of the epochs, and to add a legend if there are
            several curves.
    """
    for curve in chart.curves:
        num_points = sum(map(math.isfinite, curve.values))
        axes.plot(
            list(chart.epochs),
            list(curve.values),
            color=curve.stroke.colour,
            dashes=curve.stroke.dashes or (None, None),
            linewidth=curve.width,
            marker="o" if num_points <= MAX_MARKED else None,
            markersize=3,
            label=curve.label,
            solid_capstyle="round",
        )
    if chart.level is not None:
        axes.axhline(chart.level, color=FAINT, linewidth=0.7, zorder=0.5)
    if chart.limits is not None:
        axes.set_ylim(*chart.limits)
    _style_axes(axes, chart, font_size)
    if with_labels:
        axes.set_xlabel("epoch", size=font_size, color=QUIET, labelpad=1)
    if with_labels and len(chart.curves) > 1:
        legend(
            axes,
            font_size,
            len(chart.curves),
            handlelength=2.2,
            borderaxespad=0.4,
            columnspacing=1.4,
            handletextpad=0.5,
        )


def _style_axes(axes: Axes, chart: Chart, font_size: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    style_axes(axes, font_size, pad=2.5)
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    steps = [1, 2, 4, 5, 10] if chart.is_count else [1, 2, 2.5, 5, 10]
    axes.yaxis.set_major_locator(
        MaxNLocator(nbins=4, steps=steps, integer=chart.is_count, min_n_ticks=2)
    )
    if len(chart.epochs) == 1:
        axes.set_xticks(list(chart.epochs))
    if chart.is_percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))
