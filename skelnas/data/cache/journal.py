"""Recordings read so far, saved next to the cache so that a resumed run need not read them again.

``OUT.parts/`` holds ``run.json``, which identifies the run, and ``.npz`` files of some hundred
recordings each, which get their names once complete. A resumed run takes recordings from here
instead of reading their files, and writes its cache from the start: so the cache is, byte for
byte, that of an uninterrupted run.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skelnas import json_text
from skelnas.data.readers.base import Recording
from skelnas.data.readers.npy import read_npz
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.runtime.files import check_is_regular

PART_BYTES = 8 * 1024 * 1024
"""Poses buffered in memory before they are written; the most that a kill loses."""

MAX_ARRAY_BYTES = 1 << 30
"""Of an array in a part; one long recording may be far larger than the others."""

_RUN = "run.json"
_PARTS = "[0-9]" * 6 + ".npz"


class _Entry(NamedTuple):
    """A saved recording: its file, its row there, and the stamp of its raw file when read."""

    part: Path
    row: int
    stamp: list[int]


class Journal:
    """The recordings that a run, or the earlier runs that it resumes, have read.

    Use as a context manager inside that of the `CacheWriter`, whose lock keeps other runs out.

    Args:
        out: the cache.
        identity: everything that affects a recording: the source, its settings, its side files.
            Plain JSON.
        force: discard what an earlier run of another identity left.

    Attributes:
        folder: ``OUT.parts``.

    Raises:
        UsageError: an earlier run of another identity left recordings (without `force`).
        SkelnasError: the folder cannot be written (here and in `add`).
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, force: bool = False) -> None:
        self.folder = journal_path(out)
        self._pending: list[tuple[Path, Recording]] = []
        self._pending_bytes = 0
        self._stamps: dict[Path, list[int]] = {}
        self._entries: dict[str, _Entry] = {}
        self._load_part = lru_cache(maxsize=4)(_load_part)
        text = json.dumps(identity, indent=2, sort_keys=True) + "\n"
        try:
            self._start(text, force)
        except OSError as error:
            raise self._write_error(error) from error
        paths = sorted(self.folder.glob(_PARTS))
        self._next_number = 1 + max((int(path.stem) for path in paths), default=-1)
        for path in paths:
            self._index_part(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.exists():
            with suppress(SkelnasError):  # what stopped the run is the better message
                self._write_part()

    def find_resumable(self, items: Sequence[Path]) -> list[bool]:
        """Return for each item whether its recording is saved and its file has not changed."""
        self._stamps = {item: _stamp(item) for item in items}
        entries = (self._entries.get(str(item)) for item in items)
        return [
            entry is not None and entry.stamp == stamp
            for entry, stamp in zip(entries, self._stamps.values(), strict=True)
        ]

    def load(self, item: Path) -> Recording:
        """Load the saved recording of an item, see `find_resumable`."""
        entry = self._entries[str(item)]
        return self._load_part(entry.part)[entry.row]

    def add(self, item: Path, recording: Recording) -> None:
        """Save the recording of an item."""
        self._pending.append((item, recording))
        self._pending_bytes += recording.poses.nbytes
        if self._pending_bytes >= PART_BYTES:
            self._write_part()

    def remove(self) -> None:
        """Delete the journal: the cache is finished."""
        self._pending.clear()
        with suppress(OSError):
            self._clear()
            self.folder.rmdir()

    def _start(self, text: str, force: bool) -> None:
        run = self.folder / _RUN
        for path in self.folder.glob("*"):
            check_is_regular(path)
        if run.exists() and run.read_bytes() != text.encode():
            if not force:
                raise UsageError(
                    f"{self.folder} is from a run with other files or settings",
                    hint="repeat the settings of that run, or --force to read everything again",
                )
            self._clear()
        self.folder.mkdir(exist_ok=True)
        if not run.exists():
            self._clear()
            _replace(run, lambda part: part.write_text(text, encoding="utf-8"))

    def _clear(self) -> None:
        """Remove our files; ``run.json`` first, since without it the others are ignored."""
        for pattern in (_RUN, _PARTS, "*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _index_part(self, path: Path) -> None:
        """Register the recordings of a file, or remove a file that a crash corrupted."""
        try:
            entries = {
                item: _Entry(path, row, stamp)
                for row, (item, stamp, *_) in enumerate(_read_part(path)[0])
            }
        except (InputError, ValueError, LookupError, TypeError):
            path.unlink()
        else:
            self._entries |= entries

    def _write_part(self) -> None:
        if not self._pending:
            return
        rows = [
            (str(item), self._stamps[item], *_metadata(recording), *recording.present.shape)
            for item, recording in self._pending
        ]
        clips = [recording for _, recording in self._pending]
        arrays: dict[str, NDArray[Any]] = {
            "facts": np.frombuffer(json.dumps(rows).encode(), np.uint8),
            "poses": np.concatenate(
                [clip.poses.reshape(-1, *clip.poses.shape[2:]) for clip in clips]
            ),  # [M, T, V, C] each -> [R, V, C]
            "present": np.concatenate([clip.present.reshape(-1) for clip in clips]),
        }

        def save(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

        try:
            _replace(self.folder / f"{self._next_number:06}.npz", save)
        except OSError as error:
            raise self._write_error(error) from error
        self._next_number += 1
        self._pending.clear()
        self._pending_bytes = 0

    def _write_error(self, error: OSError) -> SkelnasError:
        return SkelnasError(
            f"cannot write {self.folder}: {error.strerror or error}",
            hint="check that the folder is writable and the disk is not full",
        )


def journal_path(out: Path) -> Path:
    """Return the folder of the journal of a cache."""
    return out.with_name(out.name + ".parts")


def side_file_stamps(paths: Sequence[Path]) -> dict[str, list[int]]:
    """Return the size and time of the files that affect every clip."""
    return {str(path): _stamp(path) for path in paths}


def _stamp(item: Path) -> list[int]:
    """Return size and time of an item's file, or of the archive it is in; [] if there is none.

    Of a folder: the number of its files and a checksum of their names, sizes and times.
    """
    for path in (item, *item.parents):
        with suppress(OSError):
            status = path.stat()
            if S_ISDIR(status.st_mode):
                stats = [(file.name, file.stat()) for file in sorted(path.iterdir())]
                files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
                return [len(files), zlib.crc32(repr(files).encode())]
            return [status.st_size, status.st_mtime_ns] if S_ISREG(status.st_mode) else []
    return []


def _read_part(path: Path) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_]]:
    """Read a file, which verifies its checksums: a row for each recording, poses, present."""
    part = read_npz(path, MAX_ARRAY_BYTES)
    return json_text.parse(part["facts"].tobytes()), part["poses"], part["present"]


def _load_part(path: Path) -> list[Recording]:
    """Load all recordings of a file."""
    rows, poses, present = _read_part(path)
    recordings = []
    end = 0
    for _, _, name, label, subject, camera, setup, num_persons, num_frames in rows:
        start, end = end, end + num_persons * num_frames
        shape = (num_persons, num_frames)
        recordings.append(
            Recording(
                name,
                label,
                poses[start:end].reshape(*shape, *poses.shape[1:]),  # -> [M, T, V, C]
                present[start:end].reshape(shape),
                subject,
                camera,
                setup,
            )
        )
    return recordings


def _metadata(recording: Recording) -> tuple[str, int, int, int, int]:
    numbers = (recording.label, recording.subject, recording.camera, recording.setup)
    label, subject, camera, setup = map(int, numbers)
    return recording.name, label, subject, camera, setup


def _replace(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file so that it gets its name only when complete."""
    part = path.with_name(path.name + ".tmp")
    save(part)
    part.replace(path)
