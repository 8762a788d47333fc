"""`predict`: what a model takes recordings for, as text or as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skelnas.cli.options import ModelArgument, with_settings
from skelnas.config import PredictSettings
from skelnas.errors import InputError, UsageError
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.evaluation.predict import Prediction, Window


@with_settings(PredictSettings)
def predict(
    model: ModelArgument,
    recordings: Annotated[
        list[Path],
        typer.Argument(
            help="Recordings: .skeleton of NTU RGB+D, .json of Kinetics-Skeleton or NW-UCLA, or "
            "joints as .npy, .npz, .csv or .json; - for frames on standard input.",
            show_default=False,
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each prediction.")
    ] = False,
    *,
    settings: PredictSettings,
) -> None:
    """Name the actions in recordings, or in frames as they come.

    A recording is read, cut and centred as the clips were that the model has learned from. One
    that cannot be read is named and left out, and the command ends with 3.

    Example: skelnas predict models/xsub clips/*.skeleton --top 3
    """
    from skelnas.evaluation.predict import predict as predict_verb
    from skelnas.evaluation.predict import predict_stream
    from skelnas.training.saved_model import load_model

    streaming = recordings == [Path("-")]
    if Path("-") in recordings and not streaming:
        raise UsageError(
            "- cannot stand beside files", hint="give files, or - alone for frames on a pipe"
        )
    loaded = load_model(model)
    if streaming:
        for window in predict_stream(loaded, _lines(), settings):
            text = _of_window(window, settings.top)
            document = _describe_window(window, settings.top)
            console.result(json.dumps(document) if as_json else text)
        return

    broken: list[Path] = []

    def leave_out(path: Path, error: InputError) -> None:
        broken.append(path)
        console.note(f"skelnas: {error}", style="red")
        if error.hint:
            console.note(f"  hint: {error.hint}")
        if as_json:
            console.result(json.dumps({"recording": str(path), "error": str(error)}))

    for prediction in predict_verb(loaded, recordings, settings, leave_out):
        document = {"recording": prediction.name, **_describe(prediction, settings.top)}
        text = _of_recording(prediction, settings.top)
        console.result(json.dumps(document) if as_json else text)
    if broken:
        raise typer.Exit(InputError.exit_code)


def _lines() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError:
        raise InputError("standard input: expected frames as lines of JSON in UTF-8") from None


def _describe(prediction: Prediction, top: int) -> dict[str, Any]:
    named = prediction.top(top)
    return {
        "frames": prediction.num_frames,
        "persons": prediction.num_persons,
        "classes": [{"class": name, "probability": share} for name, share in named],
    }


def _describe_window(window: Window, top: int) -> dict[str, Any]:
    nobody = {"frames": window.last_frame - window.first_frame + 1, "persons": 0, "classes": []}
    return {
        "first_frame": window.first_frame,
        "last_frame": window.last_frame,
        **(_describe(window.prediction, top) if window.prediction else nobody),
        "latency_ms": round(window.latency_ms, 3),
    }


def _of_recording(prediction: Prediction, top: int) -> str:
    persons = "1 person" if prediction.num_persons == 1 else f"{prediction.num_persons} persons"
    frames = "1 frame" if prediction.num_frames == 1 else f"{prediction.num_frames} frames"
    shares = (f"{share:8.1%}  {name}" for name, share in prediction.top(top))
    return "\n".join([f"{prediction.name}: {frames}, {persons}", *shares])


def _of_window(window: Window, top: int) -> str:
    named = window.prediction.top(top) if window.prediction else []
    shares = ", ".join(f"{share:.1%} {name}" for name, share in named) or "nobody is seen"
    return f"frames {window.first_frame} to {window.last_frame}: {shares}"
