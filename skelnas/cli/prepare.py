"""`skelnas prepare SOURCE`: one command for each raw format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from skelnas import console
from skelnas.cli.options import Force, Json, OutArgument, RawArgument, Strict, Workers
from skelnas.errors import UsageError

if TYPE_CHECKING:
    from skelnas.sources.base import Source

prepare_app = typer.Typer(
    help="Read raw recordings into a skeleton cache (HDF5).", no_args_is_help=True
)


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


@prepare_app.command("manifest")
def prepare_manifest(
    table: Annotated[
        Path, typer.Argument(help="CSV with a line for each clip.", show_default=False)
    ],
    out: OutArgument,
    joints: Annotated[
        Path | None,
        typer.Option(help="JSON or TOML file that names joints, bones and channels."),
    ] = None,
    persons: Annotated[int, typer.Option(min=1, max=16, help="The most persons of a clip.")] = 1,
    test_subjects: Annotated[
        str, typer.Option(help="Subjects that protocol xsub is tested on, such as 3,5.")
    ] = "",
    test_cameras: Annotated[
        str, typer.Option(help="Cameras that protocol xview is tested on, such as 2.")
    ] = "",
    workers: Workers = None,
    strict: Strict = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Own recordings: a CSV that lists .npy, .npz, .json or .csv clips with their labels.

    Example: skelnas prepare manifest clips.csv own.h5 --joints joints.json --test-subjects 3,5
    """
    from skelnas.sources.manifest import Manifest

    source = Manifest(
        table,
        joints=joints,
        persons=persons,
        test_subjects=_numbers(test_subjects, "--test-subjects"),
        test_cameras=_numbers(test_cameras, "--test-cameras"),
    )
    _prepare(source, out, workers=workers, strict=strict, force=force, as_json=as_json)


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


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """Read numbers that are divided by commas."""
    fields = [field.strip() for field in text.split(",")] if text else []
    if not all(field.isascii() and field.isdigit() and len(field) < 10 for field in fields):
        raise UsageError(f"{option} {text}: expected numbers such as 3,5")
    return tuple(map(int, fields))


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
