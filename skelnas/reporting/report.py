"""`skelnas report`: run folder → a page about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skelnas.errors import UsageError
from skelnas.reporting.history import History, read_history
from skelnas.reporting.page import make_page
from skelnas.runtime.files import atomic_write
from skelnas.training.run_dir import MODEL

if TYPE_CHECKING:
    from skelnas.config import Device
    from skelnas.reporting.results import Results


def report(
    run: Path,
    out: Path | None = None,
    *,
    scores: Path | None = None,
    cache: Path | None = None,
    time_on: Device | None = None,
) -> Path:
    """Write a page about a search or a training: curves, alphas, cells, settings.

    Of a trained model also what it costs and, where its scores are given, which classes it knows
    and which it confuses.

    Args:
        run: a run folder or a model folder, finished or not.
        out: the ``.html`` file to write; None for ``report.html`` in the folder.
        scores: file of `skelnas evaluate --scores` of this model.
        cache: where the clips of the scores lie, to be drawn.
        time_on: the device to time a forward pass of the model on; None for no times.

    Returns:
        Where the page is.

    Raises:
        InputError: the folder holds no run, or its files are broken.
        UsageError: `out` is not an ``.html`` file, or the options do not fit the folder.
        DeviceError: the device is missing.
        SkelnasError: matplotlib is not installed, or `out` cannot be written.
    """
    out = out or run / "report.html"
    if out.suffix.lower() != ".html":
        raise UsageError(
            f"{out}: a report is an HTML page",
            hint="name a file that ends in .html; a browser prints it or saves it as PDF",
        )
    if cache is not None and scores is None:
        raise UsageError(
            "--cache goes with --scores: it is where their clips are drawn from",
            hint=f"`skelnas evaluate {cache} {run} --scores FILE` writes them",
        )
    history = read_history(run)
    results = _read_results(history, scores, cache, time_on)
    atomic_write(out, make_page(history, results))
    return out


def _read_results(
    history: History, scores: Path | None, cache: Path | None, time_on: Device | None
) -> Results | None:
    """Read what is known of a trained model; None of a search, or where a training has none yet."""
    if history.verb == "search":
        if scores or time_on:
            raise UsageError(
                f"{history.folder}: holds a search, and --scores and --latency are of a model",
                hint="give the folder that `skelnas train --out` wrote",
            )
        return None
    if not (scores or time_on or (history.folder / MODEL).exists()):
        return None
    from skelnas.reporting.results import read_results  # needs torch, and all else here does not

    model = history.config.get("model")
    classes = model.get("classes") if isinstance(model, dict) else None
    return read_results(history.folder, classes, scores, cache, time_on)
