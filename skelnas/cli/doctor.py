"""`skelnas doctor`: what works here, and how fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from skelnas.cli.options import Json, with_settings
from skelnas.config import SearchSettings
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.doctor import Diagnosis
    from skelnas.doctor.pace import Pace


@with_settings(SearchSettings)
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Take no steps to estimate the time of a search.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Cache to search on, for joints, classes and clips.")
    ] = None,
    joints: Annotated[
        int, typer.Option(min=1, help="Without --cache: joints of all persons (NTU RGB+D: 50).")
    ] = 50,
    classes: Annotated[
        int, typer.Option(min=1, help="Without --cache: classes (NTU RGB+D 60: 60).")
    ] = 60,
    clips: Annotated[
        int,
        typer.Option(
            min=1, help="Without --cache: clips that train w (half of NTU RGB+D 60, xsub: 20046)."
        ),
    ] = 20_046,
    as_json: Json = False,
    *,
    settings: SearchSettings,
) -> None:
    """Say what is installed, whether it computes right, and how long a search would take here.

    Takes the settings of `skelnas search`, and speaks of that search.

    Example: skelnas doctor --cache ntu60.h5
    """
    from skelnas.doctor import Work, diagnose

    found = diagnose(settings, Work(cache, joints, classes, clips), quick=quick)
    if as_json:
        console.result(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found)
    for check in found.checks:
        if not check.passed:
            console.note(f"skelnas: {check.name}: {check.detail}", style="red")
            console.note(f"  hint: {check.hint}" if check.hint else "")
    if not found.is_sound:
        raise typer.Exit(1)


def _print(found: Diagnosis) -> None:
    facts = Table(show_header=False, title="skelnas doctor")
    for name, version in found.versions.items():
        facts.add_row(name, version)
    for extra, packages in found.extras.items():
        there = (f"{one.name} {one.version or 'is not installed'}" for one in packages)
        facts.add_row(f"extra {extra}", escape(", ".join(there)))
    if found.machine is not None:
        machine = found.machine
        facts.add_row("system", escape(machine.system))
        load = "" if machine.load is None else f"; load average {machine.load:.1f}"
        facts.add_row("CPU threads", f"{machine.threads}, of {machine.cores} cores{load}")
        for device in machine.devices:
            sizes = (("", device.total_bytes), (" free", device.free_bytes))
            memory = (f"{size / 2**30:.1f} GiB{word}" for word, size in sizes if size is not None)
            facts.add_row(device.name, escape(", ".join([device.model, *memory])))
    if found.engine is not None:
        facts.add_row("engine", f"{found.engine['name']}: {found.engine['why']}")
    console.out.print(facts)
    checks = Table("check", "", "what was found")
    for check in found.checks:
        checks.add_row(check.name, "ok" if check.passed else "FAILED", escape(check.detail))
    console.out.print(checks)
    if found.pace is not None and found.machine is not None:
        console.result(_speak(found.pace))
        busy = found.machine.load or 0.0
        if busy > found.machine.cores + 1:
            more = f"the machine has other work (load average {busy:.1f}); alone it is faster"
            console.result(more)


def _speak(pace: Pace) -> str:
    """Say what was measured, and what follows from it."""
    measured = f"measured: {pace.measured_seconds:.3g} s a step of {pace.measured_clips} clips"
    if pace.measured_clips < pace.batch_size:
        measured += f", so {pace.step_seconds:.3g} s of {pace.batch_size} in proportion"
    return (
        f"{measured}\na search of {pace.steps:,} steps: about {_duration(pace.search_seconds)}, "
        f"{_duration(pace.epoch_seconds)} an epoch, without making batches"
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
