"""What a page says of a trained model's scores: each class, the matrix, the hardest confusions."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from skelnas.reporting.facts import ranked_classes, score_facts, spell_confusion
from skelnas.reporting.plot_skeleton import lay_out_strip
from skelnas.reporting.svg import matrix_svg, strip_svg

if TYPE_CHECKING:
    from skelnas.evaluation.scores import Scores
    from skelnas.reporting.results import Confusion, Example, Results

POSES = 7
"""Poses of a strip."""


def results_sections(results: Results) -> Iterator[str]:
    """Yield the parts of a page about scores, if there are any."""
    scores = results.scores
    if scores is None:
        return
    about = scores.about
    yield f"<h2>{len(scores):,} {about.part} clips of {escape(about.protocol)}</h2>"
    yield '<dl class="facts">'
    for name, value in score_facts(scores):
        yield f"<div><dt>{name}</dt><dd>{value}</dd></div>"
    yield "</dl>"
    yield "<h3>Each class, the hardest first</h3>"
    yield from _classes(scores)
    yield "<h3>Confusion matrix</h3>"
    yield "<p class=quiet>A row is a true class, a column what its clips were taken for.</p>"
    yield f'<div class="scroll">{matrix_svg(about.classes, scores.metrics.confusion)}</div>'
    if results.confusions:
        yield "<h3>Hardest confusions</h3>"
        yield (
            "<p class=quiet>Of each pair of classes the clip that was mistaken with the most "
            "confidence, then one of the other class that is recognised with the most. Under the "
            "poses stand the numbers of their frames.</p>"
        )
        for confusion in results.confusions:
            yield from _confusion(confusion)


def _classes(scores: Scores) -> Iterator[str]:
    yield '<ol class="classes">'
    for name, clips, top1 in ranked_classes(scores):
        yield (
            f'<li title="{clips} clips"><span>{escape(name)}</span><span>{top1:.1%}</span>'
            f'<div><div style="width:{100 * top1:.1f}%"></div></div></li>'
        )
    yield "</ol>"


def _confusion(confusion: Confusion) -> Iterator[str]:
    title, mistaken, recognised = map(escape, spell_confusion(confusion))
    yield f"<h4>{title}</h4>"
    yield f'<div class="pair">{_example(confusion.mistaken, mistaken)}'
    if confusion.recognised is not None:
        yield _example(confusion.recognised, recognised)
    yield "</div>"


def _example(example: Example, verdict: str) -> str:
    text = f"<small>{verdict}</small>"
    if example.picture is None:
        return f"<p>{text}</p>"
    svg = strip_svg(lay_out_strip(example.picture, POSES), f"poses of {example.clip}")
    return f'<figure><figcaption>{text}</figcaption><div class="scroll">{svg}</div></figure>'
