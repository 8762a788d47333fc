"""Write docs/cli.md, the command reference, from the commands themselves.

Run ``python docs/make_cli.py`` after changing a command. The page depends on the commands only,
not on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from skelnas.cli.commands import SUMMARIES, to_click
from skelnas.cli.help import arguments_first, default_text, flag, signature, split_examples
from skelnas.cli.prepare_common import PrepareOptions

OUT = Path(__file__).with_name("cli.md")

HEAD = """\
# Commands

Written by `python docs/make_cli.py` from the commands; edit their texts, not this page.

`skelnas COMMAND --help`, or `skelnas help COMMAND`, shows the most used options in a terminal, \
and `--help-all` all of them; `skelnas -V` prints the version; \
`skelnas --install-completion` installs tab completion. `python -m skelnas` is the same program.

## Precedence of settings

Options under "Settings" take their value from the first of these sources:

1. the flag: `--epochs 10`
2. the environment: `SKELNAS_SEARCH_EPOCHS=10`, that is `SKELNAS_`, the command (`BENCH` \
for `bench run`), the setting; a switch such as `--center` takes `true` or `false`
3. the file of `--config`, in TOML: `epochs = 10`, in a table named after the command, such as \
`[search]` (`[bench]` for `bench run`), or else at the top level. It may also be the \
`config.json` of a run of the same command, or the JSON of `--dry-run`
4. the default, which for a training is that of its [recipe](recipes.md#the-two-recipes)

Other options have no environment variable, but can be set in the file, too. Unknown variables, \
tables and names are refused. `--dry-run` prints the result as JSON. One file can serve several \
commands:

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

Results go to standard output: a path with its metrics, a genotype, a table, or \
[JSON with `--json`](formats.md#what-commands-print). Notes, progress and \
errors go to standard error. The path of an output file is checked before work begins, and its \
folders are created; if the file cannot be written in the end, the result is printed all the same. \
`search` and `train` show the metrics of the current epoch and the cells that would be derived \
now. Without a terminal, or with `TERM=dumb`, a plain line gives step, loss, speed and remaining \
time, every 10 \
seconds at first and every 5 minutes in a run of hours, and one line ends each epoch; a notebook \
shows a bar if it has `ipywidgets`. `NO_COLOR=1` turns colours off.

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

CONTEXT = typer.Context(to_click("demo"))  # any, for Typer's own texts
COMMON = {field.name for field in fields(PrepareOptions)}


def make() -> str:
    """Return the whole page."""
    commands = _commands()
    lines = [HEAD, "## Commands", ""]
    lines += [f"- [`{name}`]({_anchor(name)}): {_paragraphs(c)[0]}" for name, c in commands.items()]
    lines += ["", "### Options of every source", "", "All `skelnas prepare` commands take:", ""]
    lines += _table(p for p in commands["skelnas prepare ntu"].params if p.name in COMMON)
    shared = _describe_groups(commands)
    for name, command in commands.items():
        lines += ["", *_section(name, command, shared)]
    lines += ["", "## Shared settings"]
    for group, (settings, anchor) in shared.items():
        if anchor == _anchor(group):
            lines += ["", f"### {group}", "", *_table(settings.values())]
    return "\n".join(lines) + "\n"


def _commands() -> dict[str, Any]:
    """Return every command by its full name, in the order of the help."""
    commands = {}
    for name in SUMMARIES:
        command = to_click(name)
        inner = getattr(command, "commands", {"": command})
        commands |= {f"skelnas {name} {other}".strip(): inner[other] for other in inner}
    return commands


def _section(name: str, command: Any, shared: dict[str, tuple[dict[str, Any], str]]) -> list[str]:
    _, examples = split_examples(command.help)
    lines = [f"### {name}"]
    for paragraph in _paragraphs(command):
        lines += ["", paragraph]
    lines += ["", "```", *examples, "```"]
    common = COMMON if name.startswith("skelnas prepare") else ()
    lines += ["", *_table(p for p in command.params if not p.envvar and p.name not in common)]
    if name == "skelnas doctor":
        return [*lines, "", "Settings: those of [`skelnas search`](#skelnas-search)."]
    for number, (group, settings) in enumerate(_groups(command).items()):
        if not number:
            lines += ["", "Settings:", "", *_table(settings.values())]
            continue
        described, anchor = shared[group]
        flags = []
        for setting, usual in ((settings[name], described[name]) for name in settings):
            default = default_text(setting)
            differs = default != default_text(usual)
            flags.append(f"`{flag(setting)}`" + f" (default `{default}`)" * differs)
        lines += ["", f"[{group}]({anchor}): {', '.join(flags)}"]
    return lines


def _groups(command: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of a command by group, its own group first."""
    groups: dict[str, dict[str, Any]] = {}
    for parameter in command.params:
        if parameter.envvar:
            groups.setdefault(parameter.rich_help_panel, {})[parameter.name] = parameter
    return groups


def _describe_groups(commands: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """Return the settings of each group and the anchor of the section that describes them.

    A group that is a command's own is described there, the others below "Shared settings", with
    the first defaults found.
    """
    described: dict[str, tuple[dict[str, Any], str]] = {}
    for name, command in commands.items():
        for group, settings in list(_groups(command).items())[:1]:
            described[group] = settings, _anchor(name)
    own = set(described)
    for command in commands.values():
        for group, settings in _groups(command).items():
            if group not in own:
                known, _ = described.get(group, ({}, ""))
                described[group] = {**settings, **known}, _anchor(group)
    return described


def _table(parameters: Iterable[Any]) -> list[str]:
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for parameter in arguments_first(list(parameters)):
        default = default_text(parameter)
        default = default if default in ("", "required", "on", "off") else f"`{default}`"
        name = signature(parameter, CONTEXT).replace("|", "\\|")
        rows.append(f"| `{name}` | {default} | {parameter.help} |")
    return rows


def _paragraphs(command: Any) -> list[str]:
    text, _ = split_examples(command.help)
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _anchor(heading: str) -> str:
    return "#" + heading.lower().replace(" ", "-")


if __name__ == "__main__":
    OUT.write_text(make(), encoding="utf-8")
