"""What goes to the terminal: notes and progress on stderr, results on stdout.

On a terminal progress is one live line; elsewhere (a pipe, a log file) it is a plain line
now and then, so that logs stay readable.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

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

from skelnas.errors import SkelnasError

err = Console(stderr=True, highlight=False, emoji=False)
"""Notes, progress and errors."""

out = Console(highlight=False, emoji=False)
"""Results, and nothing else."""

SECONDS_BETWEEN_PLAIN_LINES = 10.0

SPEAKS = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
"""Whether this process speaks for all: of several ranks only the first one does."""


def note(text: str, style: str | None = None) -> None:
    """Print one line for the reader's eyes to stderr."""
    err.print(text, style=style, markup=False, soft_wrap=True)


def result(text: str) -> None:
    """Print a result to stdout, exactly as given; raises SkelnasError where that is closed."""
    if sys.stdout is None:
        raise SkelnasError("the result has no place: standard output is closed")
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


class Meter:
    """Counts work that is done. Made by `progress`."""

    def __init__(self, description: str, total: int, bar: Progress | None) -> None:
        self._description = description
        self._total = total
        self._bar = bar
        self._task: TaskID | None = (
            bar.add_task(description, total=total, status="") if bar else None
        )
        self._done = 0
        self._last_line = time.monotonic()

    def advance(self, count: int = 1, status: str = "") -> None:
        """Say that `count` more units are done; `status` stands beside the bar."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, status=status)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_PLAIN_LINES:
            self._last_line = time.monotonic()
            note(f"{self._description}: {self._done}/{self._total} {status}".rstrip())


@contextmanager
def progress(description: str, total: int) -> Iterator[Meter]:
    """Show how far a piece of work of `total` units is; the bar vanishes when it ends."""
    if not err.is_interactive:  # a pipe, a file, a terminal that cannot go back (TERM=dumb)
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
