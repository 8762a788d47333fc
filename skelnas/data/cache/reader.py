"""Reads a skeleton cache: its head on opening, its poses on demand.

Shapes: N clips, R rows of all clips, r of some, M persons, T frames, V joints, C channels of a
joint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skelnas._version import __version__
from skelnas.data.cache.folds import Fold
from skelnas.data.cache.hdf5 import SIGNATURE, Hdf5Reader
from skelnas.data.cache.head import Head, read_head
from skelnas.data.cache.storage import (
    FORMAT,
    POSES_CHUNK_BYTES,
    SCHEMA_VERSION,
    Clips,
    Storage,
    find_rows_problem,
)
from skelnas.data.readers.base import Train
from skelnas.errors import InputError, shown
from skelnas.runtime.files import check_is_regular

READ_BYTES = 32 * 1024 * 1024
"""Maximum size of one read of several clips, which bounds the memory."""


class Cache:
    """A skeleton cache, read only. Any number of processes may each open the same file.

    Use as ``with Cache.open(path) as cache``.

    Attributes:
        path: the file.
        source, rule, skelnas_version: where the clips come from and what wrote them.
        layout: joints, bones and channels.
        classes: class names in order of the label.
        max_persons: upper bound of the persons in a clip.
        clips: the table of the N clips.
        num_persons, num_frames: [N] int64.
        splits: protocol to [N] int8 of Train, Test or Unused.
        storage: precision and compression of the stored poses; `read` and `load` return float32.
        skipped, failed: (file, reason) of files left out, on purpose or because they are broken.
        has_checksums: whether changed poses can be detected.
    """

    def __init__(self, path: Path, file: h5py.File, head: Head) -> None:
        self.path = path
        self.source, self.rule, self.skelnas_version = head.source, head.rule, head.skelnas_version
        self.layout, self.classes, self.max_persons = head.layout, head.classes, head.max_persons
        self.clips, self.splits = head.clips, head.splits
        self.num_persons, self.num_frames = head.num_persons, head.num_frames
        self.skipped, self.failed = head.skipped, head.failed
        self.has_checksums = head.checksums is not None
        self._file = file
        self._head = head
        self._num_rows = head.num_persons * head.num_frames
        self.storage = Storage(
            float16=head.poses.dtype == np.float16, compress=head.poses.compression is not None
        )

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a cache and read its head, but none of its poses.

        Raises:
            InputError: the file is missing, not a skeleton cache, of another schema version,
                cut short or damaged.
        """
        path = Path(path)
        file = _open_file(path)
        try:
            with _damage_as_input_error(path), closing(Hdf5Reader(path, file)) as opened:
                _check_format(path, opened)
            with _damage_as_input_error(path), closing(Hdf5Reader(path, file)) as opened:
                head = read_head(opened)
                if opened.stored_checksum() not in (None, head.checksum):
                    raise ValueError("its head has changed since it was written")
                return cls(path, file, head)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.clips.names)

    def close(self) -> None:
        """Close the file; the tables remain readable, the poses do not."""
        self._file.close()

    @cached_property
    def contents(self) -> NDArray[np.uint64] | None:
        """A number below 2^48 for each clip, [N], that is equal for clips of equal poses.

        It is the same in every cache that stores them alike: their checksum, and then 16 bits of
        their size. None without checksums.
        """
        if self._head.checksums is None:
            return None
        size = self.num_persons.astype(np.uint64) * 4096 + self.num_frames.astype(np.uint64)
        return self._head.checksums.astype(np.uint64) * 65536 + size % 65536

    def choose_protocol(self, name: str = "") -> str:
        """Return the protocol `name`; if that is empty, xsub or the only one there is.

        Raises:
            InputError: the cache has no such protocol, or several without a default.
        """
        if not name and "xsub" in self.splits:
            return "xsub"
        if not name and len(self.splits) == 1:
            return next(iter(self.splits))
        if not self.splits:
            raise InputError(f"{self.path} has no protocols, so nothing to train or test on")
        if not name:
            raise InputError(
                f"{self.path} has several protocols and none was chosen",
                hint=f"choose one with --protocol: {', '.join(self.splits)}",
            )
        self.indices(name, Train)
        return name

    def indices(self, protocol: str, part: int) -> NDArray[np.int64]:
        """Return the clips in one part (Train, Test) of a protocol, in the order of the cache.

        Args:
            protocol: one of `splits`, or a fold of one, see `skelnas.data.cache.folds`.
            part: Train or Test.

        Raises:
            InputError: the cache has no such protocol, or it cannot be divided into these folds.
        """
        fold = None if protocol in self.splits else Fold.parse(protocol)
        parts = self.splits.get(protocol if fold is None else fold.protocol)
        if parts is None:
            available = ", ".join(self.splits) or "none"
            raise InputError(
                f"{self.path} has no protocol {protocol!r}, only: {available}",
                hint="choose one of these with --protocol, or a fold of one, such as "
                f"{next(iter(self.splits), 'xsub')}@subject:1/5",
            )
        if fold is not None:
            try:
                parts = fold.split(parts, self.clips)
            except ValueError as error:
                raise InputError(
                    f"{self.path}: no {fold.count} folds of {fold.protocol} by {fold.by}: {error}",
                    hint="take fewer folds, or divide by another of subject, camera and clip",
                ) from None
        return np.flatnonzero(parts == part)

    def nonempty_indices(self, protocol: str, part: int) -> NDArray[np.int64]:
        """Return `indices`, of a part that must have some.

        Raises:
            InputError: the cache has no such protocol, or the part is empty.
        """
        indices = self.indices(protocol, part)
        if not len(indices):
            name = "training" if part == Train else "test"
            raise InputError(
                f"{self.path}: the {name} part of {protocol} has no clips",
                hint="`skelnas inspect` shows how many clips each protocol has",
            )
        return indices

    def read(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read one clip: poses [M, T, V, C] and present [M, T].

        Raises:
            IndexError: there is no clip `index`.
            InputError: the clip is damaged.
        """
        self._check_indices(index, index)
        poses, present = self._read_rows(*self._row_range(range(index, index + 1)))
        self._check_clip(index, poses, present)
        poses = poses.astype(np.float32, copy=False)
        shape = (int(self.num_persons[index]), int(self.num_frames[index]))
        # [M*T, V, C] -> [M, T, V, C]
        return poses.reshape(*shape, *poses.shape[1:]), present.reshape(shape)

    def load(self, indices: ArrayLike) -> Clips:
        """Read many clips, in the order of `indices`, in few reads of neighbouring clips.

        Args:
            indices: [n] integers from 0 to N - 1, in any order.

        Raises:
            IndexError: there is no such clip.
            InputError: a clip is damaged.
        """
        chosen = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if chosen.size:
            self._check_indices(chosen.min(), chosen.max())
        num_rows = self._num_rows[chosen]
        starts = np.cumsum(num_rows) - num_rows
        shape = self._head.poses.shape[1:]
        poses = np.empty((int(num_rows.sum()), *shape), dtype=np.float32)
        present = np.empty(len(poses), dtype=np.bool_)
        for first, last, positions in self._plan_reads(chosen):
            read_poses, read_present = self._read_rows(first, last)
            for position in positions:
                index = chosen[position]
                start = self._head.starts[index] - first
                source = slice(start, start + num_rows[position])
                target = slice(starts[position], starts[position] + num_rows[position])
                self._check_clip(index, read_poses[source], read_present[source])
                poses[target] = read_poses[source]
                present[target] = read_present[source]
        return Clips(
            names=[self.clips.names[index] for index in chosen],
            labels=self.clips.labels[chosen].astype(np.int64),
            poses=poses,
            present=present,
            starts=starts,
            num_persons=self.num_persons[chosen],
            num_frames=self.num_frames[chosen],
        )

    def read_ranges(self) -> Iterator[range]:
        """Split all clips, in order, into ranges that each make one efficient read."""
        for _, _, positions in self._plan_reads(np.arange(len(self))):
            yield range(positions[0], positions[-1] + 1)

    def find_problems(self, clips: range) -> list[str]:
        """Read neighbouring clips and return a line for each that is damaged."""
        try:
            poses, present = self._read_rows(*self._row_range(clips))
        except InputError:
            if len(clips) > 1:  # read them one by one to find which it is
                return [line for i in clips for line in self.find_problems(range(i, i + 1))]
            return [f"clip {self.clips.names[clips[0]]}: its part of the file cannot be read"]
        ends = np.cumsum(self._num_rows[clips.start : clips.stop])[:-1]
        problems = map(self._find_problem, clips, np.split(poses, ends), np.split(present, ends))
        return [problem for problem in problems if problem]

    def read_presence(self) -> Iterator[NDArray[np.bool_]]:
        """Yield who is present in each clip: [M, T].

        Raises:
            InputError: the file is damaged, which may be found after the last clip.
        """
        checksum = 0
        for clips in self.read_ranges():
            first, last = self._row_range(clips)
            with _damage_as_input_error(self.path):
                present = self._head.present[first:last]
            checksum = crc32(present.data, checksum)
            ends = np.cumsum(self._num_rows[clips.start : clips.stop])[:-1]
            for index, rows in zip(clips, np.split(present, ends), strict=True):
                yield rows.reshape(self.num_persons[index], -1)  # [M*T] -> [M, T]
        if self._head.present_checksum not in (None, checksum):
            raise _damage_error(self.path, "present: has changed since it was written")

    def _read_rows(self, first: int, last: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read rows in their stored precision: poses [r, V, C] and present [r]."""
        with _damage_as_input_error(self.path):
            return self._head.poses[first:last], self._head.present[first:last]

    def _check_indices(self, lowest: int, highest: int) -> None:
        if lowest < 0 or highest >= len(self):
            raise IndexError(f"clips are 0 to {len(self) - 1}, not {lowest}..{highest}")

    def _check_clip(self, index: int, poses: NDArray[Any], present: NDArray[np.bool_]) -> None:
        if problem := self._find_problem(index, poses, present):
            raise _damage_error(self.path, problem)

    def _find_problem(
        self, index: int, poses: NDArray[Any], present: NDArray[np.bool_]
    ) -> str | None:
        """Return what is wrong with the rows of a clip, poses [r, V, C] and present [r]."""
        checksums = self._head.checksums
        expected = None if checksums is None else checksums[index]
        problem = find_rows_problem(poses, present, expected)
        return problem and f"clip {self.clips.names[index]}: {problem}"

    def _row_range(self, clips: range) -> tuple[int, int]:
        starts, last = self._head.starts, clips[-1]
        return int(starts[clips[0]]), int(starts[last] + self._num_rows[last])

    def _plan_reads(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, int, list[int]]]:
        """Yield (first row, end row, positions in `chosen`) of each read.

        Clips are read together across small gaps, up to `READ_BYTES`.
        """
        row_bytes = self._head.poses.dtype.itemsize * math.prod(self._head.poses.shape[1:])
        max_gap, max_rows = POSES_CHUNK_BYTES // row_bytes, READ_BYTES // row_bytes
        positions: list[int] = []
        first = last = 0
        for position in np.argsort(self._head.starts[chosen], kind="stable").tolist():
            start = int(self._head.starts[chosen[position]])
            end = start + int(self._num_rows[chosen[position]])
            if positions and (start - last > max_gap or end - first > max_rows):
                yield first, last, positions
                positions = []
            if not positions:
                first = start
            last = end
            positions.append(position)
        if positions:
            yield first, last, positions


def _open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        InputError: the file is missing, not HDF5, or damaged.
    """
    hint = "`skelnas prepare` makes a cache"
    check_is_regular(path)
    try:
        with path.open("rb") as file:
            signature = file.read(len(SIGNATURE))
    except OSError as error:
        raise InputError(f"cannot read the cache {path}: {error.strerror}", hint=hint) from error
    if signature != SIGNATURE:
        raise InputError(f"{path} is not an HDF5 file", hint=hint)
    with _damage_as_input_error(path):
        # A finished cache never changes, so it needs no lock; some network disks have none.
        return h5py.File(path, "r", locking=False)


def _check_format(path: Path, file: Hdf5Reader) -> None:
    """Check that a file is a finished cache of our schema.

    Raises:
        InputError: it is not.
    """
    try:
        is_cache = file.attribute("format", str) == FORMAT
    except (ValueError, TypeError):
        is_cache = False
    if not is_cache:
        raise InputError(
            f"{path} is an HDF5 file, but not a finished skeleton cache",
            hint="`skelnas prepare` makes a cache",
        )
    version = file.attribute("schema_version", int)
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has cache schema {version} "
            f"(skelnas {shown(file.attribute('skelnas_version', str))}); "
            f"skelnas {__version__} reads schema {SCHEMA_VERSION}",
            hint="run `skelnas prepare` again with this version",
        )


@contextmanager
def _damage_as_input_error(path: Path) -> Iterator[None]:
    """Turn any error that a damaged file causes, in HDF5 or here, into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _damage_error(path, str(error)) from error


def _damage_error(path: Path, reason: str) -> InputError:
    return InputError(
        f"the cache {path} is damaged or cut short: {reason}",
        hint="copy it again, or run `skelnas prepare` again",
    )
