"""Environment variables: each that begins with ``SKELNAS_`` sets something, or is refused."""

from __future__ import annotations

import os
from collections.abc import Collection
from difflib import get_close_matches

PREFIX = "SKELNAS_"

NOT_SETTINGS = frozenset({"SKELNAS_DEBUG"})
"""Variables that are no settings of a command."""


def check_environment(command_path: str) -> None:
    """Check that each variable sets something, for this command or for another.

    Args:
        command_path: the command that runs, such as ``skelnas bench run``.

    Raises:
        UsageError: there is no setting of this name.
    """
    variables = [name for name in sorted(os.environ) if name.startswith(PREFIX)]
    if not NOT_SETTINGS.issuperset(variables):  # or else nothing needs to be imported
        _check_settings([name for name in variables if name not in NOT_SETTINGS], command_path)


def _check_settings(variables: Collection[str], command_path: str) -> None:
    from skelnas.cli.config_file import TABLES, where_listed
    from skelnas.cli.plugins import list_sources
    from skelnas.errors import UsageError

    known = {command: _list_variables(command) for command in TABLES}
    of_all = [name for names in known.values() for name in names]
    of_sources = tuple(_begin(source) for source in list_sources())  # which may read their own
    for variable in variables:
        if variable in of_all:
            continue
        for command in TABLES:
            if variable.startswith(_begin(command)):
                raise UsageError(
                    f"{variable}: {command} has no such setting",
                    hint=_suggest(variable, known[command]) + where_listed(command),
                )
        if variable.startswith(of_sources):
            continue
        completed = [variable.replace(PREFIX, _begin(word), 1) for word in command_path.split()]
        likely = [name for name in completed if name in of_all]
        raise UsageError(
            f"{variable}: no command has such a setting",
            hint=_suggest(variable, likely or of_all)
            + "variables are named SKELNAS_COMMAND_SETTING, such as SKELNAS_TRAIN_EPOCHS",
        )


def _begin(name: str) -> str:
    """Return what the variables of a command or a source begin with."""
    return f"{PREFIX}{name.upper().replace('-', '_')}_"


def _suggest(variable: str, names: Collection[str]) -> str:
    """Return a question that names what is spelt most like `variable`, or ""."""
    endings = [name.removeprefix(PREFIX) for name in names]
    found = get_close_matches(variable.removeprefix(PREFIX), endings, n=1)
    return f"did you mean {PREFIX}{found[0]}? " if found else ""


def _list_variables(command: str) -> list[str]:
    """List the variables of a command, or of the commands in a group."""
    from skelnas.cli.commands import to_click

    found = to_click(command)
    commands = getattr(found, "commands", {command: found}).values()
    return [option.envvar for one in commands for option in one.params if option.envvar]
