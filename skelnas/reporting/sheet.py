"""A report as a picture: pages of a PDF, or all of them below each other in a PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skelnas.reporting.cell_layout import INPUTS, lay_out
from skelnas.reporting.charts import edge_charts, learning_curves
from skelnas.reporting.facts import cost_facts, facts, heading, moments, settings
from skelnas.reporting.history import CELLS, History
from skelnas.reporting.paper import (
    FACT,
    FACTS_A_ROW,
    HEIGHT,
    INNER,
    LINE,
    MARGIN,
    TITLE,
    WIDTH,
    Part,
    Sheet,
    draw_facts,
    shorten,
)
from skelnas.reporting.plot_cells import draw_graph
from skelnas.reporting.plot_curves import draw_chart
from skelnas.reporting.plot_style import INK, PAPER, QUIET, drawing, save, stroke
from skelnas.reporting.results_sheet import results_parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skelnas.reporting.results import Results


def make_sheet(history: History, suffix: str, results: Results | None = None) -> bytes:
    """Make the file of a run and of what is known of its model, ``pdf`` or ``png``."""
    parts = [*_head(history, results), *(results_parts(results) if results else ())]
    parts += [*_curves(history), *_cells(history), *_shares(history), *_settings(history)]
    with drawing("a report") as make_figure:
        if suffix == "png":
            return save(_draw(make_figure, parts, sum(part.height for part in parts)), suffix)
        import matplotlib as mpl
        from matplotlib.backends.backend_pdf import PdfPages

        mpl.rc("pdf", fonttype=42)  # text that can be searched
        file = io.BytesIO()
        about = {"Creator": "skelnas", "Producer": None, "CreationDate": None}
        with PdfPages(file, metadata=about) as pages:
            for page in _pages(parts):
                height = max(HEIGHT, sum(part.height for part in page))
                pages.savefig(_draw(make_figure, page, height))
        return file.getvalue()


def _pages(parts: list[Part]) -> Iterator[list[Part]]:
    """Fill pages with parts, in their order; a part that is larger than a page has its own."""
    top = Part(24, lambda sheet: None)
    page: list[Part] = []
    for part in parts:
        if page and sum(p.height for p in page) + part.height > HEIGHT:
            yield page
            page = [top]
        page.append(part)
    yield page


def _draw(make_figure: type[Figure], parts: list[Part], height: float) -> Figure:
    figure = make_figure(figsize=(WIDTH / 72, height / 72), facecolor=PAPER)
    rest = height - sum(part.height for part in parts)
    heights = [part.height for part in parts] + [rest] * (rest > 0)
    strips = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False, hspace=0)
    for part, strip in zip(parts, strips[:, 0], strict=False):
        part.draw(Sheet(strip, part.height))
    return figure


def _head(history: History, results: Results | None) -> Iterator[Part]:
    found = [*facts(history), *cost_facts(results)]

    def draw(sheet: Sheet) -> None:
        sheet.text(MARGIN, MARGIN, heading(history), size=17, weight="bold")
        draw_facts(sheet, found, MARGIN + 38)

    yield Part(MARGIN + 44 + FACT * -(-len(found) // FACTS_A_ROW), draw)


def _curves(history: History) -> Iterator[Part]:
    charts, high = learning_curves(history), 140.0

    def draw(sheet: Sheet) -> None:
        sheet.title("Learning curves")
        if not history.epochs:
            sheet.text(MARGIN, TITLE + 2, "No epoch is done yet.", color=QUIET)
        for number, chart in enumerate(charts):
            row, column = divmod(number, 2)
            left, top = MARGIN + column * (INNER + 24) / 2, TITLE + 16 + row * high
            sheet.text(left, top - 10, chart.title, weight="bold")
            width = (INNER - 24) / 2 - 30
            draw_chart(sheet.axes(left + 30, top + 18, width, high - 62), chart, 8)

    yield Part(TITLE + 20 + high * -(-len(charts) // 2), draw)


def _cells(history: History) -> Iterator[Part]:
    for title, epoch in moments(history):
        graphs = [lay_out(getattr(history.genotypes[epoch], cell)) for cell in CELLS]
        widest = max(graph.width for graph in graphs)
        scale = min(INNER / widest, 0.85)

        def draw(
            sheet: Sheet, title: str = title, graphs: Any = graphs, scale: float = scale
        ) -> None:
            sheet.title(f"Cells {title.lower()}")
            top = TITLE
            for name, graph in zip(CELLS, graphs, strict=True):
                sheet.text(MARGIN, top, f"{name.capitalize()} cell", weight="bold")
                width, height = graph.width + 4, graph.height + 4
                axes = sheet.axes(MARGIN, top + 14, width * scale, height * scale)
                axes.set(xlim=(-2, width - 2), ylim=(height - 2, -2))
                axes.set_axis_off()
                draw_graph(axes, graph, 0, 0, scale)
                top += 28 + height * scale

        yield Part(TITLE + 4 + sum(28 + (graph.height + 4) * scale for graph in graphs), draw)


def _shares(history: History) -> Iterator[Part]:
    high, above = 84.0, 62.0
    for cell in CELLS if history.has_moved else ():
        edges = list(edge_charts(history, cell))
        rows = 1 + max(edge.target for edge in edges)
        columns = 1 + max(edge.source for edge in edges)

        def draw(
            sheet: Sheet, cell: str = cell, edges: Any = edges, columns: int = columns
        ) -> None:
            sheet.title(f"Shares of the operations: {cell} cell")
            _draw_legend(sheet, history.primitives)
            wide = INNER / columns
            for edge in edges:
                left, top = MARGIN + edge.source * wide, TITLE + above - 24 + edge.target * high
                source = INPUTS[edge.source] if edge.source < 2 else str(edge.source - 2)
                kept = f" {edge.kept}" if edge.kept else ""
                style = {"weight": "bold"} if kept else {"color": QUIET}
                label = f"{source} → {edge.target}{kept}"
                sheet.text(left, top, label, size=6.5, parse_math=True, **style)
                axes = sheet.axes(left + 20, top + 12, wide - 28, high - 34)
                draw_chart(axes, edge.chart, 6.5, roomy=False)

        yield Part(TITLE + above - 20 + high * rows, draw)


def _draw_legend(sheet: Sheet, primitives: list[str]) -> None:
    from matplotlib.lines import Line2D

    lines = []
    for op in primitives:
        line = Line2D([], [], color=stroke(op).colour, linewidth=1.6, label=op)
        line.set_dashes(stroke(op).dashes or (None, None))
        lines.append(line)
    sheet.figure.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(MARGIN / WIDTH, 1 - (TITLE - 2) / sheet.height),
        ncols=-(-len(lines) // 2),
        frameon=False,
        fontsize=7,
        labelcolor=INK,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.6,
    )


def _settings(history: History) -> Iterator[Part]:
    columns = 3
    for title, group in settings(history).items():
        rows = -(-len(group) // columns)

        def draw(sheet: Sheet, title: str = title, group: Any = group, rows: int = rows) -> None:
            sheet.title(title)
            for number, (name, value) in enumerate(group.items()):
                column, row = divmod(number, rows)
                left, top = MARGIN + column * (INNER + 18) / columns, TITLE + row * LINE
                sheet.text(left, top, name, size=8, color=QUIET)
                right = left + INNER / columns - 12
                sheet.text(right, top, shorten(value), size=8, ha="right")

        yield Part(TITLE + 12 + rows * LINE, draw)
