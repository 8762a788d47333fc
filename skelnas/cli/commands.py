"""The commands by name. Each is imported when it is called, and none to list them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Place:
    """Where a command is, and what it does in a sentence: the first one of its own text."""

    module: str
    name: str
    summary: str

    def load(self) -> Any:
        """Import it: a function, or a `typer.Typer` with commands of its own."""
        return getattr(import_module(f"skelnas.cli.{self.module}"), self.name)


COMMANDS = {
    place.name.removesuffix("_app").replace("_", "-"): place
    for place in (
        Place("prepare", "prepare_app", "Read raw recordings into a skeleton cache (HDF5)."),
        Place("inspect", "inspect", "Say what is in a cache, check it, or draw a clip of it."),
        Place("search", "search", "Search for the two cells; writes a run folder."),
        Place("search", "derive", "Print the genotype of a run as JSON."),
        Place(
            "verbs",
            "train",
            "Train the network of a genotype, or a baseline, from scratch; writes a model folder.",
        ),
        Place(
            "evaluate",
            "evaluate",
            "Score a model on the test part of its protocol, or on what was held out.",
        ),
        Place(
            "evaluate",
            "ensemble",
            "Combine the scores of several models, clip by clip by name, and score the result.",
        ),
        Place("predict", "predict", "Name the actions in recordings, or in frames as they come."),
        Place(
            "export",
            "export",
            "Write a model as a file for another runtime, and check it against the model.",
        ),
        Place(
            "verbs",
            "report",
            "Write a page about a search or a training, finished or not: curves, alphas, cells, "
            "settings.",
        ),
        Place(
            "doctor",
            "doctor",
            "Say what is installed, whether it computes right, and how long a search would take "
            "here.",
        ),
        Place("verbs", "demo", "Run the whole line on synthetic motions, in a few minutes."),
    )
}
"""In the order in which they are used."""


class Commands(TyperGroup):
    """Lists the commands by their sentences, and imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=place.summary) for name, place in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, and import it."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and _import(str(name)), rest


def _import(name: str) -> Any:
    found: Callable[..., Any] | typer.Typer = COMMANDS[name].load()
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(name)(found)
    return typer.main.get_command(app)
