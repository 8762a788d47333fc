"""The commands by name. Listing them imports none; a command is imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from skelnas.cli.help import Command

SUMMARIES = {
    "prepare": "Convert raw recordings to a skeleton cache (HDF5).",
    "layouts": "List named skeletons, or show the joints and bones of one.",
    "inspect": "Show what a cache contains, verify it, or draw a clip.",
    "search": "Search for the two cells; writes a run folder.",
    "derive": "Print the genotype of a search as JSON.",
    "train": "Train a genotype's network or a baseline; writes a model folder.",
    "resume": "Resume a search or training with its original options.",
    "evaluate": "Score a model on test or held-out clips.",
    "ensemble": "Combine the scores of several models and evaluate the result.",
    "predict": "Recognise actions in recordings or in a stream of frames.",
    "export": "Export a model to another runtime and verify the result.",
    "report": "Write a report on a search or training, finished or not.",
    "bench": "Train many genotypes into a table; report what it shows.",
    "doctor": "Check the installation; estimate a search and a training.",
    "demo": "Run the whole pipeline on synthetic motions in a few minutes.",
}
"""The commands in the order in which they are used; each summary is the first line of its help."""


def load(name: str) -> Any:
    """Import a command: a function, or a `typer.Typer` with commands of its own."""
    return getattr(import_module(f"skelnas.cli.{name}"), name)


class Commands(TyperGroup):
    """Lists the commands by their summaries, and imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=summary) for name, summary in SUMMARIES.items()
        }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what precedes the command; ``help COMMAND`` is ``COMMAND --help``."""
        words = [*args[1:], "--help"] if args[:1] == ["help"] else args
        rest: list[str] = super().parse_args(ctx, words)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, and import it."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and to_click(str(name)), rest


def to_click(name: str) -> Any:
    """Import a command, and make a Click command or group of it."""
    command = load(name)
    if isinstance(command, typer.Typer):
        group = typer.main.get_group(command)
        group.name = name
        return group
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=Command)(command)
    return typer.main.get_command(app)
