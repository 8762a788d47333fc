"""Settings of a command from a TOML file or from JSON of our own, and their validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import ValidationError

from skelnas import json_text
from skelnas.config import Settings
from skelnas.errors import InputError, UsageError, shown
from skelnas.runtime.files import parse_toml, read_text, unseal

AnySettings = TypeVar("AnySettings", bound=Settings)

TABLES = ("search", "derive", "train", "evaluate", "predict", "export", "bench", "doctor")
"""Tables of a file: the commands with settings."""

RECORDS = {
    "search": {"search": "settings", "doctor": "settings", "train": "training"},
    "repeats": {"search": "settings", "train": "training"},
    "train": {"train": "settings"},
    "folds": {"train": "settings"},
}
"""By the verb of a ``config.json``: where it has the settings of which command."""

NOT_IN_FILES = frozenset({"as_json", "config", "help_all"})
"""Options that only a command line has."""

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
}
"""What is expected, by the type of pydantic's error; of other types, its message says it well."""


def read_options(
    path: Path, context: typer.Context, model: type[Settings], command: str
) -> dict[str, Any]:
    """Read the options of a command, settings and others, from a file.

    Raises:
        InputError: the file cannot be read, or has an unknown option or an invalid value.
    """
    options: dict[str, Any] = {
        option.name or "": option
        for option in context.command.params
        if option.name not in NOT_IN_FILES
    }
    values = read_settings(path, command, options)
    settings = {name: value for name, value in values.items() if name in model.model_fields}
    make_settings(model, settings, dict.fromkeys(settings, path))
    for name, value in values.items():
        is_switch = getattr(options[name], "is_flag", False)
        if isinstance(value, bool) != is_switch:
            expected = "true or false" if is_switch else "neither true nor false"
            raise InputError(f"{path}: {_dashed(name)} = {_to_toml(value)}, expected {expected}")
    return values


def read_settings(path: Path, command: str, names: Collection[str]) -> dict[str, Any]:
    """Read the top level of a file and then the table named after the command.

    Args:
        path: a TOML file, a ``config.json``, or what ``--dry-run`` printed.
        command: the name of the command.
        names: the settings allowed, with ``_`` between words.

    Raises:
        InputError: the file cannot be read, has another name or one in two spellings, or is of
            another command.
    """
    values: dict[str, Any] = {}
    document = _settings_of_run(path, _read_document(path), command)
    for name, value in document.items():
        if not isinstance(value, dict):
            values[name] = value
        elif name not in TABLES:
            raise InputError(
                f"{path}: unknown table {shown(name)}",
                hint=f"{suggest(name, TABLES)}tables are named {', '.join(TABLES)}",
            )
    table = document.get(command, {})
    levels = [values, table] if isinstance(table, dict) else [values]
    merged: dict[str, Any] = {}
    for level in levels:
        for name in level:
            if name.replace("-", "_") not in names:
                raise InputError(
                    f"{path}: unknown setting {shown(name)} for {command}",
                    hint=suggest(_dashed(name), [*map(_dashed, names)]) + where_listed(command),
                )
        merged |= _underscored(path, level)
    return merged


def _underscored(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by names with ``_`` between words.

    Raises:
        InputError: a name is there with ``-``, too.
    """
    spellings: dict[str, str] = {}
    for spelling in values:
        name = spelling.replace("-", "_")
        if name in spellings:
            raise InputError(
                f"{path}: {spellings[name]} and {spelling} are the same setting",
                hint="leave one of them out",
            )
        spellings[name] = spelling
    return {name: values[spelling] for name, spelling in spellings.items()}


def _read_document(path: Path) -> dict[str, Any]:
    kind = "TOML"
    try:
        text = read_text(path)
        if not text.lstrip().startswith("{"):  # with which no TOML begins
            return parse_toml(text)
        kind = "JSON"
        return unseal(json_text.parse(text))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: is not {kind}: {error}") from None


def _settings_of_run(path: Path, document: dict[str, Any], command: str) -> dict[str, Any]:
    """Return the settings in the ``config.json`` of a run or model; another document as it is.

    Raises:
        InputError: the run is of another command.
    """
    verb = document.get("verb")
    if not isinstance(verb, str):
        return document
    settings = document.get(RECORDS.get(verb, {}).get(command, ""))
    if not isinstance(settings, dict):
        raise InputError(
            f"{path}: holds no settings of `skelnas {command}`: its verb is {shown(verb)}",
            hint="name the config.json of a run of the same command, or a TOML file",
        )
    return settings


def make_settings(
    model: type[AnySettings],
    values: dict[str, Any],
    sources: Mapping[str, Path | str] | None = None,
) -> AnySettings:
    """Validate values, each of which comes from the command line or another source.

    Args:
        model: the settings.
        values: by name.
        sources: by name, the file or the environment variable that a value comes from.

    Raises:
        UsageError: a value from the command line or the environment is invalid.
        InputError: a value from a file is invalid.
    """
    try:
        return model(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        value, expected = problem["input"], problem["msg"].removeprefix("Input should be ")
        expected = EXPECTED.get(problem["type"], expected)
        source = (sources or {}).get(name)
        if source is None:
            raise UsageError(f"--{_dashed(name)} {value}: expected {expected}") from None
        if isinstance(source, str):
            raise UsageError(f"{source}={value}: expected {expected}") from None
        raise InputError(
            f"{source}: {_dashed(name)} = {_to_toml(value)}, expected {expected}"
        ) from None


def where_listed(command: str) -> str:
    """Return a hint at where the settings of a command, as a file names it, are listed."""
    verb = "bench run" if command == "bench" else command
    return f"`skelnas {verb} --help-all` lists the settings"


def suggest(name: str, names: Collection[str]) -> str:
    """Return a question that names what is spelt most like `name`, or ""."""
    found = get_close_matches(name, names, n=1)
    return f"did you mean {found[0]}? " if found else ""


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _to_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else shown(value)
