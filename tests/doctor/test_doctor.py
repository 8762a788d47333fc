"""`skelnas doctor`: missing packages, wrong engines, and the time of a search."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import SEARCH, fails, run

from skelnas import doctor
from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.doctor import Diagnosis, Workload, diagnose
from skelnas.doctor import packages as packages_of
from skelnas.doctor.pace import Pace, check_memory
from skelnas.engine import ENGINES
from skelnas.errors import DeviceError

SETTINGS = SearchSettings(
    frames=6, layers=3, channels=2, nodes=2, epochs=3, batch_size=6, device="cpu"
)
WORKLOAD = Workload(joints=5, classes=3, clips=20)
TRAINING = TrainSettings(
    frames=6, layers=3, channels=2, epochs=5, batch_size=8, device="cpu", threads=1
)


def failed(found: Diagnosis) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.passed}


def test_a_working_machine_gets_a_time_estimate() -> None:
    found = diagnose(SETTINGS, WORKLOAD, training=TRAINING)
    assert found.is_sound, failed(found)
    assert found.versions["torch"] == torch.__version__
    assert {"plot", "tensorboard"} <= found.extras.keys()
    assert not {"test", "dev", "docs"} & found.extras.keys()
    assert found.machine is not None
    assert found.machine.devices[0].name == "cpu"
    assert found.engine == {
        "name": "fused",
        "why": "the fastest without the Triton engine, which is not used: "
        "its kernels need CUDA, not cpu",
    }
    pace = found.pace
    assert pace is not None
    assert pace.steps == 3 * 3  # epochs, and 20 clips in whole batches of 6
    assert pace.step_seconds == pytest.approx(
        pace.measured_seconds * 6 / pace.measured_clips, rel=1e-12
    )
    assert pace.total_seconds == pytest.approx(9 * pace.step_seconds, rel=1e-12)
    assert pace.measured_peak_bytes > 0
    training = found.training_pace
    assert training is not None
    assert training.steps == 5 * 5  # both halves, 40 clips in batches of 8
    assert training.total_seconds == pytest.approx(25 * training.step_seconds, rel=1e-12)
    assert training.measured_peak_bytes > 0


def test_quick_takes_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr("skelnas.nas.bilevel.Bilevel.step", refuse)
    found = diagnose(SETTINGS, WORKLOAD, quick=True)
    assert found.is_sound
    assert found.pace is None


def test_the_reason_for_the_engine_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = SETTINGS.model_copy(update={"hessian": "exact"})
    found = diagnose(exact, WORKLOAD, quick=True)
    assert found.engine is not None
    assert found.engine["name"] == "reference"
    assert "--hessian exact" in found.engine["why"]
    found = diagnose(exact.model_copy(update={"engine": "fused"}), WORKLOAD, quick=True)
    assert "cannot be differentiated twice" in failed(found)["engine"]


@pytest.mark.parametrize("wrong", [0.999_999, float("nan")])
def test_a_wrong_engine_is_reported(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    right = ENGINES["fused"]
    monkeypatch.setitem(ENGINES, "fused", lambda *args: wrong * right(*args))
    found = diagnose(SETTINGS, WORKLOAD)
    assert list(failed(found)) == ["engines against the reference"]
    assert "the fused engine differs" in failed(found)["engines against the reference"]
    assert found.pace is None


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    find_version = packages_of.find_version
    monkeypatch.setattr(
        packages_of, "find_version", lambda name: None if name == "h5py" else find_version(name)
    )
    found = diagnose(SETTINGS, WORKLOAD)
    assert failed(found) == {"packages": "not installed: h5py"}
    assert "h5py" not in found.versions
    assert found.machine is None


def test_a_broken_pytorch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = diagnose(SETTINGS, WORKLOAD)
    assert "PyTorch is installed, but cannot be imported" in failed(found)["packages"]
    assert found.machine is None


def test_a_step_that_exceeds_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(2, 1.0, 2**30, 8, 4.0, 4 * 2**30, 10, 10.0, 40.0)
    monkeypatch.setattr(doctor.pace, "free_bytes", lambda device: 2.0 * 2**30)
    with pytest.raises(
        DeviceError, match=r"takes about 4\.00 GiB, but only .* of the 2\.00 GiB free"
    ):
        check_memory(pace, torch.device("cpu"))


def test_cache_size_is_used_and_json_is_printed(tiny_cache: Path, tmp_path: Path) -> None:
    finished = run(f"skelnas doctor --quick --json --cache {tiny_cache} {SEARCH}", tmp_path)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["sound"] is True
    details = {check["name"]: check["detail"] for check in found["checks"]}
    with Cache.open(tiny_cache) as cache:
        half = -(-len(cache.nonempty_indices("xsub", 0)) // 2)
    assert details["cache"] == f"{half} clips train w, each (3, 6, 10) (C, T, V), 3 classes"


def test_a_training_is_measured_as_it_would_be_trained(tiny_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(
        "[train]\nlayers = 3\nchannels = 2\nepochs = 7\nbatch-size = 36\nbranches = true\n"
        "streams = 'joint,motion'\nclass-weights = 'balanced'\nema = 0.9\n"
    )
    options = f"--cache {tiny_cache} --train-config t.toml --genotype random:1 --json"
    finished = run(f"skelnas doctor {options} {SEARCH}", tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(finished.stdout)
    assert found["training_pace"]["steps"] == 7  # of all 36 training clips
    assert found["training_pace"]["batch_size"] == 36
    assert found["pace"]["steps"] == 3  # of half of them, in batches of 6
    fails(f"skelnas doctor {options} --genotype none.json", tmp_path, 3, "none.json")


def test_a_search_by_trainings_is_estimated(tiny_cache: Path, tmp_path: Path) -> None:
    options = "--method predict --genotypes 5 --folds 3 --jobs 2 --epochs 4 --batch-size 6"
    sizes = "--frames 6 --layers 3 --channels 2 --device cpu"
    command = f"skelnas doctor {options} {sizes} --cache {tiny_cache}"
    finished = run(f"{command} --json", tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(finished.stdout)
    assert found["pace"] is found["training_pace"] is found["engine"] is None
    pace = found["trainings_pace"]
    assert (pace["trainings"], pace["jobs"]) == (5 * 3, 2)
    assert pace["training"]["steps"] == 4 * 4  # two thirds of 36 training clips, in batches of 6
    assert pace["total_seconds"] == pytest.approx(8 * pace["training"]["total_seconds"])
    text = run(command, tmp_path)
    assert "a search of 15 trainings, 2 at a time: about " in text.stdout
    refused = run(f"{command} --max-params 10", tmp_path)
    assert refused.returncode == 1
    assert "a few steps of a training of the search: " in refused.stderr


def test_failed_checks_set_the_exit_code(tmp_path: Path) -> None:
    finished = run(f"skelnas doctor --quick --cache none.h5 {SEARCH}", tmp_path)
    assert finished.returncode == 1
    assert "FAILED" in finished.stdout
    assert "skelnas: cache: cannot read the cache none.h5" in finished.stderr


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = diagnose(SETTINGS.model_copy(update={"device": "cuda"}), WORKLOAD)
    assert failed(found) == {"device": "device cuda is not available"}
    assert found.machine is not None
