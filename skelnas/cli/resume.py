"""`skelnas resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.options import Json
from skelnas.cli.outcome import print_document, print_search, print_table, print_training
from skelnas.cli.tables import print_folds
from skelnas.errors import Interrupted
from skelnas.runtime import console


def resume(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder that a search or training was started in.", show_default=False),
    ],
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Go on to this epoch, at a constant rate."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Resume a search or training with its original options.

    The result is the same as with the original command and --resume. A longer run is possible
    where the steps so far do not depend on its length.

    Examples:
        skelnas resume models/xsub
        skelnas resume models/folds
        skelnas resume runs/xsub --json
    """
    from skelnas.nas.resume import resume as run
    from skelnas.reporting.model_card import write_card
    from skelnas.training.genotype_table import GenotypeTable
    from skelnas.training.run_dir import read_config
    from skelnas.training.saved_model import Model
    from skelnas.training.train import TrainedModel

    def write(path: Path, model: Model) -> None:
        if console.IS_MAIN_RANK:
            write_card(path, model)

    try:
        found = run(folder, epochs=epochs, after_train=write)
    except Interrupted as error:
        raise Interrupted(str(error), hint="the same command continues from here") from None
    if isinstance(found, TrainedModel):
        print_training(found, as_json=as_json)
        cache = read_config(folder)["cache"]
        console.note(f"done: `{console.shell('evaluate', cache, folder)}` scores the model")
        return
    if isinstance(found, dict):
        print_document(found, print_folds, as_json=as_json)
        return
    if isinstance(found, GenotypeTable):
        print_table(found, as_json=as_json)
    else:
        print_search(folder, as_json=as_json)
    console.note(f"done: `{console.shell('derive', folder)}` prints the genotype")
