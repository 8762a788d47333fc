"""Settings of a command from a TOML file, and their validation."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import ValidationError

from skelnas.config import Settings
from skelnas.errors import InputError, UsageError, shown
from skelnas.runtime.files import parse_toml, read_text

AnySettings = TypeVar("AnySettings", bound=Settings)


def read_options(
    path: Path, context: typer.Context, model: type[Settings], command: str
) -> dict[str, Any]:
    """Read the options of a command, settings and others, from a TOML file.

    Raises:
        InputError: the file cannot be read, or has an unknown option or an invalid value.
    """
    options: dict[str, Any] = {option.name or "": option for option in context.command.params}
    values = read_settings(path, command, options)
    settings = {name: value for name, value in values.items() if name in model.model_fields}
    make_settings(model, settings, path)
    for name, value in values.items():
        is_switch = getattr(options[name], "is_flag", False)
        if isinstance(value, bool) != is_switch:
            expected = "true or false" if is_switch else "neither true nor false"
            raise InputError(f"{path}: {_dashed(name)} = {_to_toml(value)}, expected {expected}")
    return values


def read_settings(path: Path, command: str, names: Collection[str]) -> dict[str, Any]:
    """Read the top level of a TOML file and then the table named after the command.

    Args:
        path: the file.
        command: the name of the command.
        names: the settings allowed, with ``_`` between words.

    Raises:
        InputError: the file cannot be read, or contains another name.
    """
    try:
        document = parse_toml(read_text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    values = {name: value for name, value in document.items() if not isinstance(value, dict)}
    table = document.get(command, {})
    if isinstance(table, dict):
        values |= table
    for name in values:
        if name.replace("-", "_") not in names:
            raise InputError(
                f"{path}: unknown setting {shown(name)} for {command}",
                hint=f"`skelnas {command} --help` lists the settings",
            )
    return {name.replace("-", "_"): value for name, value in values.items()}


def make_settings(
    model: type[AnySettings], values: dict[str, Any], path: Path | None = None
) -> AnySettings:
    """Validate `values`, read from the file `path` if that is given.

    Raises:
        UsageError: a value from the command line is invalid.
        InputError: a value from the file is invalid.
    """
    try:
        return model(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = _dashed(str(problem["loc"][0]))
        expected = problem["msg"].removeprefix("Input should be ")
        if path is not None:
            raise InputError(
                f"{path}: {name} = {_to_toml(problem['input'])}, expected {expected}"
            ) from None
        raise UsageError(f"--{name} {problem['input']}: expected {expected}") from None


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _to_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else shown(value)
