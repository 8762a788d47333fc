"""What a run has read so far, kept beside its cache so that a later run need not read it again.

``OUT.parts/`` holds ``run.json``, which says what the run was to do, and ``.npz`` files with some
hundred recordings each. A file appears under its name when it is complete. A run that goes on takes
from here what it would read again otherwise, and writes its cache from the start: so the cache
is, byte for byte, that of a run that was never stopped.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Recording
from skelnas.errors import SkelnasError, UsageError

PART_BYTES = 8 * 1024 * 1024
"""Recordings are kept in memory until there are this many bytes of them; a kill loses no more."""
_RUN = "run.json"
_PARTS = "[0-9]" * 6 + ".npz"


class _Place(NamedTuple):
    """Where a recording is: its file, its number there, and the state its raw file was in."""

    part: Path
    number: int
    stamp: list[int]


class Journal:
    """The recordings that a run, or the one that it continues, has read.

    Use as a context manager within that of the cache's writer, whose lock keeps others out.

    Args:
        out: the cache.
        identity: what decides about every recording: the source, its settings, its side files.
            Plain JSON.
        anew: forget what an earlier run of another identity has left.

    Attributes:
        folder: where it lies.

    Raises:
        UsageError: an earlier run of another identity has left recordings, and not `anew`.
        SkelnasError: it cannot be written (here and in `add`).
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, anew: bool = False) -> None:
        self.folder = journal_path(out)
        self._pending: list[tuple[Path, Recording]] = []
        self._pending_bytes = 0
        self._stamps: dict[Path, list[int]] = {}
        self._places: dict[str, _Place] = {}
        self._load = lru_cache(maxsize=4)(_load)
        text = json.dumps(identity, indent=2, sort_keys=True) + "\n"
        try:
            self._start(text, anew)
        except OSError as error:
            raise self._trouble(error) from error
        paths = sorted(self.folder.glob(_PARTS))
        self._number = 1 + max((int(path.stem) for path in paths), default=-1)
        for path in paths:
            self._read_part(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.exists():
            with suppress(SkelnasError):  # what stopped the run is the better message
                self._write_part()

    def known(self, items: Sequence[Path]) -> list[bool]:
        """Say of which items there is a recording, of the file as it is now."""
        self._stamps = {item: _stamp(item) for item in items}
        places = (self._places.get(str(item)) for item in items)
        return [
            place is not None and place.stamp == stamp
            for place, stamp in zip(places, self._stamps.values(), strict=True)
        ]

    def recording(self, item: Path) -> Recording:
        """Return what an earlier run has read of an item that is `known`."""
        place = self._places[str(item)]
        return self._load(place.part)[place.number]

    def add(self, item: Path, recording: Recording) -> None:
        """Keep what was read of an item."""
        self._pending.append((item, recording))
        self._pending_bytes += recording.poses.nbytes
        if self._pending_bytes >= PART_BYTES:
            self._write_part()

    def remove(self) -> None:
        """Forget everything: the cache is finished."""
        self._pending.clear()
        with suppress(OSError):
            self._clear()
            self.folder.rmdir()

    def _clear(self) -> None:
        """Remove what is ours; the run's description first, without which the rest is nothing."""
        for pattern in (_RUN, _PARTS, "*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _start(self, text: str, anew: bool) -> None:
        run = self.folder / _RUN
        if run.exists() and run.read_text(encoding="utf-8") != text:
            if not anew:
                raise UsageError(
                    f"{self.folder} is of a run with other files or settings",
                    hint="give the settings of that run, or --force to read everything again",
                )
            self._clear()
        self.folder.mkdir(exist_ok=True)
        if not run.exists():
            self._clear()
            _replace(run, lambda part: part.write_text(text, encoding="utf-8"))

    def _read_part(self, path: Path) -> None:
        """Note what is in a file; one that a crash of the machine has spoilt is removed."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as part:
                facts = json.loads(part["facts"].tobytes())
                part["poses"], part["present"]  # reading them checks their checksums
            for number, (item, stamp, *_) in enumerate(facts):
                self._places[item] = _Place(path, number, stamp)
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
            path.unlink()

    def _write_part(self) -> None:
        if not self._pending:
            return
        facts = [
            (str(item), self._stamps[item], *_facts(recording), *recording.present.shape)
            for item, recording in self._pending
        ]
        clips = [recording for _, recording in self._pending]
        arrays: dict[str, NDArray[Any]] = {
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
            "poses": np.concatenate(
                [clip.poses.reshape(-1, *clip.poses.shape[2:]) for clip in clips]
            ),
            "present": np.concatenate([clip.present.reshape(-1) for clip in clips]),
        }

        def save(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

        try:
            _replace(self.folder / f"{self._number:06}.npz", save)
        except OSError as error:
            raise self._trouble(error) from error
        self._number += 1
        self._pending.clear()
        self._pending_bytes = 0

    def _trouble(self, error: OSError) -> SkelnasError:
        return SkelnasError(
            f"cannot write {self.folder}: {error.strerror or error}",
            hint="check that the folder may be written to and has room left",
        )


def journal_path(out: Path) -> Path:
    """Return where the recordings of an unfinished cache are kept."""
    return out.with_name(out.name + ".parts")


def _facts(recording: Recording) -> tuple[str, int, int, int, int]:
    numbers = (recording.label, recording.subject, recording.camera, recording.setup)
    label, subject, camera, setup = map(int, numbers)
    return recording.name, label, subject, camera, setup


def _load(path: Path) -> list[Recording]:
    """Read all recordings of a file."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as part:
        facts, poses, present = json.loads(part["facts"].tobytes()), part["poses"], part["present"]
    recordings = []
    end = 0
    for _, _, name, label, subject, camera, setup, num_persons, num_frames in facts:
        rows = slice(end, end + num_persons * num_frames)
        end = rows.stop
        shape = (num_persons, num_frames)
        recordings.append(
            Recording(
                name,
                label,
                poses[rows].reshape(*shape, *poses.shape[1:]),
                present[rows].reshape(shape),
                subject,
                camera,
                setup,
            )
        )
    return recordings


def _stamp(item: Path) -> list[int]:
    """Return size and time of the file that an item is, or lies in; nothing if it is no file."""
    for path in (item, *item.parents):
        with suppress(OSError):
            status = path.stat()
            return [status.st_size, status.st_mtime_ns] if S_ISREG(status.st_mode) else []
    return []


def side_file_stamps(paths: Sequence[Path]) -> dict[str, list[int]]:
    """Return the state of the files that say something about every clip."""
    return {str(path): _stamp(path) for path in paths}


def _replace(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file so that it has its name only when it is complete."""
    part = path.with_name(path.name + ".tmp")
    save(part)
    part.replace(path)
