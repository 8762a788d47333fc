"""Which charts a report has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skelnas.genotype import NUM_INPUT_NODES, count_skips
from skelnas.reporting.history import CELLS, History
from skelnas.reporting.plot_curves import SERIES, Chart, Curve
from skelnas.reporting.plot_style import stroke

LOSS, TOP1, RATE, ENTROPY, SKIPS = (
    "Loss (cross-entropy)",
    "Top-1 accuracy",
    "Learning rate",
    "Entropy of the alphas",
    "Skips of the normal cell",
)


@dataclass(frozen=True)
class EdgeChart:
    """The shares of the operations on one edge of a cell.

    Attributes:
        target: intermediate node, counted from 0 as in the pictures of cells.
        source: node that it reads, 0 and 1 for the input nodes.
        kept: the operation that the derived genotype has there; None if it has not that edge.
        chart: the shares, one curve an operation.
    """

    target: int
    source: int
    kept: str | None
    chart: Chart


def learning_curves(history: History) -> list[Chart]:
    """Return the charts of what changes from epoch to epoch; those of nothing are left out."""
    metrics, epochs = history.metrics, history.epochs
    charts = []
    for title, end in ((LOSS, "_loss"), (TOP1, "_top1")):
        members = {n.removesuffix(end): metrics[n] for n in metrics if n.endswith(end)}
        charts.append(Chart(title, epochs, _series(members), is_share=title == TOP1))
    if "lr" in metrics:
        charts.append(Chart(RATE, epochs, _series({"lr": metrics["lr"]})))
    if history.has_moved:
        entropy = _series({cell: history.entropy(cell) for cell in CELLS})
        charts.append(Chart(ENTROPY, list(history.alphas), entropy, is_share=True))
        genotypes = list(history.genotypes.values())
        skips = [float(count_skips(genotype)) for genotype in genotypes]
        most = sum(map(len, genotypes[0].normal))
        limits = (-0.04 * most, 1.04 * most)
        curves = _series({"skips": skips})
        charts.append(Chart(SKIPS, list(history.genotypes), curves, is_count=True, limits=limits))
    return [chart for chart in charts if chart.curves]


def _series(members: dict[str, list[float]]) -> list[Curve]:
    return [
        Curve(name.replace("_", " "), values, SERIES[index % len(SERIES)])
        for index, (name, values) in enumerate(members.items())
    ]


def edge_charts(history: History, cell: str) -> Iterator[EdgeChart]:
    """Yield a chart for each edge of a cell; all edges of both cells have one scale."""
    every = np.concatenate([history.shares(name).ravel() for name in CELLS])
    margin = 0.06 * max(every.max() - every.min(), 0.01)
    limits = float(every.min() - margin), float(every.max() + margin)
    last = getattr(history.genotypes[history.derived], cell)
    shares = history.shares(cell)
    index = 0
    for target, node in enumerate(last):
        chosen = {edge.source: edge.op for edge in node}
        for source in range(NUM_INPUT_NODES + target):
            kept = chosen.get(source)
            curves = [
                Curve(op, shares[:, index, place].tolist(), stroke(op), 2.4 if op == kept else 1.1)
                for place, op in enumerate(history.primitives)
            ]
            level = 1 / len(history.primitives)
            yield EdgeChart(
                target,
                source,
                kept,
                Chart("", list(history.alphas), curves, is_share=True, limits=limits, level=level),
            )
            index += 1
