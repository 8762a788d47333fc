"""The files that `skelnas evaluate` and `skelnas ensemble` write: scores, confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skelnas.errors import UsageError
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.evaluation.scores import Scores

ScoresOut = Annotated[
    Path | None,
    typer.Option("--scores", help="Write all scores as .npz or .safetensors."),
]
ConfusionOut = Annotated[
    Path | None,
    typer.Option(
        "--confusion",
        help="Write the confusion matrix as .csv or a picture.",
    ),
]


def check_outputs(scores: Path | None, confusion: Path | None) -> None:
    """Check, before any work is done, that both files can be written.

    Raises:
        UsageError: a file has an unsupported suffix, or cannot be written.
        SkelnasError: a picture is requested and matplotlib is missing.
    """
    from skelnas.evaluation.scores import check_scores_path
    from skelnas.reporting.plot_confusion import SUFFIXES
    from skelnas.reporting.plot_style import drawing
    from skelnas.runtime.files import check_output

    if scores is not None:
        check_scores_path(scores)
    suffix = confusion.suffix.lower() if confusion is not None else ""
    if suffix in SUFFIXES:
        with drawing("a confusion matrix"):  # raises without matplotlib
            pass
    elif suffix not in ("", ".csv"):
        raise UsageError(
            f"{confusion}: cannot write a confusion matrix to a file of this type",
            hint=f"name a file that ends in .csv, {', '.join(SUFFIXES)}",
        )
    for path in (scores, confusion):
        if path is not None:
            check_output(path)


def write_outputs(result: Scores, scores: Path | None, confusion: Path | None) -> None:
    """Write the requested files, from the main rank only; one even if the other fails."""
    from skelnas.evaluation.scores import write_scores

    if not console.IS_MAIN_RANK:
        return
    try:
        if scores is not None:
            write_scores(scores, result)
    finally:
        if confusion is not None:
            _write_confusion(result, confusion)


def _write_confusion(result: Scores, path: Path) -> None:
    from skelnas.reporting.plot_confusion import SUFFIXES, draw_confusion
    from skelnas.runtime.files import atomic_write

    if path.suffix.lower() in SUFFIXES:
        draw_confusion(result.info.classes, result.metrics.confusion, path)
    else:
        atomic_write(path, result.confusion_csv())
