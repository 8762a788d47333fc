"""A report as one HTML page, complete in itself: no scripts, nothing to be fetched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from skelnas._version import __version__
from skelnas.genotype import CELLS, NUM_INPUT_NODES, Cell
from skelnas.reporting.facts import (
    cost_facts,
    describe_confusion,
    group_settings,
    heading,
    rank_classes,
    run_facts,
    score_facts,
    shown_epochs,
)
from skelnas.reporting.history import History
from skelnas.reporting.plot_cells import cell_figure
from skelnas.reporting.plot_curves import Chart, EdgeChart, draw_chart, edge_charts, learning_curves
from skelnas.reporting.plot_front import describe_front, draw_front
from skelnas.reporting.plot_style import PALETTE, drawing, stroke
from skelnas.reporting.pose_layout import lay_out_strip
from skelnas.reporting.rendering import render
from skelnas.reporting.svg import NUMBER_COLOURS, THEME_COLOURS, inline_svg, matrix_svg, strip_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skelnas.reporting.results import Confusion, Results

# Sizes are in points of the figure, which are about pixels of the page.
CHART_SIZE = (340.0, 190.0)
FRONT_SIZE = (460.0, 280.0)
EDGE_SIZE = (190.0, 112.0)
FONT_SIZE = 10.0
CELL_SCALE = 0.8

POSES_PER_STRIP = 7


def make_page(history: History, results: Results | None = None) -> str:
    """Return the page of a run, with the results of its model if there are any."""
    with drawing("a report") as make_figure:
        context = {
            "title": heading(history),
            "version": __version__,
            "palette": PALETTE | NUMBER_COLOURS,
            "facts": [*run_facts(history), *cost_facts(results)],
            "history": history,
            "results": results,
            "settings": group_settings(history),
            "number": _format_number,
            **_draw_table(history, make_figure),
            **_draw_curves(history, make_figure),
            **_draw_cells(history, make_figure),
            **_draw_op_weights(history, make_figure),
            **_draw_results(results),
        }
    return render("page.html.jinja", **context)


def _format_number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ""


def _draw_results(results: Results | None) -> dict[str, Any]:
    if results is None or results.scores is None:
        return {}
    scores = results.scores
    return {
        "score_facts": score_facts(scores, results.epoch),
        "ranked_classes": rank_classes(scores),
        "matrix": matrix_svg(scores.info.classes, scores.metrics.confusion),
        "confusions": [_draw_confusion(confusion) for confusion in results.confusions],
    }


def _draw_confusion(confusion: Confusion) -> tuple[str, list[tuple[str, str | None]]]:
    """Return the title of a confusion, and each example with its strip of poses if it has one."""
    title, *descriptions = describe_confusion(confusion)
    examples = []
    for example, text in zip((confusion.wrong, confusion.right), descriptions, strict=True):
        if example is None:
            continue
        svg = None
        if example.picture is not None:
            strip = lay_out_strip(example.picture, POSES_PER_STRIP)
            svg = strip_svg(strip, f"poses of {example.clip}")
        examples.append((text, svg))
    return title, examples


def _draw_table(history: History, make_figure: type[Figure]) -> dict[str, Any]:
    table = history.table
    if table is None:
        return {"table": None}
    figure = _make_figure(make_figure, FRONT_SIZE)
    draw_front(figure.add_subplot(), table, FONT_SIZE)
    return {"table": table, "front": inline_svg(figure, "front", describe_front(table))}


def _draw_curves(history: History, make_figure: type[Figure]) -> dict[str, Any]:
    curves = []
    for number, chart in enumerate(learning_curves(history)):
        figure = _chart_figure(make_figure, chart, CHART_SIZE)
        curves.append((chart.title, inline_svg(figure, f"curve{number}", _describe_chart(chart))))
    return {"curves": curves}


def _draw_cells(history: History, make_figure: type[Figure]) -> dict[str, Any]:
    epochs = shown_epochs(history)
    if not epochs:
        return {"cells": []}
    cells = []
    for epoch, title in epochs.items():
        pictures = []
        for name in CELLS:
            cell = getattr(history.genotypes[epoch], name)
            figure = cell_figure(make_figure, cell)
            svg = inline_svg(figure, f"cell{epoch}{name}", _describe_cell(name, cell))
            pictures.append((name, svg, round(96 * figure.get_figwidth() * CELL_SCALE)))
        cells.append((title, pictures))
    genotype = history.genotypes[history.derived_epoch].to_json()
    return {"cells": cells, "genotype": genotype}


def _draw_op_weights(history: History, make_figure: type[Figure]) -> dict[str, Any]:
    if not history.has_alpha_curves:
        return {"edges": {}}

    def draw(cell: str, edge: EdgeChart) -> str:
        figure = _chart_figure(make_figure, edge.chart, EDGE_SIZE, with_labels=False)
        name = f"{cell}{edge.target}-{edge.source}"
        return inline_svg(figure, name, _describe_chart(edge.chart))

    legend = []
    for op in history.primitives:
        style = stroke(op)
        dashes = " ".join(f"{2 * length:g}" for length in style.dashes)
        legend.append((op, THEME_COLOURS[style.colour], dashes))
    edges = {
        cell: [(edge, draw(cell, edge)) for edge in edge_charts(history, cell)] for cell in CELLS
    }
    return {"edges": edges, "legend": legend}


def _chart_figure(
    make_figure: type[Figure],
    chart: Chart,
    size: tuple[float, float],
    *,
    with_labels: bool = True,
) -> Figure:
    figure = _make_figure(make_figure, size)
    draw_chart(figure.add_subplot(), chart, FONT_SIZE, with_labels=with_labels)
    return figure


def _make_figure(make_figure: type[Figure], size: tuple[float, float]) -> Figure:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, height = size
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = make_figure(figsize=(width / 72, height / 72), layout=layout)
    figure.patch.set_visible(False)
    return figure


def _describe_chart(chart: Chart) -> str:
    """Return in words where the curves of a chart start and end."""
    parts = []
    for curve in chart.curves:
        values = [value for value in curve.values if math.isfinite(value)]
        if values:
            parts.append(f"{curve.label} from {values[0]:.3g} to {values[-1]:.3g}")
    return f"{chart.title}: {', '.join(parts)}"


def _describe_cell(name: str, cell: Cell) -> str:
    """Return the edges of a cell in words."""
    nodes = (
        f"node {number} is " + " plus ".join(f"{edge.op} of node {edge.source}" for edge in edges)
        for number, edges in enumerate(cell, start=NUM_INPUT_NODES)
    )
    return f"{name} cell: {'; '.join(nodes)}"
