"""Sources from other packages: the documented example, intact and broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skelnas.data.cache import Cache

DOCS = Path(__file__).parents[2] / "docs"


def example() -> str:
    """Return the code of the documented example."""
    section = (DOCS / "data.md").read_text(encoding="utf-8").split("\n## Your own format\n")[1]
    found = re.search(r"^```python\n(.*?)```", section, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder with a package that provides the example."""
    folder = tmp_path / "site"
    information = folder / "own_clips-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: own-clips\nVersion: 1.2\n")
    (information / "entry_points.txt").write_text(
        "[skelnas.sources]\nown = own_clips:Own\nntu = own_clips:Own\n"
        "missing = no_such_module:Own\nempty = builtins:str\n"
    )
    (folder / "own_clips.py").write_text(example() + "print('imported')\n")
    return folder


def skelnas(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skelnas", *arguments],
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "100"},
        timeout=120,
    )


def test_a_source_from_another_package_is_a_command(site: Path) -> None:
    clips = site.parent / "clips"
    clips.mkdir()
    for subject in range(1, 11):
        for take in range(30):
            np.save(clips / f"walk-{subject:02}-{take:03}.npy", np.ones((5, 4, 3)))
    done = skelnas(site, "prepare", "own", "clips", "own.h5", "--workers", "2")
    assert done.returncode == 0, done.stderr
    with Cache.open(site.parent / "own.h5") as cache:
        assert (cache.source, len(cache.clips.names)) == ("own", 300)


def test_a_source_may_have_environment_variables(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKELNAS_OWN_FOLDER", "clips")
    assert skelnas(site, "layouts").returncode == 0
    monkeypatch.setenv("SKELNAS_OWNS_FOLDER", "clips")
    refused = skelnas(site, "layouts")
    assert refused.returncode == 2
    assert "SKELNAS_OWNS_FOLDER: no command has such a setting" in refused.stderr
    assert "imported" not in refused.stdout


def test_help_lists_the_plugin_without_importing_it(site: Path) -> None:
    done = skelnas(site, "prepare", "--help")
    assert "Source from the package own-clips 1.2." in done.stdout
    assert "imported" not in done.stdout
    assert "NTU RGB+D 60 and 120" in done.stdout
    done = skelnas(site, "prepare", "own", "--help")
    assert "--workers" in done.stdout
    assert "imported" not in done.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("empty", "has no 'name'"),
    ],
)
def test_a_source_that_cannot_be_loaded_is_reported(site: Path, name: str, expected: str) -> None:
    done = skelnas(site, "prepare", name, "clips", "own.h5")
    assert done.returncode == 1
    assert expected in done.stderr.replace("\n", " ")
    assert "own-clips 1.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_built_in_source_cannot_be_replaced(site: Path) -> None:
    done = skelnas(site, "prepare", "ntu", "no-such-folder", "own.h5")
    assert done.returncode == 3
    assert "imported" not in done.stdout
