"""`skelnas report`: run or model folder → HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skelnas.errors import UsageError
from skelnas.reporting.history import History, read_history
from skelnas.reporting.page import make_page
from skelnas.runtime.console import shell
from skelnas.runtime.files import atomic_write, check_output
from skelnas.training.run_dir import MODEL

if TYPE_CHECKING:
    from skelnas.config import Device
    from skelnas.reporting.results import Results


def report(
    run: Path | str,
    out: Path | str | None = None,
    *,
    scores: Path | None = None,
    cache: Path | None = None,
    time_on: Device | None = None,
) -> Path:
    """Write a page about a search or a training: curves, operation weights, cells, settings.

    For a trained model it includes the cost, and given scores, the accuracy of each class and the
    hardest confusions.

    Args:
        run: a run folder or a model folder, finished or not.
        out: the ``.html`` file to write; None for ``report.html`` in the folder.
        scores: a file of `skelnas evaluate --scores` for this model.
        cache: the cache with the clips of the scores, to draw them.
        time_on: the device to time a forward pass of the model on; None not to time it.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder has no run, or a file is broken.
        UsageError: `out` is not an ``.html`` file, or the options do not fit the folder.
        DeviceError: the device is missing.
        SkelnasError: matplotlib is not installed, or `out` cannot be written.
    """
    run = Path(run)
    out = Path(out or run / "report.html")
    if out.suffix.lower() != ".html":
        raise UsageError(
            f"{out}: a report is an HTML page",
            hint="name a file that ends in .html; a browser prints it or saves it as PDF",
        )
    check_output(out)
    if cache is not None and scores is None:
        raise UsageError(
            "--cache goes with --scores: it draws their clips",
            hint=f"`{shell('evaluate', cache, run, '--scores', 'FILE')}` writes them",
        )
    history = read_history(run)
    results = _read_results(history, scores, cache, time_on)
    atomic_write(out, make_page(history, results))
    return out


def _read_results(
    history: History, scores: Path | None, cache: Path | None, time_on: Device | None
) -> Results | None:
    """Read the results of a training; None for a search, or if there are none yet."""
    if history.verb == "search":
        if scores or time_on:
            raise UsageError(
                f"{history.folder}: is a search, but --scores and --latency are for a model",
                hint="give the folder that `skelnas train --out` wrote",
            )
        return None
    if not (scores or time_on or (history.folder / MODEL).exists()):
        return None
    from skelnas.reporting.results import read_results  # imports torch

    model = history.config.get("model")
    classes = model.get("classes") if isinstance(model, dict) else None
    return read_results(history.folder, classes, scores, cache, time_on)
