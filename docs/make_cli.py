"""Write docs/cli.md, the command reference, from the commands themselves.

Run ``python docs/make_cli.py`` after changing a command. The page depends on the signatures and
docstrings of the commands only, not on the terminal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import typer
from typer.models import ArgumentInfo, ParamMeta
from typer.utils import get_params_from_function

from skelnas.cli.commands import SUMMARIES, load
from skelnas.cli.prepare_common import PrepareOptions

OUT = Path(__file__).with_name("cli.md")

HEAD = """\
# Commands

Written by `python docs/make_cli.py` from the commands; edit their texts, not this page.

`skelnas COMMAND --help` shows the same in a terminal, `skelnas --version` the version; \
`skelnas --install-completion` installs tab completion. `python -m skelnas` is the same program.

## Precedence of settings

Options under "Settings" take their value from the first of these sources:

1. the flag: `--epochs 10`
2. the environment: `SKELNAS_SEARCH_EPOCHS=10`, that is `SKELNAS_`, the command, the setting; a \
switch such as `--center` takes `true` or `false`
3. the file of `--config`, in TOML: `epochs = 10`, in a table named after the command, such as \
`[search]`, or else at the top level. Unknown names are refused
4. the default, which for a training is that of its [recipe](recipes.md#the-two-recipes)

Other options have no environment variable, but can be set in the file, too. `--dry-run` prints \
the result as JSON. One file can serve several commands:

```toml
[search]
epochs = 10
batch-size = 16

[train]
epochs = 60
rotate = 15.0
```

[method.md](method.md#defaults-and-their-sources) says where each default comes from.

## Output

Results go to standard output: a genotype, a table, or JSON with `--json`. Notes, progress and \
errors go to standard error. `search` and `train` show the metrics of the current epoch and the \
cells that would be derived now. Without a terminal, or with `TERM=dumb`, progress is a plain line \
every 10 seconds at most, and one per epoch. `NO_COLOR=1` turns colours off.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: a file cannot be written, a check of `doctor` failed, or a bug |
| 2 | usage: an unknown option, a value out of range, an output that exists |
| 3 | bad input: a cache, genotype, model or recording is missing, broken or does not fit |
| 4 | the device is missing, memory is exhausted, or a worker process died |
| 130 | interrupted by Ctrl-C or SIGTERM; `search` and `train` can be resumed |

`prepare` also exits with 3 if it wrote the cache but left out broken files. A failure is one line \
with a hint; `SKELNAS_DEBUG=1` adds the traceback.
"""

Function = Callable[..., Any]
Settings = dict[str, ParamMeta]
COMMON = {field.name for field in fields(PrepareOptions)}  # options of all prepare commands
METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def make() -> str:
    """Return the whole page."""
    commands = _commands()
    lines = [HEAD, "## Commands", ""]
    lines += [f"- [`{name}`]({_anchor(name)}): {_paragraphs(f)[0]}" for name, f in commands.items()]
    lines += ["", "### Options of every source", "", "All `skelnas prepare` commands take:", ""]
    lines += _table(p for p in _parameters(commands["skelnas prepare ntu"]) if p.name in COMMON)
    shared = _shared_groups(commands.values())
    for name, function in commands.items():
        lines += ["", *_section(name, function, shared)]
    lines += ["", "## Shared settings"]
    for group, settings in shared.items():
        lines += ["", f"### {group}", "", *_table(settings.values())]
    return "\n".join(lines) + "\n"


def _commands() -> dict[str, Function]:
    """Return the full name and the function of every command, in the order of the help."""
    commands = {}
    for name in SUMMARIES:
        command = load(name)
        if not isinstance(command, typer.Typer):
            commands[f"skelnas {name}"] = command
            continue
        for info in command.registered_commands:
            commands[f"skelnas {name} {info.name}"] = info.callback
    return commands


def _section(name: str, function: Function, shared: dict[str, Settings]) -> list[str]:
    lines = [f"### {name}"]
    for paragraph in _paragraphs(function):
        label, _, command = paragraph.partition(": ")
        lines += ["", *(["```", command, "```"] if label == "Example" else [paragraph])]
    is_prepare = name.startswith("skelnas prepare")
    rows = [p for p in _parameters(function) if not p.default.envvar]
    lines += ["", *_table(p for p in rows if not (is_prepare and p.name in COMMON))]
    if name == "skelnas doctor":
        return [*lines, "", "Settings: those of [`skelnas search`](#skelnas-search)."]
    for group, settings in _groups(function).items():
        if group not in shared:
            lines += ["", "Settings:", "", *_table(settings.values())]
            continue
        flags = []
        for setting, usual in ((settings[name], shared[group][name]) for name in settings):
            differs = _default(setting) != _default(usual)
            flags.append(f"`{_flag(setting)}`" + f" (default {_default(setting)})" * differs)
        lines += ["", f"[{group}]({_anchor(group)}): {', '.join(flags)}"]
    return lines


def _groups(function: Function) -> dict[str, Settings]:
    """Return the settings of a command by group, its own group first."""
    groups: dict[str, Settings] = {}
    for parameter in _parameters(function):
        if parameter.default.envvar:
            groups.setdefault(parameter.default.rich_help_panel, {})[parameter.name] = parameter
    return groups


def _shared_groups(functions: Iterable[Function]) -> dict[str, Settings]:
    """Return the settings that are in no command's own group, with the first defaults found."""
    shared: dict[str, Settings] = {}
    for function in functions:
        for group, settings in list(_groups(function).items())[1:]:
            shared[group] = {**settings, **shared.get(group, {})}
    return shared


def _parameters(function: Function) -> list[ParamMeta]:
    """Return the arguments of a command, then its options."""
    parameters = get_params_from_function(function).values()
    described = [p for p in parameters if p.annotation is not typer.Context]
    return sorted(described, key=lambda p: not isinstance(p.default, ArgumentInfo))


def _table(parameters: Iterable[ParamMeta]) -> list[str]:
    rows = [f"| `{_signature(p)}` | {_default(p)} | {p.default.help} |" for p in parameters]
    return ["| option | default | meaning |", "|---|---|---|", *rows]


def _signature(parameter: ParamMeta) -> str:
    """Return an argument or option and its values: ``--order {first,second}``."""
    if isinstance(parameter.default, ArgumentInfo):
        return parameter.name.upper()
    if parameter.annotation is bool:
        return _flag(parameter)
    annotation = parameter.annotation
    if NoneType in get_args(annotation):
        (annotation,) = (one for one in get_args(annotation) if one is not NoneType)
    if get_origin(annotation) is Literal:
        return f"{_flag(parameter)} {{{','.join(get_args(annotation))}}}"
    return f"{_flag(parameter)} {METAVARS[annotation]}"


def _flag(parameter: ParamMeta) -> str:
    declared = parameter.default.param_decls
    if declared:
        return str(declared[0])
    negation = "[no-]" if parameter.annotation is bool else ""
    return f"--{negation}{parameter.name.replace('_', '-')}"


def _default(parameter: ParamMeta) -> str:
    value = parameter.default.default
    if value in (..., inspect.Parameter.empty):
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value in (None, "") else f"`{value}`"


def _paragraphs(function: Function) -> list[str]:
    text = inspect.cleandoc(function.__doc__ or "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _anchor(heading: str) -> str:
    return "#" + heading.lower().replace(" ", "-")


if __name__ == "__main__":
    OUT.write_text(make(), encoding="utf-8")
