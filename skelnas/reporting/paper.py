"""What the parts of a report as a picture have in common: the page and its strips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skelnas.reporting.plot_style import INK, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Lengths are in points, 1/72 inch.
WIDTH, HEIGHT = 595.0, 842.0  # A4
MARGIN = 36.0
INNER = WIDTH - 2 * MARGIN
LINE = 13.0
TITLE = 30.0
"""What the title of a part takes."""
FACT, FACTS_A_ROW = 36.0, 4
"""What a row of key figures takes, and how many are in it."""


@dataclass(frozen=True)
class Sheet:
    """Where a part draws: a strip of the page, measured from its upper left corner."""

    figure: SubFigure
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Make axes at a place."""
        low = 1 - (top + height) / self.height
        place = (left / WIDTH, low, width / WIDTH, height / self.height)
        return self.figure.add_axes(place)

    def text(self, left: float, top: float, text: str, size: float = 9.0, **style: Any) -> None:
        """Write a line; dollar signs stand for themselves unless `parse_math` says otherwise."""
        style = {"color": INK, "va": "top", "parse_math": False, **style}
        self.figure.text(left / WIDTH, 1 - top / self.height, text, size=size, **style)

    def title(self, text: str) -> None:
        """Write the title of the part."""
        self.text(MARGIN, 8, text, size=12, weight="bold")


@dataclass(frozen=True)
class Part:
    """A strip of a report that stays together."""

    height: float
    draw: Callable[[Sheet], None]


def draw_facts(sheet: Sheet, facts: Sequence[tuple[str, str]], top: float) -> None:
    """Write key figures with their names above them, `FACTS_A_ROW` beside each other."""
    for number, (label, value) in enumerate(facts):
        row, column = divmod(number, FACTS_A_ROW)
        left = MARGIN + column * INNER / FACTS_A_ROW
        sheet.text(left, top + row * FACT, shorten(label, 32), size=8, color=QUIET)
        sheet.text(left, top + row * FACT + 12, shorten(value), size=9, weight="bold")


def shorten(text: str, longest: int = 24) -> str:
    """Cut a text that is too long for its place."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
