"""`skelnas report`: run folder → a page about it."""

from __future__ import annotations

from pathlib import Path

from skelnas.errors import UsageError
from skelnas.report.history import read_history
from skelnas.runs import atomic_write


def report(run: Path, out: Path | None = None) -> Path:
    """Write a page about a search or a training: curves, alphas, cells, settings.

    Args:
        run: a run folder or a model folder, finished or not.
        out: where to; the suffix says the format, ``.html``, ``.pdf`` or ``.png``. None for
            ``report.html`` in the folder.

    Returns:
        Where the page is.

    Raises:
        InputError: the folder holds no run, or its files are broken.
        UsageError: the suffix is another one.
        SkelnasError: matplotlib is not installed, or `out` cannot be written.
    """
    out = out or run / "report.html"
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in ("html", "pdf", "png"):
        raise UsageError(
            f"{out}: cannot write a report of this type",
            hint="name a file that ends in .html, .pdf or .png",
        )
    history = read_history(run)
    if suffix == "html":
        from skelnas.report.page import make_page

        atomic_write(out, make_page(history))
    else:
        from skelnas.report.sheet import make_sheet

        atomic_write(out, make_sheet(history, suffix))
    return out
