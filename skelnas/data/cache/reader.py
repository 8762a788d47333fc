"""Reads a skeleton cache: its tables when it is opened, its poses when they are asked for.

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

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file to read. Raises InputError where it is missing, none, or damaged."""
    try:
        with path.open("rb") as file:
            signature = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InputError(
            f"cannot read the cache {path}: {error.strerror}",
            hint="`skelnas prepare` makes a cache",
        ) from error
    if signature != _SIGNATURE:
        raise InputError(f"{path} is no HDF5 file", hint="`skelnas prepare` makes a cache")
    with damage_is_bad_input(path):
        # A finished cache never changes, so no lock is needed; some network disks have none.
        return h5py.File(path, "r", locking=False)


def check_kind(path: Path, file: h5py.File) -> None:
    """Check that the file is a finished cache of our schema. Raises InputError where not."""
    with damage_is_bad_input(path):
        kind, version = file.attrs.get("format"), file.attrs.get("schema_version")
        if not isinstance(kind, str) or kind != FORMAT:
            raise InputError(
                f"{path} is an HDF5 file, but no finished skeleton cache",
                hint="`skelnas prepare` makes a cache",
            )
        if int(version) != SCHEMA_VERSION:
            raise InputError(
                f"{path} has cache schema {version} (skelnas {file.attrs['skelnas_version']}); "
                f"skelnas {__version__} reads schema {SCHEMA_VERSION}",
                hint="run `skelnas prepare` again with this version",
            )


@contextmanager
def damage_is_bad_input(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes HDF5 or us trip over into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the cache {path} is damaged or cut short: {error}",
            hint="copy it again, or run `skelnas prepare` again",
        ) from error


MOST_PERSONS = 64
"""A cache that claims more persons a clip is taken for damaged."""

READ_BYTES = 32 * 1024 * 1024
"""The most that one read of neighbouring clips takes into memory, unless one clip is longer."""


class Cache:
    """A skeleton cache, read only. Any number of processes may each open the same file.

    Use as ``with Cache.open(path) as cache``.

    Attributes:
        path: the file.
        source, rule, skelnas_version: where the clips come from and what made them.
        layout: joints, bones and channels.
        classes: class names in order of the label.
        max_persons: the most persons that a clip may have.
        clips: the table of the N clips.
        num_persons, num_frames: [N] int64.
        splits: protocol to [N] int8 of Train, Test or Unused.
        storage: precision and compression of the stored poses; readers always get float32.
        skipped, failed: (file, reason) of what was left out, on purpose or as broken.
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
        """Open the cache at `path` and read its tables, but none of its poses.

        Raises:
            InputError: the file is missing, no skeleton cache, of another schema version,
                cut short or damaged.
        """
        path = Path(path)
        file = open_file(path)
        try:
            check_kind(path, file)
            with damage_is_bad_input(path):
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
        """Close the file; the tables stay readable, the poses do not."""
        self._file.close()

    def indices(self, protocol: str, part: int) -> NDArray[np.int64]:
        """Return the clips of one part (Train, Test) of a protocol, in the order of the cache.

        Raises:
            InputError: the cache has no such protocol.
        """
        if protocol not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise InputError(
                f"{self.path} has no protocol {protocol!r}, only: {known}",
                hint="choose one of these with --protocol",
            )
        return np.flatnonzero(self.splits[protocol] == part)

    def choose_protocol(self, name: str = "") -> str:
        """Return the protocol `name`, or the cache's usual one if empty: xsub, or the only one.

        Raises:
            InputError: the cache has no such protocol, or several and none of them is usual.
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

    def read(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read one clip: poses [M, T, V, C] and present [M, T].

        Raises:
            IndexError: there is no clip `index`.
            InputError: the file is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clips are 0 to {len(self) - 1}, not {index}")
        first, num_rows = int(self._starts[index]), int(self._rows[index])
        with damage_is_bad_input(self.path):
            poses = self._poses[first : first + num_rows]
            present = self._present[first : first + num_rows]
        shape = (int(self.num_persons[index]), int(self.num_frames[index]))
        poses = poses.astype(np.float32, copy=False)
        return poses.reshape(*shape, *poses.shape[1:]), present.reshape(shape)

    def part_indices(self, protocol: str, part: int) -> NDArray[np.int64]:
        """Return the clips of a part that must have some; as `indices` otherwise.

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

    def load(self, indices: ArrayLike) -> Clips:
        """Read many clips, in the order of `indices`, by few reads of neighbouring clips.

        Args:
            indices: [n] integers from 0 to N - 1, in any order.

        Raises:
            IndexError: there is no such clip.
            InputError: the file is damaged.
        """
        chosen = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"clips are 0 to {len(self) - 1}, not {chosen.min()}..{chosen.max()}")
        rows = self._rows[chosen]
        starts = np.cumsum(rows) - rows
        poses = np.empty((int(rows.sum()), *self._poses.shape[1:]), dtype=np.float32)
        present = np.empty(len(poses), dtype=np.bool_)
        with damage_is_bad_input(self.path):
            for first, last, members in self._runs(chosen):
                run_poses, run_present = self._poses[first:last], self._present[first:last]
                for member in members:
                    begin, there = self._starts[chosen[member]] - first, starts[member]
                    length = rows[member]
                    poses[there : there + length] = run_poses[begin : begin + length]
                    present[there : there + length] = run_present[begin : begin + length]
        return Clips(
            names=[self.clips.names[index] for index in chosen],
            labels=self.clips.labels[chosen].astype(np.int64),
            poses=poses,
            present=present,
            starts=starts,
            num_persons=self.num_persons[chosen],
            num_frames=self.num_frames[chosen],
        )

    def stretches(self) -> Iterator[range]:
        """Split the clips, in order, into neighbours that are worth one read."""
        for _, _, members in self._runs(np.arange(len(self))):
            yield range(members[0], members[-1] + 1)

    def stored_rows(self, clips: range) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read neighbouring clips as they are stored: poses [r, V, C] and present [r].

        Raises:
            InputError: the file is damaged.
        """
        with damage_is_bad_input(self.path):
            return self._poses[self._span(clips)], self._present[self._span(clips)]

    def present_rows(self, clips: range) -> NDArray[np.bool_]:
        """Read who is present in neighbouring clips: [r]. Raises as `stored_rows`."""
        with damage_is_bad_input(self.path):
            rows: NDArray[np.bool_] = self._present[self._span(clips)]
            return rows

    def _span(self, clips: range) -> slice:
        last = clips[-1]
        return slice(int(self._starts[clips[0]]), int(self._starts[last] + self._rows[last]))

    def column(self, name: str) -> NDArray[Any] | None:
        """Read a further column of the table of the clips, or None if there is none."""
        with damage_is_bad_input(self.path):
            return self._file["clips"][name][()] if name in self._file["clips"] else None

    def visit(self, look: Callable[[str, Any], None]) -> None:
        """Call `look` with the name and the object of every group and dataset."""
        with damage_is_bad_input(self.path):
            self._file.visititems(look)

    def _runs(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, int, list[int]]]:
        """Yield (first row, last row, positions in `chosen`) of reads that are worth one read."""
        row_bytes = self._poses.dtype.itemsize * int(np.prod(self._poses.shape[1:]))
        gap, longest = POSES_CHUNK_BYTES // row_bytes, READ_BYTES // row_bytes
        members: list[int] = []
        first = last = 0
        for member in np.argsort(self._starts[chosen], kind="stable").tolist():
            start = int(self._starts[chosen[member]])
            end = start + int(self._rows[chosen[member]])
            if members and (start - last > gap or end - first > longest):
                yield first, last, members
                members = []
            if not members:
                first = start
            last = end
            members.append(member)
        if members:
            yield first, last, members

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
        self._rows = self.num_persons * self.num_frames
        self.splits: dict[str, NDArray[np.int8]] = {
            protocol: parts[()] for protocol, parts in self._file["splits"].items()
        }
        self.skipped = read_pairs(self._file["skipped"])
        self.failed = read_pairs(self._file["failed"])

    def _check(self) -> None:
        """Check that the tables and the poses fit each other; raises ValueError."""
        count, shape = len(self), (len(self.layout.joints), len(self.layout.channels))
        columns = [self._file["clips"][name] for name in INTEGERS]
        if any(column.shape != (count,) for column in [*columns, *self.splits.values()]):
            raise ValueError("the tables of the clips have different lengths")
        if self._poses.shape[1:] != shape or self._present.shape != self._poses.shape[:1]:
            raise ValueError(f"poses are {self._poses.shape}, expected (rows, {shape})")
        if self._poses.dtype not in (np.float32, np.float16) or self._present.dtype != np.bool_:
            raise ValueError(f"poses are {self._poses.dtype}, expected float32 or float16")
        lengths_fit = np.array_equal(self._starts, np.cumsum(self._rows) - self._rows)
        if not lengths_fit or self._rows.min() < 1 or self._rows.sum() != len(self._poses):
            raise ValueError("the clips do not cover the poses")
        if any(column.dtype.kind not in "iu" for column in columns):
            raise ValueError("the tables of the clips are not whole numbers")
        if not self.num_persons.max() <= self.max_persons <= MOST_PERSONS:
            raise ValueError(f"max_persons is {self.max_persons}")
        joints = {*(joint for bone in self.layout.bones for joint in bone)}
        joints |= {self.layout.center_joint or 0}
        if not joints <= set(range(len(self.layout.joints))):
            raise ValueError("a bone or the centre is a joint that does not exist")
        if any(data.file.filename != self._file.filename for data in (self._poses, self._present)):
            raise ValueError("the poses lie in another file")
        if not isinstance(self.rule, dict):
            raise ValueError("the rule is no JSON object")
        if self.clips.labels.min() < 0 or self.clips.labels.max() >= len(self.classes):
            raise ValueError("a label has no class name")
