"""`skelnas report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.options import Json
from skelnas.config import DEVICES, Device
from skelnas.runtime import console


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Run folder of a search, or model folder.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Output .html; RUN/report.html by default."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="File of `evaluate --scores`; adds confusions."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="With --scores: the cache, to draw clips."),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Time the model's forward pass on --device.")
    ] = False,
    device: Annotated[
        Device, typer.Option(metavar=DEVICES, help="Time on auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write a report on a search or training, finished or not.

    It shows curves, alphas, cells and settings; for a trained model also its cost and, with
    --scores, what it confuses.

    Examples:
        skelnas report runs/xsub
        skelnas report models/xsub --scores xsub.npz --cache ntu60.h5
        skelnas report models/xsub --latency --out xsub.html
    """
    from skelnas.reporting.report import report as run_report

    time_on = device if latency else None
    path = run_report(run, out, scores=scores, cache=cache, time_on=time_on)
    console.result(json.dumps({"report": str(path)}) if as_json else str(path))
