"""`skelnas prepare SOURCE`: one command for each raw format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from skelnas.cli.options import OutArgument, RawArgument
from skelnas.cli.plugins import SourceGroup
from skelnas.cli.preparing import RunOptions, run_prepare, with_run_options
from skelnas.errors import UsageError

prepare_app = typer.Typer(
    cls=SourceGroup,
    help="Read raw recordings into a skeleton cache (HDF5).",
    no_args_is_help=True,
)


@prepare_app.command("ntu")
@with_run_options
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
    *,
    run: RunOptions,
) -> None:
    """NTU RGB+D 60 and 120: a folder of .skeleton files.

    Example: skelnas prepare ntu nturgb+d_skeletons/ ntu60.h5
    """
    from skelnas.data.readers.ntu import Ntu

    source = Ntu(raw, body_rule=body_rule, keep_missing=keep_missing)
    run_prepare(source, out, run)


@prepare_app.command("kinetics")
@with_run_options
def prepare_kinetics(
    raw: RawArgument,
    out: OutArgument,
    person_rule: Annotated[
        Literal["clip", "frame"],
        typer.Option(help="Two persons of highest confidence: per clip (paper) or per frame."),
    ] = "clip",
    *,
    run: RunOptions,
) -> None:
    """Kinetics-Skeleton: train/ and val/ with their label files.

    Example: skelnas prepare kinetics kinetics-skeleton/ kinetics.h5
    """
    from skelnas.data.readers.kinetics import Kinetics

    source = Kinetics(raw, person_rule=person_rule)
    run_prepare(source, out, run)


@prepare_app.command("nw-ucla")
@with_run_options
def prepare_nw_ucla(
    raw: RawArgument,
    out: OutArgument,
    *,
    run: RunOptions,
) -> None:
    """Northwestern-UCLA: a folder of aXX_sYY_eZZ_vWW.json files.

    Example: skelnas prepare nw-ucla all_sqe/ ucla.h5
    """
    from skelnas.data.readers.nw_ucla import NwUcla

    run_prepare(NwUcla(raw), out, run)


@prepare_app.command("pyskl")
@with_run_options
def prepare_pyskl(
    file: Annotated[Path, typer.Argument(help="The .pkl file.", show_default=False)],
    out: OutArgument,
    *,
    run: RunOptions,
) -> None:
    """PYSKL and MMAction2: a pickle of 2-D or 3-D poses, read without running it.

    Example: skelnas prepare pyskl ntu60_hrnet.pkl ntu60-2d.h5
    """
    from skelnas.data.readers.pyskl import Pyskl

    run_prepare(Pyskl(file), out, run)


@prepare_app.command("ctrgcn")
@with_run_options
def prepare_ctrgcn(
    file: Annotated[Path, typer.Argument(help="The .npz file.", show_default=False)],
    out: OutArgument,
    *,
    run: RunOptions,
) -> None:
    """CTR-GCN: NTU RGB+D as an .npz with x_train, y_train, x_test and y_test.

    Example: skelnas prepare ctrgcn NTU60_CS.npz ntu60-xsub.h5
    """
    from skelnas.data.readers.ctrgcn import CtrGcn

    run_prepare(CtrGcn(file), out, run)


@prepare_app.command("manifest")
@with_run_options
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
    *,
    run: RunOptions,
) -> None:
    """Own recordings: a CSV that lists .npy, .npz, .json or .csv clips with their labels.

    Example: skelnas prepare manifest clips.csv own.h5 --joints joints.json --test-subjects 3,5
    """
    from skelnas.data.readers.manifest import Manifest

    source = Manifest(
        table,
        joints=joints,
        persons=persons,
        test_subjects=_numbers(test_subjects, "--test-subjects"),
        test_cameras=_numbers(test_cameras, "--test-cameras"),
    )
    run_prepare(source, out, run)


@prepare_app.command("synthetic")
@with_run_options
def prepare_synthetic(
    out: OutArgument,
    clips: Annotated[
        int, typer.Option(min=1, help="How many clips to make; multiples of 16 are balanced.")
    ] = 576,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the motions.")] = 0,
    *,
    run: RunOptions,
) -> None:
    """Synthetic motions of a 25-joint body, for trying things out.

    Example: skelnas prepare synthetic --clips 576 synthetic.h5
    """
    from skelnas.data.readers.synthetic import Synthetic

    source = Synthetic(clips, seed=seed)
    run_prepare(source, out, run)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """Read numbers that are divided by commas."""
    fields = [field.strip() for field in text.split(",")] if text else []
    if not all(field.isascii() and field.isdigit() and len(field) < 10 for field in fields):
        raise UsageError(f"{option} {text}: expected numbers such as 3,5")
    return tuple(map(int, fields))
