"""`skelnas search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skelnas.cli.config_file import make_settings, read_settings
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
from skelnas.cli.outcome import print_document, print_search, print_table
from skelnas.cli.tables import print_repeats
from skelnas.config import (
    SHORT_EPOCHS,
    BudgetSettings,
    SearchSettings,
    TrainSettings,
)
from skelnas.errors import UsageError
from skelnas.runtime import console

SET_BY_SEARCH = frozenset(
    {"seed", "protocol", "hold_out", "resume", "force", "track", "dry_run"}
    | {*BudgetSettings.model_fields}
)
"""Options of `skelnas train` that the trainings of a search take from it."""

SET_PER_TRAINING = frozenset({"genotype", "model", "out"})
"""Options of `skelnas train` that differ between the trainings of a search."""


@with_settings(SearchSettings)
def search(
    cache: CacheArgument,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Run folder to create.", show_default=False)
    ],
    resume: Resume = False,
    force: Force = False,
    track: Track = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Search with N seeds; compare with random cells."),
    ] = None,
    train_config: Annotated[
        Path | None,
        typer.Option(help="Settings of the trainings, as --config."),
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    *,
    settings: SearchSettings,
) -> None:
    """Search for the two cells; writes a run folder.

    Examples:
        skelnas search ntu60.h5 --protocol xsub --out runs/xsub
        skelnas search ntu60.h5 --max-params 800k --frames 64 --out runs/small
        skelnas search own.h5 --method predict --jobs 2 --out runs/own
    """
    if settings.method == "predict":
        if repeats is not None or track:
            raise UsageError(
                f"{'--track' if track else '--repeats'} is for --method gradient",
                hint="leave it out",
            )
        training = training_settings(settings, train_config)
        _predict(
            cache,
            out,
            settings,
            training,
            resume=resume,
            force=force,
            dry_run=dry_run,
            as_json=as_json,
        )
        return
    options: dict[str, Any] = {"resume": resume, "force": force, "track": track}
    if repeats is not None:
        if has_ranks():
            raise UsageError(
                "--repeats runs in one process, not on several ranks",
                hint="run `skelnas search --hold-out` once per --seed instead",
            )
        training = training_settings(settings, train_config)
        _repeat(
            cache, out, settings, training, repeats, dry_run=dry_run, as_json=as_json, **options
        )
        return
    if train_config is not None and not settings.has_budget:
        raise UsageError(
            "--train-config needs --repeats, --method predict, --max-params or --max-macs"
        )
    training = training_settings(settings, train_config)
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.nas.search import search as run

    run(cache, out, settings, training=training, **options)
    print_search(out, as_json=as_json)
    console.note(f"done: `{console.shell('derive', out)}` prints the genotype")


def _predict(
    cache: Path,
    out: Path,
    settings: SearchSettings,
    training: TrainSettings,
    *,
    resume: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Search by short trainings and print the front."""
    if has_ranks():
        raise UsageError(
            "--method predict is not divided among ranks",
            hint="without torchrun, --jobs N trains N genotypes at a time, on all GPUs",
        )
    if dry_run:
        own = training.model_dump(exclude=set(SET_BY_SEARCH))
        both = {"search": settings.of_predict(), "train": own}
        console.result_json(both)
        return
    from skelnas.nas.predictor_search import predictor_search

    table = predictor_search(cache, out, settings, training, resume=resume, force=force)
    print_table(table, as_json=as_json)
    console.note(f"done: `{console.shell('derive', out)}` prints the genotype")


def _repeat(
    cache: Path,
    out: Path,
    settings: SearchSettings,
    training: TrainSettings,
    count: int,
    *,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Search with several seeds and print how the genotypes compare with random ones."""
    from skelnas.nas.repeats import match_settings, repeat

    settings, training = match_settings(settings, training)
    if dry_run:
        both = {"search": settings.model_dump(), "train": training.model_dump()}
        console.result_json(both)
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
    print_document(comparison, print_repeats, as_json=as_json)
    console.note(f"done: `{console.shell('derive', out)}` prints the best genotype")


def training_settings(search: SearchSettings, path: Path | None) -> TrainSettings:
    """Return the settings of the trainings that belong to a search: its own, and a file's."""
    values = {"epochs": SHORT_EPOCHS, **search.of_trainings()}
    if path is None:
        return make_settings(TrainSettings, values)
    of_search = {*SET_BY_SEARCH, *(search.of_trainings() if search.method == "predict" else ())}
    excluded = of_search | SET_PER_TRAINING
    from_file = read_settings(path, "train", {*TrainSettings.model_fields, *excluded})
    for name in sorted(of_search & SearchSettings.model_fields.keys() & from_file.keys()):
        if from_file[name] == getattr(search, name):  # as in a file that we wrote
            del from_file[name]
    for name in sorted(excluded & from_file.keys()):
        option = name.replace("_", "-")
        if name in of_search:
            raise UsageError(
                f"{path}: {option} is taken from the search",
                hint="leave it out here, and give it to `skelnas search`",
            )
        raise UsageError(f"{path}: {option} differs between trainings", hint="leave it out here")
    sources = dict.fromkeys(from_file, path)
    make_settings(TrainSettings, from_file, sources)  # names the file where a value is invalid
    return make_settings(TrainSettings, values | from_file)
