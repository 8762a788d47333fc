"""`evaluate` and `ensemble`: what scores say, as a table, JSON or files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skelnas.cli.options import CacheArgument, Json, ModelArgument, with_settings
from skelnas.cli.tables import print_evaluation, print_scores
from skelnas.config import EvaluateSettings
from skelnas.errors import UsageError
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.evaluation.scores import Scores

ScoresOut = Annotated[
    Path | None,
    typer.Option(
        "--scores",
        help="Write the scores of every clip, with names and labels, to this .npz or "
        ".safetensors file.",
    ),
]
Confusion = Annotated[
    Path | None,
    typer.Option(
        help="Write the confusion matrix to this .csv file, or draw it as .png, .svg or .pdf "
        "(extra: plot)."
    ),
]


@with_settings(EvaluateSettings)
def evaluate(
    cache: CacheArgument,
    model: ModelArgument,
    as_json: Json = False,
    confusion: Confusion = None,
    scores: ScoresOut = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Another model, or scores of it: also show for each class how much better or "
            "worse it is."
        ),
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Add the results to the README.md of the model folder."),
    ] = False,
    *,
    settings: EvaluateSettings,
) -> None:
    """Score a model on the test part of its protocol, or on what was held out.

    Example: skelnas evaluate ntu60.h5 models/xsub --json
    """
    from skelnas.evaluation.evaluate import evaluate as evaluate_verb
    from skelnas.reporting.model_card import add_results, check_card

    _check_outputs(scores, confusion)
    if card:
        check_card(model)
    result = evaluate_verb(cache, model, settings, compare)
    _write(result.scores, scores, confusion)
    if card and console.SPEAKS:
        add_results(model, result.scores)
    if as_json:
        console.result(json.dumps(result.to_dict()))
    else:
        print_evaluation(result)


def ensemble(
    members: Annotated[
        list[Path],
        typer.Argument(help="Files of `skelnas evaluate --scores`.", show_default=False),
    ],
    weights: Annotated[
        str,
        typer.Option(
            help="A number for each file, with commas between; all alike if not given.",
            show_default=False,
        ),
    ] = "",
    as_json: Json = False,
    confusion: Confusion = None,
    scores: ScoresOut = None,
) -> None:
    """Combine the scores of several models, clip by clip by name, and score the result.

    Takes the weighted mean of what the models' softmax gives to each class.

    Example: skelnas ensemble joint.npz bone.npz --weights 1,0.6
    """
    from skelnas.evaluation.ensemble import ensemble as ensemble_verb

    try:
        numbers = [float(part) for part in weights.split(",")] if weights else []
    except ValueError:
        raise UsageError(
            f"--weights {weights}: expected numbers with commas between, such as 1,0.6"
        ) from None
    _check_outputs(scores, confusion)
    result = ensemble_verb(members, numbers)
    _write(result, scores, confusion)
    if as_json:
        parts = numbers or [1.0] * len(members)
        made_of = {"members": [str(path) for path in members], "weights": parts}
        console.result(json.dumps({**result.to_dict(), **made_of}))
    else:
        print_scores(result)


def _check_outputs(scores: Path | None, confusion: Path | None) -> None:
    """Refuse a file that could not be written before the work, not after it."""
    from skelnas.evaluation.scores import check_suffix
    from skelnas.reporting.plot_confusion import SUFFIXES
    from skelnas.reporting.plot_style import drawing

    if scores is not None:
        check_suffix(scores)
    suffix = confusion.suffix.lower() if confusion is not None else ""
    if suffix in SUFFIXES:
        with drawing("a confusion matrix"):  # raises where there is no matplotlib
            pass
    elif suffix not in ("", ".csv"):
        raise UsageError(
            f"{confusion}: a confusion matrix cannot be kept in a file of this type",
            hint=f"name a file that ends in .csv, {', '.join(SUFFIXES)}",
        )


def _write(result: Scores, scores: Path | None, confusion: Path | None) -> None:
    from skelnas.evaluation.scores import write
    from skelnas.reporting.plot_confusion import SUFFIXES, draw_confusion
    from skelnas.runtime.files import atomic_write

    if scores is not None and console.SPEAKS:
        write(scores, result)
    if confusion is None or not console.SPEAKS:
        return
    if confusion.suffix.lower() in SUFFIXES:
        draw_confusion(result.about.classes, result.metrics.confusion, confusion)
    else:
        atomic_write(confusion, result.confusion_csv())
