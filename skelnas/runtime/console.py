"""Output: notes, progress and errors to stderr, results to stdout.

On a terminal and in a notebook, progress is a bar; elsewhere (a pipe, a log file) it is an
occasional plain line, so that logs stay readable.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from skelnas.errors import SkelnasError


class _Console(Console):
    """Prints text as it is, without markup; what the stream's encoding lacks as escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape before tables are laid out, so that their columns stay straight."""
        escaped = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(escaped, **options)


err = _Console(stderr=True, highlight=False, emoji=False, markup=False)
"""Notes, progress and errors."""

out = _Console(highlight=False, emoji=False, markup=False)
"""Results, and nothing else."""

SECONDS_BETWEEN_LINES = (10.0, 300.0)
"""At the start and at the most; between them, a tenth of the time that has passed."""

SECONDS_OF_SPEED = 600.0
"""The speed, and from it the remaining time, are those of this period."""

IS_MAIN_RANK = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
"""Whether this process prints and writes: the only one, or rank 0 of several."""


def note(text: str, style: str | None = None) -> None:
    """Print one line to stderr."""
    err.print(text, style=style, soft_wrap=True)


@contextmanager
def muted() -> Iterator[None]:
    """Print no notes inside the context, for one of many pieces of work."""
    before, err.quiet = err.quiet, True
    try:
        yield
    finally:
        err.quiet = before


def failure(message: str, hint: str | None = None) -> None:
    """Print an error to stderr, and what to do about it."""
    note(f"skelnas: {message}", style="red")
    if hint:
        note(f"  hint: {hint}")


def shell(*words: object) -> str:
    """Return words as a shell takes them: `skelnas` and its arguments, quoted where needed.

    A path that begins with a dash gets ``./`` before it, so that it is not taken for an option.
    """
    return shlex.join(["skelnas", *map(_argument, words)])


def _argument(word: object) -> str:
    is_dashed = isinstance(word, Path) and str(word).startswith("-")
    return f"./{word}" if is_dashed else str(word)


def result_json(document: Mapping[str, Any]) -> None:
    """Print a result as indented JSON to stdout."""
    result(json.dumps(document, indent=2))


def result(text: str) -> None:
    """Print a result to stdout, unchanged.

    Raises:
        SkelnasError: standard output is closed.
    """
    _check_stdout()
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def print_table(table: Table) -> None:
    """Print a table of results to stdout.

    Raises:
        SkelnasError: standard output is closed.
    """
    _check_stdout()
    out.print(table)


def _check_stdout() -> None:
    if sys.stdout is None:
        raise SkelnasError("cannot print the result: standard output is closed")


def can_redraw() -> bool:
    """Return whether a bar can be shown: not in a pipe, a file or a terminal with TERM=dumb."""
    return err.is_interactive or (err.is_jupyter and find_spec("ipywidgets") is not None)


class Pace:
    """The speed of work that is told in plain lines, and when the next line is due.

    Args:
        total: units of work.
        done: of them, before this process began.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._total = total
        self._started = self._last_line = time.monotonic()
        self._marks = deque([(self._started, done)])

    def is_due(self) -> bool:
        """Return whether it is time for a line: often at first, seldom in a run of days."""
        now = time.monotonic()
        first, last = SECONDS_BETWEEN_LINES
        return now - self._last_line > min(max((now - self._started) / 10, first), last)

    def tell(self, done: int, unit: str = "") -> str:
        """Return speed and remaining time, such as ``2.5 steps/s  eta 1:02:03``."""
        now = self._last_line = time.monotonic()
        while len(self._marks) > 1 and now - self._marks[1][0] > SECONDS_OF_SPEED:
            self._marks.popleft()
        then, before = self._marks[0]
        self._marks.append((now, done))
        if done <= before or now <= then:
            return ""
        speed = (done - before) / (now - then)
        text = f"{speed:.1f} {unit}s/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"
        return f"{text}  eta {timedelta(seconds=round((self._total - done) / speed))}"


class Meter:
    """Counts finished units of work; made by `progress`."""

    def __init__(self, description: str, total: int, bar: Progress | None) -> None:
        self.total = total
        self._description = description
        self._bar = bar
        self._task: TaskID | None = (
            bar.add_task(description, total=total, status="") if bar else None
        )
        self._done = 0
        self._pace = Pace(total)

    def skip(self) -> None:
        """Count a unit that was finished before: it says nothing of the speed."""
        self._done += 1
        self._pace = Pace(self.total, self._done)
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, completed=self._done)

    def advance(self, count: int = 1, status: str = "") -> None:
        """Count `count` more units as finished; `status` is shown next to the bar."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, status=status)
        elif self._pace.is_due():
            parts = (f"{self._done}/{self.total}", status, self._pace.tell(self._done, "item"))
            note(f"{self._description}: {'  '.join(filter(None, parts))}")


@contextmanager
def progress(description: str, total: int) -> Iterator[Meter]:
    """Show progress over `total` units of work; the bar disappears at the end."""
    if not can_redraw():
        yield Meter(description, total, None)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[status]}"),
        console=err,
        transient=True,
    ) as bar:
        yield Meter(description, total, bar)
