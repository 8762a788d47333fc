"""Sources from other packages as commands: `skelnas prepare NAME RAW OUT`.

A package provides one as an entry point in the group `skelnas.sources`: a class or function that
takes the path RAW and returns a `skelnas.data.readers.base.Source`. Entry points are looked up for
names that are not built in, and imported only when their command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from skelnas.cli.help import Command
from skelnas.cli.prepare_common import (
    OutArgument,
    PrepareOptions,
    run_prepare,
    with_prepare_options,
)
from skelnas.errors import SkelnasError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from skelnas.data.readers.base import Source

GROUP = "skelnas.sources"
MEMBERS = ("name", "layout", "max_persons", "rule", "classes", "catalogue", "read", "splits")


class SourceGroup(TyperGroup):
    """The commands of `skelnas prepare`: the built-in ones, then those of other packages.

    Another package cannot replace a built-in command.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """List all names."""
        built_in = super().list_commands(ctx)
        return [*built_in, *sorted(_entry_points().keys() - set(built_in))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of this name."""
        built_in = super().get_command(ctx, cmd_name)
        entry = None if built_in else _entry_points().get(cmd_name)
        return _to_click(entry) if entry else built_in


def list_sources() -> list[str]:
    """List the names that other packages provide."""
    return sorted(_entry_points())


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _to_click(entry: EntryPoint) -> Any:
    """Make the command of a source without importing it."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(entry.name, cls=Command, help=f"Source from the package {_package(entry)}.")
    @with_prepare_options
    def prepare_other(
        raw: Annotated[
            Path, typer.Argument(help="The folder or file to read.", show_default=False)
        ],
        out: OutArgument,
        *,
        options: PrepareOptions,
    ) -> None:
        run_prepare(load_source(entry, raw), out, options)

    return typer.main.get_command(app)


def load_source(entry: EntryPoint, raw: Path) -> Source:
    """Import a source and open `raw` with it.

    Raises:
        SkelnasError: it cannot be imported or called, or lacks a member of `Source`.
    """
    where = f"the source {entry.name} ({entry.value}) of the package {_package(entry)}"
    try:
        source: Source = entry.load()(raw)
    except SkelnasError:
        raise
    except Exception as error:
        raise SkelnasError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}",
            hint="expected a class or function that takes one path; SKELNAS_DEBUG=1 shows more",
        ) from error
    for member in MEMBERS:
        if not hasattr(source, member):
            raise SkelnasError(
                f"{where} has no {member!r}", hint="docs/data.md lists the members of a source"
            )
    return source


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "that provides it"
