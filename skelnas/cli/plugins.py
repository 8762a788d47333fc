"""Sources of other packages as commands: `skelnas prepare NAME RAW OUT`.

A package offers one by an entry point in the group `skelnas.sources`: a class or function that
takes the path RAW and returns a `skelnas.data.readers.base.Source`. It is imported when its command
runs, and looked up only when `skelnas prepare` meets a name that is not one of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from skelnas.cli.options import OutArgument
from skelnas.cli.preparing import RunOptions, run_prepare, with_run_options
from skelnas.errors import SkelnasError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from skelnas.data.readers.base import Source

GROUP = "skelnas.sources"
MEMBERS = ("name", "layout", "max_persons", "rule", "classes", "catalogue", "read", "splits")


class SourceGroup(TyperGroup):
    """The commands of `skelnas prepare`: its own, then those of other packages by name.

    A command of another package cannot take the place of one of skelnas.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Name all commands."""
        own = super().list_commands(ctx)
        return [*own, *sorted(_entries().keys() - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command, or None."""
        own = super().get_command(ctx, cmd_name)
        entry = None if own else _entries().get(cmd_name)
        return _command(entry) if entry else own


def _entries() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _command(entry: EntryPoint) -> Any:
    """Make the command of a source, without importing it."""
    app = typer.Typer(add_completion=False)

    @app.command(entry.name, help=f"A source of the package {_package(entry)}.")
    @with_run_options
    def prepare_other(
        raw: Annotated[
            Path, typer.Argument(help="The folder or file that it reads.", show_default=False)
        ],
        out: OutArgument,
        *,
        run: RunOptions,
    ) -> None:
        run_prepare(load_source(entry, raw), out, run)

    return typer.main.get_command(app)


def load_source(entry: EntryPoint, raw: Path) -> Source:
    """Import a source and make it.

    Raises:
        SkelnasError: it cannot be imported or made, or lacks a member of `Source`.
    """
    where = f"the source {entry.name} ({entry.value}) of the package {_package(entry)}"
    try:
        source: Source = entry.load()(raw)
    except SkelnasError:
        raise
    except Exception as error:
        raise SkelnasError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}",
            hint="it has to be a class or function that takes one path; SKELNAS_DEBUG=1 says more",
        ) from error
    for member in MEMBERS:
        if not hasattr(source, member):
            raise SkelnasError(
                f"{where} has no {member!r}", hint="docs/data.md lists the members of a source"
            )
    return source


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "that offers it"
