"""What all pictures share: colours, strokes, and how a figure becomes a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skelnas.errors import SkelnasError
from skelnas.primitives import PRIMITIVES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = {
    "ink": ("#22272e", "#e4e8ed"),
    "quiet": ("#5c6570", "#9aa4b0"),
    "faint": ("#aab1bb", "#5b6470"),
    "grid": ("#e4e7eb", "#2a313a"),
    "paper": ("#ffffff", "#12161c"),
    "node": ("#f1f3f5", "#222932"),
    "first": ("#1f4e96", "#8ab8f0"),
    "second": ("#c2410c", "#ff9a6b"),
    "blue": ("#2f6db5", "#7fb0ec"),
    "deep-blue": ("#14366b", "#5d8fd6"),
    "light-blue": ("#3f8fdc", "#c3e0ff"),
    "brown": ("#b35900", "#e0862a"),
    "amber": ("#cf7f00", "#ffc066"),
    "green": ("#1c8a6c", "#3fc7a1"),
    "purple": ("#a0327c", "#e58cc8"),
    "grey": ("#848d97", "#8b949e"),
}
"""Every colour, on white paper and on a dark screen."""

INK, QUIET, FAINT, GRID, PAPER, NODE = (
    PALETTE[name][0] for name in ("ink", "quiet", "faint", "grid", "paper", "node")
)

KINDS = {
    "convolution": PALETTE["blue"][0],
    "pooling": PALETTE["brown"][0],
    "skip connection": PALETTE["green"][0],
    "squeeze-and-excitation": PALETTE["purple"][0],
}
"""Kinds of operation and their colours, told apart with any kind of colour vision."""

PIXELS_PER_INCH = 200


@dataclass(frozen=True)
class Stroke:
    """How the line of an operation is drawn: operations of one kind differ by their dashes too."""

    colour: str
    dashes: tuple[float, ...] = ()


def stroke(op: str) -> Stroke:
    """Return how an operation is drawn; an unregistered one as a solid convolution."""
    if op not in PRIMITIVES:  # of a run made by other code
        return Stroke(KINDS["convolution"])
    return Stroke(PALETTE[PRIMITIVES[op].colour][0], PRIMITIVES[op].dashes)


@contextmanager
def drawing(what: str) -> Iterator[type[Figure]]:
    """Let figures be made, in no style but ours, for as long as it lasts.

    Args:
        what: what is drawn, for a message.

    Raises:
        SkelnasError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SkelnasError(
            f"drawing {what} needs matplotlib ({error})", hint="pip install 'skelnas[plot]'"
        ) from None
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style must not move labels out of their boxes
        mpl.rc("svg", fonttype="none", hashsalt="skelnas")
        yield Figure


def save(figure: Figure, kind: str) -> bytes:
    """Turn a figure into a file of this kind, ``svg``, ``png`` or ``pdf``; always the same one."""
    about: dict[str, Any] = {
        "svg": {"Creator": "skelnas", "Date": None},
        "png": {"Software": "skelnas"},
        "pdf": {"Creator": "skelnas", "Producer": None, "CreationDate": None},
    }
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=PIXELS_PER_INCH, metadata=about[kind])
    return picture.getvalue()
