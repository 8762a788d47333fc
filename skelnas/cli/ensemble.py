"""`skelnas ensemble`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.options import Json
from skelnas.cli.score_files import ConfusionOut, ScoresOut, check_outputs, write_outputs
from skelnas.cli.tables import print_scores
from skelnas.errors import UsageError
from skelnas.runtime import console


def ensemble(
    members: Annotated[
        list[Path],
        typer.Argument(help="Files of `skelnas evaluate --scores`.", show_default=False),
    ],
    weights: Annotated[
        str,
        typer.Option(help="One weight per file, such as 1,0.6.", show_default=False),
    ] = "",
    as_json: Json = False,
    confusion: ConfusionOut = None,
    scores: ScoresOut = None,
) -> None:
    """Combine the scores of several models and evaluate the result.

    Takes the weighted mean of the models' softmax probabilities, matching clips by name.

    Examples:
        skelnas ensemble joint.npz bone.npz
        skelnas ensemble joint.npz bone.npz --weights 1,0.6 --scores both.npz
        skelnas ensemble joint.npz bone.npz motion.npz --json | jq .top1
    """
    from skelnas.evaluation.ensemble import ensemble as run

    numbers = _parse_weights(weights)
    check_outputs(scores, confusion)
    result = run(members, numbers)
    about = {"members": [str(path) for path in members], "weights": numbers or [1.0] * len(members)}
    try:
        write_outputs(result, scores, confusion)
    finally:  # a full disk does not lose what was computed
        if as_json:
            console.result(json.dumps({**result.to_dict(), **about}))
        else:
            print_scores(result)


def _parse_weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(
            f"--weights {text}: expected comma-separated numbers, such as 1,0.6"
        ) from None
