"""The documentation says what the code does: links, the command reference, examples."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skelnas.cache import Cache
from skelnas.config import ClipSettings
from skelnas.genotype import random_genotype
from skelnas.model_folder import ModelCard, save_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])


def prose(page: Path) -> str:
    """A page without its blocks and pieces of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    return re.sub(r"`[^`\n]*`(?!\])", "", text)


def anchors(page: Path) -> set[str]:
    """Where a page can be linked to: its headings, as GitHub names them."""
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
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{page.name} links to {target}: there is no such file"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}: no such heading"


def test_command_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(DOCS / "make_cli.py"))["make"]()
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == made, "docs/cli.md is out of date: run `python docs/make_cli.py`"


def test_architecture_names_every_module() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w/]+\.py)` \|", page, flags=re.MULTILINE)
    package = ROOT / "skelnas"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    rooms = ("batches", "cache", "cli", "doctor", "engine", "models/baselines", "report")
    own = {f"{room}/__init__.py" for room in rooms}
    markers = {name for name in modules if name.endswith("__init__.py")} - own
    assert sorted(named) == sorted(modules - markers)


def example(page: str, heading: str, kind: str = "python") -> str:
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n{heading}\n")[1]
    found = re.search(rf"^```{kind}\n(.*?)```", section, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
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
    printed = run(example("data.md", "## A source of your own"), tmp_path)
    assert printed == "{'xsub': (2, 2)} 1 broken\n"
    with Cache.open(tmp_path / "own.h5") as cache:
        assert cache.clips.names == ["walk-01-001", "walk-07-001", "wave-01-001", "wave-07-001"]


def test_own_recordings_from_csv_files_to_an_evaluated_model(tmp_path: Path) -> None:
    heading = "### From CSV files to an evaluated model"
    (tmp_path / "record.py").write_text(example("data.md", heading))
    (tmp_path / "joints.json").write_text(example("data.md", "## Own recordings", "json"))
    program = example("data.md", heading).rstrip()
    commands = (DOCS / "data.md").read_text(encoding="utf-8").split(program)[1].split("```")[2]
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "96 clips" in done.stderr
    (top1,) = re.findall(r"top-1 *│ *([0-9.]+)", done.stdout)
    assert float(top1) > 50, done.stdout


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
