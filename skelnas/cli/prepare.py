"""`skelnas prepare SOURCE`: one command per raw format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from skelnas.cli.help import Command
from skelnas.cli.plugins import SourceGroup
from skelnas.cli.prepare_common import (
    OutArgument,
    PrepareOptions,
    RawArgument,
    run_prepare,
    with_fields,
    with_prepare_options,
)
from skelnas.cli.recording_options import Folds, RecordingOptions, SplitSeed, TestShare

prepare = typer.Typer(
    cls=SourceGroup,
    help="Convert raw recordings to a skeleton cache (HDF5).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@prepare.command("ntu", cls=Command)
@with_prepare_options
def prepare_ntu(
    raw: RawArgument,
    out: OutArgument,
    body_rule: Annotated[
        Literal["denoise", "energy", "first"],
        typer.Option(help="Two bodies: denoise, energy or first."),
    ] = "denoise",
    keep_missing: Annotated[
        bool,
        typer.Option("--keep-missing", help="Keep clips listed as missing or incomplete."),
    ] = False,
    *,
    options: PrepareOptions,
) -> None:
    """NTU RGB+D 60 and 120: a folder of .skeleton files.

    Examples:
        skelnas prepare ntu nturgb+d_skeletons/ ntu60.h5
        skelnas prepare ntu nturgbd_skeletons_s001_to_s017.zip ntu60.h5 --float16
        skelnas prepare ntu nturgb+d_skeletons/ ntu60.h5 --body-rule energy
    """
    from skelnas.data.readers.ntu import Ntu

    run_prepare(Ntu(raw, body_rule=body_rule, keep_missing=keep_missing), out, options)


@prepare.command("kinetics", cls=Command)
@with_prepare_options
def prepare_kinetics(
    raw: RawArgument,
    out: OutArgument,
    person_rule: Annotated[
        Literal["clip", "frame"],
        typer.Option(help="Choose the two persons per clip or frame."),
    ] = "clip",  # paper
    *,
    options: PrepareOptions,
) -> None:
    """Kinetics-Skeleton: train/ and val/ with their label files.

    Examples:
        skelnas prepare kinetics kinetics-skeleton/ kinetics.h5
        skelnas prepare kinetics kinetics-skeleton.zip kinetics.h5 --resume
        skelnas prepare kinetics kinetics-skeleton/ kinetics.h5 --person-rule frame
    """
    from skelnas.data.readers.kinetics import Kinetics

    run_prepare(Kinetics(raw, person_rule=person_rule), out, options)


@prepare.command("nw-ucla", cls=Command)
@with_prepare_options
def prepare_nw_ucla(
    raw: RawArgument,
    out: OutArgument,
    *,
    options: PrepareOptions,
) -> None:
    """Northwestern-UCLA: a folder of aXX_sYY_eZZ_vWW.json files.

    Examples:
        skelnas prepare nw-ucla all_sqe/ ucla.h5
        skelnas prepare nw-ucla all_sqe.zip ucla.h5 --strict
        skelnas prepare nw-ucla all_sqe/ ucla.h5 --force --json
    """
    from skelnas.data.readers.nw_ucla import NwUcla

    run_prepare(NwUcla(raw), out, options)


@prepare.command("msrc12", cls=Command)
@with_prepare_options
def prepare_msrc12(
    raw: RawArgument,
    out: OutArgument,
    *,
    options: PrepareOptions,
) -> None:
    """MSRC-12: a folder of .csv files, each with its .tagstream.

    Examples:
        skelnas prepare msrc12 MicrosoftGestureDataset/ msrc12.h5
        skelnas prepare msrc12 MicrosoftGestureDataset.zip msrc12.h5
        skelnas prepare msrc12 MicrosoftGestureDataset/ msrc12.h5 --workers 2
    """
    from skelnas.data.readers.msrc12 import Msrc12

    run_prepare(Msrc12(raw), out, options)


@prepare.command("utd-mhad", cls=Command)
@with_prepare_options
def prepare_utd_mhad(
    raw: RawArgument,
    out: OutArgument,
    *,
    options: PrepareOptions,
) -> None:
    """UTD-MHAD: a folder of aA_sS_tT_skeleton.mat files.

    Examples:
        skelnas prepare utd-mhad Skeleton/ utd.h5
        skelnas prepare utd-mhad Skeleton.zip utd.h5
        skelnas prepare utd-mhad Skeleton/ utd.h5 --max-failed 4
    """
    from skelnas.data.readers.utd_mhad import UtdMhad

    run_prepare(UtdMhad(raw), out, options)


@prepare.command("penn-action", cls=Command)
@with_prepare_options
def prepare_penn_action(
    raw: RawArgument,
    out: OutArgument,
    *,
    options: PrepareOptions,
) -> None:
    """Penn Action: the folder with labels/0001.mat and so on.

    Examples:
        skelnas prepare penn-action Penn_Action/ penn.h5
        skelnas prepare penn-action Penn_Action.zip penn.h5
        skelnas prepare penn-action Penn_Action/ penn.h5 --compress
    """
    from skelnas.data.readers.penn_action import PennAction

    run_prepare(PennAction(raw), out, options)


@prepare.command("pyskl", cls=Command)
@with_prepare_options
def prepare_pyskl(
    file: Annotated[Path, typer.Argument(help="The .pkl file.", show_default=False)],
    out: OutArgument,
    test: Annotated[
        Path | None,
        typer.Option(help="A second .pkl file: the clips for testing."),
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Poses, a file per clip; by default beside FILE."),
    ] = None,
    test_share: TestShare = 0.0,
    folds: Folds = 0,
    split_seed: SplitSeed = 0,
    *,
    options: PrepareOptions,
) -> None:
    """PYSKL and MMAction2: a .pkl of 2-D or 3-D poses.

    Examples:
        skelnas prepare pyskl ntu60_hrnet.pkl ntu60-2d.h5
        skelnas prepare pyskl train.pkl own.h5 --test val.pkl
        skelnas prepare pyskl k400_hrnet.pkl k400.h5 --poses kpfiles/ --resume
    """
    from skelnas.data.readers.division import Division
    from skelnas.data.readers.pyskl import Pyskl

    division = Division(test_share=test_share, folds=folds, seed=split_seed)
    run_prepare(Pyskl(file, test, poses, division), out, options)


@prepare.command("ctrgcn", cls=Command)
@with_prepare_options
def prepare_ctrgcn(
    file: Annotated[Path, typer.Argument(help="The .npz file.", show_default=False)],
    out: OutArgument,
    *,
    options: PrepareOptions,
) -> None:
    """CTR-GCN: NTU RGB+D in an .npz file (x_train, y_train, ...).

    Examples:
        skelnas prepare ctrgcn NTU60_CS.npz ntu60-xsub.h5
        skelnas prepare ctrgcn NTU120_CSet.npz ntu120-xset.h5 --float16
        skelnas prepare ctrgcn NTU60_CV.npz ntu60-xview.h5 --force
    """
    from skelnas.data.readers.ctrgcn import CtrGcn

    run_prepare(CtrGcn(file), out, options)


@prepare.command("manifest", cls=Command)
@with_prepare_options
@with_fields("recordings", RecordingOptions)
def prepare_manifest(
    table: Annotated[
        Path, typer.Argument(help="CSV of clips, or a .zip with it.", show_default=False)
    ],
    out: OutArgument,
    *,
    recordings: RecordingOptions,
    options: PrepareOptions,
) -> None:
    """Your recordings: a table of clips, arrays or text.

    Examples:
        skelnas prepare manifest clips.csv own.h5 --joints coco17
        skelnas prepare manifest clips.zip own.h5 --test-subjects 3,5 --persons 2
        skelnas prepare manifest clips.csv own.h5 --channels x,y,score --folds 5
    """
    from skelnas.data.readers.manifest import Manifest

    run_prepare(Manifest(table, **recordings.parse()), out, options)


@prepare.command("folder", cls=Command)
@with_prepare_options
@with_fields("recordings", RecordingOptions, without=("frame_rate", "test_cameras"))
def prepare_folder(
    raw: RawArgument,
    out: OutArgument,
    *,
    recordings: RecordingOptions,
    options: PrepareOptions,
) -> None:
    """Your recordings: CLASS/CLIP, a file or folder of frames.

    Examples:
        skelnas prepare folder recordings/ own.h5 --test-share 0.2
        skelnas prepare folder recordings.zip own.h5 --joints mediapipe33 --folds 5
        skelnas prepare folder recordings/ own.h5 --picture 1920x1080
    """
    from skelnas.data.readers.folder import Folder

    run_prepare(Folder(raw, **recordings.parse()), out, options)


@prepare.command("synthetic", cls=Command)
@with_prepare_options
def prepare_synthetic(
    out: OutArgument,
    clips: Annotated[
        int, typer.Option(min=1, help="Number of clips, best a multiple of 16.")
    ] = 576,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the motions.")] = 0,
    *,
    options: PrepareOptions,
) -> None:
    """Synthetic motions of a 25-joint body, to try things out.

    Examples:
        skelnas prepare synthetic synthetic.h5
        skelnas prepare synthetic small.h5 --clips 64
        skelnas prepare synthetic other.h5 --seed 1 --json
    """
    from skelnas.data.readers.synthetic import Synthetic

    run_prepare(Synthetic(clips, seed=seed), out, options)
