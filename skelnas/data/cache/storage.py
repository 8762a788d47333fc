"""The schema of a cache and how its numbers are stored: precision, compression, checksums.

Shapes: N clips, R rows (one person in one frame), M persons, T frames, V joints, C channels of a
joint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from zlib import crc32

import h5py
import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import MAX_COORDINATE, Layout, Recording
from skelnas.errors import InputError

FORMAT = "skelnas-cache"
SCHEMA_VERSION = 1

INTEGERS = ("label", "subject", "camera", "setup", "start", "num_persons", "num_frames")
"""The integer columns of the table ``clips``; ``start`` is int64, the others are int32."""

CHECKSUM = "crc32"
"""The column with the checksum of each clip's rows, and the attribute with that of a table."""

POSES_CHUNK_BYTES = 256 * 1024
PRESENT_CHUNK_ROWS = 64 * 1024

GZIP_LEVEL = 1
"""With shuffled bytes, higher levels save 2 % more and take twice as long."""


@dataclass(frozen=True)
class Storage:
    """Precision and compression of the stored poses.

    Attributes:
        float16: 11 significant bits instead of 24, at half the size. The error is at most 0.25 mm
            for a joint within 1 m of the origin, 1 mm within 4 m.
        compress: gzip the bytes, shuffled; `present` too.
    """

    float16: bool = False
    compress: bool = False

    def create_datasets(self, file: h5py.File, layout: Layout) -> tuple[h5py.Dataset, h5py.Dataset]:
        """Create the empty datasets ``poses`` [0, V, C] and ``present`` [0]."""
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

    def to_rows(self, recording: Recording) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a clip as it is stored: poses [M*T, V, C] and present [M*T].

        Raises:
            InputError: a number is too large for float16.
        """
        # [M, T, V, C] -> [M*T, V, C]
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
                hint="leave out --float16 to store float32",
            )
        return halves, present


@dataclass(frozen=True)
class Clips:
    """Clips of different lengths in one array, without padding.

    Frame t of person m of clip i is row ``starts[i] + m * num_frames[i] + t``.

    Attributes:
        names: [N] str.
        labels: [N] int64.
        poses: [R, V, C] float32, with the rows of these clips only.
        present: [R] bool.
        starts, num_persons, num_frames: [N] int64.
    """

    names: list[str]
    labels: NDArray[np.int64]
    poses: NDArray[np.float32]
    present: NDArray[np.bool_]
    starts: NDArray[np.int64]
    num_persons: NDArray[np.int64]
    num_frames: NDArray[np.int64]

    @classmethod
    def from_recordings(cls, recordings: Sequence[Recording]) -> Self:
        """Pack recordings as if they had been written to a cache (in float32) and loaded."""
        rows = [Storage().to_rows(recording) for recording in recordings]
        sizes = np.array([recording.present.shape for recording in recordings], dtype=np.int64)
        num_rows = sizes.prod(axis=1)  # [N, 2] -> [N]
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
        """Return a CRC-32 that changes with any name, label, presence or coordinate."""
        crc = crc32("\0".join(self.names).encode())
        for column in (self.labels, self.num_persons, self.num_frames, self.present, self.poses):
            crc = crc32(np.ascontiguousarray(column).data, crc)
        return f"{crc:08x}"


def clip_checksum(poses: NDArray[Any], present: NDArray[np.bool_]) -> int:
    """Return the CRC-32 of a clip's stored poses, then its presence."""
    return crc32(present.data, crc32(poses.data))


def find_rows_problem(
    poses: NDArray[Any], present: NDArray[np.bool_], checksum: int | None
) -> str | None:
    """Return what is wrong with a clip as stored: poses [r, V, C] and present [r]; or None."""
    if checksum is not None and checksum != clip_checksum(poses, present):
        return "its numbers have changed since they were written: the checksum differs"
    low, high = float(poses.min()), float(poses.max())
    if not -MAX_COORDINATE <= low <= high <= MAX_COORDINATE:  # or NaN
        return f"some of its numbers are not finite or beyond {MAX_COORDINATE:g}"
    if present.view(np.uint8).max() > 1:
        return "a presence is neither true nor false"
    if not present.any():
        return "nobody is present in any frame"
    if not present.all() and poses[~present].any():
        return "a person is absent in a frame in which their joints are not zero"
    return None


def write_table(group: h5py.Group, name: str, table: NDArray[Any]) -> None:
    """Write numbers and their checksum."""
    _write(group, name, table, crc32(np.ascontiguousarray(table).data))


def write_strings(group: h5py.Group, name: str, strings: Sequence[str]) -> None:
    """Write strings as variable-length UTF-8, and their checksum: each is terminated by a NUL."""
    texts = [escape_text(string) for string in strings]
    checksum = crc32("".join(f"{text}\0" for text in texts).encode())
    dtype = h5py.string_dtype("utf-8")
    _write(group, name, texts or None, checksum, shape=(len(texts),), dtype=dtype)


def _write(group: h5py.Group, name: str, data: Any, checksum: int, **options: Any) -> None:
    """Write a table and flush it.

    Otherwise HDF5 would write it on closing the file, too late to raise if the disk is full.
    """
    dataset = group.create_dataset(name, data=data, **options)
    dataset.attrs[CHECKSUM] = np.uint32(checksum)
    dataset.flush()


def escape_text(text: str) -> str:
    """Escape what UTF-8 and HDF5 cannot store (broken file names, NUL) with backslashes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
