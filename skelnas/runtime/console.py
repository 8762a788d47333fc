"""Output: notes, progress and errors to stderr, results to stdout.

On a terminal, progress is a live line; elsewhere (a pipe, a log file) it is an occasional plain
line, so that logs stay readable.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

SECONDS_BETWEEN_PLAIN_LINES = 10.0

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
    """Return words as a shell takes them: `skelnas` and its arguments, quoted where needed."""
    return shlex.join(map(str, ("skelnas", *words)))


def result(text: str) -> None:
    """Print a result to stdout, unchanged.

    Raises:
        SkelnasError: standard output is closed.
    """
    if sys.stdout is None:
        raise SkelnasError("cannot print the result: standard output is closed")
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


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
        self._last_line = time.monotonic()

    def advance(self, count: int = 1, status: str = "") -> None:
        """Count `count` more units as finished; `status` is shown next to the bar."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, status=status)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_PLAIN_LINES:
            self._last_line = time.monotonic()
            note(f"{self._description}: {self._done}/{self.total} {status}".rstrip())


@contextmanager
def progress(description: str, total: int) -> Iterator[Meter]:
    """Show progress over `total` units of work; the bar disappears at the end."""
    if not err.is_interactive:  # a pipe, a file, or a terminal that cannot redraw (TERM=dumb)
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
