"""How much memory a piece of work takes, and how many clips would fit where too many did not."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skelnas.errors import DeviceError, is_out_of_memory

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SHARE = 0.7
"""Of the memory that is free, what tensors may take. The rest is for what kernels take beside
them: measured on a CPU, 0.35 times as much with the reference and 0.1 with the fused engine."""

SHARE_OF_CUDA = 0.9
"""There the allocator counts everything, and the rest is for its fragments."""


@dataclass
class Footprint:
    """The most bytes that tensors took at one moment, beyond those that were there before."""

    peak: int = 0


@contextmanager
def measured(device: torch.device) -> Iterator[Footprint]:
    """Measure the work in this block; where it fails, up to there.

    On CUDA the allocator keeps the figures; elsewhere each tensor that is made is counted for
    as long as its memory lives.
    """
    footprint = Footprint()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            yield footprint
        finally:
            footprint.peak = torch.cuda.max_memory_allocated(device) - before
    else:
        with _Counting(footprint):
            yield footprint


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of new tensors until their memory is given back."""

    def __init__(self, footprint: Footprint) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._footprint = footprint
        self._alive: set[int] = set()
        self._bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in known and storage._cdata not in self._alive:
                self._count(storage._cdata, storage.nbytes())
                weakref.finalize(storage, self._count, storage._cdata, -storage.nbytes())
        return out

    def _count(self, key: int, num_bytes: int) -> None:
        self._alive ^= {key}
        self._bytes += num_bytes
        self._footprint.peak = max(self._footprint.peak, self._bytes)


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@contextmanager
def making(work: str, device: torch.device) -> Iterator[None]:
    """Say what takes less memory where a network alone is too large, whatever the batches are.

    Raises:
        DeviceError: memory was spent in this block.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{work} ran out of memory on {device} while it made the network",
            hint="fewer --channels or --layers take less",
        ) from None


def too_large(
    work: str,
    step: Callable[[int], object],
    asked: int,
    free: float | None,
    device: torch.device,
    lighter: str,
) -> DeviceError:
    """Say that a step of `asked` clips ran out of memory, and what `largest_batch` says.

    `lighter` is added to the hint.
    """
    message = f"{work} ran out of memory on {device} with batches of {asked} clips"
    hint = "a smaller --batch-size takes less"
    fits = largest_batch(step, asked, free, device)
    if fits:
        message, hint = f"{message}; {fits} should fit", f"--batch-size {fits}, with --force"
    elif fits == 0:
        message, hint = f"{message}; not even one fits", "fewer --channels take less"
    return DeviceError(message, hint=hint + lighter)


def largest_batch(
    step: Callable[[int], object], asked: int, free: float | None, device: torch.device
) -> int | None:
    """Estimate how many clips fit, where a step of `asked` clips ran out of memory.

    A step of one clip and one of two are measured. What a step takes is taken to be a line
    through the two: so many bytes in any case, and so many for each clip. It may take a share
    of what was free before the first step, `SHARE` or `SHARE_OF_CUDA`.

    Args:
        step: takes a step of so many clips. What it changes is changed: the run is over.
        asked: how many were too many.
        free: bytes before the first step; None if unknown, and then nothing is tried. After
            a failure the figures of the system say little: allocators keep what they get back.
        device: that it runs on.

    Returns:
        0 if not even one clip fits; None if unknown.
    """
    if free is None:
        return None
    _give_back(device)
    peaks: list[int] = []
    for clips in (1, 2):
        try:
            with measured(device) as footprint:
                step(clips)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return len(peaks)
        peaks.append(footprint.peak)
    one, two = peaks
    room = free * largest_share(device)
    fits = 1 + int((room - one) / max(two - one, 1))
    return max(1, min(fits, asked - 1))


def largest_share(device: torch.device) -> float:
    """Return which part of the free memory of a device tensors may take."""
    return SHARE_OF_CUDA if device.type == "cuda" else SHARE


def _give_back(device: torch.device) -> None:
    """Let the allocator return what it keeps: kernels for other shapes get theirs elsewhere."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(OSError, TypeError, AttributeError):  # only the GNU C library has it
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device) -> float | None:
    """Return the bytes that a device could still give to this process; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return _free_host_bytes()


def _free_host_bytes() -> float | None:
    """Take the tightest of what Linux says of the machine, the container and the process."""
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return None
    fields = dict(line.split(":") for line in meminfo.splitlines())
    bounds = [1024.0 * int(fields["MemAvailable"].split()[0])]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        bounds.append(limit - int(pages[0]) * resource.getpagesize())
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of groups, version 2 and 1
        with suppress(OSError, ValueError):  # there is no such file, or no limit
            group_limit = int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii"))
            bounds.append(group_limit - int(pages[1]) * resource.getpagesize())
    return min(bounds)
