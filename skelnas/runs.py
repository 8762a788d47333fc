"""Run folders: what a long piece of work keeps, so that it can be stopped and go on.

A folder holds ``config.json`` (what was asked, and the versions that did it),
``metrics.jsonl`` (one line an epoch), ``alphas.jsonl`` in a search (likewise),
``checkpoint.safetensors`` (everything that the next step depends on) and, after training,
``model.safetensors``. Files that matter are
written beside themselves and renamed, so that a run killed at any moment leaves the last
good ones.

Randomness is a function of the seed and of the place in the run, never of what was drawn
before: a run that resumes needs no generator's state to draw what it would have drawn.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol, Self

import numpy as np

import skelnas
from skelnas.errors import InputError, SkelnasError, UsageError, shown

try:
    import fcntl
except ImportError:  # where there are no such locks, two runs have to keep apart by themselves
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.json"
METRICS = "metrics.jsonl"
ALPHAS = "alphas.jsonl"
CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
REPEATS = "repeats.json"
LOCK = ".lock"
TENSORBOARD = "tensorboard"

DECISIVE = ("verb", "settings", "recipe")
"""What explains other differences between two configurations, and so is told first."""


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    A link is followed; a pipe or a device, which cannot be replaced, is written to.

    Raises:
        SkelnasError: the file cannot be written; the old content, if any, is still there.
    """
    target = path.resolve()
    content = data.encode() if isinstance(data, str) else data
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise SkelnasError(
            f"{path}: cannot be written ({error.strerror})",
            hint="what was there before is untouched; make room or choose another place",
        ) from error
    finally:
        with suppress(OSError):  # such as that its folder is none
            part.unlink()


def to_json(value: object) -> str:
    """Format plain containers for a file: sorted, indented, with a final newline."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"skelnas": skelnas.__version__, "python": platform.python_version(), **packages}


def random_seed(*place: int) -> int:
    """Turn (seed, stream, epoch, step, ...) into a seed that no other place shares."""
    return int(np.random.SeedSequence((len(place), *place)).generate_state(1, np.uint32)[0])


class Mirror(Protocol):
    """What is told of everything that a run logs, to show it elsewhere."""

    def log(self, record: Mapping[str, Any], file: str) -> None:
        """Take one line of a file of JSON lines."""

    def keep_epochs(self, epochs: int) -> None:
        """Go on after so many epochs; -1 before anything is logged."""

    def close(self) -> None:
        """Take no more."""


class Run:
    """A run folder that is being worked in, locked against other runs. Made by `start`.

    Args:
        folder: where everything is kept.
        mirror: told of everything that the run logs.
        writes: False for a rank that leaves all writing to the first, which holds the lock.
    """

    def __init__(self, folder: Path, mirror: Mirror | None = None, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        self._mirror = mirror
        self._lock = _lock(folder) if writes else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other runs into the folder."""
        if self._mirror is not None:
            self._mirror.close()
        if self._lock is not None:
            self._lock.close()

    def log(self, record: Mapping[str, Any], file: str = METRICS) -> None:
        """Add one line to a file of JSON lines."""
        if not self.writes:
            return
        path = self.folder / file
        try:
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                os.fsync(lines.fileno())  # before the checkpoint that says this epoch is done
        except OSError as error:
            raise SkelnasError(
                f"{path}: cannot be written ({error.strerror})",
                hint="make room; the same command with --resume goes on from the last checkpoint",
            ) from error
        if self._mirror is not None:
            self._mirror.log(record, file)

    def keep_epochs(self, epochs: int) -> None:
        """Forget lines of epochs after the checkpoint: they are about to be made again."""
        if not self.writes:
            return
        for path in (self.folder / METRICS, self.folder / ALPHAS):
            if not path.exists():
                continue
            kept = [line for line in read_lines(path) if line["epoch"] <= epochs]
            atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept))
        if self._mirror is not None:
            self._mirror.keep_epochs(epochs)


def start(
    folder: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
    mirror: Mirror | None = None,
) -> Run:
    """Open a run folder for work, new or to go on with.

    Args:
        folder: created where it does not exist.
        config: what is asked; kept in ``config.json`` together with the versions.
        resume: go on with the run in the folder, which must have been asked the same.
        force: forget the run in the folder. Files that a run did not write stay.
        mirror: told of everything that the run logs.

    Raises:
        UsageError: the folder is not empty and neither was asked, or resume asks for
            something else than the run was started with.
    """
    if resume and force:
        raise UsageError(
            "--resume goes on with a run, --force forgets it", hint="leave one of them out"
        )
    config_path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, expected a folder", hint="choose another --out")
    if resume and config_path.exists():
        run = Run(folder, mirror)
        try:
            _check_same(read_config(folder), config, folder)
        except BaseException:
            run.close()
            raise
        return run
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()) and not force:
        raise UsageError(
            f"{folder}: is not empty",
            hint="--resume goes on with the run in it, --force starts anew, or choose another",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkelnasError(f"{folder}: cannot be made ({error.strerror})") from None
    run = Run(folder, mirror)
    _forget(folder)
    atomic_write(config_path, to_json({**config, "versions": versions()}))
    return run


def forget(folder: Path) -> None:
    """Remove a run from a folder; files that a run did not write stay.

    Raises:
        UsageError: it is at work.
    """
    with Run(folder):
        _forget(folder)
        (folder / CONFIG).unlink(missing_ok=True)


def _forget(folder: Path) -> None:
    for name in (METRICS, ALPHAS, CHECKPOINT, MODEL, REPEATS):
        (folder / name).unlink(missing_ok=True)
    for events in (folder / TENSORBOARD).glob("events.out.tfevents.*"):
        events.unlink()


def _lock(folder: Path) -> IO[bytes] | None:
    """Keep other runs out of a folder for as long as this process works in it."""
    if fcntl is None:
        return None
    try:
        handle = (folder / LOCK).open("ab")
    except OSError as error:
        raise SkelnasError(f"{folder}: cannot be written to ({error.strerror})") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise UsageError(
            f"{folder}: another run is at work in it",
            hint="wait for it to end, or choose another --out",
        ) from None
    return handle


def _check_same(old: dict[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    new = json.loads(json.dumps(new))
    for key in sorted(new, key=lambda key: (key not in DECISIVE, key)):
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            _check_same(old[key], new[key], folder)
        elif key == "fingerprint" and key in old and old[key] != new[key]:
            raise UsageError(
                f"{folder}: was started with other clips than the cache has now",
                hint="prepare the cache as it was, or start anew with --force",
            )
        elif old.get(key) != new[key]:
            raise UsageError(
                f"{folder}: was started with {key} = {shown(old.get(key))}, "
                f"now it is {shown(new[key])}",
                hint="repeat the command of the start with --resume, or choose another --out",
            )


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``.

    Raises:
        InputError: there is none, or it is not JSON.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: is no run or model folder: it has no {CONFIG}",
            hint="`skelnas search --out RUN` and `skelnas train --out MODEL` make them",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a JSON object")
    return config


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object an epoch; a last line cut off by a kill is left out.

    Raises:
        InputError: the file is missing, or a line other than the last is no JSON, or one is no
            object with an epoch.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # too long a number, too deep a nesting
            if number < len(lines):
                raise InputError(f"{path}, line {number}: is not JSON") from None
            continue
        epoch = record.get("epoch") if isinstance(record, dict) else None
        if isinstance(epoch, bool) or not isinstance(epoch, int):
            raise InputError(f"{path}, line {number}: expected an object with an epoch")
        records.append(record)
    return records


class StopFlag:
    """Whether the user or the system has asked the run to stop. Made by `stop_on_signal`."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn the first Ctrl-C or SIGTERM into a request that the loop honours between steps.

    A second Ctrl-C interrupts at once.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def request(number: int, frame: FrameType | None) -> None:
        flag.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {
        number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
