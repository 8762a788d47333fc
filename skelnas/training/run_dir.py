"""Run folders: opened by one run at a time, resumed or cleared, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from skelnas import json_text
from skelnas._version import __version__
from skelnas.errors import InputError, SkelnasError, UsageError, shown
from skelnas.runtime import files
from skelnas.runtime.files import atomic_write, to_json, versions

CONFIG = "config.json"
METRICS = "metrics.jsonl"
ALPHAS = "alphas.jsonl"
CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
REPEATS = "repeats.json"
FOLDS = "folds.json"
TABLE = "genotypes.json"
CHOSEN = "genotype.json"
LOCK = ".lock"
TENSORBOARD = "tensorboard"
TRACKER = "tracker.json"

COMPARED_FIRST = ("verb", "settings", "recipe", "epochs", "batch_size", "weights_first")
"""Where two configurations differ in these, the other differences follow from them."""


class Mirror(Protocol):
    """Shows what a run logs elsewhere, from its folder."""

    def open(self, epoch: int) -> None:
        """Begin, or go on after an epoch; -1 before anything is logged."""

    def update(self) -> None:
        """Show what was logged since."""

    def close(self, *, failed: bool) -> None:
        """Finish; nothing more is logged. Without `open`, nothing is to be done."""


class RunDir:
    """A run folder that this process works in, locked against other runs.

    Made by `start`.

    Args:
        folder: holds all files of the run.
        mirror: shows what the run logs elsewhere.
        writes: False on all ranks but the first, which holds the lock and writes for all.
    """

    def __init__(self, folder: Path, mirror: Mirror | None = None, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        self._mirror = mirror
        self._lock = _lock(folder) if writes else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def close(self, *, failed: bool = True) -> None:
        """Release the lock."""
        if self._mirror is not None:
            self._mirror.close(failed=failed)
        if self._lock is not None:
            self._lock.close()

    def log(self, record: Mapping[str, Any], file: str = METRICS) -> None:
        """Append one line to a JSON-lines file."""
        if not self.writes:
            return
        path = self.folder / file
        try:
            with path.open("a", encoding="utf-8") as lines:
                lines.write(_to_line(record, file))
                lines.flush()
                os.fsync(lines.fileno())  # before the checkpoint that counts this epoch as done
        except OSError as error:
            raise SkelnasError(
                f"{path}: cannot be written ({error.strerror})",
                hint="free some space; the same command with --resume continues from the last "
                "checkpoint",
            ) from error
        if self._mirror is not None:
            self._mirror.update()

    def drop_epochs_after(self, epoch: int) -> None:
        """Drop the lines of epochs after the checkpoint's: they are about to be logged again.

        Raises:
            SkelnasError: the mirror cannot be opened.
        """
        if not self.writes:
            return
        for path in (self.folder / METRICS, self.folder / ALPHAS):
            if not path.exists():
                continue
            lines = [line for line in read_lines(path) if line["epoch"] <= epoch]
            atomic_write(path, "".join(_to_line(line, path.name) for line in lines))
        if self._mirror is not None:
            self._mirror.open(epoch)


def start(
    folder: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
    mirror: Mirror | None = None,
    discard: Sequence[str] = (),
) -> RunDir:
    """Open a run folder, either for a new run or to resume the one in it.

    Args:
        folder: created if it does not exist.
        config: what defines the run; written to ``config.json`` together with the versions.
        resume: resume the run in the folder, which must have the same config.
        force: delete the run in the folder. Files that no run wrote stay.
        mirror: shows what the run logs elsewhere.
        discard: patterns of what else belongs to the run, and is deleted before a new one: files,
            and folders with runs of their own.

    Raises:
        UsageError: see `check`; or the run to be resumed has another config.
    """
    check(folder, resume=resume, force=force)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkelnasError(f"{folder}: cannot be created ({error.strerror})") from None
    run = RunDir(folder, mirror)
    try:
        _open(folder, config, resume, discard)
    except BaseException:
        run.close()
        raise
    return run


def _open(
    folder: Path,
    config: Mapping[str, Any],
    resume: bool,
    discard: Sequence[str],
) -> None:
    """Check that the run in a locked folder is the one to resume, or begin a new one."""
    files.remove_parts(folder)
    if resume and (folder / CONFIG).exists():
        _check_same_config(read_config(folder), config, folder)
        return
    _discard(folder, discard)
    _delete_run(folder)
    atomic_write(folder / CONFIG, to_json({**config, "versions": versions()}))


def _discard(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            if not path.is_dir():
                path.unlink()
            elif (path / CONFIG).exists():
                delete(path)


def check(folder: Path, *, resume: bool, force: bool) -> None:
    """Check that `start` could open a folder, without changing anything.

    Raises:
        UsageError: both `resume` and `force` are set, or neither and the folder is not empty;
            it is a file, cannot be made, holds no run to resume, or another run is using it.
    """
    if resume and force:
        raise UsageError(
            "--resume continues a run, --force deletes it", hint="leave one of them out"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, expected a folder", hint="choose another --out")
    if not folder.exists():
        files.check_can_create(folder)
        return
    is_empty = set(folder.iterdir()) <= {folder / LOCK, *files.list_parts(folder)}
    if resume and not is_empty and not (folder / CONFIG).exists():
        raise UsageError(
            f"{folder}: holds no run to resume: it is not empty, but has no {CONFIG}",
            hint="--out names the folder that the run was started in",
        )
    if not (is_empty or resume or force):
        raise UsageError(
            f"{folder}: is not empty",
            hint="--resume continues the run in it, --force starts over; or choose another --out",
        )
    if (folder / LOCK).exists():
        _lock(folder).close()


def resume_or_start(folder: Path) -> dict[str, Any]:
    """Return the options that resume the run in a folder or, if there is none, start one."""
    exists = (folder / CONFIG).exists()
    return {"resume": exists, "force": not exists}


def delete(folder: Path) -> None:
    """Delete the run in a folder, and the folder unless it has files that no run wrote.

    Raises:
        UsageError: another run is using the folder.
    """
    with RunDir(folder):
        files.remove_parts(folder)
        _delete_run(folder)
    (folder / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _delete_run(folder: Path) -> None:
    for events in (folder / TENSORBOARD).glob("events.out.tfevents.*"):
        events.unlink()
    # In an order in which what a kill leaves is never resumed as if it were whole.
    if (folder / TABLE).exists():  # otherwise the genotype is a user's
        (folder / CHOSEN).unlink(missing_ok=True)
        (folder / TABLE).unlink()
    for name in (CHECKPOINT, MODEL, METRICS, ALPHAS, TRACKER, REPEATS, FOLDS, CONFIG):
        (folder / name).unlink(missing_ok=True)


def _lock(folder: Path) -> BinaryIO:
    """Lock a folder until the returned file is closed or this process ends."""
    try:
        lock = files.lock(folder / LOCK)
    except OSError as error:
        raise SkelnasError(f"{folder}: cannot be locked ({error.strerror})") from None
    if lock is None:
        raise UsageError(
            f"{folder}: another run is using it",
            hint="wait for it to end, or choose another --out",
        )
    return lock


def _check_same_config(old: dict[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    hint = "repeat the original command with --resume"
    old_versions = old.get("versions")
    if isinstance(old_versions, dict) and "skelnas" in old_versions:
        version = old_versions["skelnas"]
        if version != __version__:  # whose settings and defaults may differ
            hint = f"resume with skelnas {version}, which started it (this is {__version__})"
    as_read = json.loads(json.dumps(new))
    _compare(old, as_read, folder, f"{hint}, or choose another --out")


def _compare(old: dict[str, Any], new: Mapping[str, Any], folder: Path, hint: str) -> None:
    for key in sorted(new, key=lambda key: (key not in COMPARED_FIRST, key)):
        if key == "layout":
            _compare_layouts(old.get(key), new[key], folder)
        elif isinstance(new[key], dict) and isinstance(old.get(key), dict):
            removed = dict.fromkeys(old[key].keys() - new[key].keys())
            _compare(old[key], {**new[key], **removed}, folder, hint)
        elif key == "fingerprint" and key in old and old[key] != new[key]:
            raise UsageError(
                f"{folder}: was started with other clips than the cache has now",
                hint="prepare the cache as it was, or start over with --force",
            )
        elif old.get(key) != new[key]:
            raise UsageError(
                f"{folder}: was started with {_printable(key)} = {shown(old.get(key))}, "
                f"now it is {shown(new[key])}",
                hint=hint,
            )


def _printable(key: str) -> str:
    return key if key.isprintable() else shown(key)


def _compare_layouts(old: Any, new: dict[str, Any], folder: Path) -> None:
    """Compare the layout of the cache with the one that was recorded, if one was.

    The same coordinates with another centre or other bones are other clips.
    """
    if not isinstance(old, dict) or old == new:
        return
    names = [name.replace("_", " ") for name in new if old.get(name) != new[name]]
    raise UsageError(
        f"{folder}: was started with another layout than the cache has now: {', '.join(names)}",
        hint="prepare the cache as it was, or start over with --force",
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``.

    Raises:
        InputError: it is missing, damaged or not a JSON object.
    """
    path = folder / CONFIG
    try:
        config = files.read_object(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: is not a run or model folder: it has no {CONFIG}",
            hint="`skelnas search --out RUN` and `skelnas train --out MODEL` create them",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    cache = config.get("cache", "")
    if not _is_path(cache):
        raise InputError(f"{path}: expected the path of a cache, found {shown(cache)}")
    return config


def _is_path(value: object) -> bool:
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half a character
        return False


def _to_line(record: Mapping[str, Any], file: str) -> str:
    """Return a line of a file; genotypes are derived from alphas, so these have a checksum."""
    return json.dumps(files.seal(record) if file == ALPHAS else record) + "\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per epoch; a last line cut off by a kill is skipped.

    Raises:
        InputError: the file is missing or damaged, a line is not an object with an epoch, or
            epochs are not in order.
    """
    try:
        text = files.read_text(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    records: list[dict[str, Any]] = []
    *lines, last = text.split("\n")
    for number, line in enumerate([*lines, *([last] if _is_whole(last) else [])], start=1):
        try:
            record = json_text.parse(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: is not JSON ({error})") from None
        epoch = record.get("epoch") if isinstance(record, dict) else None
        if isinstance(epoch, bool) or not isinstance(epoch, int):
            raise InputError(f"{path}, line {number}: expected an object with an epoch")
        if records and epoch <= records[-1]["epoch"]:
            raise InputError(
                f"{path}, line {number}: epoch {shown(epoch)} after {shown(records[-1]['epoch'])}"
            )
        try:
            records.append(files.unseal(record))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return records


def _is_whole(line: str) -> bool:
    """Return whether a last line without an end is more than the beginning of an object."""
    try:
        json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return True
