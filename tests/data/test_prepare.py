from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from skelnas.data import prepare as prepare_module
from skelnas.data.cache import Cache
from skelnas.data.prepare import prepare, report_path
from skelnas.data.readers.base import Catalogue, ClipTable, Layout, Recording, Test, Train
from skelnas.errors import DeviceError, InputError, Interrupted, UsageError

LAYOUT = Layout(joints=("hip", "head"), bones=((1, 0),), center_joint=0)


@dataclass(frozen=True)
class FakeSource:
    """Clips without files: item ``raw/0007`` is made from the number 7."""

    count: int = 40
    faults: dict[str, str] = field(default_factory=dict)
    name: str = "fake"
    layout: Layout = LAYOUT
    max_persons: int = 2
    rule: dict[str, Any] = field(default_factory=lambda: {"persons": "all"})

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        return [f"class {index}" for index in range(4)]

    def catalogue(self) -> Catalogue:
        items = [Path(f"raw/{index:04}") for index in range(self.count)]
        return Catalogue(items, [("raw/missing", "known to be incomplete")])

    def read(self, item: Path) -> Recording:
        index = int(item.name)
        rng = np.random.default_rng(index)
        shape = (1 + (index % 4 == 0), 3 + index % 50)
        poses = rng.standard_normal((*shape, 2, 3)).astype(np.float32)
        present = np.ones(shape, dtype=np.bool_)
        name, label = f"clip-{index}", index % 4
        match self.faults.get(item.name):
            case "input":
                raise InputError(f"{item}: line 3: expected 25 joints, got 7")
            case "unreadable":
                raise PermissionError(13, "Permission denied", str(item))
            case "bug":
                raise ZeroDivisionError("division by zero")
            case "same name":
                name = "clip-0"
            case "label":
                label = 4
            case "nan":
                poses[0, 1, 1, 2] = np.nan
            case "shape":
                poses = poses[:, :, :1]
            case "persons":
                poses, present = poses.repeat(3, 0), present.repeat(3, 0)
            case "no array":
                poses = None
            case "interrupt":
                raise KeyboardInterrupt
            case "stop":
                raise Interrupted("stopped")
            case "die":
                os._exit(1)
            case "slow":
                Path(os.environ["FAKE_READERS"], str(os.getpid())).touch()
                time.sleep(0.02)
        return Recording(name, label, poses, present, subject=index % 3)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        return {"xsub": np.where(clips.subjects == 0, Train, Test).astype(np.int8)}


BAD_FILES = {
    "input": "line 3: expected 25 joints, got 7",
    "unreadable": "cannot be read: Permission denied",
    "bug": "ZeroDivisionError: division by zero",
    "same name": "clip clip-0: an earlier file gave a clip of the same name",
    "label": "clip clip-5: label 4, expected 0 to 3",
    "nan": "clip clip-5: nan at person 0, frame 1, joint 1, channel 2 (from 0), "
    "expected finite numbers",
    "shape": "clip clip-5: poses have the shape (1, 8, 1, 3), "
    "expected persons x frames x 2 joints x 3 channels",
    "persons": "clip clip-5: 3 persons, expected 1 to 2",
    "no array": "AttributeError: 'NoneType' object has no attribute 'dtype'",
}


def test_prepare_writes_a_cache_and_a_report(tmp_path: Path) -> None:
    source = FakeSource()
    out = tmp_path / "cache.h5"
    report = prepare(source, out)
    assert (report.clips, report.classes, report.failed) == (40, 4, [])
    assert report.skipped == [("raw/missing", "known to be incomplete")]
    assert report.frames == sum(3 + index % 50 for index in range(40))
    assert report.two_person_share == 0.25
    assert report.splits == {"xsub": (14, 26)}
    assert report.workers == 1
    assert report.seconds > 0
    assert report.files_per_second > 0
    with Cache.open(out) as cache:
        assert cache.source == "fake"
        assert cache.rule == source.rule
        assert cache.classes == source.classes(cache.clips.labels)
        assert len(cache.indices("xsub", Train)) == 14
        for index, item in enumerate(source.catalogue().items):
            assert cache.clips.names[index] == f"clip-{index}"
            np.testing.assert_array_equal(cache.read(index)[0], source.read(item).poses)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5", "cache.h5.report.json"]
    written = json.loads(report_path(out).read_text())
    assert written == json.loads(report.to_json())
    assert written["splits"] == {"xsub": {"train": 14, "test": 26}}
    assert written["skipped"] == [{"file": "raw/missing", "reason": "known to be incomplete"}]


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    source = FakeSource(count=150, faults={"0005": "nan", "0100": "input", "0149": "same name"})
    caches, reports = [], []
    for workers in (1, 2, 3):
        out = tmp_path / f"{workers}.h5"
        reports.append(prepare(source, out, workers=workers))
        caches.append(out.read_bytes())
    assert [report.workers for report in reports] == [1, 2, 3]
    assert caches[0] == caches[1] == caches[2]
    assert reports[0].failed == reports[1].failed == reports[2].failed
    assert [file for file, _ in reports[0].failed] == ["raw/0005", "raw/0100", "raw/0149"]


@pytest.mark.parametrize(("fault", "reason"), BAD_FILES.items())
def test_a_bad_file_is_skipped_and_reported(tmp_path: Path, fault: str, reason: str) -> None:
    out = tmp_path / "cache.h5"
    report = prepare(FakeSource(count=8, faults={"0005": fault}), out)
    assert report.clips == 7
    assert report.failed == [("raw/0005", reason)]
    with Cache.open(out) as cache:
        assert cache.failed == report.failed
        assert cache.skipped == report.skipped
        assert cache.clips.names == [f"clip-{index}" for index in range(8) if index != 5]
    written = json.loads(report_path(out).read_text())
    assert written["failed"] == [{"file": "raw/0005", "reason": reason}]


@pytest.mark.parametrize(("fault", "reason"), BAD_FILES.items())
def test_strict_stops_at_the_first_bad_file(tmp_path: Path, fault: str, reason: str) -> None:
    source = FakeSource(count=8, faults={"0005": fault, "0006": "bug"})
    with pytest.raises(InputError) as caught:
        prepare(source, tmp_path / "cache.h5", strict=True)
    assert str(caught.value) == f"raw/0005: {reason}"
    assert list(tmp_path.iterdir()) == []


def test_strict_stops_all_workers(tmp_path: Path) -> None:
    source = FakeSource(count=100, faults={"0050": "input"})
    with pytest.raises(InputError, match="raw/0050: line 3"):
        prepare(source, tmp_path / "cache.h5", workers=2, strict=True)
    assert list(tmp_path.iterdir()) == []


def test_all_bad_files_are_bad_input(tmp_path: Path) -> None:
    source = FakeSource(count=3, faults=dict.fromkeys(["0000", "0001", "0002"], "input"))
    with pytest.raises(InputError, match=r"none of 3 files .* the first, raw/0000: line 3"):
        prepare(source, tmp_path / "cache.h5")
    assert list(tmp_path.iterdir()) == []


def test_no_files_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no clips to read"):
        prepare(FakeSource(count=0), tmp_path / "cache.h5")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_cache_is_not_overwritten_without_force(tmp_path: Path) -> None:
    out = tmp_path / "cache.h5"
    out.write_text("precious")
    with pytest.raises(UsageError, match="is finished, so there is nothing to resume"):
        prepare(FakeSource(), out, resume=True)
    with pytest.raises(UsageError, match="already exists") as caught:
        prepare(FakeSource(), out)
    assert caught.value.exit_code == 2
    assert "--force" in str(caught.value.hint)
    assert out.read_text() == "precious"
    prepare(FakeSource(), out, force=True)
    with Cache.open(out) as cache:
        assert len(cache) == 40


def test_force_keeps_the_old_cache_until_the_new_one_is_done(tmp_path: Path) -> None:
    out = tmp_path / "cache.h5"
    out.write_text("precious")
    with pytest.raises(KeyboardInterrupt):
        prepare(FakeSource(faults={"0030": "interrupt"}), out, force=True)
    assert out.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("fault", "error"), [("interrupt", KeyboardInterrupt), ("stop", Interrupted)]
)
def test_an_interrupt_leaves_no_files(
    tmp_path: Path, fault: str, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        prepare(FakeSource(faults={"0030": fault}), tmp_path / "cache.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_ends_the_run(tmp_path: Path) -> None:
    source = FakeSource(count=100, faults={"0050": "die"})
    with pytest.raises(DeviceError, match="a worker died while it read files from raw/00"):
        prepare(source, tmp_path / "cache.h5", workers=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "workers", "reason"),
    [
        ("cache.h5", 0, "0 workers, expected 1 or more"),
        ("", None, "is a folder"),
        ("file/cache.h5", None, "is a file, expected a folder"),
    ],
)
def test_invalid_arguments(tmp_path: Path, out: str, workers: int | None, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=reason):
        prepare(FakeSource(), tmp_path / out, workers=workers, force=True)


def test_the_default_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert prepare_module._choose_num_workers(None, 100) == 1
    assert prepare_module._choose_num_workers(None, 10_000) == 8
    assert prepare_module._choose_num_workers(4, 10_000) == 4
    assert prepare_module._choose_num_workers(4, 20) == 2
    assert prepare_module._choose_num_workers(4, 0) == 1


def run_slowly(tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from skelnas.data.prepare import prepare
            from test_prepare import FakeSource

            if __name__ == "__main__":
                slow = {f"{index:04}": "slow" for index in range(1000)}
                prepare(FakeSource(count=1000, faults=slow), Path(sys.argv[1]), workers=2)
            """
        )
    )
    (tmp_path / "out").mkdir()
    readers = tmp_path / "readers"
    readers.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out" / "cache.h5")],
        env={**os.environ, "PYTHONPATH": path, "FAKE_READERS": str(readers)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(readers.iterdir())) < 2:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return run


def group_is_empty(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    run = run_slowly(tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, stderr = run.communicate(timeout=30)
    assert run.returncode != 0
    assert stderr.count("Traceback") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert group_is_empty(run.pid, seconds=10)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_killed_run_leaves_no_cache_and_no_process(tmp_path: Path) -> None:
    run = run_slowly(tmp_path)
    run.kill()
    run.communicate(timeout=30)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cache.h5.tmp"]
    with pytest.raises(InputError):
        Cache.open(tmp_path / "out" / "cache.h5.tmp")
    assert group_is_empty(run.pid, seconds=10)


def test_missing_clips_are_reported(tmp_path: Path) -> None:
    report = prepare(FakeSource(count=20), tmp_path / "few.h5")
    line = "xsub: 1 of 4 classes ('class 1') has a single training clip"
    assert report.missing_clips == json.loads(report.to_json())["missing_clips"] == [line]
    report = prepare(FakeSource(count=80), tmp_path / "cache.h5")
    assert report.missing_clips == []
    assert "missing_clips" not in json.loads(report.to_json())
