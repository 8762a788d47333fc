"""`skelnas train`."""

from __future__ import annotations

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
from skelnas.config import BaselineName, TrainSettings
from skelnas.errors import InputError, UsageError
from skelnas.genotype import MAX_BYTES, Genotype, read_random
from skelnas.genotype import load as load_genotype
from skelnas.runtime import console


@with_settings(TrainSettings)
def train(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Model folder to create.", show_default=False)],
    genotype: Annotated[
        str | None,
        typer.Option(
            help="JSON file, -, random:SEED or a built-in name.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[BaselineName | None, typer.Option(help="Train this baseline instead.")] = None,
    resume: Resume = False,
    force: Force = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    *,
    settings: TrainSettings,
) -> None:
    """Train a genotype's network or a baseline; writes a model folder.

    Example: skelnas train ntu60.h5 --genotype ntu_cs112se30 --out models/released
    """
    architecture = _read_architecture(genotype, model)
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    if settings.has_budget and (drawn := read_random(genotype or "")) is not None:
        from skelnas.nas.target import draw_for_training

        architecture = draw_for_training(cache, settings, *drawn)
    from skelnas.reporting.model_card import write_card
    from skelnas.training.train import train as run

    trained = run(
        cache, architecture, out, settings, resume=resume, force=force, tensorboard=tensorboard
    )
    if console.IS_MAIN_RANK:
        write_card(out, trained.model)
    console.note(f"done: {trained.path}; `skelnas evaluate {cache} {out}` scores it")


def _read_architecture(genotype: str | None, model: BaselineName | None) -> Genotype | BaselineName:
    if genotype is None and model is not None:
        return model
    if genotype is None or model is not None:
        raise UsageError(
            "train takes either --genotype or --model",
            hint="--genotype trains cells; --model hcn, st-gcn or temporal-conv a baseline",
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
