"""`skelnas search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.config_file import make_settings, read_settings
from skelnas.cli.options import (
    CacheArgument,
    DryRun,
    Force,
    Resume,
    TensorBoard,
    has_ranks,
    with_settings,
)
from skelnas.cli.tables import print_repeats
from skelnas.config import (
    SHORT_EPOCHS,
    ClipSettings,
    SearchSettings,
    TrainSettings,
    WorkSettings,
)
from skelnas.errors import UsageError
from skelnas.runtime import console

SET_BY_SEARCH = frozenset(
    {"seed", "protocol", "hold_out", "resume", "force", "tensorboard", "dry_run"}
)
"""Options of `skelnas train` that the trainings of ``--repeats`` take from the search."""

SET_PER_TRAINING = frozenset({"genotype", "model", "out"})
"""Options of `skelnas train` that differ between the trainings of ``--repeats``."""


@with_settings(SearchSettings)
def search(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Run folder to create.", show_default=False)],
    resume: Resume = False,
    force: Force = False,
    tensorboard: TensorBoard = False,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Search with N seeds; compare with random cells."),
    ] = None,
    train_config: Annotated[
        Path | None,
        typer.Option(help="TOML file with training settings of --repeats."),
    ] = None,
    dry_run: DryRun = False,
    *,
    settings: SearchSettings,
) -> None:
    """Search for the two cells; writes a run folder.

    Example: skelnas search ntu60.h5 --protocol xsub --out runs/xsub
    """
    options = {"resume": resume, "force": force, "tensorboard": tensorboard}
    if repeats is not None:
        if has_ranks():
            raise UsageError(
                "--repeats runs in one process, not on several ranks",
                hint="run `skelnas search --hold-out` once per --seed instead",
            )
        training = _training_settings(settings, train_config)
        _repeat(cache, out, settings, training, repeats, dry_run=dry_run, **options)
        return
    if train_config is not None:
        raise UsageError("--train-config needs --repeats")
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.nas.search import search as run

    run(cache, out, settings, **options)
    console.note(f"done: `skelnas derive {out}` prints the genotype")


def _repeat(
    cache: Path,
    out: Path,
    settings: SearchSettings,
    training: TrainSettings,
    count: int,
    *,
    dry_run: bool,
    **options: bool,
) -> None:
    """Search with several seeds and print how the genotypes compare with random ones."""
    from skelnas.nas.repeats import match_settings, repeat

    settings, training = match_settings(settings, training)
    if dry_run:
        both = {"search": settings.model_dump(), "train": training.model_dump()}
        console.result(json.dumps(both, indent=2))
        return
    from skelnas.reporting.model_card import write_card

    comparison = repeat(
        cache,
        out,
        settings,
        training,
        count=count,
        after_train=write_card,
        **options,
    )
    print_repeats(comparison)
    console.note(f"done: `skelnas derive {out}` prints the best genotype")


def _training_settings(search: SearchSettings, path: Path | None) -> TrainSettings:
    """Return the settings of the trainings of ``--repeats``, from the search and a TOML file."""
    shared = {*ClipSettings.model_fields, *WorkSettings.model_fields}
    values = {**search.model_dump(include=shared), "epochs": SHORT_EPOCHS}
    if path is None:
        return make_settings(TrainSettings, values)
    excluded = SET_BY_SEARCH | SET_PER_TRAINING
    from_file = read_settings(path, "train", {*TrainSettings.model_fields, *excluded})
    for name in sorted(excluded & from_file.keys()):
        option = name.replace("_", "-")
        if name in SET_BY_SEARCH:
            raise UsageError(
                f"{path}: {option} is taken from the search",
                hint="leave it out here, and give it to `skelnas search`",
            )
        raise UsageError(f"{path}: {option} differs between trainings", hint="leave it out here")
    make_settings(TrainSettings, from_file, path)  # names the file where a value is invalid
    return make_settings(TrainSettings, values | from_file)
