"""Peak memory of a piece of work, and the batch size that would fit when memory runs out."""

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

USABLE_FRACTION = 0.7
"""Of the free memory, for tensors. The rest is for the workspaces of kernels: measured on a CPU,
0.35 times as much as the tensors with the reference engine and 0.1 with the fused one."""

USABLE_FRACTION_OF_CUDA = 0.9
"""The CUDA allocator counts workspaces too; the rest is for fragmentation."""


@dataclass
class PeakMemory:
    """The most bytes that new tensors took at one moment."""

    num_bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak memory of a block, also of one that fails.

    On CUDA the allocator has the numbers; elsewhere each new tensor is counted as long as its
    memory lives.
    """
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            yield peak
        finally:
            peak.num_bytes = torch.cuda.max_memory_allocated(device) - before
    else:
        with _TensorCounter(peak):
            yield peak


class _TensorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of new tensors until their memory is freed."""

    def __init__(self, peak: PeakMemory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._peak = peak
        self._alive: set[int] = set()
        self._bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in inputs and storage._cdata not in self._alive:
                self._count(storage._cdata, storage.nbytes())
                weakref.finalize(storage, self._count, storage._cdata, -storage.nbytes())
        return out

    def _count(self, key: int, num_bytes: int) -> None:
        self._alive ^= {key}
        self._bytes += num_bytes
        self._peak.num_bytes = max(self._peak.num_bytes, self._bytes)


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@contextmanager
def explaining_network_too_large(verb: str, device: torch.device) -> Iterator[None]:
    """Say what takes less memory if the network alone does not fit, whatever the batch size.

    Raises:
        DeviceError: memory ran out inside the context.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{verb} ran out of memory on {device} while building the network",
            hint="fewer --channels or --layers take less",
        ) from None


def batch_too_large(
    verb: str,
    step: Callable[[int], object],
    batch_size: int,
    free: float | None,
    device: torch.device,
    more_hints: str,
) -> DeviceError:
    """Return the error for a step that ran out of memory, with the batch size that would fit.

    See `estimate_max_batch`; `more_hints` is appended to the hint.
    """
    message = f"{verb} ran out of memory on {device} with batches of {batch_size} clips"
    hint = "a smaller --batch-size takes less"
    fits = estimate_max_batch(step, batch_size, free, device)
    if fits:
        message, hint = f"{message}; {fits} should fit", f"--batch-size {fits}, with --force"
    elif fits == 0:
        message, hint = f"{message}; not even one fits", "fewer --channels take less"
    return DeviceError(message, hint=hint + more_hints)


def estimate_max_batch(
    step: Callable[[int], object], batch_size: int, free: float | None, device: torch.device
) -> int | None:
    """Estimate how many clips fit, after a step of `batch_size` clips ran out of memory.

    Measures a step of one clip and one of two, and extrapolates linearly up to the usable
    fraction of the memory that was free before the first step.

    Args:
        step: takes a step of that many clips; its side effects do not matter, the run is over.
        batch_size: the number of clips that did not fit.
        free: bytes before the first step; None if unknown, and then nothing is tried. After
            a failure the system's figures mean little, because allocators cache memory.
        device: of the step.

    Returns:
        0 if not even one clip fits; None if unknown.
    """
    if free is None:
        return None
    _release_cached_memory(device)
    peaks: list[int] = []
    for num_clips in (1, 2):
        try:
            with peak_memory(device) as peak:
                step(num_clips)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return len(peaks)
        peaks.append(peak.num_bytes)
    one, two = peaks
    usable = free * usable_fraction(device)
    fits = 1 + int((usable - one) / max(two - one, 1))
    return max(1, min(fits, batch_size - 1))


def usable_fraction(device: torch.device) -> float:
    """Return the fraction of a device's free memory that tensors may take."""
    return USABLE_FRACTION_OF_CUDA if device.type == "cuda" else USABLE_FRACTION


def _release_cached_memory(device: torch.device) -> None:
    """Return cached memory to the system: kernels for other shapes do not reuse it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(OSError, TypeError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device) -> float | None:
    """Return the bytes that this process can still allocate on a device; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return _free_host_bytes()


def _free_host_bytes() -> float | None:
    """Return the tightest of Linux's limits: of the machine, the container and the process."""
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return None
    fields = dict(line.split(":") for line in meminfo.splitlines())
    limits = [1024.0 * int(fields["MemAvailable"].split()[0])]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        limits.append(limit - int(pages[0]) * resource.getpagesize())
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups, version 2 and 1
        with suppress(OSError, ValueError):  # no such file, or no limit in it
            group_limit = int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii"))
            limits.append(group_limit - int(pages[1]) * resource.getpagesize())
    return min(limits)
