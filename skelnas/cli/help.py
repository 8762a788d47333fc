"""Plain help: one line per option in 80 columns, as far as it fits."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

METAVARS = {"int": "N", "integer": "N", "float": "X", "str": "TEXT"}
MAX_NAME_WIDTH = 24


HELP_ALL = "--help-all"


class Command(TyperCommand):
    """A command that lists its options by section, with their defaults in brackets.

    ``--help`` leaves out those that few need, see `with_settings`; ``--help-all`` lists all.
    """

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and required options, in the order in which one types them."""
        usage = [
            signature(p, ctx) if is_argument(p) else f"{flag(p)} {str(p.name).upper()}"
            for p in arguments_first(self.params)
            if p.required
        ]
        formatter.write_usage(ctx.command_path, " ".join([*usage, "[OPTIONS]"]))

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
    value = kind.strip("<>[]").lower().removesuffix(" range")  # spelt so by one Typer or another
    return f"{flag(parameter)} {value if '|' in value else METAVARS.get(value, value.upper())}"


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
