"""The documentation matches the code: links, the command reference, examples."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from hub_server import serving
from test_commands import parse
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.cli.commands import to_click
from skelnas.config import ClipSettings
from skelnas.data.cache import Cache
from skelnas.genotype import random_genotype
from skelnas.training.card import ModelCard
from skelnas.training.saved_model import save_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/skelnas/skelnas/blob/main/"
NOTHING: Mapping[str, str] = {}
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])


def prose(page: Path) -> str:
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    return re.sub(r"`[^`\n]*`(?!\])", "", text)


def anchors(page: Path) -> set[str]:
    """Return the link targets of a page: its headings, as GitHub names them."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", text, flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_a_target(page: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(REPOSITORY):  # as on PyPI, where the README is alone
            folder, target = ROOT, target.removeprefix(REPOSITORY)
        elif re.match(r"[a-z]+:", target):
            continue
        else:
            folder = page.parent
        file, _, anchor = target.partition("#")
        linked = folder / file if file else page
        assert linked.exists(), f"{page.name} links to {target}: there is no such file"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}: no such heading"


def test_the_readme_needs_no_files_beside_it() -> None:
    """PyPI shows the page without the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert targets
    assert all(target.startswith("https://") for target in targets)


SHELL_BLOCK = re.compile(r"^(<!-- .*? -->\n)?```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (needs|takes) .*? -->\n")
"""A comment above a block that no test runs: what it needs, or how long it takes."""


def commands(page: Path) -> list[str]:
    """Return the shell commands on a page that can run here."""
    blocks = SHELL_BLOCK.findall(page.read_text(encoding="utf-8"))
    for mark, _ in blocks:
        assert not mark or MARK.fullmatch(mark), f"{page.name}: unknown mark {mark}"
    return [line for mark, block in blocks if not mark for line in block.splitlines() if line]


def written_commands(page: Path) -> list[str]:
    """Return all skelnas commands on a page, in shell blocks and others, whether run or not."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in ("", "bash", "text")]
    blocks += re.findall(r"^ {4}(skelnas .*)$", text, re.MULTILINE)
    found = re.findall(r"(?:^|[|(] ?)(skelnas [^|>)#\n]*)", "\n".join(blocks), re.MULTILINE)
    return [
        line for line in found if not any(sign in line for sign in ("...", "$", "[", "skelnas --"))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_arguments_and_options_that_exist(page: Path) -> None:
    for line in written_commands(page):
        parse(shlex.split(line)[1:])


def execute(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a shell command; a plain skelnas command runs in this process, which has loaded torch.

    Returns:
        All its output.
    """
    if not line.startswith("skelnas ") or any(sign in line for sign in "|>&;$"):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        shell = subprocess.run(
            ["bash", "-ec", line],
            cwd=folder,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert shell.returncode == 0, f"{line}\n{shell.stdout}"
        return shell.stdout
    monkeypatch.chdir(folder)
    words = [sorted(map(str, Path().glob(w))) if "*" in w else [w] for w in shlex.split(line)]
    arguments = [word for found in words for word in found][1:]
    if arguments[0] in ("search", "train", "evaluate"):
        arguments += ["--threads", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{line}\n{done.output}{done.exception!r}"
    return done.output


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md", "docs/contributing.md"])
def test_shell_blocks_run_or_state_what_they_need(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in commands(ROOT / name):
        execute(line, tmp_path, monkeypatch)


def test_the_tutorial_runs_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in commands(DOCS / "tutorial.md"):
        execute(line, tmp_path, monkeypatch)
    for file in ("search.html", "model.html", "cells.svg", "clip.png", "confusion.csv"):
        assert (tmp_path / file).stat().st_size > 0


def test_the_tutorial_of_own_recordings_runs_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = DOCS / "own-recordings.md"
    (tmp_path / "people.py").write_text(example(page.name, "## 1. Sort recordings into folders"))
    printed = {line: execute(line, tmp_path, monkeypatch) for line in commands(page)}
    text = "".join(printed.values())
    assert all(float(top1) > 75 for top1 in re.findall(r"top-1 *│ *([0-9.]+)", text))
    assert "6 subjects by name" in text
    (stream,) = (output for line, output in printed.items() if line.startswith("cat"))
    assert ": 9" in stream
    assert (tmp_path / "clip.png").stat().st_size > 0
    check_is_live(tmp_path / "models" / "webcam", tmp_path / "live.jsonl")


def check_is_live(model: Path, frames: Path) -> None:
    """Check that `predict -` prints each window before it gets the next frame."""
    lines = frames.read_text().splitlines(keepends=True)
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "skelnas",
            "predict",
            str(model),
            "-",
            "--window",
            "9",
            "--stride",
            "5",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as predict:
        assert predict.stdin
        assert predict.stdout
        watchdog = Timer(60, predict.kill)
        watchdog.start()
        for first, count in ((1, 9), (6, 5), (11, 5)):
            predict.stdin.write("".join(lines[:count]))
            predict.stdin.flush()
            assert predict.stdout.readline().startswith(f"frames {first} to {first + 8}: ")
        predict.stdin.close()
        watchdog.cancel()
        assert predict.wait() == 0


def messages() -> list[str]:
    """Return every error message of the code, with an ellipsis for each field."""
    return [
        text
        for path in (ROOT / "skelnas").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and node.args
        for text in [template(node.args[0])]
        if text
    ]


def template(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(p) if isinstance(p, ast.Constant) else "…" for p in node.values)
    return ""


def test_the_explained_messages_exist_in_the_code() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### `(.*)`$", page, flags=re.MULTILINE)
    assert len(explained) > 20
    assert set(explained) - set(messages()) == set()


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    assert sorted(re.findall(r": ([\w-]+\.md)$", nav, re.MULTILINE)) == sorted(
        page.name for page in DOCS.glob("*.md")
    )


def test_command_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(DOCS / "make_cli.py"))["make"]()
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == made, "docs/cli.md is out of date: run `python docs/make_cli.py`"


def test_the_options_that_folders_lack_are_named() -> None:
    commands = to_click("prepare").commands
    table, folder = (
        {flag for one in commands[name].params for flag in one.opts if flag.startswith("--")}
        for name in ("manifest", "folder")
    )
    assert folder < table
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    named = re.search(r"The options are those of `manifest` without (.*?), since folders", text)
    assert named is not None
    assert set(re.findall("`(.*?)`", named[1])) == table - folder


def test_architecture_names_every_room() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = "".join(re.findall(r"^\| (`[^|]*) \|", page, flags=re.MULTILINE))
    package = ROOT / "skelnas"
    rooms = {p.stem for p in package.iterdir() if p.name[0] not in "_." and p.suffix in ("", ".py")}
    assert set(re.findall(r"`(\w+)`", table)) == rooms


def example(page: str, heading: str, kind: str = "python") -> str:
    """Return the first example under a heading of a page in docs/."""
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n{heading}\n")[1]
    found = re.search(rf"^```{kind}\n(.*?)```", section, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def run(program: str, folder: Path, environment: Mapping[str, str] = NOTHING) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_of_a_source(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for subject in (1, 7):
        for action in ("walk", "wave"):
            np.save(clips / f"{action}-{subject:02}-001.npy", np.ones((5, 4, 3)))
    np.save(clips / "jump-01-001.npy", np.ones((5, 4, 3)))
    printed = run(example("data.md", "## Your own format"), tmp_path)
    assert printed == "{'xsub': (2, 2)} 1 broken\n"
    with Cache.open(tmp_path / "own.h5") as cache:
        assert cache.clips.names == ["walk-01-001", "walk-07-001", "wave-01-001", "wave-07-001"]


def test_custom_recordings_from_csv_files_to_an_evaluated_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heading = "### From CSV files to an evaluated model"
    (tmp_path / "record.py").write_text(example("data.md", heading))
    (tmp_path / "joints.json").write_text(example("data.md", "## Your own recordings", "json"))
    program = example("data.md", heading).rstrip()
    commands = (DOCS / "data.md").read_text(encoding="utf-8").split(program)[1].split("```")[2]
    printed = [execute(line, tmp_path, monkeypatch) for line in commands.strip().splitlines()]
    assert "96 clips" in "".join(printed)
    (top1,) = re.findall(r"top-1 *│ *([0-9.]+)", printed[-1])
    assert float(top1) > 50, printed[-1]


def test_example_of_reading_a_model(tmp_path: Path) -> None:
    card = ModelCard(
        genotype=random_genotype(0).to_dict(),
        channels=2,
        layers=3,
        classes=["walk", "wave"],
        input_shape=(3, 8, 4),
        joints=["hip", "head", "left hand", "right hand"],
        clip_settings=ClipSettings(frames=8).model_dump(),
        source="own",
        protocol="xsub",
        versions={},
    )
    save_model(tmp_path, card.make_network(), card)
    printed = run(example("formats.md", "### `model.safetensors`"), tmp_path)
    assert printed == "[3, 8, 4] 2 classes\n"


def test_the_page_on_python_runs_from_top_to_bottom(tmp_path: Path) -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)```", page, flags=re.DOTALL | re.MULTILINE)
    with serving() as server:
        environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "cache")}
        printed = run("".join(blocks), tmp_path, environment)
        ((commit, _),) = server.repositories["user/name"]
    first, *_, gcn, revision = printed.splitlines()
    assert first.startswith("Evaluation(xsub test, 16 clips, top-1 ")
    assert printed.count("Evaluation(") == 2
    assert printed.count("Prediction(") == 2
    assert gcn == "['st-gcn']"
    assert revision == commit

    (tmp_path / "models").mkdir()
    (tmp_path / "model").rename(tmp_path / "models" / "xsub")
    recording = min((tmp_path / "raw").glob("*.skeleton"))
    recording.rename(recording.with_name("S001C001P001R001A001.skeleton"))
    assert run(example("../README.md", "## From recordings to metrics"), tmp_path).count("(") == 3
