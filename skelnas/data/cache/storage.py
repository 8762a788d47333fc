"""How the numbers of a cache lie on the disk: their precision, compression and checksums."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from zlib import crc32

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skelnas.data.readers.base import Layout, Recording
from skelnas.errors import InputError

FORMAT = "skelnas-cache"
SCHEMA_VERSION = 1

INTEGERS = ("label", "subject", "camera", "setup", "start", "num_persons", "num_frames")
"""The integer columns of the table ``clips``; ``start`` is int64, the others are int32."""

POSES_CHUNK_BYTES = 256 * 1024
PRESENT_CHUNK_ROWS = 64 * 1024

CHECKSUM = "crc32"
"""The column with the checksum of each clip's rows, and the attribute with that of a table."""


def as_text(text: str) -> str:
    """Write what UTF-8 and HDF5 cannot hold (broken file names, NUL) with backslashes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def write_table(group: h5py.Group, name: str, table: ArrayLike | None, **options: Any) -> None:
    """Write an array as a dataset, to the disk at once.

    HDF5 would write it when it is closed, which is too late for an exception if the disk is full.
    """
    group.create_dataset(name, data=table, **options).flush()


def write_strings(group: h5py.Group, name: str, strings: Sequence[str]) -> None:
    """Write strings as a dataset of UTF-8 of any length."""
    texts = [as_text(string) for string in strings] or None
    write_table(group, name, texts, shape=(len(strings),), dtype=h5py.string_dtype("utf-8"))


def read_strings(dataset: h5py.Dataset) -> list[str]:
    """Read what `write_strings` wrote."""
    return [text.decode("utf-8") for text in dataset[()]]


def read_pairs(group: h5py.Group) -> list[tuple[str, str]]:
    """Read a group of (file, reason)."""
    return list(zip(read_strings(group["file"]), read_strings(group["reason"]), strict=True))


GZIP_LEVEL = 1
"""With bytes shuffled, higher levels save 2 % more and take twice as long."""


@dataclass(frozen=True)
class Storage:
    """How poses are stored.

    Attributes:
        float16: with 11 bits a number instead of 24: half the room, and no further off than
            0.25 mm for a joint within 1 m of the origin, 1 mm within 4 m.
        compress: with gzip, after shuffling bytes; `present` too.
    """

    float16: bool = False
    compress: bool = False

    def create(self, file: h5py.File, layout: Layout) -> tuple[h5py.Dataset, h5py.Dataset]:
        """Make the empty datasets ``poses`` [0, V, C] and ``present`` [0]."""
        joint_shape = (len(layout.joints), len(layout.channels))
        dtype = np.dtype("<f2" if self.float16 else "<f4")
        # A compressed chunk is always read whole, so smaller ones suit single clips.
        chunk_bytes = POSES_CHUNK_BYTES // (4 if self.compress else 1)
        chunk_rows = chunk_bytes // (dtype.itemsize * joint_shape[0] * joint_shape[1])
        options: dict[str, Any] = {}
        if self.compress:
            options = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}
        poses = file.create_dataset(
            "poses",
            shape=(0, *joint_shape),
            maxshape=(None, *joint_shape),
            chunks=(max(1, chunk_rows), *joint_shape),
            dtype=dtype,
            fillvalue=0,
            **options,
        )
        present = file.create_dataset(
            "present",
            shape=(0,),
            maxshape=(None,),
            chunks=(PRESENT_CHUNK_ROWS,),
            dtype=np.bool_,
            fillvalue=False,
            **options,
        )
        return poses, present

    def rows(self, recording: Recording) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the rows of a clip as they are stored: poses [M * T, V, C] and present [M * T].

        Raises:
            InputError: a number is too large for float16.
        """
        poses = recording.poses.reshape(-1, *recording.poses.shape[2:])
        present = np.ascontiguousarray(recording.present).reshape(-1)
        if not self.float16:
            return np.ascontiguousarray(poses, dtype="<f4"), present
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(poses, dtype="<f2")
        finite = np.isfinite(halves)
        if not finite.all():
            raise InputError(
                f"clip {recording.name}: {poses[~finite][0]:g} is beyond the 65504 of float16",
                hint="store float32: leave out --float16",
            )
        return halves, present


def clip_checksum(poses: NDArray[Any], present: NDArray[np.bool_]) -> int:
    """Return the CRC-32 of the bytes of a clip's stored poses, then of its present."""
    return crc32(present.data, crc32(poses.data))


def table_checksum(dataset: h5py.Dataset) -> int:
    """Return the CRC-32 of the values of a whole table: of strings, each ended by a NUL."""
    if h5py.check_string_dtype(dataset.dtype):
        return crc32("".join(f"{text}\0" for text in read_strings(dataset)).encode())
    return crc32(np.ascontiguousarray(dataset[()]).data)


@dataclass(frozen=True)
class Clips:
    """The poses of many clips, ready to be moved to a device.

    Clip i has rows ``starts[i] + m * num_frames[i] + t`` for person m and frame t.

    Attributes:
        names: [n] str.
        labels: [n] int64.
        poses: [R, V, C] float32, the rows of these clips only.
        present: [R] bool.
        starts, num_persons, num_frames: [n] int64.
    """

    names: list[str]
    labels: NDArray[np.int64]
    poses: NDArray[np.float32]
    present: NDArray[np.bool_]
    starts: NDArray[np.int64]
    num_persons: NDArray[np.int64]
    num_frames: NDArray[np.int64]

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> Self:
        """Return recordings as a cache would, had they been written to one (in float32)."""
        rows = [Storage().rows(recording) for recording in recordings]
        sizes = np.array([recording.present.shape for recording in recordings], dtype=np.int64)
        num_rows = sizes.prod(axis=1)
        return cls(
            names=[recording.name for recording in recordings],
            labels=np.array([recording.label for recording in recordings], dtype=np.int64),
            poses=np.concatenate([poses for poses, _ in rows]),
            present=np.concatenate([present for _, present in rows]),
            starts=np.cumsum(num_rows) - num_rows,
            num_persons=sizes[:, 0].copy(),
            num_frames=sizes[:, 1].copy(),
        )

    def fingerprint(self) -> str:
        """Return a short text that changes with any name, label, presence or coordinate."""
        names = "\0".join(self.names).encode()
        code = zlib.crc32(names)
        for column in (self.labels, self.num_persons, self.num_frames, self.present, self.poses):
            code = zlib.crc32(np.ascontiguousarray(column).data, code)
        return f"{code:08x}"
