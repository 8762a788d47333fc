"""What `search`, `train` and `resume` print at the end: where the result is, and how good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.cli.tables import print_genotypes
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.training.genotype_table import GenotypeTable
    from skelnas.training.train import TrainedModel

SCORES = ("train_", "validation_", "held_out_")
"""How the metrics that are printed for people begin; the others say how the run went."""


def print_search(run: Path, *, as_json: bool) -> None:
    """Print the folder of a search and the metrics of its last epoch."""
    _print_run({"run": str(run)}, run, None, as_json=as_json)


def print_training(trained: TrainedModel, *, as_json: bool) -> None:
    """Print the file of a model and the metrics of the epoch that it is from."""
    where, epoch = trained.path, trained.model.card.epoch
    _print_run({"model": str(where)}, where.parent, epoch, as_json=as_json)


def print_table(table: GenotypeTable, *, as_json: bool) -> None:
    """Print the genotypes that a search by trainings trained, and the one that it chose."""
    if as_json:
        console.result_json(asdict(table))
    else:
        print_genotypes(table)


def print_document(
    document: dict[str, Any], print_for_people: Callable[[dict[str, Any]], None], *, as_json: bool
) -> None:
    """Print the content of a ``repeats.json`` or ``folds.json``."""
    if as_json:
        console.result_json(document)
    else:
        print_for_people(document)


def _print_run(paths: Mapping[str, str], folder: Path, epoch: int | None, *, as_json: bool) -> None:
    from skelnas.training.progress import format_metric
    from skelnas.training.run_dir import METRICS, read_lines

    if not console.IS_MAIN_RANK:  # which may still be writing
        return
    lines = read_lines(folder / METRICS)
    metrics = next((line for line in lines if line["epoch"] == epoch), lines[-1])
    if as_json:
        console.result_json({**paths, "metrics": metrics})
        return
    scores = [
        f"{name.replace('_', ' ').replace('top1', 'top-1')} {format_metric(name, value)}"
        for name, value in metrics.items()
        if name.startswith(SCORES)
    ]
    console.result(f"{', '.join(paths.values())}: epoch {metrics['epoch']}, {', '.join(scores)}")
