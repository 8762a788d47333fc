"""Plain help: one line per option in 80 columns, and examples that can be pasted."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperCommand

from skelnas.cli.environment import check_environment
from skelnas.cli.order import check_order

METAVARS = {"int": "N", "integer": "N", "float": "X", "path": "FILE"}
"""What stands for a value, by the type that Typer names."""

TEXT_METAVARS = {
    "channels": "LIST",
    "genotype": "GENOTYPE",
    "init": "MODEL",
    "input_size": "TxV",
    "picture": "WxH",
    "space": "SPACE",
    "streams": "LIST",
    "test_cameras": "LIST",
    "test_subjects": "LIST",
    "weights": "LIST",
}
"""What stands for text, by the name of the option; otherwise NAME."""

MAX_NAME_WIDTH = 24

HELP_ALL = "--help-all"

EXAMPLES = "Examples:\n"
"""Starts the last paragraph of a command's docstring; each line after it is a command."""


class Command(TyperCommand):
    """A command that lists its options by section, with their defaults in brackets.

    ``--help`` leaves out those that few need, see `with_settings`; ``--help-all`` lists all.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; ``--help-all`` is ``--help`` where nothing is left out."""
        known = {name for parameter in self.params for name in parameter.opts}
        words = ["--help" if word == HELP_ALL and word not in known else word for word in args]
        rest: list[str] = super().parse_args(ctx, list(words))
        if not ctx.resilient_parsing:
            arguments = {p.name: ctx.params[p.name] for p in self.params if is_argument(p)}
            check_order(ctx.command_path, arguments, words)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command, if all environment variables of skelnas are known."""
        check_environment(ctx.command_path)
        return super().invoke(ctx)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and required options, in the order in which one types them."""
        usage = [signature(p, ctx) for p in arguments_first(self.params) if p.required]
        formatter.write_usage(ctx.command_path, " ".join([*usage, "[OPTIONS]"]))

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does, and its examples, each on a line of its own."""
        text, examples = split_examples(self.help or "")
        for paragraph in text.split("\n\n"):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(paragraph)
        if examples:
            with formatter.section("Examples"):
                for example in examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section of arguments, of options, and of each group of settings."""
        rare = () if HELP_ALL in ctx.meta else getattr(self.callback, "rare_options", ())
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in arguments_first(self.get_params(ctx)):
            if parameter.name in rare:
                continue
            title = "Arguments" if is_argument(parameter) else "Options, with [defaults]"
            rows = sections.setdefault(getattr(parameter, "rich_help_panel", None) or title, [])
            default = default_text(parameter)
            text = f"{parameter.help} [{default}]" if default else parameter.help
            rows.append((signature(parameter, ctx), text))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=MAX_NAME_WIDTH)


def split_examples(docstring: str) -> tuple[str, list[str]]:
    """Return the text of a docstring without its examples, and these."""
    text, _, examples = inspect.cleandoc(docstring).partition(EXAMPLES)
    return text.strip(), [line.strip() for line in examples.splitlines() if line.strip()]


def arguments_first(parameters: list[Any]) -> list[Any]:
    """Return the arguments of a command, then its options."""
    return sorted(parameters, key=lambda parameter: not is_argument(parameter))


def is_argument(parameter: Any) -> bool:
    """Return whether a parameter is an argument, not an option."""
    return bool(parameter.param_type_name == "argument")


def signature(parameter: Any, ctx: Any) -> str:
    """Return how a parameter is written: ``CACHE``, ``--epochs N``, ``--[no-]center``."""
    if is_argument(parameter):
        return str(parameter.name).upper() + ("" if parameter.nargs == 1 else "...")
    if parameter.secondary_opts:
        return flag(parameter)
    if parameter.is_flag:
        return ", ".join(sorted(parameter.opts, key=len))
    _, _, kind = str(parameter.get_help_record(ctx)[0]).partition(" ")
    text = f"{flag(parameter)} {_metavar(parameter, kind)}"
    return text if len(text) <= MAX_NAME_WIDTH else f"{flag(parameter)} NAME"


def _metavar(parameter: Any, kind: str) -> str:
    """Return what stands for a value; `kind` is Typer's word for its type, or our own."""
    if parameter.metavar:
        return str(parameter.metavar)
    value = kind.strip("<>[]").lower().removesuffix(" range")  # spelt so by one Typer or another
    if value in ("str", "text"):
        return TEXT_METAVARS.get(parameter.name, "NAME")
    return value if "|" in value else METAVARS.get(value, value.upper())


def flag(parameter: Any) -> str:
    """Return the name of an option, with ``[no-]`` if it can be switched off."""
    name = str(parameter.opts[0])
    return f"--[no-]{name[2:]}" if parameter.secondary_opts else name


def default_text(parameter: Any) -> str:
    """Return the default in words, empty if there is none."""
    if parameter.required:
        return "required"
    if parameter.secondary_opts:
        return "on" if parameter.default else "off"
    is_unset = parameter.default in (None, "") or parameter.default is False
    return "" if is_unset else str(parameter.default)
