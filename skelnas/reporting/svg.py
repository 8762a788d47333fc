"""Figures as SVG that stands in a page: its text is the page's, its colours follow the theme."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from skelnas.reporting.plot_confusion import LONGEST_NAME
from skelnas.reporting.plot_skeleton import Strip
from skelnas.reporting.plot_style import PALETTE, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
"""Colours of figures, and what a page calls them."""


def inline(figure: Figure, name: str, about: str) -> str:
    """Return a figure as an element of a page.

    Args:
        figure: made of the colours of `skelnas.reporting.plot_style`.
        name: of the figure, once in a page: its parts are named after it.
        about: what is seen on it, for those who hear the page.
    """
    root = ElementTree.fromstring(save(figure, "svg"))
    for parent in list(root.iter()):
        parent.tag = _local(parent.tag)
        parent.attrib = {_local(key): value for key, value in parent.attrib.items()}
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for key in ("width", "height", "version"):
        root.attrib.pop(key)
    _rename(root, name)
    root.attrib = {"role": "img", "aria-label": about, **root.attrib}
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found[0], found[0]), text)


def _local(name: str) -> str:
    """Drop the namespace, which an SVG in a page does not need."""
    return name.rpartition("}")[2]


def _rename(root: ElementTree.Element, name: str) -> None:
    """Name what is referred to after the figure, and nothing else."""
    used = set(re.findall(r"(?:url\(|\")#([\w-]+)", ElementTree.tostring(root, encoding="unicode")))
    names = {old: f"{name}-{number}" for number, old in enumerate(sorted(used))}
    for element in root.iter():
        old = element.attrib.pop("id", "")
        if old in names:
            element.attrib["id"] = names[old]
        for key, value in element.attrib.items():
            if key == "href":
                element.attrib[key] = "#" + names[value[1:]]
            elif "url(#" in value:
                element.attrib[key] = re.sub(
                    r"url\(#([\w-]+)\)", lambda found: f"url(#{names[found[1]]})", value
                )


FEW_CLASSES = 20
"""Up to here a square has its number in it."""

MOST_NAMED = 120
"""With more classes there is no room for their names; the pointer still finds them."""

WIDEST = 1100.0
"""Of a matrix without names, in pixels."""

CHARACTER = 0.55
"""Width of a character, in font sizes, at most on average."""

POSE_HEIGHT, HEADROOM = 120.0, 8.0  # pixels; the strip has the page's width at most
PERSONS = ("first", "second", "green", "purple")
"""Colours of the persons, as the theme calls them."""


def matrix_svg(classes: Sequence[str], confusion: NDArray[np.int64]) -> str:
    """Draw a confusion matrix: a row a true class, a column a predicted one.

    A square is as strong as the root of its share of the row, so that rare mistakes are seen;
    its title, which a pointer brings up, says it in words.
    """
    few = len(classes) <= FEW_CLASSES
    side, size = (30.0, 11.0) if few else (13.0, 9.5)
    names = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in classes]
    room = CHARACTER * size * max(map(len, names)) + 12
    if len(classes) > MOST_NAMED:
        names, room, side = [], 1, WIDEST / len(classes)
    extent = room + side * len(classes)
    parts = [
        f'<svg role="img" aria-label="confusion matrix of {len(classes)} classes" class="matrix" '
        f'style="--width:{extent:.0f}px" viewBox="0 0 {extent:.1f} {extent:.1f}" '
        f'font-size="{size}">',
        f'<g transform="translate({room:.1f} {room:.1f})">',
    ]
    parts += _grid(len(classes) if names else 1, side if names else WIDEST)
    for index, name in enumerate(names):
        middle = (index + 0.5) * side
        text = f'dominant-baseline="central" fill="var(--ink)">{escape(name)}</text>'
        parts.append(f'<text x="-6" y="{middle:g}" text-anchor="end" {text}')
        parts.append(f'<text transform="translate({middle:g} -6) rotate(-90)" {text}')
    totals = np.maximum(confusion.sum(axis=1), 1)
    for row, column in np.argwhere(confusion).tolist():
        clips, share = int(confusion[row, column]), confusion[row, column] / totals[row]
        words = f"{classes[row]} taken for {classes[column]}"
        if row == column:
            words = f"{classes[row]} recognised"
        parts.append(
            f'<rect x="{column * side:g}" y="{row * side:g}" width="{side:g}" height="{side:g}" '
            f'fill="var(--deep-blue)" fill-opacity="{share**0.5:.2f}">'
            f"<title>{escape(words)}: {clips} of {totals[row]} clips</title></rect>"
        )
        if few:
            colour = "paper" if share > 0.25 else "ink"
            parts.append(
                f'<text x="{(column + 0.5) * side:g}" y="{(row + 0.5) * side:g}" '
                f'text-anchor="middle" dominant-baseline="central" pointer-events="none" '
                f'fill="var(--{colour})">{clips}</text>'
            )
    return "".join([*parts, "</g></svg>"])


def _grid(number: int, side: float) -> Iterator[str]:
    extent = number * side
    lines = "".join(
        f"M0 {place:g}H{extent:g}M{place:g} 0V{extent:g}"
        for place in (index * side for index in range(number + 1))
    )
    yield f'<path d="{lines}" stroke="var(--grid)" fill="none"/>'


def strip_svg(strip: Strip, about: str) -> str:
    """Draw poses side by side; `about` says what is seen."""
    scale = POSE_HEIGHT / (strip.high - strip.low)
    width, height = strip.width * scale, POSE_HEIGHT + 18
    parts = [
        f'<svg role="img" aria-label="{escape(about)}" class="strip" '
        f'style="--width:{width:.0f}px" viewBox="0 {-HEADROOM:g} {width:.1f} '
        f'{height + HEADROOM:.1f}" font-size="10">',
        f'<path d="M0 {POSE_HEIGHT:g}H{width:.1f}" stroke="var(--grid)"/>',
    ]
    for column, frame in enumerate(strip.frames):
        for person in reversed(range(len(strip.points))):  # the first one in front
            x, y = strip.points[person, column].T
            places = np.stack([x * scale, (strip.high - y) * scale], axis=1)
            parts += _body(places, strip, PERSONS[person % len(PERSONS)])
        parts.append(
            f'<text x="{(column + 0.5) * strip.pose_width * scale:.1f}" y="{height - 4:g}" '
            f'text-anchor="middle" fill="var(--quiet)">{frame + 1}</text>'
        )
    return "".join([*parts, "</svg>"])


def _body(places: NDArray[np.float64], strip: Strip, colour: str) -> Iterator[str]:
    """Draw one person, places [V, 2] in pixels; a bone needs both of its joints."""
    known = np.flatnonzero(np.isfinite(places[:, 0] + places[:, 1])).tolist()
    bones = "".join(
        f"M{places[a, 0]:.1f} {places[a, 1]:.1f}L{places[b, 0]:.1f} {places[b, 1]:.1f}"
        for a, b in strip.clip.bones
        if a in known and b in known
    )
    if bones:
        yield f'<path class="rim" d="{bones}"/>'
        yield f'<path class="bones" stroke="var(--{colour})" d="{bones}"/>'
    for joint in known:
        x, y = places[joint]
        radius = 5 if joint == strip.clip.head else 1.6
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="var(--{colour})"/>'
