"""The one command for a GPU: it loses nothing when it is cut, and continues where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skelnas.cli import app

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("gpu")


def outcomes(folder: Path) -> dict[str, str]:
    records = json.loads((folder / "parts.json").read_text())
    return {name: record["outcome"] for name, record in records.items()}


def test_a_second_run_continues_with_what_did_not_end_well(gpu: Any, tmp_path: Path) -> None:
    count = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(int(sys.argv[2]))"

    def part(name: str, code: int) -> Any:
        return gpu.Part(name, [sys.executable, "-c", count, str(tmp_path / name), str(code)], 20)

    slow = gpu.Part("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 1)
    absent = gpu.Part("absent", ["no-such-program"], 1)
    gpu.run_parts([part("good", 0), part("bad", 3), slow, absent], tmp_path, 60)
    assert outcomes(tmp_path) == {
        "good": "done",
        "bad": "exit code 3",
        "slow": "stopped after 1 s",
        "absent": "no-such-program is not installed",
    }
    gpu.run_parts([part("good", 0), part("bad", 0)], tmp_path, 60)
    assert outcomes(tmp_path)["bad"] == "done"
    assert (tmp_path / "good").read_text() == "x"
    assert (tmp_path / "bad").read_text() == "xx"
    gpu.run_parts([part("late", 0)], tmp_path, 0)
    assert outcomes(tmp_path)["late"] == "no time left"
    assert not (tmp_path / "late").exists()


def test_its_commands_have_options_that_exist(gpu: Any, tmp_path: Path) -> None:
    for part in gpu.parts(tmp_path):
        if "skelnas" in part.command:
            verb, *arguments = part.command[part.command.index("skelnas") + 1 :]
            names = [verb, *arguments[:1]] if verb == "prepare" else [verb]
            text = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200"}).output
            assert all(each in text for each in arguments if each.startswith("--")), part


def test_without_a_gpu_it_says_so(gpu: Any, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, "no CUDA device")
    assert not (tmp_path / "out").exists()
