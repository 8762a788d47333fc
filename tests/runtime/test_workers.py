"""Worker processes: results, failures, deaths, and a stop that they may answer."""

from __future__ import annotations

import math
import operator
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from skelnas.errors import DeviceError, InputError
from skelnas.runtime import console
from skelnas.runtime.workers import run_all


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_item_has_a_result(jobs: int) -> None:
    assert sorted(run_all(operator.neg, [3, 1, 2], jobs)) == [-3, -2, -1]
    assert list(run_all(operator.neg, [], jobs)) == []


def test_each_process_has_its_environment() -> None:
    environments = [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    names = ["CUDA_VISIBLE_DEVICES"]
    assert list(run_all(os.getenv, names, 1, environments)) == ["3"]
    assert sorted(run_all(os.getenv, names * 2, 2, environments)) == ["3", "5"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_is_raised_here(jobs: int) -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(run_all(math.sqrt, [4, -1], jobs))


def test_a_hint_survives_the_way_between_processes() -> None:
    with pytest.raises(InputError) as caught:
        list(run_all(fail, [1, 2], 2))
    assert caught.value.hint == "what to do"


def fail(item: int) -> None:
    raise InputError(f"item {item}", hint="what to do")


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(DeviceError, match=r"a worker process died \(exit code 9\)"):
        list(run_all(os._exit, [9, 9], 2))


def write_when_stopped(path: Path) -> None:
    """Answer SIGTERM as a training does: by writing what would be lost."""
    if path.suffix == ".fast":
        return
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    path.with_suffix(".started").touch()
    while not stopped:
        time.sleep(0.01)
    path.touch()


def test_processes_are_asked_to_stop_and_waited_for(tmp_path: Path) -> None:
    items = [tmp_path / "a.fast", tmp_path / "slow"]
    with closing(run_all(write_when_stopped, items, 2)) as results:
        next(results)
        while not (tmp_path / "slow.started").exists():
            time.sleep(0.01)
    assert (tmp_path / "slow").exists()


def test_notes_are_muted_and_return(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in run_all(console.note, ["one of many"], 1):
        console.note("of the caller")
    assert capsys.readouterr().err == "of the caller\n"
