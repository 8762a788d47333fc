"""Reads a skeleton cache: its tables on opening, its poses on demand.

Shapes: N clips, R rows of all clips, M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skelnas._version import __version__
from skelnas.data.cache.storage import (
    FORMAT,
    INTEGERS,
    POSES_CHUNK_BYTES,
    SCHEMA_VERSION,
    Clips,
    Storage,
    read_pairs,
    read_strings,
)
from skelnas.data.readers.base import ClipTable, Layout, Train
from skelnas.errors import InputError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

MAX_PERSONS = 64
"""A cache that claims more persons per clip counts as damaged."""

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
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._poses = file["poses"]
        self._present = file["present"]
        self._read_head()
        self._read_tables()
        self._check()
        self.storage = Storage(
            float16=self._poses.dtype == np.float16, compress=self._poses.compression is not None
        )

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a cache and read its tables, but none of its poses.

        Raises:
            InputError: the file is missing, not a skeleton cache, of another schema version,
                cut short or damaged.
        """
        path = Path(path)
        file = _open_file(path)
        try:
            _check_format(path, file)
            with _damage_as_input_error(path):
                return cls(path, file)
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

        Raises:
            InputError: the cache has no such protocol.
        """
        if protocol not in self.splits:
            available = ", ".join(self.splits) or "none"
            raise InputError(
                f"{self.path} has no protocol {protocol!r}, only: {available}",
                hint="choose one of these with --protocol",
            )
        return np.flatnonzero(self.splits[protocol] == part)

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
            InputError: the file is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clips are 0 to {len(self) - 1}, not {index}")
        poses, present = self.read_stored(range(index, index + 1))
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
            InputError: the file is damaged.
        """
        chosen = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"clips are 0 to {len(self) - 1}, not {chosen.min()}..{chosen.max()}")
        num_rows = self._num_rows[chosen]
        starts = np.cumsum(num_rows) - num_rows
        poses = np.empty((int(num_rows.sum()), *self._poses.shape[1:]), dtype=np.float32)
        present = np.empty(len(poses), dtype=np.bool_)
        with _damage_as_input_error(self.path):
            for first, last, positions in self._plan_reads(chosen):
                read_poses, read_present = self._poses[first:last], self._present[first:last]
                for position in positions:
                    start = self._starts[chosen[position]] - first
                    source = slice(start, start + num_rows[position])
                    target = slice(starts[position], starts[position] + num_rows[position])
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

    def read_stored(self, clips: range) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read neighbouring clips in their stored precision: poses [r, V, C] and present [r].

        Raises:
            InputError: the file is damaged.
        """
        rows = self._rows_of(clips)
        with _damage_as_input_error(self.path):
            return self._poses[rows], self._present[rows]

    def read_present(self, clips: range) -> NDArray[np.bool_]:
        """Read who is present in neighbouring clips: [r].

        Raises:
            InputError: the file is damaged.
        """
        with _damage_as_input_error(self.path):
            present: NDArray[np.bool_] = self._present[self._rows_of(clips)]
            return present

    def read_column(self, name: str) -> NDArray[Any] | None:
        """Read an optional column of the table of the clips; None if it does not exist."""
        with _damage_as_input_error(self.path):
            return self._file["clips"][name][()] if name in self._file["clips"] else None

    def visit(self, function: Callable[[str, Any], None]) -> None:
        """Call `function` with the name and the object of every group and dataset."""
        with _damage_as_input_error(self.path):
            self._file.visititems(function)

    def _rows_of(self, clips: range) -> slice:
        last = clips[-1]
        return slice(int(self._starts[clips[0]]), int(self._starts[last] + self._num_rows[last]))

    def _plan_reads(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, int, list[int]]]:
        """Yield (first row, end row, positions in `chosen`) of each read.

        Clips are read together across small gaps, up to `READ_BYTES`.
        """
        row_bytes = self._poses.dtype.itemsize * int(np.prod(self._poses.shape[1:]))
        max_gap, max_rows = POSES_CHUNK_BYTES // row_bytes, READ_BYTES // row_bytes
        positions: list[int] = []
        first = last = 0
        for position in np.argsort(self._starts[chosen], kind="stable").tolist():
            start = int(self._starts[chosen[position]])
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

    def _read_head(self) -> None:
        attrs = self._file.attrs
        self.source = str(attrs["source"])
        self.rule: dict[str, Any] = json.loads(attrs["rule"])
        self.skelnas_version = str(attrs["skelnas_version"])
        self.max_persons = int(attrs["max_persons"])
        self.classes = read_strings(self._file["classes"])
        layout = self._file["layout"]
        center = int(layout.attrs["center_joint"])
        self.layout = Layout(
            joints=tuple(read_strings(layout["joints"])),
            bones=tuple((int(child), int(parent)) for child, parent in layout["bones"][()]),
            channels=tuple(read_strings(layout["channels"])),
            center_joint=None if center < 0 else center,
        )

    def _read_tables(self) -> None:
        table = self._file["clips"]
        columns = {name: table[name][()] for name in INTEGERS}
        self.clips = ClipTable(
            names=read_strings(table["name"]),
            labels=columns["label"],
            subjects=columns["subject"],
            cameras=columns["camera"],
            setups=columns["setup"],
        )
        self.num_persons: NDArray[np.int64] = columns["num_persons"].astype(np.int64)
        self.num_frames: NDArray[np.int64] = columns["num_frames"].astype(np.int64)
        self._starts = columns["start"]
        self._num_rows = self.num_persons * self.num_frames
        self.splits: dict[str, NDArray[np.int8]] = {
            protocol: parts[()] for protocol, parts in self._file["splits"].items()
        }
        self.skipped = read_pairs(self._file["skipped"])
        self.failed = read_pairs(self._file["failed"])

    def _check(self) -> None:
        """Check that the tables and the poses are consistent; raises ValueError."""
        count, shape = len(self), (len(self.layout.joints), len(self.layout.channels))
        columns = [self._file["clips"][name] for name in INTEGERS]
        if any(column.shape != (count,) for column in [*columns, *self.splits.values()]):
            raise ValueError("the tables of the clips have different lengths")
        if self._poses.shape[1:] != shape or self._present.shape != self._poses.shape[:1]:
            raise ValueError(f"poses are {self._poses.shape}, expected (rows, {shape})")
        if self._poses.dtype not in (np.float32, np.float16) or self._present.dtype != np.bool_:
            raise ValueError(f"poses are {self._poses.dtype}, expected float32 or float16")
        starts_fit = np.array_equal(self._starts, np.cumsum(self._num_rows) - self._num_rows)
        num_rows = len(self._poses)
        if not starts_fit or self._num_rows.min() < 1 or self._num_rows.sum() != num_rows:
            raise ValueError("the clips do not cover the poses")
        if any(column.dtype.kind not in "iu" for column in columns):
            raise ValueError("the tables of the clips are not whole numbers")
        if not self.num_persons.max() <= self.max_persons <= MAX_PERSONS:
            raise ValueError(f"max_persons is {self.max_persons}")
        joints = {*(joint for bone in self.layout.bones for joint in bone)}
        joints |= {self.layout.center_joint or 0}
        if not joints <= set(range(len(self.layout.joints))):
            raise ValueError("a bone or the centre is a joint that does not exist")
        if any(data.file.filename != self._file.filename for data in (self._poses, self._present)):
            raise ValueError("the poses are in another file")
        if not isinstance(self.rule, dict):
            raise ValueError("the rule is not a JSON object")
        if self.clips.labels.min() < 0 or self.clips.labels.max() >= len(self.classes):
            raise ValueError("a label has no class name")


def _open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        InputError: the file is missing, not HDF5, or damaged.
    """
    try:
        with path.open("rb") as file:
            signature = file.read(len(HDF5_SIGNATURE))
    except OSError as error:
        raise InputError(
            f"cannot read the cache {path}: {error.strerror}",
            hint="`skelnas prepare` makes a cache",
        ) from error
    if signature != HDF5_SIGNATURE:
        raise InputError(f"{path} is not an HDF5 file", hint="`skelnas prepare` makes a cache")
    with _damage_as_input_error(path):
        # A finished cache never changes, so it needs no lock; some network disks have none.
        return h5py.File(path, "r", locking=False)


def _check_format(path: Path, file: h5py.File) -> None:
    """Check that a file is a finished cache of our schema.

    Raises:
        InputError: it is not.
    """
    with _damage_as_input_error(path):
        kind, version = file.attrs.get("format"), file.attrs.get("schema_version")
        if not isinstance(kind, str) or kind != FORMAT:
            raise InputError(
                f"{path} is an HDF5 file, but not a finished skeleton cache",
                hint="`skelnas prepare` makes a cache",
            )
        if int(version) != SCHEMA_VERSION:
            raise InputError(
                f"{path} has cache schema {version} (skelnas {file.attrs['skelnas_version']}); "
                f"skelnas {__version__} reads schema {SCHEMA_VERSION}",
                hint="run `skelnas prepare` again with this version",
            )


@contextmanager
def _damage_as_input_error(path: Path) -> Iterator[None]:
    """Turn any error that a damaged file causes, in HDF5 or here, into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the cache {path} is damaged or cut short: {error}",
            hint="copy it again, or run `skelnas prepare` again",
        ) from error
