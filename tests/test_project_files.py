"""The files that describe the project to other tools agree with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skelnas import __version__

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_citation_names_the_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [__version__]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_the_checks_of_the_project(path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs the extra docs")
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in commands


def test_hooks_run_what_the_project_has() -> None:
    yaml = pytest.importorskip("yaml", reason="needs the extra docs")
    path = ROOT / ".pre-commit-config.yaml"
    if not path.exists():
        pytest.skip("a source distribution has no dot files")
    text = path.read_text(encoding="utf-8")
    (local,) = yaml.safe_load(text)["repos"]
    entries = [hook["entry"] for hook in local["hooks"]]
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for entry in entries:
        tool, *arguments = entry.split()
        assert tool in checks or (ROOT / arguments[0]).exists(), entry
