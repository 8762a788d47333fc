"""Where clips are kept, and how the rows of a batch come from there to the device.

Shapes: N clips, R rows (one person in one frame), V joints, C channels of a joint, D of them
coordinates in space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skelnas.batches.sampling import Rows
from skelnas.config import Store
from skelnas.console import note
from skelnas.errors import InputError

SHARE = 0.25
"""Of the device's memory: the most that `choose` lets clips take. The rest is for the network."""

ROWS_AT_ONCE = 100_000
"""How many rows are rounded together, so that no second copy in float32 is needed."""


def choose(store: Store, num_bytes: int, device: torch.device) -> Store:
    """Decide where clips are kept, if that is left open.

    It is decided by all the memory that the device has, not by what is free at the moment, so
    that the same command does the same tomorrow.

    Args:
        store: what was asked.
        num_bytes: of the poses in float32.
        device: that learns from them.
    """
    if store != "auto":
        return store
    room = SHARE * memory_of(device)
    if num_bytes <= room:
        return "float32"
    chosen: Store = "float16" if num_bytes / 2 <= room else "host"
    note(f"clips take {num_bytes / 1e9:.1f} GB, more than {room / 1e9:.1f}: --store {chosen}")
    return chosen


def memory_of(device: torch.device) -> float:
    """Return the bytes of a device; no bound for a CPU, where poses are already."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return math.inf


class OnDevice:
    """All clips on the device, in float32 or float16."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self._rows = rows.to(device)

    def fetch(self, indices: Tensor) -> Rows:
        """Return the clips `indices`, [N]; all others lie between them."""
        rows = self._rows
        indices = indices.to(rows.starts.device)
        return Rows(
            rows.poses,
            rows.present,
            rows.starts[indices],
            rows.num_persons[indices],
            rows.num_frames[indices],
        )


class OnHost:
    """All clips in the host's memory; those of a batch come to the device when it is made.

    They are put together by one indexed copy, for CUDA into pinned memory, and moved from there
    without waiting. Work for a CUDA device is queued, so that all this is done for a batch while
    the device still learns from the one before.
    """

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self._rows = rows
        self._device = device

    def fetch(self, indices: Tensor) -> Rows:
        """Return the clips `indices`, [N], on the device, with no other rows between them."""
        rows, indices = self._rows, indices.cpu()
        counts = rows.num_persons[indices] * rows.num_frames[indices]
        starts = counts.cumsum(0) - counts
        moved = (rows.starts[indices] - starts).repeat_interleave(counts)
        chosen = moved + torch.arange(len(moved))
        batch = Rows(
            self._gather(rows.poses, chosen),
            self._gather(rows.present, chosen),
            starts,
            rows.num_persons[indices],
            rows.num_frames[indices],
        )
        return batch.to(self._device)

    def _gather(self, values: Tensor, chosen: Tensor) -> Tensor:
        pinned = self._device.type == "cuda"
        shape = (len(chosen), *values.shape[1:])
        out = torch.empty(shape, dtype=values.dtype, pin_memory=pinned)
        return torch.index_select(values, 0, chosen, out=out)


def to_float16(rows: Rows, origins: Tensor | None) -> Rows:
    """Round poses to float16, relative to the origin of each clip if there is one.

    A float16 has 11 significant bits, so it is the finer, the nearer it is to zero: a clip is
    centred first and rounded then.

    Args:
        rows: clips in float32 with no other rows between them, on the CPU.
        origins: [N, D], on any device, or None.

    Raises:
        InputError: a coordinate is too large for a float16.
    """
    origins = None if origins is None else origins.cpu()
    clip = torch.arange(len(rows.starts)).repeat_interleave(rows.num_persons * rows.num_frames)
    poses = torch.empty_like(rows.poses, dtype=torch.float16)
    for begin in range(0, len(poses), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        exact = rows.poses[part].clone()
        if origins is not None:
            exact[..., : origins.shape[1]] -= origins[clip[part], None]
        poses[part] = exact
        if not poses[part].isfinite().all():
            raise InputError(
                f"a coordinate of {exact.abs().max():g} is too large for float16",
                hint="--store float32 or --store host keeps the clips as they are",
            )
    return Rows(poses, rows.present, rows.starts, rows.num_persons, rows.num_frames)
