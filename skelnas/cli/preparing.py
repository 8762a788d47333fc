"""What all commands of `skelnas prepare` share: their options, the run, and its summary."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer
from rich.markup import escape
from rich.table import Table

from skelnas.cli.options import Force, Function, Json, spread
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.data.readers.base import Source


@dataclass(frozen=True)
class RunOptions:
    """How to prepare, whichever the source."""

    workers: Annotated[
        int | None, typer.Option(help="Processes that read files; by default one a core.")
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first broken file.")] = False
    max_failed: Annotated[
        int | None,
        typer.Option(min=0, help="Stop when more files are broken; by default any number may be."),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep what is read until the end, and go on from what a run kept."
        ),
    ] = False
    float16: Annotated[
        bool, typer.Option("--float16", help="Store float16: half the size, 1 mm off at 4 m.")
    ] = False
    compress: Annotated[
        bool, typer.Option("--compress", help="Store compressed (gzip): smaller, slower to read.")
    ] = False
    force: Force = False
    as_json: Json = False


def with_run_options(function: Function) -> Function:
    """Give a command every field of `RunOptions` as an option; it takes them as ``run``."""
    hints = get_type_hints(RunOptions, include_extras=True)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(RunOptions)
    ]
    return spread(function, "run", options, lambda values: RunOptions(**values))


def run_prepare(source: Source, out: Path, run: RunOptions) -> None:
    """Write the cache, print what is in it, and exit with 3 if files were broken."""
    from skelnas.data.cache import Storage
    from skelnas.data.prepare import prepare, report_path

    report = prepare(
        source,
        out,
        workers=run.workers,
        force=run.force,
        strict=run.strict,
        max_failed=run.max_failed,
        resume=run.resume,
        storage=Storage(float16=run.float16, compress=run.compress),
    )
    if run.as_json:
        console.result(report.to_json())
    else:
        title = escape(f"{out}: {report.clips} clips")
        table = Table("protocol", "train clips", "test clips", title=title)
        for protocol, (train, test) in report.splits.items():
            table.add_row(escape(protocol), f"{train:,}", f"{test:,}")
        console.out.print(table)
    console.note(
        f"{report.clips:,} clips, {report.frames:,} frames, {report.two_person_share:.0%} with two "
        f"persons, in {report.seconds:.1f} s ({report.files_per_second:,.0f} files/s)"
    )
    if report.resumed:
        console.note(f"{report.resumed:,} clips were taken over from an earlier run")
    if report.skipped:
        console.note(f"{len(report.skipped)} left out on purpose, see {report_path(out)}")
    if report.failed:
        file, reason = report.failed[0]
        console.note(f"{len(report.failed)} broken and left out; the first: {file}: {reason}")
        console.note(f"all of them are listed in {report_path(out)}")
        raise typer.Exit(3)
