"""`skelnas train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from skelnas.cli.options import (
    CacheArgument,
    DryRun,
    Force,
    Json,
    Resume,
    Track,
    has_ranks,
    with_settings,
)
from skelnas.cli.outcome import print_document, print_training
from skelnas.cli.tables import print_folds
from skelnas.config import BaselineName, TrainSettings
from skelnas.errors import InputError, UsageError
from skelnas.genotype import MAX_BYTES, Genotype, read_random
from skelnas.genotype import load as load_genotype
from skelnas.runtime import console


@with_settings(TrainSettings)
def train(
    cache: CacheArgument,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Model folder to create.", show_default=False)
    ],
    genotype: Annotated[
        str | None,
        typer.Option(
            help="JSON file, -, random:SEED or a built-in name.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        BaselineName | None, typer.Option(help="Or a baseline: hcn, st-gcn or temporal-conv.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate: train once for each fold.")
    ] = None,
    resume: Resume = False,
    force: Force = False,
    track: Track = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    *,
    settings: TrainSettings,
) -> None:
    """Train a genotype's network or a baseline; writes a model folder.

    Examples:
        skelnas train ntu60.h5 --genotype ntu_cs112se30 --out models/released
        skelnas train own.h5 --genotype cells.json --folds 5 --out models/folds
        skelnas train own.h5 --init models/released --freeze --out models/own
    """
    if folds is not None and has_ranks():
        raise UsageError(
            "--folds runs in one process, not on several ranks",
            hint="train each fold by its name, such as --protocol fold1",
        )
    architecture: Genotype | str | None = None
    if not settings.init or genotype is not None or model is not None:
        architecture = _read_architecture(genotype, model)
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    if architecture is None:
        from skelnas.training.fine_tune import architecture_of, load_initial

        architecture = architecture_of(load_initial(settings.init).card)
    if settings.has_budget and (drawn := read_random(genotype or "")) is not None:
        from skelnas.nas.target import draw_for_training

        architecture = draw_for_training(cache, settings, *drawn)
    from skelnas.reporting.model_card import write_card

    options: dict[str, Any] = {"resume": resume, "force": force, "track": track}
    if folds is not None:
        from skelnas.evaluation.cross_validation import cross_validate

        document = cross_validate(
            cache, architecture, out, settings, count=folds, after_train=write_card, **options
        )
        print_document(document, print_folds, as_json=as_json)
        return
    from skelnas.training.train import train as run

    trained = run(cache, architecture, out, settings, **options)
    if console.IS_MAIN_RANK:
        write_card(out, trained.model)
    print_training(trained, as_json=as_json)
    console.note(f"done: `{console.shell('evaluate', cache, out)}` scores the model")


def _read_architecture(genotype: str | None, model: BaselineName | None) -> Genotype | BaselineName:
    if genotype is None and model is not None:
        return model
    if genotype is None or model is not None:
        raise UsageError(
            "train needs one of --genotype and --model",
            hint="--genotype trains cells; --model hcn, st-gcn or temporal-conv a baseline; "
            "--init alone what a trained model has",
        )
    if genotype == "-" and has_ranks():
        raise UsageError(
            "several ranks cannot read the genotype from one standard input",
            hint="`skelnas derive RUN --out genotype.json` writes a file for --genotype",
        )
    return load_genotype(genotype, _read_stdin() if genotype == "-" else None)


def _read_stdin() -> str:
    """Read a genotype from standard input, which may be closed; no more than it can have."""
    try:
        return sys.stdin.read(MAX_BYTES + 1) if sys.stdin is not None else ""
    except UnicodeDecodeError:
        raise InputError("standard input: not a genotype: expected JSON text") from None
