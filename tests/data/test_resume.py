"""Runs of `prepare` that are stopped, killed or out of disk space, and how they resume."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_prepare import FakeSource

from skelnas.data.cache import Cache, CacheWriter, journal
from skelnas.data.prepare import prepare, report_path
from skelnas.data.readers.base import Catalogue, Recording
from skelnas.errors import InputError, SkelnasError, UsageError

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PART_BYTES", 2000)


@dataclass(frozen=True)
class FileSource(FakeSource):
    """Clips made from numbers in files; every file read is logged."""

    root: Path = Path("raw")
    side_files: tuple[Path, ...] = ()

    def catalogue(self) -> Catalogue:
        return Catalogue(sorted(self.root.glob("*.txt")), [], list(self.side_files))

    def read(self, item: Path) -> Recording:
        with (self.root / "read.log").open("a") as log:
            log.write(f"{item.stem}\n")
        clip = super().read(Path(item.stem))
        return replace(clip, poses=clip.poses + np.float32(float(item.read_text())))

    def take_log(self) -> list[str]:
        """Return the items read since the last call."""
        log = self.root / "read.log"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names


def file_source(tmp_path: Path, count: int = 40, **options: Any) -> FileSource:
    root = tmp_path / "raw"
    root.mkdir()
    for index in range(count):
        (root / f"{index:04}.txt").write_text(str(index / 7))
    return FileSource(root=root, **options)


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped at clip 25, and the bytes of a run that was not."""

    source: FileSource
    out: Path
    whole: bytes

    def resume(self, **options: Any) -> list[str]:
        """Resume, check that the cache equals that of a whole run, and return the items read."""
        prepare(self.source, self.out, resume=True, **options)
        assert self.out.read_bytes() == self.whole
        names = sorted(path.name for path in self.out.parent.iterdir())
        assert names == ["cache.h5", "cache.h5.report.json"]
        return self.source.take_log()


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    source = file_source(tmp_path)
    prepare(source, tmp_path / "whole.h5")
    out = tmp_path / "out" / "cache.h5"
    out.parent.mkdir()
    # Settings must not differ on resume, so the source has no setting that stops the run.
    read = FileSource.read

    def stop(self: FileSource, item: Path) -> Recording:
        if item.stem == "0025":
            raise KeyboardInterrupt
        return read(self, item)

    source.take_log()
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "read", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out, resume=True)
    assert [path.name for path in out.parent.iterdir()] == ["cache.h5.parts"]
    assert source.take_log() == [f"{index:04}" for index in range(25)]
    return Stopped(source, out, (tmp_path / "whole.h5").read_bytes())


def test_resume_continues_where_the_run_stopped(stopped: Stopped) -> None:
    assert stopped.resume() == [f"{index:04}" for index in range(25, 40)]


def test_the_report_counts_resumed_clips(stopped: Stopped) -> None:
    report = prepare(stopped.source, stopped.out, resume=True)
    assert report.resumed == 25
    assert '"resumed": 25' in report_path(stopped.out).read_text()


def test_resume_works_with_any_number_of_workers(stopped: Stopped) -> None:
    assert sorted(stopped.resume(workers=2)) == [f"{index:04}" for index in range(25, 40)]


@pytest.mark.parametrize("seed", range(3))
def test_a_run_can_be_stopped_and_resumed_repeatedly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    source = file_source(tmp_path, faults={"0007": "input", "0031": "same name"})
    whole = prepare(source, tmp_path / "whole.h5")
    out = tmp_path / "cache.h5"
    add, rng, runs = CacheWriter.add, random.Random(seed), 1

    def add_or_stop(self: CacheWriter, recording: Recording) -> None:
        if rng.random() < 0.06:
            raise KeyboardInterrupt
        add(self, recording)

    monkeypatch.setattr(CacheWriter, "add", add_or_stop)
    while True:
        try:
            report = prepare(source, out, resume=True)
            break
        except KeyboardInterrupt:
            runs += 1
    assert runs > 1
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert report.failed == whole.failed


def test_a_changed_raw_file_is_read_again(stopped: Stopped, tmp_path: Path) -> None:
    (tmp_path / "raw" / "0003.txt").write_text("99.5")
    prepare(stopped.source, tmp_path / "other.h5")
    stopped.source.take_log()
    other = replace(stopped, whole=(tmp_path / "other.h5").read_bytes())
    assert other.resume() == ["0003", *(f"{index:04}" for index in range(25, 40))]


def test_missing_and_new_raw_files_are_noticed(stopped: Stopped, tmp_path: Path) -> None:
    (tmp_path / "raw" / "0003.txt").unlink()
    (tmp_path / "raw" / "0099.txt").write_text("1")
    prepare(stopped.source, tmp_path / "other.h5")
    stopped.source.take_log()
    other = replace(stopped, whole=(tmp_path / "other.h5").read_bytes())
    assert other.resume() == [*(f"{index:04}" for index in range(25, 40)), "0099"]


def test_broken_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may become readable although nothing in it has changed."""
    source, out = file_source(tmp_path), tmp_path / "cache.h5"
    read = FileSource.read

    def refuse(self: FileSource, item: Path) -> Recording:
        if item.stem in ("0004", "0017"):
            raise PermissionError(errno.EACCES, "Permission denied", str(item))
        return read(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "read", refuse)
        with pytest.raises(InputError, match=r"than 1 broken files; the last, .*0017\.txt: can"):
            prepare(source, out, resume=True, max_failed=1)
    assert not out.exists()
    source.take_log()
    report = prepare(source, out, resume=True)
    assert report.failed == []
    assert source.take_log()[0] == "0004"
    prepare(source, tmp_path / "whole.h5")
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("change", ["rule", "settings", "side file"])
def test_the_journal_of_another_run_is_refused(
    tmp_path: Path, stopped: Stopped, change: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("labels")
    other = {
        "rule": replace(stopped.source, rule={"persons": "first"}),
        "settings": replace(stopped.source, faults={"0001": "input"}),
        "side file": replace(stopped.source, side_files=(table,)),
    }[change]
    with pytest.raises(UsageError, match=r"cache\.h5\.parts is from a run with other") as caught:
        prepare(other, stopped.out, resume=True)
    assert "--force" in str(caught.value.hint)
    assert stopped.source.take_log() == []
    report = prepare(other, stopped.out, resume=True, force=True)
    assert report.resumed == 0
    assert len(stopped.source.take_log()) == 40
    assert not journal.journal_path(stopped.out).exists()


def test_a_changed_side_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("labels")
    source = replace(file_source(tmp_path), side_files=(table,))
    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "finish", lambda *_, **__: sys.exit(1))
        with pytest.raises(SystemExit):
            prepare(source, tmp_path / "cache.h5", resume=True)
    table.write_text("other labels")
    with pytest.raises(UsageError, match="is from a run with other files or settings"):
        prepare(source, tmp_path / "cache.h5", resume=True)


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "text"])
def test_a_damaged_part_is_read_again(stopped: Stopped, damage: str) -> None:
    parts = sorted(journal.journal_path(stopped.out).glob("*.npz"))
    assert len(parts) > 3
    content = parts[1].read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    damaged = {"cut": content[:-7], "empty": b"", "bit": flipped, "text": b"text"}[damage]
    parts[1].write_bytes(damaged)
    take_log = stopped.resume()
    assert 15 < len(take_log) < 40
    assert take_log[-15:] == [f"{index:04}" for index in range(25, 40)]


def test_half_written_parts_are_deleted(stopped: Stopped) -> None:
    (journal.journal_path(stopped.out) / "000099.npz.tmp").write_bytes(b"half")
    stopped.resume()


def test_a_folder_with_other_files_is_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "cache.h5.parts"
    folder.mkdir()
    (folder / "precious.txt").write_text("precious")
    prepare(FakeSource(), tmp_path / "cache.h5", resume=True)
    assert [path.name for path in folder.iterdir()] == ["precious.txt"]


def test_without_resume_no_parts_are_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(FakeSource(faults={"0030": "interrupt"}), tmp_path / "cache.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_writing_parts_is_reported(
    stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(SkelnasError, match=r"cannot write .*cache\.h5\.parts: No space left"):
            prepare(stopped.source, stopped.out, resume=True)
    stopped.source.take_log()
    assert stopped.resume() == [f"{index:04}" for index in range(25, 40)]


@pytest.mark.parametrize(("limit", "ends"), [(None, False), (3, False), (2, True), (0, True)])
def test_the_run_ends_at_the_limit_of_broken_files(
    tmp_path: Path, limit: int | None, ends: bool
) -> None:
    source = FakeSource(faults={"0003": "input", "0010": "nan", "0020": "bug"})
    out = tmp_path / "cache.h5"
    if ends:
        last = "raw/0020: Zero" if limit else "^raw/0003: line 3"
        with pytest.raises(InputError, match=last) as caught:
            prepare(source, out, max_failed=limit)
        assert "--max-failed" in str(caught.value.hint)
        assert list(tmp_path.iterdir()) == []
    else:
        assert len(prepare(source, out, max_failed=limit).failed) == 3


def test_a_negative_limit_for_broken_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most -1 broken files, expected 0 or more"):
        prepare(FakeSource(), tmp_path / "cache.h5", max_failed=-1)


SCRIPT = """
import sys, time
from pathlib import Path
from skelnas.data.cache import journal
from skelnas.data.prepare import prepare
from test_resume import FakeSource

journal.PART_BYTES = 20_000
if __name__ == "__main__":
    slow = {f"{index:04}": "slow" for index in range(0, 400, 4)}
    source = FakeSource(count=400, faults=slow)
    prepare(source, Path(sys.argv[1]), workers=2, resume="resume" in sys.argv)
"""


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    readers = tmp_path / "readers"
    readers.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": path, "FAKE_READERS": str(readers)},
        stderr=subprocess.PIPE,
        text=True,
    )


@posix
def test_a_run_killed_at_random_moments_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.h5", tmp_path / "out" / "cache.h5"
    out.parent.mkdir()
    run = start(tmp_path, str(whole))
    assert run.communicate(timeout=60)[1] == ""
    rng, kills = random.Random(os.getpid()), 0
    folder = journal.journal_path(out)
    while True:
        run = start(tmp_path, str(out), "resume")
        had = len(list(folder.glob("*.npz")))
        deadline = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < deadline and kills < 3:
            if len(list(folder.glob("*.npz"))) > had:
                time.sleep(rng.uniform(0, 0.3))
                run.kill()
                kills += 1
                break
            time.sleep(0.005)
        _, stderr = run.communicate(timeout=60)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, stderr
        if out.exists():  # the cache was finished, but not the report
            break
        with pytest.raises(InputError):
            Cache.open(out.with_name("cache.h5.tmp"))
    assert kills > 0
    assert out.read_bytes() == whole.read_bytes()
    if run.returncode == 0:
        assert sorted(p.name for p in out.parent.iterdir()) == ["cache.h5", "cache.h5.report.json"]


FULL = """
import resource, sys
from pathlib import Path
from skelnas.data.cache.writer import PartFile
from skelnas.errors import SkelnasError
from skelnas.data.prepare import prepare
from test_prepare import FakeSource

def limit(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

abandon = PartFile.abandon
def abandon_without_limit(self, file):
    limit(resource.RLIM_INFINITY)  # the limit stands for a quota of the disk, not of the memory
    abandon(self, file)
PartFile.abandon = abandon_without_limit

limit(int(sys.argv[2]))
try:
    prepare(FakeSource(count=4000), Path(sys.argv[1]))
except SkelnasError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs files in memory")
@pytest.mark.parametrize("num_bytes", [0, 1000, 100_000, 2_500_000, 3_000_000])
def test_a_full_disk_ends_the_run_but_not_the_process(tmp_path: Path, num_bytes: int) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "out" / "cache.h5"), str(num_bytes)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


@posix
def test_a_folder_without_write_permission_is_reported(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SkelnasError, match=r"cannot write .*cache\.h5: Permission denied"):
            prepare(FakeSource(), tmp_path / "cache.h5")
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode != "r" and self.name.startswith("cache.h5"):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return opened(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SkelnasError, match=r"cannot write .*cache\.h5: Read-only file system"):
        prepare(FakeSource(), tmp_path / "cache.h5")
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_run_stopped_by_sigterm_can_be_resumed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from skelnas.data.cache import journal; journal.PART_BYTES = 20_000;"
    )
    slow = "add = journal.Journal.add;"
    slow += "journal.Journal.add = lambda *one: (add(*one), time.sleep(0.05));"
    run_it = "from skelnas.cli import main; sys.argv[0] = 'skelnas'; main()"
    command = ["prepare", "synthetic", "--clips", "288", "--workers", "1"]
    command += ["--resume", str(tmp_path / "cache.h5")]
    run = subprocess.Popen(
        [sys.executable, "-c", script + slow + run_it, *command], stderr=subprocess.PIPE
    )
    folder = tmp_path / "cache.h5.parts"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.npz")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.terminate()
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"interrupted" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cache.h5.parts"]
    done = subprocess.run(
        [sys.executable, "-c", script + run_it, *command, "--json"], capture_output=True, check=True
    )
    assert b"reused from an earlier run" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache.h5", "cache.h5.report.json"]
