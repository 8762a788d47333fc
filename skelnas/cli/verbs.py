"""`train`, the report and the demo. Each is imported when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.options import (
    CacheArgument,
    DryRun,
    Force,
    Resume,
    TensorBoard,
    has_ranks,
    with_settings,
)
from skelnas.config import BaselineName, Device, TrainSettings
from skelnas.errors import UsageError
from skelnas.runtime import console


@with_settings(TrainSettings)
def train(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    genotype: Annotated[
        str | None,
        typer.Option(
            help="Genotype: a JSON file, - for standard input, a built-in name (ntu_cs112se30, "
            "ntu_cv112se30) or random:SEED.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        BaselineName | None,
        typer.Option(help="A network of other authors, trained in place of --genotype."),
    ] = None,
    resume: Resume = False,
    force: Force = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    *,
    settings: TrainSettings,
) -> None:
    """Train the network of a genotype, or a baseline, from scratch; writes a model folder.

    Example: skelnas train ntu60.h5 --genotype ntu_cs112se30 --out models/released
    """
    from skelnas.genotype import Genotype, load

    if (genotype is None) == (model is None):
        raise UsageError(
            "train takes one of --genotype and --model",
            hint="--genotype trains cells; --model hcn, st-gcn or temporal-conv a baseline",
        )
    if genotype == "-" and has_ranks():
        raise UsageError(
            "several ranks cannot read the genotype from one standard input",
            hint="`skelnas derive RUN --out genotype.json` writes a file for --genotype",
        )
    architecture: Genotype | str = model or ""
    if genotype is not None:
        architecture = load(genotype, sys.stdin.read() if genotype == "-" else None)
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.reporting.model_card import write_card
    from skelnas.training.saved_model import load_model
    from skelnas.training.train import train as train_verb

    path = train_verb(
        cache, architecture, out, settings, resume=resume, force=force, tensorboard=tensorboard
    )
    if int(os.environ.get("RANK", "0")) == 0:
        write_card(out, load_model(out))
    console.note(f"done: {path}; `skelnas evaluate {cache} {out}` scores it")


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Run folder of a search, or model folder.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write it to this .html file (extra: plot); RUN/report.html if not given."
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Of a model: file of `skelnas evaluate --scores`; adds each class, the confusion "
            "matrix and the hardest confusions."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="With --scores: the cache of these clips, to draw those it confuses."),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Of a model: time its forward pass on this device.")
    ] = False,
    device: Annotated[Device, typer.Option(help="The device of --latency.")] = "auto",
) -> None:
    """Write a page about a search or a training, finished or not: curves, alphas, cells, settings.

    Of a trained model also what it costs and, with --scores, what it takes for what.

    Example: skelnas report models/xsub --scores xsub.npz --cache ntu60.h5
    """
    from skelnas.reporting.report import report as report_verb

    time_on = device if latency else None
    path = report_verb(run, out, scores=scores, cache=cache, time_on=time_on)
    console.note(f"done: {path}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to keep everything in.")] = Path("skelnas-demo"),
    clips: Annotated[
        int, typer.Option(min=64, help="Recordings to make; multiples of 16 are balanced.")
    ] = 576,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
) -> None:
    """Run the whole line on synthetic motions, in a few minutes.

    Example: skelnas demo
    """
    from skelnas.cli.demo import demo as demo_verb

    demo_verb(out, num_clips=clips, seed=seed)
