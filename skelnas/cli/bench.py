"""`skelnas bench run` and `skelnas bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.help import Command
from skelnas.cli.options import CacheArgument, DryRun, Force, Json, Resume, has_ranks, with_settings
from skelnas.cli.tables import print_bench
from skelnas.config import BenchSettings
from skelnas.config.bench import SET_BY_BENCH
from skelnas.errors import UsageError
from skelnas.genotype import Genotype
from skelnas.genotype import load as load_genotype
from skelnas.runtime import console

bench = typer.Typer(
    help="Train many genotypes into a table; report what it shows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.command("run", cls=Command)
@with_settings(
    BenchSettings,
    [name for name in BenchSettings.model_fields if name not in SET_BY_BENCH],
    command_name="bench",
)
def bench_run(
    cache: CacheArgument,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder to create.", show_default=False)
    ],
    genotype: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also train this one; may be repeated."),
    ] = None,
    resume: Resume = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    *,
    settings: BenchSettings,
) -> None:
    """Train random genotypes on folds; writes a table.

    Examples:
        skelnas bench run ntu60.h5 --protocol xsub --out bench/ntu60
        skelnas bench run own.h5 --genotypes 48 --seeds 3 --jobs 2 --out bench/own
        skelnas bench run own.h5 --genotype cells.json --out bench/own --resume
    """
    if has_ranks():
        raise UsageError(
            "a benchmark is not divided among ranks",
            hint="without torchrun, --jobs N trains N genotypes at a time, on all GPUs",
        )
    given = _read_genotypes(genotype or [])
    if dry_run:
        console.result(settings.model_dump_json(indent=2, exclude=set(SET_BY_BENCH)))
        return
    from skelnas.nas.bench.run import bench as run
    from skelnas.nas.bench.table import TABLE

    table = run(cache, out, settings, given, resume=resume, force=force)
    path, num_trainings, num_genotypes = out / TABLE, len(table.trials), len(table.genotypes)
    if as_json:
        document = {"table": str(path), "genotypes": num_genotypes, "trainings": num_trainings}
        console.result_json(document)
    else:
        console.result(f"{path}: {num_trainings} trainings of {num_genotypes} genotypes")
    console.note(f"done: `{console.shell('bench', 'report', out)}` shows what they say")


@bench.command("report", cls=Command)
def bench_report(
    table: Annotated[
        Path,
        typer.Argument(help="Table, or the folder of `bench run`.", show_default=False),
    ],
    replays: Annotated[
        int | None, typer.Option(min=0, help="Replays of each search; 500 if possible.")
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Also rank by this search; may be repeated."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="TABLE", help="Also rank by this table; may be repeated."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the genotypes: .svg, .png or .pdf."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a table says about genotypes, seeds and searches.

    Examples:
        skelnas bench report bench/ntu60 --plot ntu60.svg
        skelnas bench report bench/ntu60 --against bench/own
        skelnas bench report bench/ntu60 --run runs/xsub --json
    """
    from skelnas.nas.bench.report import report
    from skelnas.nas.bench.table import read_table
    from skelnas.reporting.plot_bench import Point, draw_bench
    from skelnas.reporting.plot_style import check_picture

    if plot is not None:
        check_picture(plot, "a table")
    found = report(read_table(table), replays=replays, runs=run or [], others=against or [])
    try:
        if plot is not None:
            points = [
                Point(one.kind, one.parameters, one.top1, one.error, one.on_front)
                for one in found.genotypes
            ]
            draw_bench(points, plot)
    finally:  # a full disk does not lose what was computed
        if as_json:
            console.result_json(found.to_dict())
        else:
            print_bench(found)


def _read_genotypes(specs: list[str]) -> dict[str, Genotype]:
    """Read genotypes, named after their files."""
    genotypes: dict[str, Genotype] = {}
    for spec in specs:
        name = Path(spec).stem if spec.endswith(".json") else spec
        if name in genotypes:
            raise UsageError(f"--genotype {spec}: two genotypes have the name {name}")
        genotypes[name] = load_genotype(spec)
    return genotypes
