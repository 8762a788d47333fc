"""What Typer has to say about a command line, in the one style of all errors."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from skelnas.cli.config_file import EXPECTED, suggest
from skelnas.errors import UsageError

NOT_ONE_OF = re.compile(r"(?:Value error, )?'(?P<value>.*)' is not one of (?P<choices>.*?)\.?")
EXTRA = re.compile(r"Got unexpected extra argument(?:s|\(s\))? \((?P<words>.*)\)")


def explain(error: Any) -> UsageError:
    """Return an exception that Typer raised as one of ours."""
    command = error.ctx.command_path if error.ctx else "skelnas"
    verb = command.removeprefix("skelnas ")
    hint = f"`{command} --help` shows how to use it"
    parameter = getattr(error, "param", None)
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        return UsageError(f"{verb} needs {_name(parameter)}", hint=hint)
    if parameter is not None:
        return UsageError(_describe_value(error), hint=hint)
    if type(error).__name__ == "NoSuchOption":
        option = error.option_name
        flags = [flag for one in error.ctx.command.params for flag in one.opts]
        return UsageError(
            f"{option}: {verb} has no such option", hint=f"{suggest(option, flags)}{hint}"
        )
    message = error.format_message().removesuffix(".")
    if match := EXTRA.fullmatch(message):
        parameters = error.ctx.command.params
        arguments = [_name(one) for one in parameters if one.param_type_name == "argument"]
        takes = (
            f"{', then '.join(arguments)}; all else follows an option" if arguments else "options"
        )
        return UsageError(f"{match['words']}: {verb} takes only {takes}", hint=hint)
    return UsageError(message, hint=hint)


def _describe_value(error: Any) -> str:
    """Return what a value is, where it comes from and what was expected."""
    source = _source(error)
    if match := NOT_ONE_OF.fullmatch(error.message):
        choices = error.param.metavar or match["choices"].replace("'", "").replace(", ", "|")
        *others, last = choices.split("|")
        expected = f"{', '.join(others)} or {last}" if others else last
        return f"{source}{match['value']}: expected {expected}"
    if isinstance(cause := error.__cause__ or error.__context__, ValidationError):
        problem = cause.errors()[0]
        expected = EXPECTED.get(problem["type"], problem["msg"].removeprefix("Input should be "))
        return f"{source}{problem['input']}: expected {expected}"
    return f"{source.strip(' =')}: {error.message.removesuffix('.')}"


def _source(error: Any) -> str:
    """Return how a value was given, up to the value: ``--epochs `` or ``SKELNAS_TRAIN_EPOCHS=``."""
    parameter = error.param
    origin = error.ctx.get_parameter_source(parameter.name) if error.ctx else None
    if origin is not None and origin.name == "ENVIRONMENT" and isinstance(parameter.envvar, str):
        return f"{parameter.envvar}="
    return f"{_name(parameter)} "


def _name(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    return str(parameter.name).upper() if is_argument else str(parameter.opts[0])
