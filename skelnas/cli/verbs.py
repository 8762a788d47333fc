"""The verbs after `prepare`, and the demo. Each is imported when it is called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from skelnas import console
from skelnas.cli.options import (
    CacheArgument,
    DryRun,
    Force,
    Json,
    Resume,
    TensorBoard,
    with_settings,
)
from skelnas.config import Device, EvaluateSettings, SearchSettings, TrainSettings
from skelnas.errors import UsageError

if TYPE_CHECKING:
    from skelnas.evaluate import Evaluation


@with_settings(SearchSettings)
def search(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Run folder to make.", show_default=False)],
    resume: Resume = False,
    force: Force = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    *,
    settings: SearchSettings,
) -> None:
    """Search for the two cells; writes a run folder.

    Example: skelnas search ntu60.h5 --protocol xsub --out runs/xsub
    """
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.search import search as search_verb

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
    from skelnas.derive import Perturbation
    from skelnas.derive import derive as derive_verb
    from skelnas.runs import atomic_write

    perturbation = Perturbation(cache, clips or 0, device) if select == "perturbation" else None
    if perturbation is None and (cache or clips or device):
        raise UsageError("--cache, --clips and --device go with --select perturbation only")
    genotype = derive_verb(
        run, epoch=epoch, keep=keep, max_skip=max_skip, perturbation=perturbation
    )
    if plot is not None:
        from skelnas.plot import draw_cells

        draw_cells(genotype, plot)
    if out is None:
        console.result(genotype.to_json())
    else:
        atomic_write(out, genotype.to_json())


@with_settings(TrainSettings)
def train(
    cache: CacheArgument,
    genotype: Annotated[
        str,
        typer.Option(
            help="Genotype: a JSON file, - for standard input, a built-in name (ntu_cs112se30, "
            "ntu_cv112se30) or random:SEED.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    resume: Resume = False,
    force: Force = False,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    *,
    settings: TrainSettings,
) -> None:
    """Train the network of a genotype from scratch; writes a model folder.

    Example: skelnas train ntu60.h5 --genotype ntu_cs112se30 --out models/released
    """
    from skelnas.genotype import load

    if genotype == "-" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "several ranks cannot read the genotype from one standard input",
            hint="`skelnas derive RUN --out genotype.json` writes a file for --genotype",
        )
    cells = load(genotype, sys.stdin.read() if genotype == "-" else None)
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.train import train as train_verb

    path = train_verb(
        cache, cells, out, settings, resume=resume, force=force, tensorboard=tensorboard
    )
    console.note(f"done: {path}; `skelnas evaluate {cache} {out}` scores it")


@with_settings(EvaluateSettings)
def evaluate(
    cache: CacheArgument,
    model: Annotated[
        Path, typer.Argument(help="Model folder or model.safetensors.", show_default=False)
    ],
    as_json: Json = False,
    confusion: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix to this CSV file.")
    ] = None,
    *,
    settings: EvaluateSettings,
) -> None:
    """Score a model on the test part of its protocol, or on what was held out.

    Example: skelnas evaluate ntu60.h5 models/xsub --json
    """
    from skelnas.evaluate import evaluate as evaluate_verb
    from skelnas.runs import atomic_write

    result = evaluate_verb(cache, model, settings)
    if confusion is not None and console.SPEAKS:
        atomic_write(confusion, result.confusion_csv())
    if as_json:
        console.result(json.dumps(result.to_dict()))
    else:
        _print_evaluation(result)


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
    from skelnas.demo import demo as demo_verb

    demo_verb(out, num_clips=clips, seed=seed)


def _print_evaluation(result: Evaluation) -> None:
    facts = Table(
        title=f"{result.num_clips:,} {result.part} clips, {result.protocol}", show_header=False
    )
    for name, value in (
        ("top-1", f"{result.metrics.top1:.2%}"),
        ("top-5", f"{result.metrics.top5:.2%}"),
        ("mean per class", f"{result.metrics.mean_class:.2%}"),
        ("chance", f"{result.chance:.2%}"),
        ("parameters", f"{result.complexity.parameters:,}"),
        ("MACs a clip", f"{result.complexity.macs:,}"),
        ("FLOPs a clip", f"{result.complexity.flops:,}"),
    ):
        facts.add_row(name, value)
    console.out.print(facts)

    classes = Table("class", "clips", "top-1", "most often taken for", title="per class")
    confusion = result.metrics.confusion
    for index, (name, top1) in enumerate(
        zip(result.card.classes, result.metrics.per_class, strict=True)
    ):
        if top1 is None:
            continue
        others = confusion[index].copy()
        others[index] = 0
        rival = int(others.argmax())
        mistaken = f"{result.card.classes[rival]} ({others[rival]})" if others.any() else ""
        classes.add_row(name, str(confusion[index].sum()), f"{top1:.1%}", mistaken)
    console.out.print(classes)
