"""A report as one HTML page, complete in itself: no scripts, nothing to be fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from skelnas._version import __version__
from skelnas.genotype import Cell, Genotype
from skelnas.reporting.charts import EdgeChart, edge_charts, learning_curves
from skelnas.reporting.facts import cost_facts, facts, heading, moments, settings
from skelnas.reporting.history import CELLS, History
from skelnas.reporting.plot_cells import cell_figure
from skelnas.reporting.plot_curves import Chart, draw_chart
from skelnas.reporting.plot_style import PALETTE, drawing, stroke
from skelnas.reporting.results_page import results_sections
from skelnas.reporting.svg import inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skelnas.reporting.results import Results

# Sizes are in points of the figure, which are about pixels of the page.
CHART = (340.0, 190.0)
EDGE = (190.0, 112.0)
FONT_SIZE = 10.0
INPUTS = ("c<sub>k-2</sub>", "c<sub>k-1</sub>")


def make_page(history: History, results: Results | None = None) -> str:
    """Make the page of a run, and of what is known of its model."""
    with drawing("a report") as make_figure:
        sections = [
            section for part in (_curves, _cells, _shares) for section in part(history, make_figure)
        ]
    title = heading(history)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_theme()}\n{_style()}</style>\n</head>\n<body>",
            f"<header>\n<h1>{escape(title)}</h1>",
            *_facts(history, results),
            "</header>\n<main>",
            *(results_sections(results) if results else ()),
            *sections,
            *_settings(history),
            "</main>",
            f"<footer>skelnas {escape(__version__)}</footer>\n</body>\n</html>\n",
        ]
    )


def _theme() -> str:
    light, dark = (
        "".join(f"--{name}:{both[shade]};" for name, both in PALETTE.items()) for shade in (0, 1)
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}"


def _style() -> str:
    folder = resources.files("skelnas.reporting") / "templates"
    return (folder / "page.css").read_text(encoding="utf-8")


def _facts(history: History, results: Results | None) -> Iterator[str]:
    yield '<dl class="facts">'
    for name, value in [*facts(history), *cost_facts(results)]:
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
    yield "</dl>"


def _curves(history: History, make_figure: type[Figure]) -> Iterator[str]:
    yield "<h2>Learning curves</h2>"
    charts = learning_curves(history)
    if not history.epochs:
        yield "<p>No epoch is done yet.</p>"
    yield '<div class="charts">'
    for number, chart in enumerate(charts):
        svg = inline(_chart_figure(make_figure, chart, CHART), f"curve{number}", _read_out(chart))
        yield f"<figure><figcaption>{escape(chart.title)}</figcaption>{svg}</figure>"
    yield "</div>"
    if history.epochs:
        yield "<details><summary>Every epoch in numbers</summary>"
        yield '<div class="scroll"><table class="numbers">'
        names = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in history.metrics)
        yield f"<thead><tr><th>epoch</th>{names}</tr></thead><tbody>"
        for row, epoch in enumerate(history.epochs):
            values = "".join(f"<td>{_short(c[row])}</td>" for c in history.metrics.values())
            yield f"<tr><td>{epoch}</td>{values}</tr>"
        yield "</tbody></table></div></details>"


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ""


def _read_out(chart: Chart) -> str:
    """Say in words where a chart begins and ends."""
    parts = []
    for curve in chart.curves:
        known = [value for value in curve.values if math.isfinite(value)]
        if known:
            parts.append(f"{curve.label} from {known[0]:.3g} to {known[-1]:.3g}")
    return f"{chart.title}: {', '.join(parts)}"


def _chart_figure(
    make_figure: type[Figure], chart: Chart, size: tuple[float, float], *, roomy: bool = True
) -> Figure:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, height = size
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = make_figure(figsize=(width / 72, height / 72), layout=layout)
    figure.patch.set_visible(False)
    draw_chart(figure.add_subplot(), chart, FONT_SIZE, roomy=roomy)
    return figure


def _cells(history: History, make_figure: type[Figure]) -> Iterator[str]:
    shown = moments(history)
    if not shown:
        return
    yield "<h2>Cells</h2>"
    if history.alphas:
        yield (
            "<p class=quiet>What the alphas stand for: each node keeps its two strongest "
            "edges. Rounded boxes are operations, the others nodes.</p>"
        )
    for title, epoch in shown:
        genotype = history.genotypes[epoch]
        if title:
            yield f"<h3>{escape(title)}</h3>"
        yield '<div class="cells">'
        for name in CELLS:
            cell = getattr(genotype, name)
            figure = cell_figure(make_figure, cell)
            svg = inline(figure, f"cell{epoch}{name}", _spell(name, cell))
            width = round(96 * figure.get_figwidth() * 0.8)
            yield (
                f'<figure style="--width:{width}px"><figcaption>{name.capitalize()} cell'
                f'</figcaption><div class="scroll">{svg}</div></figure>'
            )
        yield "</div>"
    yield from _genotype(history.genotypes[history.derived])


def _genotype(genotype: Genotype) -> Iterator[str]:
    yield "<details><summary>The genotype as a file</summary>"
    yield f"<pre>{escape(genotype.to_json())}</pre></details>"


def _spell(name: str, cell: Cell) -> str:
    inputs = ("the cell before the last", "the last cell")

    def node(source: int) -> str:
        return inputs[source] if source < len(inputs) else f"node {source - len(inputs)}"

    nodes = (
        f"node {index} is " + " plus ".join(f"{edge.op} of {node(edge.source)}" for edge in edges)
        for index, edges in enumerate(cell)
    )
    return f"{name} cell: {'; '.join(nodes)}"


def _shares(history: History, make_figure: type[Figure]) -> Iterator[str]:
    if not history.has_moved:
        return
    yield "<h2>Shares of the operations</h2>"
    yield (
        "<p class=quiet>The softmax of the alphas on each edge, epoch by epoch; the thin level "
        "line is where all operations weigh the same. What the derived cells keep is bold.</p>"
    )
    yield f'<ul class="legend">{"".join(map(_legend_item, history.primitives))}</ul>'
    for cell in CELLS:
        charts = list(edge_charts(history, cell))
        yield f"<h3>{cell.capitalize()} cell</h3>"
        sources = 1 + max(edge.source for edge in charts)
        yield f'<div class="edges" style="--sources:{sources}">'
        for edge in charts:
            yield _edge(cell, edge, make_figure)
        yield "</div>"


def _legend_item(op: str) -> str:
    style = stroke(op)
    dashes = " ".join(f"{2 * length:g}" for length in style.dashes)
    colour = next(name for name, (light, _) in PALETTE.items() if light == style.colour)
    return (
        f'<li><svg viewBox="0 0 34 10" aria-hidden="true"><line x2="34" y1="5" y2="5" '
        f'stroke="var(--{colour})" stroke-width="2.4" stroke-dasharray="{dashes}"/></svg>'
        f"<code>{escape(op)}</code></li>"
    )


def _edge(cell: str, edge: EdgeChart, make_figure: type[Figure]) -> str:
    source = INPUTS[edge.source] if edge.source < 2 else str(edge.source - 2)
    kept = f"<code>{escape(edge.kept)}</code>" if edge.kept else "<small>not kept</small>"
    figure = _chart_figure(make_figure, edge.chart, EDGE, roomy=False)
    svg = inline(figure, f"{cell}{edge.target}-{edge.source}", _read_out(edge.chart))
    return (
        f"<figure{'' if edge.kept else ' class=dropped'} "
        f'style="--row:{edge.target + 1};--column:{edge.source + 1}">'
        f"<figcaption><span>{source} → {edge.target}</span>{kept}</figcaption>{svg}</figure>"
    )


def _settings(history: History) -> Iterator[str]:
    for title, group in settings(history).items():
        yield f'<h2>{escape(title)}</h2>\n<dl class="settings">'
        for name, value in group.items():
            yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        yield "</dl>"
