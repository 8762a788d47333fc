"""How the numbers of a cache lie on the disk: their precision, compression and checksums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

import h5py
import numpy as np
from numpy.typing import NDArray

from skelnas.cache.schema import POSES_CHUNK_BYTES, PRESENT_CHUNK_ROWS, read_strings
from skelnas.errors import InputError
from skelnas.sources.base import Layout, Recording

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
