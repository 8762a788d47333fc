"""`skelnas evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.options import CacheArgument, Json, ModelOrExport, with_settings
from skelnas.cli.score_files import ConfusionOut, ScoresOut, check_outputs, write_outputs
from skelnas.cli.tables import print_evaluation
from skelnas.config import EvaluateSettings
from skelnas.errors import UsageError
from skelnas.runtime import console


@with_settings(EvaluateSettings)
def evaluate(
    cache: CacheArgument,
    model: ModelOrExport,
    as_json: Json = False,
    confusion: ConfusionOut = None,
    scores: ScoresOut = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Compare with another model or its scores file."),
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Add the results to the model's README.md."),
    ] = False,
    *,
    settings: EvaluateSettings,
) -> None:
    """Score a model on test or held-out clips.

    Examples:
        skelnas evaluate ntu60.h5 models/xsub
        skelnas evaluate ntu60.h5 models/xsub --json | jq .top1
        skelnas evaluate ntu60.h5 models/xsub --scores xsub.npz --confusion xsub.png
    """
    from skelnas.evaluation.evaluate import evaluate as run
    from skelnas.reporting.model_card import add_results, check_card

    check_outputs(scores, confusion)
    if card and settings.allow_mismatch:
        raise UsageError(
            "--card is for clips that fit the model, and --allow-mismatch for those that do not",
            hint="leave out one of them",
        )
    if card:
        check_card(model)
    result = run(cache, model, settings, compare)
    try:
        write_outputs(result.scores, scores, confusion)
        if card and console.IS_MAIN_RANK:
            add_results(model, result.scores, result.source)
    finally:  # a full disk does not lose what was computed
        if as_json:
            console.result(json.dumps(result.to_dict()))
        else:
            print_evaluation(result)
