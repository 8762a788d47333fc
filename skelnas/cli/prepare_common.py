"""What the commands of `skelnas prepare` share: their options, the work, and its summary."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.table import Table

from skelnas.cli.options import Force, Function, Json, with_signature
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.data.prepare import PrepareReport
    from skelnas.data.readers.base import Source

RawArgument = Annotated[
    Path,
    typer.Argument(help="Folder with the raw recordings, or a .zip of it.", show_default=False),
]
OutArgument = Annotated[
    Path, typer.Argument(help="Cache to write, an .h5 file.", show_default=False)
]


@dataclass(frozen=True)
class PrepareOptions:
    """Options that do not depend on the source."""

    workers: Annotated[
        int | None, typer.Option(help="Processes that read; one per core by default.")
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first broken file.")] = False
    max_failed: Annotated[
        int | None,
        typer.Option(min=0, help="Stop if more than N files are broken."),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Save clips as they are read; reuse saved ones."),
    ] = False
    float16: Annotated[
        bool, typer.Option("--float16", help="Store float16: half the size, 1 mm off at 4 m.")
    ] = False
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress with gzip: smaller, slower to read.")
    ] = False
    force: Force = False
    as_json: Json = False


def with_fields(
    name: str, kind: type[Any], without: Collection[str] = ()
) -> Callable[[Function], Function]:
    """Give a command one option per field of a dataclass; it receives them as one argument.

    Args:
        name: of the argument.
        kind: the dataclass.
        without: fields that the command leaves at their defaults.
    """
    names = [field.name for field in fields(kind) if field.name not in without]
    hints = get_type_hints(kind, include_extras=True)

    def decorate(function: Function) -> Function:
        def command(**arguments: Any) -> Any:
            values = {option: arguments.pop(option) for option in names}
            return function(**arguments, **{name: kind(**values)})

        parameters = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in fields(kind)
            if field.name in names
        ]
        return with_signature(command, function, name, parameters)

    return decorate


with_prepare_options = with_fields("options", PrepareOptions)
"""Gives a command the options that do not depend on the source, as its argument ``options``."""


def run_prepare(source: Source, out: Path, options: PrepareOptions) -> None:
    """Write the cache and print its summary.

    Raises:
        typer.Exit: with code 3 if files were broken.
    """
    from skelnas.data.cache import Storage
    from skelnas.data.prepare import prepare

    report = prepare(
        source,
        out,
        workers=options.workers,
        force=options.force,
        strict=options.strict,
        max_failed=options.max_failed,
        resume=options.resume,
        storage=Storage(float16=options.float16, compress=options.compress),
    )
    if options.as_json:
        console.result(report.to_json())
    else:
        title = f"{out}: {report.clips:,} clips"
        table = Table("protocol", "train clips", "test clips", title=title)
        for protocol, (train, test) in report.splits.items():
            table.add_row(protocol, f"{train:,}", f"{test:,}")
        console.print_table(table)
    _note_summary(report, out)
    if report.failed:
        raise typer.Exit(3)


def _note_summary(report: PrepareReport, out: Path) -> None:
    from skelnas.data.prepare import report_path

    console.note(
        f"{report.clips:,} clips, {report.frames:,} frames, {report.two_person_share:.0%} with two "
        f"persons, in {report.seconds:.1f} s ({report.files_per_second:,.0f} files/s)"
    )
    if report.resumed:
        console.note(f"{report.resumed:,} clips reused from an earlier run")
    if report.outside_picture:
        clip, extent = next(iter(report.outside_picture.items()))
        console.note(
            f"joints do not fit the picture in {len(report.outside_picture):,} of {report.clips:,} "
            f"clips; the first, {clip}, has {extent} of it: check the width and height, unless "
            "these are guesses at hidden joints"
        )
    if report.skipped:
        file, reason = report.skipped[0]
        console.note(f"{len(report.skipped):,} left out on purpose; the first: {file}: {reason}")
    if report.failed:
        file, reason = report.failed[0]
        console.note(f"{len(report.failed)} broken and left out; the first: {file}: {reason}")
    if report.outside_picture or report.skipped or report.failed:
        console.note(f"{report_path(out)} lists all of them")
    for line in report.missing_clips:
        console.note(line)
