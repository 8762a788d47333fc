"""The progress of a run on the terminal: a live view, or plain lines where that is impossible.

Reading a metric waits for the device, so metrics are read once a second, not at each step.
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

from skelnas.derivation import count_skips
from skelnas.genotype import NUM_INPUT_NODES, Cell, Genotype
from skelnas.primitives import PRIMITIVES
from skelnas.runtime import console

SECONDS_BETWEEN_READINGS = 1.0
REFRESHES_PER_SECOND = 2
STYLES = {
    "convolution": "blue",
    "pooling": "yellow",
    "skip connection": "green",
    "squeeze-and-excitation": "magenta",
}


@dataclass(frozen=True)
class Reading:
    """What a run shows of itself.

    Attributes:
        metrics: of this epoch so far, by name.
        cells: the genotype that the alphas encode now; None in training.
        entropy: normalized entropy of each cell's alphas, by cell, from 0 to 1.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    cells: Genotype | None = None
    entropy: Mapping[str, float] = field(default_factory=dict)


class View:
    """A live view: progress bar, metrics and cells. Made by `watch`."""

    def __init__(self, verb: str, epochs: int, steps_per_epoch: int, screen: Console) -> None:
        self._epochs, self._steps = epochs, steps_per_epoch
        self._bar = Progress(
            TextColumn(f"{verb}  {{task.fields[position]}}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(compact=True),
            console=screen,
            expand=True,
            speed_estimate_period=console.SECONDS_OF_SPEED,
        )
        self._task = self._bar.add_task("", total=epochs * steps_per_epoch, position="")
        self._reading = Reading()
        self._read_at = time.monotonic()

    def show(self, epoch: int, step: int, read: Callable[[], Reading] | None = None) -> None:
        """Show that `epoch` epochs and `step` steps of the next one are done.

        `read` is called only if the last reading is old.
        """
        position = f"epoch {min(epoch + 1, self._epochs)}/{self._epochs}  step {step}/{self._steps}"
        self._bar.update(self._task, completed=epoch * self._steps + step, position=position)
        if read is not None and time.monotonic() - self._read_at > SECONDS_BETWEEN_READINGS:
            self._reading = read()
            self._read_at = time.monotonic()  # after reading, so that slow readings stay rare

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        reading = self._reading
        yield self._bar.get_renderable()
        if reading.metrics:
            yield _row({n: format_metric(n, value) for n, value in reading.metrics.items()})
        if reading.cells is not None:
            entropy = {f"{cell} entropy": f"{value:.1%}" for cell, value in reading.entropy.items()}
            yield _row({**entropy, "skips": str(count_skips(reading.cells))})
            cells = {"normal": reading.cells.normal, "reduction": reading.cells.reduction}
            yield _in_columns(_cell(name, cell) for name, cell in cells.items())


class PlainLines:
    """A plain line from time to time, instead of a `View`. Made by `watch`."""

    def __init__(self, verb: str, epochs: int, steps_per_epoch: int) -> None:
        self._verb, self._epochs, self._steps = verb, epochs, steps_per_epoch
        self._pace: console.Pace | None = None

    def show(self, epoch: int, step: int, read: Callable[[], Reading] | None = None) -> None:
        """Show that `epoch` epochs and `step` steps of the next one are done.

        `read` is called only if a line is due.
        """
        done = epoch * self._steps + step
        if self._pace is None:  # a resumed run has done some steps before
            self._pace = console.Pace(self._epochs * self._steps, done)
        if read is None or not self._pace.is_due():
            return
        metrics = (f"{name} {format_metric(name, value)}" for name, value in read().metrics.items())
        position = f"epoch {min(epoch + 1, self._epochs)}/{self._epochs}  step {step}/{self._steps}"
        parts = (position, *metrics, self._pace.tell(done, "step"))
        console.note(f"{self._verb}: {'  '.join(filter(None, parts))}")


Display = View | PlainLines


@contextmanager
def watch(verb: str, epochs: int, steps_per_epoch: int) -> Iterator[Display]:
    """Show the progress of a run; a live view vanishes when the run ends."""
    if not console.can_redraw():
        yield PlainLines(verb, epochs, steps_per_epoch)
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


def format_metric(name: str, value: float) -> str:
    """Format a metric as its name suggests."""
    if name == "lr":
        return f"{value:.3g}"
    return f"{value:.1%}" if name.endswith("top1") else f"{value:.3f}"


def _row(values: Mapping[str, str]) -> RenderableType:
    return _in_columns(
        Text.assemble((name.replace("_", " ").replace("top1", "top-1"), "dim"), " ", value)
        for name, value in values.items()
    )


def _in_columns(parts: Iterable[RenderableType]) -> RenderableType:
    """Set parts side by side, as many as fit into a line."""
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
