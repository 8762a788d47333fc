"""Settings from files and from the environment: what is taken, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from skelnas.cli.commands import SUMMARIES, load, to_click
from skelnas.cli.config_file import TABLES, make_settings, read_options
from skelnas.config import SearchSettings, TrainSettings
from skelnas.errors import InputError, SkelnasError, UsageError

MODELS: dict[str, Any] = {"search": SearchSettings, "train": TrainSettings}


def read(path: Path, command: str, content: str | dict[str, Any]) -> dict[str, Any]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    context = typer.Context(to_click(command), info_name=command)
    return read_options(path, context, MODELS[command], command)


def plan(command: str, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a command with --dry-run in this process; return what it prints."""
    verb, *words = command.split()
    to_click(verb).main(
        [*words, "--out", str(out), "--dry-run"], standalone_mode=False, prog_name=verb
    )
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_every_command_with_settings_may_have_a_table() -> None:
    with_settings = []
    for name in SUMMARIES:
        commands = {"": to_click(name)}
        if isinstance(load(name), typer.Typer):
            commands = to_click(name).commands
        if any(p.name == "config" for command in commands.values() for p in command.params):
            with_settings.append(name)
    assert sorted(with_settings) == sorted(TABLES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[trian]\nepochs = 3", ["unknown table 'trian'", "did you mean train?"]),
        ("[prepare]\nworkers = 3", ["unknown table 'prepare'", "search, derive, train"]),
        ("[train]\nepoch = 3", ["unknown setting 'epoch' for train", "did you mean epochs?"]),
        ("batch_sise = 3", ["unknown setting 'batch_sise'", "did you mean batch-size?"]),
        ("json = true", ["unknown setting 'json'", "hint: `skelnas train --help-all`"]),
        ("as-json = true", ["unknown setting 'as-json'", "hint: `skelnas train --help-all`"]),
        ("batch-size = 4\nbatch_size = 5", ["batch-size and batch_size are the same setting"]),
        ("[train]\nepochs = 'x'", ["epochs = 'x', expected a whole number"]),
        ('{"epochs": 3', ["is not JSON"]),
        ('{"epochs": null}', ["epochs = None, expected a whole number"]),
        ({"verb": "search", "settings": {}}, ["no settings of `skelnas train`", "'search'"]),
        ({"verb": "train", "settings": {"epoch": 3}}, ["unknown setting 'epoch'"]),
        ({"verb": "trials", "settings": {"epochs": 3}}, ["its verb is 'trials'"]),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, content: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "file", "train", content)
    for word in (f"{tmp_path}/file: ", *words):
        assert word in f"{caught.value} hint: {caught.value.hint}"


def test_a_table_overrides_the_top_level_in_any_spelling(tmp_path: Path) -> None:
    content = "batch_size = 4\n[train]\nbatch-size = 5"
    assert read(tmp_path / "file", "train", content) == {"batch_size": 5}


@pytest.mark.parametrize("command", ["train", "search"])
def test_a_dry_run_and_a_config_json_give_the_same_settings_again(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = " --recipe paper --ema 0.9" if command == "train" else " --stop-skips 3 --no-center"
    model = " --model hcn" if command == "train" else ""
    first = plan(f"{command} c.h5{model} --epochs 3 --max-params 20k{more}", tmp_path, capsys)
    assert (first["epochs"], first["max_params"]) == (3, 20_000)
    for document in (first, {"verb": command, "settings": first, "versions": {}}):
        (tmp_path / "saved.json").write_text(json.dumps(document, indent=2))
        again = plan(f"{command} c.h5{model} --config {tmp_path}/saved.json", tmp_path, capsys)
        assert again == first
    flagged = plan(
        f"{command} c.h5{model} --config {tmp_path}/saved.json --seed 7", tmp_path, capsys
    )
    assert flagged == {**first, "seed": 7}


@pytest.mark.parametrize("method", ["--repeats 2", "--method predict --genotypes 5"])
def test_a_search_with_trainings_gives_both_settings_again(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.toml").write_text("[train]\nlr = 0.03\n")
    command = f"search c.h5 {method} --seed 3 --protocol xview"
    first = plan(f"{command} --train-config {tmp_path}/train.toml", tmp_path, capsys)
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(first))
    files = f"--config {saved} --train-config {saved}"
    repeats = method if "repeats" in method else ""
    assert plan(f"search c.h5 {repeats} {files}", tmp_path, capsys) == first
    assert first["train"]["lr"] == 0.03


@pytest.mark.parametrize(
    ("variable", "value", "message", "hint"),
    [
        ("SKELNAS_TRAIN_EPOCHS", "0", "SKELNAS_TRAIN_EPOCHS=0: expected greater", None),
        (
            "SKELNAS_TRAIN_EPOCH",
            "3",
            "SKELNAS_TRAIN_EPOCH: train has no such setting",
            "did you mean SKELNAS_TRAIN_EPOCHS?",
        ),
    ],
)
def test_an_environment_variable_is_blamed_by_its_name(
    variable: str,
    value: str,
    message: str,
    hint: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as caught:
        plan("train c.h5 --model hcn", tmp_path, capsys)
    assert str(caught.value).startswith(message)
    assert hint is None or (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("variable", "command", "meant"),
    [
        ("SKELNAS_EPOCHS", "train", "SKELNAS_TRAIN_EPOCHS"),
        ("SKELNAS_EPOCHS", "search", "SKELNAS_SEARCH_EPOCHS"),
        ("SKELNAS_TRIAN_EPOCHS", "train", "SKELNAS_TRAIN_EPOCHS"),
        ("SKELNAS_TRIAN_EPOCHS", "search", "SKELNAS_TRAIN_EPOCHS"),
        ("SKELNAS_TRAIN", "train", "SKELNAS_TRAIN_LR"),
        ("SKELNAS_SEARCH_EPOCH", "train", "SKELNAS_SEARCH_EPOCHS"),
        ("SKELNAS_BENCH_RUN_EPOCHS", "train", "SKELNAS_BENCH_EPOCHS"),
        ("SKELNAS_QUITE", "train", ""),
        ("SKELNAS_", "train", ""),
    ],
)
def test_an_environment_variable_of_no_command_is_refused(
    variable: str,
    command: str,
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(
        UsageError, match=f"^{variable}: (train|search|bench|no command) has "
    ) as caught:
        plan(f"{command} c.h5{' --model hcn' * (command == 'train')}", tmp_path, capsys)
    hint = caught.value.hint or ""
    assert hint.startswith(f"did you mean {meant}? " if meant else "variables are named SKELNAS_")


def test_environment_variables_of_all_commands_and_of_none_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("SEARCH_EPOCHS", "BENCH_EPOCHS", "DERIVE_LAYERS", "DOCTOR_LR", "DEBUG"):
        monkeypatch.setenv(f"SKELNAS_{name}", "5")
    monkeypatch.setenv("SKELNAS", "5")
    monkeypatch.setenv("SKELNAS_TRAIN_EPOCHS", "9")
    assert plan("train c.h5 --model hcn", tmp_path, capsys)["epochs"] == 9


@pytest.mark.parametrize("words", ["layouts", "prepare synthetic c.h5", "bench report t"])
def test_a_command_without_settings_refuses_environment_variables_too(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKELNAS_PREPARE_WORKERS", "1")
    verb, *others = words.split()
    with pytest.raises(
        UsageError, match=r"^SKELNAS_PREPARE_WORKERS: no command has such a setting"
    ):
        to_click(verb).main(others, standalone_mode=False, prog_name=verb)
    assert to_click(verb).main(["--help"], standalone_mode=False, prog_name=verb) == 0
    assert "Usage: " in capsys.readouterr().out


def test_the_settings_of_a_benchmark_are_listed_by_its_subcommand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKELNAS_BENCH_RUN_EPOCHS", "7")
    command = to_click("bench")
    with pytest.raises(UsageError) as caught:
        command.main(["run", "c.h5", "--out", "t", "--dry-run"], standalone_mode=False)
    hint = caught.value.hint or ""
    assert hint.endswith("`skelnas bench run --help-all` lists the settings")
    command.main(["run", "--help-all"], standalone_mode=False)
    assert "--epochs N" in capsys.readouterr().out


def test_a_value_is_blamed_on_where_it_comes_from() -> None:
    values = {"epochs": "x", "lr": 1.0}
    with pytest.raises(SkelnasError, match=r"^--epochs x: expected a whole number$"):
        make_settings(TrainSettings, values)
    with pytest.raises(InputError, match=r"^a\.toml: epochs = 'x', expected a whole number$"):
        make_settings(TrainSettings, values, {"epochs": Path("a.toml")})
