"""`skelnas predict`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skelnas.cli.options import ModelOrExport, with_settings
from skelnas.config import PredictSettings
from skelnas.errors import InputError, UsageError
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.evaluation.predict import Prediction, Window
    from skelnas.training.saved_model import Model


@with_settings(PredictSettings)
def predict(
    model: ModelOrExport,
    recordings: Annotated[
        list[Path],
        typer.Argument(
            help="Files, or folders of frames; - is stdin.",
            show_default=False,
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per prediction.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw one recording: .svg, .png, .pdf or .gif."),
    ] = None,
    *,
    settings: PredictSettings,
) -> None:
    """Recognise actions in recordings or in a stream of frames.

    Clips are prepared like those the model was trained on. A recording that cannot be read is
    reported and skipped, and the exit code is then 3.

    Examples:
        skelnas predict models/xsub clips/*.skeleton --top 3
        skelnas predict models/xsub session.npy --plot session.svg
        tail -f frames.jsonl | skelnas predict models/xsub - --window 60
    """
    from skelnas.evaluation.predict import predict as predict_recordings
    from skelnas.evaluation.predict import predict_stream
    from skelnas.training.saved_model import load_model

    is_stream = recordings == [Path("-")]
    if Path("-") in recordings and not is_stream:
        raise UsageError(
            "- cannot be combined with files", hint="give files, or - alone for frames on a pipe"
        )
    if plot is not None:
        _check_plot(plot, recordings)
    loaded = load_model(model)
    if is_stream:
        for window in predict_stream(loaded, _read_stdin(), settings):
            if as_json:
                console.result(json.dumps(window.to_dict(settings.top)))
            else:
                console.result(_window_to_text(window, settings.top))
        return

    broken: list[str] = []

    def skip(name: str, error: InputError) -> None:
        broken.append(name)
        console.failure(str(error), error.hint)
        if as_json:
            console.result(json.dumps({"recording": name, "error": str(error)}))

    for prediction in predict_recordings(loaded, recordings, settings, skip):
        if as_json:
            console.result(json.dumps(prediction.to_dict(settings.top)))
        else:
            console.result(_prediction_to_text(prediction, settings.top))
    if broken:
        raise typer.Exit(InputError.exit_code)
    if plot is not None:
        _draw(loaded, recordings[0], settings, plot)


def _check_plot(plot: Path, recordings: list[Path]) -> None:
    """Check, before any work, that the recordings are one that can be drawn into a file."""
    from skelnas.reporting.plot_style import ANIMATION, PICTURES, check_picture

    if len(recordings) != 1 or recordings == [Path("-")]:
        found = "a stream" if recordings == [Path("-")] else f"{len(recordings)} recordings"
        raise UsageError(
            f"--plot draws one recording, not {found}",
            hint="give the file of one recording",
        )
    check_picture(plot, "a recording", (*PICTURES, ANIMATION))


def _draw(model: Model, recording: Path, settings: PredictSettings, plot: Path) -> None:
    from skelnas.evaluation.timeline import predict_over_time
    from skelnas.reporting.plot_timeline import draw_timeline

    timeline = predict_over_time(model, recording, settings)
    draw_timeline(timeline, plot)
    console.note(f"{plot}: {timeline.num_frames} frames, windows: {len(timeline.spans)}")


def _read_stdin() -> Iterator[str]:
    if sys.stdin is None:
        raise InputError("standard input is closed: expected frames as lines of JSON")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")  # whatever the locale
    try:
        yield from sys.stdin
    except UnicodeDecodeError:
        raise InputError("standard input: expected frames as lines of JSON in UTF-8") from None


def _window_to_text(window: Window, top: int) -> str:
    classes = window.prediction.top(top) if window.prediction else []
    text = ", ".join(f"{probability:.1%} {name}" for name, probability in classes)
    return f"frames {window.first_frame} to {window.last_frame}: {text or 'nobody is seen'}"


def _prediction_to_text(prediction: Prediction, top: int) -> str:
    persons = "1 person" if prediction.num_persons == 1 else f"{prediction.num_persons} persons"
    frames = "1 frame" if prediction.num_frames == 1 else f"{prediction.num_frames} frames"
    classes = (f"{probability:8.1%}  {name}" for name, probability in prediction.top(top))
    return "\n".join([f"{prediction.name}: {frames}, {persons}", *classes])
