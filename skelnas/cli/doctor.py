"""`skelnas doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from skelnas.cli.config_file import make_settings, read_settings
from skelnas.cli.options import Json, with_settings
from skelnas.cli.search import training_settings
from skelnas.config import ClipSettings, DeviceSettings, SearchSettings, TrainSettings
from skelnas.genotype import load as load_genotype
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.doctor import Diagnosis
    from skelnas.doctor.pace import Pace
    from skelnas.doctor.training_pace import TrainingsPace


@with_settings(SearchSettings)
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Do not time any steps.")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Cache that sets joints, classes and clips.")
    ] = None,
    # Without --cache: NTU RGB+D 60, two persons, and half of the training part of xsub.
    joints: Annotated[
        int, typer.Option(min=1, help="Without --cache: joints of all persons.")
    ] = 50,
    classes: Annotated[int, typer.Option(min=1, help="Without --cache: classes.")] = 60,
    clips: Annotated[
        int, typer.Option(min=1, help="Without --cache: clips that train weights.")
    ] = 20_046,
    genotype: Annotated[str, typer.Option(help="Genotype that is trained.")] = "ntu_cs112se30",
    train_config: Annotated[
        Path | None, typer.Option(help="Settings of the training, as --config.")
    ] = None,
    as_json: Json = False,
    *,
    settings: SearchSettings,
) -> None:
    """Check the installation; estimate a search and a training.

    Takes the settings of `skelnas search`; those of clips and device also apply to the training.
    With --method predict, the trainings are those of the search.

    Examples:
        skelnas doctor --quick
        skelnas doctor --cache ntu60.h5 --genotype cells.json
        skelnas doctor --cache own.h5 --method predict --max-params 200k
    """
    from skelnas.doctor import Workload, diagnose

    by_gradient = settings.method == "gradient"
    make_training = _training_settings if by_gradient else training_settings
    diagnosis = diagnose(
        settings,
        Workload(cache, joints, classes, clips),
        training=make_training(settings, train_config),
        genotype=load_genotype(genotype),
        quick=quick,
    )
    if as_json:
        console.result_json(diagnosis.to_dict())
    else:
        _print_facts(diagnosis)
        _print_checks(diagnosis)
        _print_pace(diagnosis)
    for check in diagnosis.checks:
        if not check.passed:
            console.failure(f"{check.name}: {check.detail}", check.hint)
    if not diagnosis.is_sound:
        raise typer.Exit(1)


def _training_settings(search: SearchSettings, path: Path | None) -> TrainSettings:
    """Return the settings of the training: those of a file, else what was given for the search."""
    shared = {*ClipSettings.model_fields, *DeviceSettings.model_fields, "protocol", "hold_out"}
    given = {name: getattr(search, name) for name in shared & search.model_fields_set}
    if path is None:
        return make_settings(TrainSettings, given)
    from_file = read_settings(path, "train", TrainSettings.model_fields)
    return make_settings(TrainSettings, given | from_file, dict.fromkeys(from_file, path))


def _print_facts(diagnosis: Diagnosis) -> None:
    table = Table(show_header=False, title="skelnas doctor")
    for name, version in diagnosis.versions.items():
        table.add_row(name, version)
    for extra, packages in diagnosis.extras.items():
        versions = (f"{one.name} {one.version or 'is not installed'}" for one in packages)
        table.add_row(f"extra {extra}", ", ".join(versions))
    machine = diagnosis.machine
    if machine is not None:
        table.add_row("system", machine.system)
        load = "" if machine.load is None else f"; load average {machine.load:.1f}"
        table.add_row("CPU threads", f"{machine.threads} on {machine.cores} cores{load}")
        for device in machine.devices:
            sizes = (("", device.total_bytes), (" free", device.free_bytes))
            memory = (f"{size / 2**30:.1f} GiB{word}" for word, size in sizes if size is not None)
            table.add_row(device.name, ", ".join([device.model, *memory]))
    if diagnosis.engine is not None:
        table.add_row("engine", f"{diagnosis.engine['name']}: {diagnosis.engine['why']}")
    console.print_table(table)


def _print_checks(diagnosis: Diagnosis) -> None:
    table = Table("check", "", "result")
    for check in diagnosis.checks:
        table.add_row(check.name, "ok" if check.passed else "FAILED", check.detail)
    console.print_table(table)


def _print_pace(diagnosis: Diagnosis) -> None:
    machine = diagnosis.machine
    if diagnosis.pace is not None:
        console.result(_describe_pace("search", diagnosis.pace))
    if diagnosis.training_pace is not None:
        console.result(_describe_pace("training", diagnosis.training_pace))
    if diagnosis.trainings_pace is not None:
        console.result(_describe_trainings(diagnosis.trainings_pace))
    if (diagnosis.pace or diagnosis.trainings_pace) is None or machine is None:
        return
    if machine.load is not None and machine.load > machine.cores + 1:
        console.result(f"the machine is busy (load average {machine.load:.1f}); idle, it is faster")


def _describe_pace(name: str, pace: Pace) -> str:
    return (
        f"a {name} of {pace.steps:,} steps: about {_duration(pace.total_seconds)}, "
        f"{_duration(pace.epoch_seconds)} per epoch, not counting data loading\n"
        f"  {_describe_step(pace)}"
    )


def _describe_step(pace: Pace) -> str:
    measured = f"measured: {pace.measured_seconds:.3g} s per step of {pace.measured_clips} clips"
    if pace.measured_clips < pace.batch_size:
        measured += f", hence {pace.step_seconds:.3g} s per step of {pace.batch_size}"
    return measured


def _describe_trainings(pace: TrainingsPace) -> str:
    at_a_time = f", {pace.jobs} at a time" if pace.jobs > 1 else ""
    return (
        f"a search of {pace.trainings} trainings{at_a_time}: about "
        f"{_duration(pace.total_seconds)}, {_duration(pace.training.total_seconds)} per training, "
        "not counting data loading and scoring\n"
        f"  {_describe_step(pace.training)}"
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
