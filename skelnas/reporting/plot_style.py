"""What all pictures share: colours, strokes, and the writing of a figure to a file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.errors import SkelnasError, UsageError
from skelnas.primitives import PRIMITIVES
from skelnas.runtime.console import note
from skelnas.runtime.files import atomic_write, check_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
"""Every colour, in the light and in the dark theme."""

INK, QUIET, FAINT, GRID, PAPER, NODE = (
    PALETTE[name][0] for name in ("ink", "quiet", "faint", "grid", "paper", "node")
)

KINDS = {
    "convolution": PALETTE["blue"][0],
    "pooling": PALETTE["brown"][0],
    "skip connection": PALETTE["green"][0],
    "squeeze-and-excitation": PALETTE["purple"][0],
}
"""The colour of each kind of operation; they can be told apart with any colour vision."""

PICTURES = (".svg", ".png", ".pdf")
"""Suffixes of the files that a figure can be drawn into."""
ANIMATION = ".gif"

PIXELS_PER_INCH = 200


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour ``#rrggbb``, from 0 to 1 (WCAG 2)."""
    channels = (value / 255 for value in bytes.fromhex(colour.removeprefix("#")))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_colour(background: str) -> str:
    """Return black or white, whichever contrasts more: at least 4.58, on any background."""
    return max(("#000000", "#ffffff"), key=lambda colour: contrast(colour, background))


def blend(colour: str, paper: str, opacity: float) -> str:
    """Return the colour that shows where one of some opacity lies on another."""
    pairs = zip(*(bytes.fromhex(one.removeprefix("#")) for one in (colour, paper)), strict=True)
    mixed = (round(opacity * above + (1 - opacity) * below) for above, below in pairs)
    return "#" + bytes(mixed).hex()


@dataclass(frozen=True)
class Stroke:
    """Colour and dashes of a line."""

    colour: str
    dashes: tuple[float, ...] = ()


def stroke(op: str) -> Stroke:
    """Return the stroke of an operation; an unregistered one is drawn as a solid convolution."""
    if op not in PRIMITIVES:  # of a run made by other code
        return Stroke(KINDS["convolution"])
    return Stroke(PALETTE[PRIMITIVES[op].colour][0], PRIMITIVES[op].dashes)


def has_matplotlib() -> bool:
    """Return whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


@contextmanager
def drawing(what: str) -> Iterator[type[Figure]]:
    """Give the class of figures, in a context that ignores the user's matplotlib style.

    Args:
        what: what is drawn, for the message.

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
    with mpl.rc_context(), _noting_missing_glyphs():
        mpl.rcdefaults()  # a user's own style must not move labels out of their boxes
        mpl.rc("svg", fonttype="none", hashsalt="skelnas")
        yield Figure


@contextmanager
def _noting_missing_glyphs() -> Iterator[None]:
    """Print one line about all characters that the font lacks, instead of a warning for each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    others = [warning for warning in caught if "missing from font" not in str(warning.message)]
    if len(others) < len(caught):
        note("some characters are not in the font: boxes in a .png or .pdf, but not in an .svg")
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def picture_kind(path: Path, kinds: Sequence[str] = PICTURES) -> str:
    """Return the kind of picture that a file is to be, by its suffix, without a dot.

    Raises:
        UsageError: it is none of `kinds`.
    """
    suffix = path.suffix.lower()
    if suffix not in kinds:
        raise UsageError(
            f"{path}: cannot draw a picture of this type",
            hint=f"name a file that ends in {', '.join(kinds[:-1])} or {kinds[-1]}",
        )
    return suffix.removeprefix(".")


def check_picture(path: Path, what: str, kinds: Sequence[str] = PICTURES) -> None:
    """Check, before any work, that a picture can be drawn and written.

    Raises:
        UsageError: its suffix is unknown, or it cannot be written.
        SkelnasError: matplotlib is not installed.
    """
    picture_kind(path, kinds)
    check_output(path)
    with drawing(what):
        pass


def style_axes(axes: Axes, font_size: float, pad: float | None = None) -> None:
    """Give a chart its frame: faint horizontal lines, no box, and quiet numbers.

    Args:
        axes: of the chart.
        font_size: of the numbers, in points.
        pad: between axis and numbers, in points; None for the usual.
    """
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(labelsize=font_size, labelcolor=QUIET, color=FAINT, length=2.5)
    if pad is not None:
        axes.tick_params(pad=pad)
    axes.tick_params(axis="y", length=0)


def legend(axes: Axes, font_size: float, num_columns: int, **spacing: float) -> None:
    """Put the legend of a chart above it, without a box.

    Args:
        axes: of the chart.
        font_size: in points.
        num_columns: labels side by side.
        spacing: distances as matplotlib names them, in font sizes; its own where not given.
    """
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=num_columns,
        frameon=False,
        fontsize=font_size,
        labelcolor=INK,
        borderpad=0,
        **spacing,
    )


def write(figure: Figure, path: Path) -> None:
    """Write a figure that was made inside `drawing` to a file.

    Raises:
        UsageError: the suffix is none of `PICTURES`.
        SkelnasError: the file cannot be written.
    """
    atomic_write(path, save(figure, picture_kind(path)))


def save(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file, always with the same bytes.

    Args:
        figure: made inside `drawing`.
        kind: ``svg``, ``png`` or ``pdf``.
    """
    metadata: dict[str, Any] = {
        "svg": {"Creator": "skelnas", "Date": None},
        "png": {"Software": "skelnas"},
        "pdf": {"Creator": "skelnas", "Producer": None, "CreationDate": None},
    }
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=PIXELS_PER_INCH, metadata=metadata[kind])
    return picture.getvalue()
