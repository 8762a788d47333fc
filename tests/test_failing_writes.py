"""Every write of a run fails once, as on a full disk or by a kill; the next run is whole again."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.prepare import prepare
from skelnas.data.readers.manifest import Manifest
from skelnas.errors import SkelnasError, UsageError
from skelnas.genotype import Edge, Genotype
from skelnas.nas.search import search
from skelnas.reporting.model_card import write_card
from skelnas.runtime.files import atomic_write
from skelnas.training import run_dir
from skelnas.training.train import train

GENOTYPE = Genotype(normal=((Edge("skip_connect", 0),),), reduction=((Edge("conv_3x3", 1),),))

Work = Callable[[Path, bool], object]
"""Does some work in a folder, resuming it or not."""


class Killed(BaseException):
    """The process ends here; nothing that would clean up has an effect."""


class Faults:
    """Fails one of the calls that write, and all after it.

    Args:
        number: of the call that fails first, from 1.
        is_kill: whether the process ends there; otherwise the disk is full, so files can still be
            removed.
    """

    def __init__(self, number: int, is_kill: bool) -> None:
        self.number = number
        self.is_kill = is_kill
        self.num_calls = 0

    @property
    def have_begun(self) -> bool:
        return 0 < self.number <= self.num_calls

    def count(self) -> None:
        self.num_calls += 1
        if self.have_begun:
            self.fail()

    def fail(self) -> None:
        if self.is_kill:
            raise Killed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def installed(self) -> Iterator[None]:
        opened = io.open

        def open_(path: Any, mode: str = "r", *options: Any, **more: Any) -> Any:
            file = opened(path, mode, *options, **more)
            return file if mode in ("r", "rb") else _File(file, self)

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                self.count()
                return call(*arguments, **options)

            return wrapper

        def removing(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                return None if self.have_begun and self.is_kill else call(*arguments, **options)

            return wrapper

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(io, "open", open_)
            for name in ("fsync", "replace", "mkdir"):
                patch.setattr(os, name, counted(getattr(os, name)))
            for name in ("unlink", "rmdir"):
                patch.setattr(os, name, removing(getattr(os, name)))
            yield


class _File:
    """A file whose writes may fail after the first half."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file = file
        self._faults = faults

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> Any:
        try:
            self._faults.count()
        except BaseException:
            if self._faults.num_calls == self._faults.number:
                self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)


def contents(folder: Path) -> dict[str, Any]:
    """Return all files by name, without times and what depends on them."""
    return {
        path.relative_to(folder).as_posix(): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != run_dir.LOCK
    }


def _content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        return [{**line, "seconds": None} for line in run_dir.read_lines(path)]
    if path.name.endswith(".report.json"):
        times = {"out", "seconds", "files_per_second", "resumed"}
        return {k: v for k, v in json.loads(path.read_text()).items() if k not in times}
    return path.read_bytes()


def fail_each_write(work: Work, folder: Path, is_kill: bool) -> int:
    """Fail every write of a piece of work, and do it again without forcing anything.

    Returns:
        The number of failures.
    """
    for number in itertools.count():
        (folder / str(number)).mkdir()
        out = folder / str(number) / "out"
        faults = Faults(number, is_kill)
        with faults.installed():
            if number == 0:  # none fails
                work(out, False)
            else:
                _expect_failure(work, out, faults)
        if number == 0:
            whole = contents(out.parent)
            assert not any(name.endswith(".part") for name in whole)
        elif not faults.have_begun:
            return number - 1
        else:
            refusal = _do_again(work, out)
            found = contents(out.parent)
            if (
                "already exists" in refusal or "is finished" in refusal
            ):  # the cache was whole, but not its report
                found = whole | {name: found[name] for name in found.keys() & whole.keys()}
            assert found == whole, f"after failure {number}"
    raise AssertionError


def _expect_failure(work: Work, out: Path, faults: Faults) -> None:
    error: BaseException | None = None
    try:
        work(out, False)
    except (Killed, SkelnasError) as caught:
        error = caught
    assert (error is not None) == faults.have_begun
    if isinstance(error, SkelnasError):
        assert error.exit_code == 1
        assert "No space left on device" in str(error)
        assert str(out) in str(error)


def _do_again(work: Work, out: Path) -> str:
    """Do it again, resuming it if that is asked for; return any other refusal."""
    try:
        work(out, False)
    except UsageError as refusal:
        if "is not empty" not in str(refusal):
            return str(refusal)
        work(out, True)
    return ""


both = pytest.mark.parametrize("is_kill", [False, True], ids=["full disk", "kill"])


def test_a_search(tiny_cache: Path, tmp_path: Path) -> None:
    settings = SearchSettings(
        frames=4,
        layers=2,
        channels=2,
        nodes=1,
        epochs=2,
        batch_size=18,
        device="cpu",
        order="first",
    )
    number = fail_each_write(
        lambda out, resume: search(tiny_cache, out, settings, resume=resume), tmp_path, False
    )
    assert number >= 20


@both
def test_a_training(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kill: bool
) -> None:
    def draw(genotype: object, path: Path) -> None:
        atomic_write(path, "a picture")

    monkeypatch.setattr("skelnas.reporting.model_card.draw_cells", draw)
    settings = TrainSettings(
        frames=4,
        layers=1,
        channels=2,
        epochs=2,
        batch_size=36,
        device="cpu",
        recipe="paper",
    )

    def work(out: Path, resume: bool) -> None:
        write_card(out, train(tiny_cache, GENOTYPE, out, settings, resume=resume).model)

    assert fail_each_write(work, tmp_path, is_kill) >= 23


@both
def test_prepare(tmp_path: Path, is_kill: bool) -> None:
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.ones((2, 3, 3)))
    lines = ["path,label,split", *(f"{name}.npy,{name},train" for name in "abc"), ""]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    (tmp_path / "joints.json").write_text(
        json.dumps({"joints": ["a", "b", "c"], "channels": ["x", "y", "z"]})
    )
    source = Manifest(tmp_path / "clips.csv", tmp_path / "joints.json")

    def work(out: Path, resume: bool) -> None:
        prepare(source, out.with_suffix(".h5"), resume=True)

    assert fail_each_write(work, tmp_path, is_kill) >= 8
