"""The list of commands is accurate, quick to print, and completed by shells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from test_cli import run

from skelnas import cli
from skelnas.cli.commands import SUMMARIES, load, to_click
from skelnas.cli.help import MAX_NAME_WIDTH, default_text, flag, is_argument


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_summary_of_a_command_starts_its_help(name: str) -> None:
    command = load(name)
    text = command.info.help if isinstance(command, typer.Typer) else command.__doc__
    assert SUMMARIES[name] == first_paragraph(text)


@pytest.mark.parametrize("name", SUMMARIES)
def test_an_option_is_described_in_one_line_of_80_columns(name: str) -> None:
    command = to_click(name)
    for one in getattr(command, "commands", {"": command}).values():
        for parameter in one.params:
            default = default_text(parameter)
            text = f"{parameter.help} [{default}]" if default else parameter.help
            longest = 60 if is_argument(parameter) else 80 - 6 - MAX_NAME_WIDTH
            assert len(text) <= longest, f"{parameter.name}: {text}"


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
        ("search c --out o extra", "Got unexpected extra argument", ""),
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
