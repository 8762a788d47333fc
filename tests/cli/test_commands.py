"""The list of commands is accurate, quick to print, and completed by shells."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import typer
from test_cli import run
from typer.testing import CliRunner

from skelnas import cli
from skelnas.cli.commands import SUMMARIES, load, to_click
from skelnas.cli.help import (
    MAX_NAME_WIDTH,
    default_text,
    flag,
    is_argument,
    signature,
    split_examples,
)
from skelnas.errors import UsageError
from skelnas.genotype import BUILT_IN


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_summary_of_a_command_starts_its_help(name: str) -> None:
    command = load(name)
    text = command.info.help if isinstance(command, typer.Typer) else command.__doc__
    assert SUMMARIES[name] == first_paragraph(text)


def commands(name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command, or those of a group, by full name."""
    command = to_click(name)
    for inner, one in getattr(command, "commands", {"": command}).items():
        yield f"skelnas {name} {inner}".strip(), one


@pytest.mark.parametrize("name", SUMMARIES)
def test_an_option_is_described_in_one_line_of_80_columns(name: str) -> None:
    for _, command in commands(name):
        for parameter in command.params:
            default = default_text(parameter)
            text = f"{parameter.help} [{default}]" if default else parameter.help
            longest = 60 if is_argument(parameter) else 80 - 6 - MAX_NAME_WIDTH
            assert len(text) <= longest, f"{parameter.name}: {text}"
            context = typer.Context(command)
            written = signature(parameter, context)
            assert len(written) <= MAX_NAME_WIDTH, written
            record = parameter.get_help_record(context) or ("",)
            for choice in re.findall(r"[\w-]+", record[0]) if "|" in record[0] else ():
                assert choice.lower() in f"{written} {text}".lower(), f"{choice}: {text}"


@pytest.mark.parametrize("name", SUMMARIES)
def test_help_fits_a_terminal_and_has_three_examples(name: str) -> None:
    for full_name, command in commands(name):
        done = CliRunner().invoke(cli.app, [*full_name.split()[1:], "-h"], env={"COLUMNS": "80"})
        lines = done.stdout.splitlines()
        assert len(lines) <= 60
        assert max(map(len, lines)) <= 80
        _, examples = split_examples(command.help)
        assert len(examples) == 3
        assert {f"  {example}" for example in examples} <= set(lines)
        assert all(f"{full_name} " in f"{example} " for example in examples)


@pytest.mark.parametrize("name", SUMMARIES)
def test_examples_are_commands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.json").write_text(BUILT_IN["ntu_cs112se30"].to_json())
    examples = [e for _, command in commands(name) for e in split_examples(command.help)[1]]
    for example in examples:
        for part in example.partition(" > ")[0].split(" | "):
            program, *words = shlex.split(part)
            if program != "skelnas":
                assert program in ("jq", "tail")
            elif words[0] in ("search", "train") and "-" not in words:
                done = CliRunner().invoke(cli.app, [*words, "--dry-run"])
                assert done.exit_code == 0, f"{part}: {done.exception!r}"
            else:
                parse(words)


def parse(words: list[str]) -> None:
    """Parse a command without running it."""
    command = to_click(words.pop(0))
    if hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("skelnas", words)


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("help", "--help"),
        ("help train", "train --help"),
        ("help prepare ntu", "prepare ntu --help"),
        ("help train --help-all", "train --help-all"),
        ("predict --help-all", "predict --help"),
    ],
)
def test_help_is_a_command_too(words: str, same: str) -> None:
    first, second = (CliRunner().invoke(cli.app, line.split()) for line in (words, same))
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    ("command", "right"),
    [
        ("evaluate 'a model' c.h5 --json", "evaluate c.h5 'a model' --json"),
        ("evaluate --part test fused.safetensors c.h5", "evaluate --part test c.h5 fused.saf"),
        ("evaluate m.onnx c.h5", "evaluate c.h5 m.onnx"),
        ("evaluate nothing cache", "evaluate cache nothing"),
        ("predict a.npy b.npy 'a model' --top 3", "predict 'a model' a.npy b.npy --top 3"),
        ("prepare ntu new.h5 raw/ --force", "prepare ntu raw/ new.h5 --force"),
    ],
)
def test_swapped_arguments_are_recognised(
    command: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a model").mkdir()
    Path("a model/model.safetensors").touch()
    h5py.File("cache", "w").close()
    done = CliRunner().invoke(cli.app, shlex.split(command))
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith("arguments are swapped: ")
    assert str(done.exception.hint).startswith(f"`skelnas {right}")


def test_arguments_in_order_are_not_swapped(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    for line in ("evaluate c.h5 m", "evaluate c d", "predict m c.h5", "prepare ntu raw new"):
        parse(line.split())
    parse(["evaluate", "c.h5", str(tmp_path)])
    parse(["predict", str(tmp_path), "other.safetensors"])
    (tmp_path / "evaluate.toml").write_text("model = 'c.h5'")
    parse(["evaluate", "--config", str(tmp_path / "evaluate.toml"), str(tmp_path)])


@pytest.mark.parametrize("name", ["search", "train", "doctor"])
def test_help_lists_what_people_use_and_help_all_the_rest(name: str, tmp_path: Path) -> None:
    short = run(f"skelnas {name} --help", tmp_path, COLUMNS="80").stdout
    full = run(f"skelnas {name} --help-all", tmp_path, COLUMNS="80").stdout
    assert len(short.splitlines()) <= 60
    assert "--epochs N" in short
    assert "--momentum" not in short
    for parameter in to_click(name).params:
        assert flag(parameter) in full or is_argument(parameter)


def test_listing_the_commands_imports_none_of_them() -> None:
    script = (
        "import sys; from skelnas.cli import app; from typer.testing import CliRunner\n"
        "done = CliRunner().invoke(app, ['--help'])\n"
        "print(done.exit_code, *sorted(\n"
        "    name for name in sys.modules if name.split('.')[0] in\n"
        "    ('torch', 'numpy', 'pydantic', 'h5py', 'matplotlib') or name in\n"
        "    ('skelnas.config', 'skelnas.cli.train', 'skelnas.cli.search')\n"
        "))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "0\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("skelnas ev", ["evaluate"]),
        ("skelnas prepare nt", ["ntu"]),
        ("skelnas search --hess", ["--hessian"]),
        ("skelnas search --order s", ["second"]),
    ],
)
def test_completion(words: str, expected: list[str], tmp_path: Path) -> None:
    variables = {"_SKELNAS_COMPLETE": "complete_bash", "COMP_WORDS": words}
    done = run("skelnas", tmp_path, COMP_CWORD=str(words.count(" ")), **variables)
    assert done.stdout.split() == expected, done.stderr


def test_a_mistyped_command_gets_a_suggestion(tmp_path: Path) -> None:
    done = run("skelnas evalute", tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'evaluate'?" in done.stderr


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ("train c --out o --epochs x", "--epochs x: expected a whole number", ""),
        ("train c --out o --lr x", "--lr x: expected a number", ""),
        ("search c --out o --order third", "--order third: expected first or second", ""),
        ("search c --out o --device gpu", "--device gpu: expected auto, cpu, cuda, cuda:N or", ""),
        ("search c --out o --repeats 0", "--repeats 0: expected greater than or equal to 1", ""),
        ("search c", "search needs --out", "`skelnas search --help` shows how to use it"),
        ("search --out o", "search needs CACHE", ""),
        ("search c --out o --epoch 3", "--epoch: search has no such option", "--epochs?"),
        ("train c g --out o", "g: train takes only CACHE; all else follows an option", ""),
        ("prepare ntu r o x y", "x y: prepare ntu takes only RAW, then OUT; all else", ""),
        ("doctor x", "x: doctor takes only options", ""),
        ("search c --out", "Option '--out' requires an argument", ""),
        ("prepare ntuu a", "No such command 'ntuu'", ""),
        ("train c --out o SKELNAS_TRAIN_EPOCHS=x", "SKELNAS_TRAIN_EPOCHS=x: expected a whole", ""),
    ],
)
def test_what_typer_refuses_is_one_line_and_a_hint(
    command: str,
    message: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["skelnas", *command.split()]
    if "=" in words[-1]:
        monkeypatch.setenv(*words.pop().split("="))
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(cli, "_interrupt_on_signals", list)
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"skelnas: {message}")
    assert second.startswith("  hint: ")
    assert hint in second
