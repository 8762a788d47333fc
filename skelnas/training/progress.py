"""The live view of a search or a training, on a terminal: how far it is, and how it goes.

Reading a figure waits for the device. So figures are read once in a while, not at each step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from skelnas.genotype import NUM_INPUT_NODES, Cell, Genotype, count_skips
from skelnas.primitives import PRIMITIVES
from skelnas.runtime import console

SECONDS_BETWEEN_READINGS = 1.0
REFRESHES_PER_SECOND = 2
SECONDS_OF_SPEED = 600.0
"""The remaining time is told from the steps of so long."""

STYLES = {
    "convolution": "blue",
    "pooling": "yellow",
    "skip connection": "green",
    "squeeze-and-excitation": "magenta",
}


@dataclass(frozen=True)
class Reading:
    """What a job says of itself.

    Attributes:
        figures: of this epoch so far, by name.
        cells: what the alphas stand for now; None where there are none.
        entropy: how undecided each cell is, by its name, from 0 to 1.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    cells: Genotype | None = None
    entropy: Mapping[str, float] = field(default_factory=dict)


class View:
    """Shows how a job goes. Made by `watch`."""

    def __init__(self, verb: str, epochs: int, steps_per_epoch: int, screen: Console) -> None:
        self._epochs, self._steps = epochs, steps_per_epoch
        self._bar = Progress(
            TextColumn(f"{verb}  {{task.fields[place]}}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(compact=True),
            console=screen,
            expand=True,
            speed_estimate_period=SECONDS_OF_SPEED,
        )
        self._task = self._bar.add_task("", total=epochs * steps_per_epoch, place="")
        self._reading = Reading()
        self._read = time.monotonic()

    def show(self, epoch: int, step: int, read: Callable[[], Reading] | None = None) -> None:
        """Say that so many epochs are done, and so many steps of the next.

        `read` is called only if the last reading is old.
        """
        place = f"epoch {min(epoch + 1, self._epochs)}/{self._epochs}  step {step}/{self._steps}"
        self._bar.update(self._task, completed=epoch * self._steps + step, place=place)
        if read is not None and time.monotonic() - self._read > SECONDS_BETWEEN_READINGS:
            self._reading = read()
            self._read = time.monotonic()  # after it, so that slow readings are rare ones

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        reading = self._reading
        yield self._bar.get_renderable()
        if reading.figures:
            yield _row({name: figure(name, value) for name, value in reading.figures.items()})
        if reading.cells is not None:
            entropy = {f"{cell} entropy": f"{part:.1%}" for cell, part in reading.entropy.items()}
            yield _row({**entropy, "skips": str(count_skips(reading.cells))})
            cells = {"normal": reading.cells.normal, "reduction": reading.cells.reduction}
            yield _beside(_cell(name, cell) for name, cell in cells.items())


class _Lines:
    """Instead of a `View`, where no terminal is: a plain line now and then."""

    def __init__(self, meter: console.Meter, epochs: int, steps_per_epoch: int) -> None:
        self._meter, self._epochs, self._steps = meter, epochs, steps_per_epoch
        self._done = 0

    def show(self, epoch: int, step: int, read: Callable[[], Reading] | None = None) -> None:
        done = epoch * self._steps + step
        self._meter.advance(
            done - self._done, f"epoch {min(epoch + 1, self._epochs)}/{self._epochs}"
        )
        self._done = done


@contextmanager
def watch(verb: str, epochs: int, steps_per_epoch: int) -> Iterator[View | _Lines]:
    """Show a job of so many epochs of so many steps; the view vanishes when it ends."""
    if not console.err.is_interactive:
        with console.progress(verb, epochs * steps_per_epoch) as meter:
            yield _Lines(meter, epochs, steps_per_epoch)
        return
    view = View(verb, epochs, steps_per_epoch, console.err)
    with Live(
        view,
        console=console.err,
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
    ):
        yield view


def figure(name: str, value: float) -> str:
    """Format a figure of a job by what its name says that it is."""
    if name == "lr":
        return f"{value:.3g}"
    return f"{value:.1%}" if name.endswith("top1") else f"{value:.3f}"


def _row(figures: Mapping[str, str]) -> RenderableType:
    return _beside(
        Text.assemble((name.replace("_", " ").replace("top1", "top-1"), "dim"), " ", value)
        for name, value in figures.items()
    )


def _beside(parts: Iterable[RenderableType]) -> RenderableType:
    """Set parts beside each other, as many as fit into a line."""
    return Columns(parts, padding=(0, 3, 0, 0))


def _cell(name: str, cell: Cell) -> Text:
    """Write a cell as sums, numbered as in a genotype file: ``2 = op(source) + op(source)``."""
    lines = [Text(f"{name} cell", "bold")]
    for number, node in enumerate(cell, start=NUM_INPUT_NODES):
        terms = (
            Text.assemble((e.op, STYLES[PRIMITIVES[e.op].kind]), f"({e.source})") for e in node
        )
        lines.append(Text(f"{number:>2} = ").append_text(Text(" + ").join(terms)))
    return Text("\n", no_wrap=True, overflow="crop").join(lines)
