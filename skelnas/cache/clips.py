"""The poses of many clips, as they are read from a cache or made of recordings."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skelnas.cache.storage import Storage
from skelnas.sources.base import Recording


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
