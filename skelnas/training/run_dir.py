"""A folder that is worked in: started, locked, gone on with, forgotten."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

from skelnas._version import __version__
from skelnas.errors import InputError, SkelnasError, UsageError, shown
from skelnas.runtime.files import atomic_write, to_json, versions

CONFIG = "config.json"
METRICS = "metrics.jsonl"
ALPHAS = "alphas.jsonl"
CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
REPEATS = "repeats.json"
LOCK = ".lock"
TENSORBOARD = "tensorboard"


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


@dataclass(frozen=True)
class SearchRun:
    """What the folder of a search says of it, as far as its cells depend on that.

    Attributes:
        primitives: the operation ids.
        stop_skips: ``--stop-skips``, the most skips that it was to go on with, or None.
        lines: of ``alphas.jsonl``, by epoch.
    """

    primitives: list[str]
    stop_skips: int | None
    lines: dict[int, dict[str, Any]]


def read_search(folder: Path, config: dict[str, Any]) -> SearchRun:
    """Read what the cells of a search follow from; one that has only begun has no lines.

    Args:
        folder: the run folder.
        config: its ``config.json``.

    Raises:
        InputError: a file is broken, or epochs were done and the alphas are gone.
    """
    primitives, settings = config.get("primitives"), config.get("settings")
    if not isinstance(primitives, list) or not all(isinstance(op, str) for op in primitives):
        raise InputError(f"{folder / CONFIG}: expected primitives, a list of operations")
    most = settings.get("stop_skips") if isinstance(settings, dict) else ""
    if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
        raise InputError(f"{folder / CONFIG}: expected settings with a number stop_skips or null")
    path = folder / ALPHAS
    lines = {line["epoch"]: line for line in _lines(path)}
    if not lines and _lines(folder / METRICS):
        raise InputError(
            f"{path}: is missing or empty, though epochs were done",
            hint="put it back; --select perturbation derives from the checkpoint, without it",
        )
    return SearchRun(primitives, most, dict(sorted(lines.items())))


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path) if path.exists() else []


try:
    import fcntl
except ImportError:  # where there are no such locks, two runs have to keep apart by themselves
    fcntl = None  # type: ignore[assignment]

DECISIVE = ("verb", "settings", "recipe")
"""What explains other differences between two configurations, and so is told first."""


class Mirror(Protocol):
    """What is told of everything that a run logs, to show it elsewhere."""

    def log(self, record: Mapping[str, Any], file: str) -> None:
        """Take one line of a file of JSON lines."""

    def keep_epochs(self, epochs: int) -> None:
        """Go on after so many epochs; -1 before anything is logged."""

    def close(self) -> None:
        """Take no more."""


class RunDir:
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
) -> RunDir:
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
        run = RunDir(folder, mirror)
        try:
            _check_same(read_config(folder), config, folder)
        except BaseException:
            run.close()
            raise
        return run
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()) and not force:
        if resume:
            raise UsageError(
                f"{folder}: holds no run to go on with: it is not empty, but has no {CONFIG}",
                hint="--out names the folder that the run was started in",
            )
        raise UsageError(
            f"{folder}: is not empty",
            hint="--resume goes on with the run in it, --force starts anew, or choose another",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkelnasError(f"{folder}: cannot be made ({error.strerror})") from None
    run = RunDir(folder, mirror)
    _forget(folder)
    atomic_write(config_path, to_json({**config, "versions": versions()}))
    return run


def forget(folder: Path) -> None:
    """Remove a run from a folder; files that a run did not write stay.

    Raises:
        UsageError: it is at work.
    """
    with RunDir(folder):
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
    """See that a run goes on as it began.

    Raises:
        UsageError: it was started with something else.
    """
    hint = "repeat the command of the start with --resume"
    versions_then = old.get("versions")
    if isinstance(versions_then, dict) and "skelnas" in versions_then:
        then, now = versions_then["skelnas"], __version__
        if then != now:  # its settings and defaults may be others, whatever was asked
            hint = f"go on with skelnas {then}, which started it (this is {now})"
    asked = json.loads(json.dumps(new))  # as it would have been read
    _compare(old, asked, folder, f"{hint}, or choose another --out")


def _compare(old: dict[str, Any], new: Mapping[str, Any], folder: Path, hint: str) -> None:
    for key in sorted(new, key=lambda key: (key not in DECISIVE, key)):
        if isinstance(new[key], dict) and isinstance(old.get(key), dict):
            _compare(old[key], new[key], folder, hint)
        elif key == "fingerprint" and key in old and old[key] != new[key]:
            raise UsageError(
                f"{folder}: was started with other clips than the cache has now",
                hint="prepare the cache as it was, or start anew with --force",
            )
        elif old.get(key) != new[key]:
            raise UsageError(
                f"{folder}: was started with {key} = {shown(old.get(key))}, "
                f"now it is {shown(new[key])}",
                hint=hint,
            )
