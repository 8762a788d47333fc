"""What a report as a picture says of scores: each class, the matrix, the hardest confusions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skelnas.reporting.facts import ranked_classes, score_facts, spell_confusion
from skelnas.reporting.paper import (
    FACT,
    FACTS_A_ROW,
    INNER,
    LINE,
    MARGIN,
    TITLE,
    Part,
    Sheet,
    draw_facts,
    shorten,
)
from skelnas.reporting.plot_confusion import draw_matrix
from skelnas.reporting.plot_skeleton import draw_poses, lay_out_strip
from skelnas.reporting.plot_style import GRID, PALETTE, QUIET
from skelnas.reporting.svg import MOST_NAMED

if TYPE_CHECKING:
    from skelnas.evaluation.scores import Scores
    from skelnas.reporting.results import Confusion, Example, Results

CLASS_COLUMNS = 3
ROWS_A_PART = 40
"""Of classes: a part stays on one page."""

POSES, POSE_HEIGHT = 7, 62.0
POSE_SCALE = 0.38
"""Of lines and joints, against those of a strip by itself."""


def results_parts(results: Results) -> Iterator[Part]:
    """Yield the parts about scores, if there are any."""
    scores = results.scores
    if scores is None:
        return
    found = score_facts(scores)
    title = f"{len(scores):,} {scores.about.part} clips of {scores.about.protocol}"

    def draw(sheet: Sheet) -> None:
        sheet.title(title)
        draw_facts(sheet, found, TITLE + 2)

    yield Part(TITLE + 6 + FACT * -(-len(found) // FACTS_A_ROW), draw)
    yield from _classes(scores)
    yield _matrix(scores)
    for number, confusion in enumerate(results.confusions):
        yield _confusion(confusion, is_first=number == 0)


Ranked = list[tuple[str, int, float]]


def _classes(scores: Scores) -> Iterator[Part]:
    ranked = ranked_classes(scores)
    room = ROWS_A_PART * CLASS_COLUMNS
    for first in range(0, len(ranked), room):
        members = ranked[first : first + room]
        rows = -(-len(members) // CLASS_COLUMNS)

        def draw(
            sheet: Sheet, first: int = first, members: Ranked = members, rows: int = rows
        ) -> None:
            sheet.title("Each class, the hardest first" if first == 0 else "Each class, continued")
            wide = (INNER + 18) / CLASS_COLUMNS
            for number, (name, _, top1) in enumerate(members):
                column, row = divmod(number, rows)
                left, top = MARGIN + column * wide, TITLE + row * (LINE + 4)
                sheet.text(left, top, shorten(name, 32), size=7.5)
                sheet.text(left + wide - 18, top, f"{top1:.1%}", size=7.5, ha="right")
                axes = sheet.axes(left, top + 11, wide - 18, 2)
                axes.set(xlim=(0, 1), ylim=(0, 1))
                axes.set_axis_off()
                axes.axhspan(0, 1, color=GRID, linewidth=0)
                axes.axhspan(0, 1, xmax=top1, color=PALETTE["blue"][0], linewidth=0)

        yield Part(TITLE + 10 + rows * (LINE + 4), draw)


def _matrix(scores: Scores) -> Part:
    names = [shorten(name, 30) for name in scores.about.classes]
    if len(names) > MOST_NAMED:
        names = [""] * len(names)
    size = max(min(8.0, 300 / len(names)), 2.5)
    room = 0.56 * size * max(map(len, names)) + 20
    side = min(INNER - room, 30.0 * len(names))

    def draw(sheet: Sheet) -> None:
        sheet.title("Confusion matrix")
        axes = sheet.axes(MARGIN + room, TITLE, side, side)
        draw_matrix(axes, scores.metrics.confusion, names, size, with_numbers=len(names) <= 20)

    return Part(TITLE + side + room + 10, draw)


def _confusion(confusion: Confusion, *, is_first: bool) -> Part:
    title, *verdicts = spell_confusion(confusion)
    given = zip((confusion.mistaken, confusion.recognised), verdicts, strict=True)
    examples = [(example, verdict) for example, verdict in given if example is not None]
    above = TITLE if is_first else 4.0

    def draw(sheet: Sheet) -> None:
        if is_first:
            sheet.title("Hardest confusions")
        sheet.text(MARGIN, above, title, weight="bold")
        top = above + LINE + 2
        for example, verdict in examples:
            sheet.text(MARGIN, top, verdict, size=7.5, color=QUIET)
            top += LINE + _draw_example(sheet, example, top + LINE)

    return Part(above + LINE + 8 + sum(LINE + _height(example) for example, _ in examples), draw)


def _height(example: Example) -> float:
    return 0.0 if example.picture is None else POSE_HEIGHT + 16


def _draw_example(sheet: Sheet, example: Example, top: float) -> float:
    if example.picture is not None:
        strip = lay_out_strip(example.picture, POSES)
        scale = min(POSE_HEIGHT / (strip.high - strip.low), INNER / strip.width)
        axes = sheet.axes(MARGIN, top, strip.width * scale, (strip.high - strip.low) * scale)
        axes.set(xlim=(0, strip.width), ylim=(strip.low, strip.high))
        axes.set_axis_off()
        draw_poses(axes, strip, POSE_SCALE)
        for artist in axes.collections:  # a head may stand out
            artist.set_clip_on(False)
    return _height(example)
