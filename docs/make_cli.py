"""Write docs/cli.md, the command reference, from the commands themselves.

Run it after a command has changed: ``python docs/make_cli.py``. The text depends on the
signatures of the commands only, not on the terminal.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import typer
from typer.utils import get_params_from_function

from skelnas.cli.commands import SUMMARIES, load

OUT = Path(__file__).with_name("cli.md")

HEAD = """\
# Commands

Written by `python docs/make_cli.py` from the commands themselves; edit their texts, not this page.

`skelnas COMMAND --help` says the same in the terminal. `python -m skelnas` is the same program. \
Every command also has `-h`, `--help`; `skelnas` alone has `--version`, `--install-completion` \
and `--show-completion`.

## Where a setting comes from

The options under "Settings" can be given in four places. The first that has a value wins:

1. the flag: `--epochs 10`
2. the environment: `SKELNAS_SEARCH_EPOCHS=10`, that is `SKELNAS_`, the command, the setting, in \
capitals and with `_` for `-`; a switch such as `--center` takes `true` or `false`
3. the file of `--config`, in TOML: `epochs = 10`, at the top level or in a table named as the \
command, such as `[search]`, which wins over the top level. An unknown name is refused; tables of \
other commands are theirs
4. the default, in a training that of the recipe: `strong: 0.1` below means 0.1 with \
`--recipe strong`

The other options with a name can stand in the file too, but have no environment variable. \
`--dry-run`, where a command has it, prints the settings that result, as JSON.

A settings file for two commands:

```toml
[search]
epochs = 10
batch-size = 16

[train]
epochs = 60
rotate = 15.0
```

In the help texts "paper" is SAR-NAS, "release" the code that its authors published and "ours" \
a choice of this project; [method.md](method.md) says why.

## What goes where

The result goes to standard output: a genotype, a table, or JSON with `--json`. Notes, progress \
and errors go to standard error. `search` and `train` show there how far they are, the figures of \
the epoch so far and, in a search, the cells that would be derived now. Where that is no terminal, \
or one that cannot redraw (`TERM=dumb`), progress is a plain line at most every 10 seconds and, in \
a search or a training, one an epoch. `NO_COLOR=1` turns colours off.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: a file cannot be written, or a bug |
| 2 | usage: an unknown option, a value out of range, an output that is there already |
| 3 | bad input: a cache, a genotype, a model or a recording is missing, broken or does not fit |
| 4 | the device is missing, memory is spent, or a worker process died |
| 130 | interrupted by Ctrl-C; `search` and `train` also end so on SIGTERM, and can be resumed |

`prepare` also ends with 3 when it wrote the cache but had to leave out broken files. \
A known failure is one line and a hint. `SKELNAS_DEBUG=1` adds the traceback.
"""

Function = Callable[..., Any]


def make() -> str:
    """Return the whole page."""
    commands = list(_commands())
    index = ["## Commands", "", "| command | what it does |", "|---|---|"]
    for name, function in commands:
        summary = _paragraphs(function)[0]
        index.append(f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(summary)} |")
    sections = ["\n".join(_section(name, function)) for name, function in commands]
    return "\n".join([HEAD, "\n".join(index), "", "\n\n".join(sections)]) + "\n"


def _commands() -> Iterator[tuple[str, Function]]:
    """Yield the full name and the function of every command, in the order of the help."""
    for name in SUMMARIES:
        found = load(name)
        if not isinstance(found, typer.Typer):
            yield f"skelnas {name}", found
            continue
        for info in found.registered_commands:
            if info.callback is not None and not info.hidden:
                inner = info.name or info.callback.__name__.replace("_", "-")
                yield f"skelnas {name} {inner}", info.callback


def _section(name: str, function: Function) -> list[str]:
    parameters = list(get_params_from_function(function).values())
    arguments = [p for p in parameters if isinstance(p.default, typer.models.ArgumentInfo)]
    options = [p for p in parameters if isinstance(p.default, typer.models.OptionInfo)]
    own = [p for p in options if not p.default.envvar]
    settings = [p for p in options if p.default.envvar]

    usage = [name, *(p.name.upper() for p in arguments)]
    usage += [f"{_flags(p)} {p.name.upper()}" for p in options if _is_required(p)]
    lines = [f"### {name}", "", "```", " ".join([*usage, "[OPTIONS]"]), "```"]
    for paragraph in _paragraphs(function):
        label, _, command = paragraph.partition(": ")
        example = ["Example:", "", "```", command, "```"]
        lines += ["", *(example if label == "Example" else [paragraph])]
    if arguments:
        rows = [(f"`{p.name.upper()}`", _type(p.annotation), _help(p)) for p in arguments]
        lines += ["", *_table(("argument", "type", "meaning"), rows)]
    for title, members in (("option", own), ("setting", settings)):
        if members:
            lines += ["", *(["#### Settings", ""] if title == "setting" else [])]
            lines += _table((title, "type", "default", "meaning"), map(_option_row, members))
    return lines


def _option_row(parameter: typer.models.ParamMeta) -> tuple[str, ...]:
    flags = " / ".join(f"`{flag}`" for flag in _flags(parameter).split("/"))
    return flags, _type(parameter.annotation), _default(parameter), _help(parameter)


def _flags(parameter: typer.models.ParamMeta) -> str:
    """Return how an option is written; the off switch, if there is one, after a slash."""
    if parameter.default.param_decls:
        return "/".join(parameter.default.param_decls)
    flag = parameter.name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if parameter.annotation is bool else f"--{flag}"


def _is_required(parameter: typer.models.ParamMeta) -> bool:
    return parameter.default.default in (..., inspect.Parameter.empty)


def _default(parameter: typer.models.ParamMeta) -> str:
    value = parameter.default.default
    if _is_required(parameter):
        return "required"
    if value in (None, ""):
        return ""
    if isinstance(value, bool):
        on, _, off = _flags(parameter).partition("/")
        return f"`{on if value else off}`" if off else "off"
    return f"`{value}`"


def _type(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        (given,) = (a for a in typing.get_args(annotation) if a is not type(None))
        return _type(given)
    if origin is list:
        (item,) = typing.get_args(annotation)
        return f"{_type(item)}, one or more"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    names = {bool: "switch", int: "integer", float: "number", str: "text", Path: "path"}
    return names[annotation]


def _help(parameter: typer.models.ParamMeta) -> str:
    info = parameter.default
    bounds = {(True, True): "{min} to {max}", (True, False): "{min} or more"}
    bounds[(False, True)] = "at most {max}"
    limits = bounds.get((info.min is not None, info.max is not None), "")
    limits = limits.format(min=info.min, max=info.max)
    text = _cell(info.help or "")
    return f"{text} ({limits})" if limits else text


def _paragraphs(function: Function) -> list[str]:
    text = inspect.cleandoc(function.__doc__ or "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    body = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return [body[0], "|" + "---|" * len(head), *body[1:]]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    OUT.write_text(make(), encoding="utf-8")
