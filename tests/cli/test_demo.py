"""`skelnas demo`; .ci/run runs it whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skelnas.cli import demo as module
from skelnas.cli.demo import BATCH_SIZE, demo
from skelnas.reporting import plot_style

TOP1 = {"searched": 0.875, "random": 0.9375}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the demo runs, which do nothing here but to claim some results."""
    ran: list[list[str]] = []

    def run(arguments: list[str], **_: object) -> str:
        ran.append(arguments)
        if arguments[0] != "evaluate":
            return "{}"
        kind = "searched" if "searched" in arguments[2] else "random"
        costs = {"parameters": 1234, "macs": 5678}
        return json.dumps({"top1": TOP1[kind], "chance": 0.0625, "clips": 32, **costs})

    monkeypatch.setattr(module, "_run", run)
    return ran


def option(command: list[str], name: str) -> int:
    return int(command[command.index(name) + 1])


@pytest.mark.parametrize("num_clips", [64, 65, 100, 200, 576])
def test_few_clips_are_shown_often_enough_and_many_not_longer(
    commands: list[list[str]], tmp_path: Path, num_clips: int
) -> None:
    demo(tmp_path / "demo", num_clips, 0)
    (train,) = (c for c in commands if c[0] == "train" and "random:0" in c)
    steps = option(train, "--epochs") * (num_clips / 2 / BATCH_SIZE)
    assert 100 <= steps <= 200
    (search,) = (c for c in commands if c[0] == "search")
    assert 12 <= option(search, "--epochs") * (num_clips / 4 / BATCH_SIZE) <= 40


@pytest.mark.parametrize("has_matplotlib", [True, False])
def test_a_session_of_a_test_subject_is_drawn_if_possible(
    commands: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_matplotlib: bool,
) -> None:
    monkeypatch.setattr(plot_style, "has_matplotlib", lambda: has_matplotlib)
    demo(tmp_path / "demo", 64, 0)
    session, picture = tmp_path / "demo/made-up-session.skeleton", tmp_path / "demo/session.svg"
    assert session.exists()
    printed = capsys.readouterr().out
    assert str(picture) in printed
    assert ("pip install" in printed) != has_matplotlib
    drawn = [command for command in commands if command[0] == "predict"]
    assert len(drawn) == has_matplotlib
    assert all(str(session) in command and str(picture) in command for command in drawn)


@pytest.mark.usefixtures("commands")
def test_the_summary_says_what_the_figures_are_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo(tmp_path / "demo", 64, 0)
    printed = capsys.readouterr().out
    for words in ("87.5%", "93.8%", "always the largest class", "6.2%"):
        assert words in printed
    assert "made up" in printed
    assert "nothing about people" in printed
