"""`skelnas search` and `skelnas derive`: how the cells are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from skelnas.cli.options import (
    CacheArgument,
    DryRun,
    Force,
    Resume,
    TensorBoard,
    check,
    has_ranks,
    read_settings,
    with_settings,
)
from skelnas.cli.tables import print_repeats
from skelnas.config import (
    SHORT_EPOCHS,
    ClipSettings,
    Device,
    SearchSettings,
    TrainSettings,
    WorkSettings,
)
from skelnas.errors import UsageError
from skelnas.runtime import console

OF_THE_SEARCHES = frozenset(
    {"seed", "protocol", "hold_out", "resume", "force", "tensorboard", "dry_run"}
)
"""What the trainings of ``--repeats`` take from the searches."""

OF_EACH_TRAINING = frozenset({"genotype", "model", "out"})
"""What ``--repeats`` has another of for each of its trainings."""


@with_settings(SearchSettings)
def search(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Run folder to make.", show_default=False)],
    resume: Resume = False,
    force: Force = False,
    tensorboard: TensorBoard = False,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Search with so many seeds; train what each finds, and as many random genotypes, "
            "for a short while; compare them on held-out subjects and pick one.",
        ),
    ] = None,
    train_config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with settings of these trainings, as for `skelnas train --config`; "
            "by default 30 epochs, and clips and device as in the search. Seed, protocol and "
            "hold-out are always those of the search."
        ),
    ] = None,
    dry_run: DryRun = False,
    *,
    settings: SearchSettings,
) -> None:
    """Search for the two cells; writes a run folder.

    Example: skelnas search ntu60.h5 --protocol xsub --out runs/xsub
    """
    if repeats is not None:
        if has_ranks():
            raise UsageError(
                "--repeats is the work of one process, not of several ranks",
                hint="search with --hold-out and one --seed after the other",
            )
        from skelnas.nas.repeats import match_settings, repeat

        settings, training = match_settings(settings, _training(settings, train_config))
        if dry_run:
            both = {"search": settings.model_dump(), "train": training.model_dump()}
            console.result(json.dumps(both, indent=2))
            return
        from skelnas.reporting.model_card import write_card
        from skelnas.training.saved_model import load_model

        results = repeat(
            cache,
            out,
            settings,
            training,
            count=repeats,
            resume=resume,
            force=force,
            tensorboard=tensorboard,
            after_train=lambda folder: write_card(folder, load_model(folder)),
        )
        print_repeats(results)
        console.note(f"done: `skelnas derive {out}` prints the picked genotype")
        return
    if train_config is not None:
        raise UsageError("--train-config goes with --repeats only")
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.nas.search import search as search_verb

    search_verb(cache, out, settings, resume=resume, force=force, tensorboard=tensorboard)
    console.note(f"done: `skelnas derive {out}` prints the genotype")


def derive(
    run: Annotated[Path, typer.Argument(help="Run folder of a search.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Write the genotype to this file.")] = None,
    epoch: Annotated[
        int | None, typer.Option(min=0, help="Use the alphas after this epoch; 0 is the start.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Edges that a node keeps (paper: 2).")] = 2,
    max_skip: Annotated[
        int | None,
        typer.Option(min=0, help="The most skip_connect in the normal cell (P-DARTS: 2)."),
    ] = None,
    select: Annotated[
        Literal["alphas", "perturbation"],
        typer.Option(
            help="Choose by the alphas (paper), or by how much the supernet's loss rises "
            "without each operation and edge (after DARTS-PT); see docs/method.md.",
        ),
    ] = "alphas",
    cache: Annotated[
        Path | None,
        typer.Option(help="For perturbation: the search's cache, if it has moved."),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="For perturbation: measure on so many clips, not on all."),
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="For perturbation: another device than the search's.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw both cells, as .svg or .png (extra: plot).")
    ] = None,
) -> None:
    """Print the genotype of a run as JSON.

    Example: skelnas derive runs/xsub | skelnas train ntu60.h5 --genotype - --out models/xsub
    """
    from skelnas.nas.derive import Perturbation
    from skelnas.nas.derive import derive as derive_verb
    from skelnas.runtime.files import atomic_write

    if out is not None and plot is not None and out.resolve() == plot.resolve():
        raise UsageError(
            f"{out}: cannot be both the genotype and its picture",
            hint="name two files, such as --out cells.json --plot cells.svg",
        )
    perturbation = Perturbation(cache, clips or 0, device) if select == "perturbation" else None
    if perturbation is None and (cache or clips or device):
        raise UsageError("--cache, --clips and --device go with --select perturbation only")
    genotype = derive_verb(
        run, epoch=epoch, keep=keep, max_skip=max_skip, perturbation=perturbation
    )
    if plot is not None:
        from skelnas.reporting.plot_cells import draw_cells

        draw_cells(genotype, plot)
    if out is None:
        console.result(genotype.to_json())
    else:
        atomic_write(out, genotype.to_json())


def _training(settings: SearchSettings, path: Path | None) -> TrainSettings:
    """Make the settings of the trainings of `--repeats`."""
    shared = {*ClipSettings.model_fields, *WorkSettings.model_fields}
    values = {**settings.model_dump(include=shared), "epochs": SHORT_EPOCHS}
    if path is not None:
        others = OF_THE_SEARCHES | OF_EACH_TRAINING
        given = read_settings(path, "train", {*TrainSettings.model_fields, *others})
        for name in sorted(others & given.keys()):
            owner = "the searches" if name in OF_THE_SEARCHES else "each training"
            hint = ", and give it to `skelnas search`" if name in OF_THE_SEARCHES else ""
            raise UsageError(
                f"{path}: {name.replace('_', '-')} is that of {owner}",
                hint=f"leave it out here{hint}",
            )
        check(TrainSettings, given, path)
        values |= given
    return check(TrainSettings, values)
