"""The terminal: parse, call one verb, print. Verbs are imported when they are called."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

import skelnas
from skelnas import console
from skelnas.config import EvaluateSettings, SearchSettings, TrainSettings
from skelnas.errors import SkelnasError
from skelnas.options import with_settings

if TYPE_CHECKING:
    from skelnas.evaluate import Evaluation
    from skelnas.sources.base import Source

app = typer.Typer(
    name="skelnas",
    help="Find compact CNNs for skeleton-based action recognition by differentiable "
    "architecture search (SAR-NAS).\n\nprepare → search → derive → train → evaluate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prepare_app = typer.Typer(
    help="Read raw recordings into a skeleton cache (HDF5).", no_args_is_help=True
)
app.add_typer(prepare_app, name="prepare")

CacheArgument = Annotated[
    Path, typer.Argument(help="Skeleton cache, made by `skelnas prepare`.", show_default=False)
]
RawArgument = Annotated[
    Path, typer.Argument(help="Folder with the raw recordings.", show_default=False)
]
OutArgument = Annotated[
    Path, typer.Argument(help="Cache to write, an .h5 file.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resulting settings as JSON, and do nothing.")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that read files; by default one a core.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first broken file.")]


def _version(wanted: bool) -> None:
    if wanted:
        console.result(skelnas.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


@prepare_app.command("ntu")
def prepare_ntu(
    raw: RawArgument,
    out: OutArgument,
    body_rule: Annotated[
        Literal["denoise", "energy", "first"],
        typer.Option(help="Which two bodies of a clip are kept; see docs/data.md."),
    ] = "denoise",
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="Keep clips listed as missing or incomplete.")
    ] = False,
    workers: Workers = None,
    strict: Strict = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """NTU RGB+D 60 and 120: a folder of .skeleton files.

    Example: skelnas prepare ntu nturgb+d_skeletons/ ntu60.h5
    """
    from skelnas.sources.ntu import Ntu

    source = Ntu(raw, body_rule=body_rule, keep_missing=keep_missing)
    _prepare(source, out, workers=workers, strict=strict, force=force, as_json=as_json)


@prepare_app.command("kinetics")
def prepare_kinetics(
    raw: RawArgument,
    out: OutArgument,
    person_rule: Annotated[
        Literal["clip", "frame"],
        typer.Option(help="Two persons of highest confidence: per clip (paper) or per frame."),
    ] = "clip",
    workers: Workers = None,
    strict: Strict = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Kinetics-Skeleton: train/ and val/ with their label files.

    Example: skelnas prepare kinetics kinetics-skeleton/ kinetics.h5
    """
    from skelnas.sources.kinetics import Kinetics

    source = Kinetics(raw, person_rule=person_rule)
    _prepare(source, out, workers=workers, strict=strict, force=force, as_json=as_json)


@prepare_app.command("nw-ucla")
def prepare_nw_ucla(
    raw: RawArgument,
    out: OutArgument,
    workers: Workers = None,
    strict: Strict = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Northwestern-UCLA: a folder of aXX_sYY_eZZ_vWW.json files.

    Example: skelnas prepare nw-ucla all_sqe/ ucla.h5
    """
    from skelnas.sources.nw_ucla import NwUcla

    _prepare(NwUcla(raw), out, workers=workers, strict=strict, force=force, as_json=as_json)


@prepare_app.command("synthetic")
def prepare_synthetic(
    out: OutArgument,
    clips: Annotated[
        int, typer.Option(min=1, help="How many clips to make; multiples of 16 are balanced.")
    ] = 576,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the motions.")] = 0,
    workers: Workers = None,
    strict: Strict = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Synthetic motions of a 25-joint body, for trying things out.

    Example: skelnas prepare synthetic --clips 576 synthetic.h5
    """
    from skelnas.sources.synthetic import Synthetic

    source = Synthetic(clips, seed=seed)
    _prepare(source, out, workers=workers, strict=strict, force=force, as_json=as_json)


def _prepare(
    source: Source, out: Path, *, workers: int | None, strict: bool, force: bool, as_json: bool
) -> None:
    from skelnas.prepare import prepare, report_path

    report = prepare(source, out, workers=workers, force=force, strict=strict)
    if as_json:
        console.result(report.to_json())
    else:
        table = Table("protocol", "train clips", "test clips", title=f"{out}: {report.clips} clips")
        for protocol, (train, test) in report.splits.items():
            table.add_row(protocol, f"{train:,}", f"{test:,}")
        console.out.print(table)
    console.note(
        f"{report.clips:,} clips, {report.frames:,} frames, {report.two_person_share:.0%} with two "
        f"persons, in {report.seconds:.1f} s ({report.files_per_second:,.0f} files/s)"
    )
    if report.skipped:
        console.note(f"{len(report.skipped)} left out on purpose, see {report_path(out)}")
    if report.failed:
        file, reason = report.failed[0]
        console.note(f"{len(report.failed)} broken and left out; the first: {file}: {reason}")
        console.note(f"all of them are listed in {report_path(out)}")
        raise typer.Exit(3)


@app.command()
@with_settings(SearchSettings)
def search(
    cache: CacheArgument,
    out: Annotated[Path, typer.Option(help="Run folder to make.", show_default=False)],
    resume: Resume = False,
    force: Force = False,
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

    search_verb(cache, out, settings, resume=resume, force=force)
    console.note(f"done: `skelnas derive {out}` prints the genotype")


@app.command()
def derive(
    run: Annotated[Path, typer.Argument(help="Run folder of a search.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Write the genotype to this file.")] = None,
    epoch: Annotated[
        int | None, typer.Option(min=0, help="Use the alphas after this epoch; 0 is the start.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Edges that a node keeps (paper: 2).")] = 2,
    plot: Annotated[
        Path | None, typer.Option(help="Draw both cells, as .svg or .png (extra: plot).")
    ] = None,
) -> None:
    """Print the genotype of a run as JSON.

    Example: skelnas derive runs/xsub | skelnas train ntu60.h5 --genotype - --out models/xsub
    """
    from skelnas.derive import derive as derive_verb
    from skelnas.runs import atomic_write

    genotype = derive_verb(run, epoch=epoch, keep=keep)
    if plot is not None:
        from skelnas.plot import draw_cells

        draw_cells(genotype, plot)
    if out is None:
        console.result(genotype.to_json())
    else:
        atomic_write(out, genotype.to_json())


@app.command()
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
    dry_run: DryRun = False,
    *,
    settings: TrainSettings,
) -> None:
    """Train the network of a genotype from scratch; writes a model folder.

    Example: skelnas train ntu60.h5 --genotype ntu_cs112se30 --out models/released
    """
    from skelnas.genotype import load

    cells = load(genotype, sys.stdin.read() if genotype == "-" else None)
    if dry_run:
        console.result(settings.model_dump_json(indent=2))
        return
    from skelnas.train import train as train_verb

    path = train_verb(cache, cells, out, settings, resume=resume, force=force)
    console.note(f"done: {path}; `skelnas evaluate {cache} {out}` scores it")


@app.command()
@with_settings(EvaluateSettings)
def evaluate(
    cache: CacheArgument,
    model: Annotated[
        Path, typer.Argument(help="Model folder or model.safetensors.", show_default=False)
    ],
    as_json: Json = False,
    *,
    settings: EvaluateSettings,
) -> None:
    """Score a model on the test part of its protocol.

    Example: skelnas evaluate ntu60.h5 models/xsub --json
    """
    from skelnas.evaluate import evaluate as evaluate_verb

    result = evaluate_verb(cache, model, settings)
    if as_json:
        console.result(json.dumps(result.to_dict()))
    else:
        _print_evaluation(result)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to keep everything in.")] = Path("skelnas-demo"),
    clips: Annotated[
        int, typer.Option(min=64, help="Recordings to make; multiples of 16 are balanced.")
    ] = 576,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
    force: Force = False,
) -> None:
    """Run the whole line on synthetic motions, in a few minutes.

    Example: skelnas demo
    """
    from skelnas.demo import demo as demo_verb

    demo_verb(out, num_clips=clips, seed=seed, force=force)


def _print_evaluation(result: Evaluation) -> None:
    facts = Table(title=f"{result.num_clips:,} test clips, {result.protocol}", show_header=False)
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


def main() -> None:
    """Run the command line; a known failure is one line, its hint and its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up, as Ctrl-C
    try:
        app()
    except SystemExit as ending:
        if ending.code == 130:  # Typer has met a KeyboardInterrupt and said nothing
            console.note("skelnas: interrupted", style="red")
        raise
    except SkelnasError as error:
        _fail(str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing more to say, and no traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if _is_out_of_memory(error):
            _fail(f"out of memory ({str(error).splitlines()[0]})", "try a smaller --batch-size", 4)
        if os.environ.get("SKELNAS_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}",
            "this is a bug; run again with SKELNAS_DEBUG=1 and report the traceback",
            1,
        )


def _is_out_of_memory(error: Exception) -> bool:
    torch: Any = sys.modules.get("torch")
    return isinstance(error, MemoryError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    )


def _fail(message: str, hint: str | None, exit_code: int) -> None:
    if os.environ.get("SKELNAS_DEBUG") and sys.exc_info()[1] is not None:
        console.err.print_exception()
    console.note(f"skelnas: {message}", style="red")
    if hint:
        console.note(f"  hint: {hint}")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
