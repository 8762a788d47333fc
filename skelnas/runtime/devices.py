"""The device that a command runs on, and its arithmetic."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from skelnas.config import DeviceSettings, Precision
from skelnas.errors import DeviceError, first_line
from skelnas.runtime import distributed

MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt: bytes to keep at the end of the heap, blocks outside the heap."""

AnySettings = TypeVar("AnySettings", bound=DeviceSettings)


def choose(settings: DeviceSettings) -> torch.device:
    """Return the requested device; set the number of CPU threads, and keep what a CPU has freed.

    Each of several ranks gets a different GPU.

    Raises:
        DeviceError: the device is missing, or cannot compute with the requested precision.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and distributed.world_size() == 1,
        "cpu": True,
    }
    usable = [name for name, is_available in available.items() if is_available]
    name = usable[0] if settings.device == "auto" else settings.device
    kind, _, number = name.partition(":")
    is_missing = bool(number) and kind in usable and int(number) >= torch.cuda.device_count()
    if kind not in usable or is_missing:
        usable += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise DeviceError(
            f"device {name} is not available", hint=f"usable here: {', '.join(usable)}, auto"
        )
    has_ranks = distributed.world_size() > 1
    if number and has_ranks:
        raise DeviceError(
            f"--device {name} is one GPU, and each of several ranks needs its own",
            hint="--device cuda; CUDA_VISIBLE_DEVICES says which GPUs they take",
        )
    device = _gpu_of_this_rank() if name == "cuda" and has_ranks else torch.device(name)
    if number:
        torch.cuda.set_device(device)  # for what asks for the current one
    _check_precision(settings.precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Make the C library keep what is freed for the next step.

    glibc gives large blocks back to the system, which hands out zeroed pages at the next step.
    Holds for the whole process; does nothing with other C libraries.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(MALLOC_MMAP_MAX, 0)
            mallopt(MALLOC_TRIM_THRESHOLD, -1)


def list_gpus(settings: DeviceSettings) -> list[str]:
    """Return the names of the GPUs that the settings allow, as in CUDA_VISIBLE_DEVICES."""
    if settings.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else list(map(str, range(count)))


def _gpu_of_this_rank() -> torch.device:
    """Return the GPU with the number of the local rank."""
    number, count = distributed.local_rank(), torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            f"rank {distributed.rank()} is number {number} on its machine, which has {count} GPUs",
            hint="--nproc-per-node of torchrun is at most the number of GPUs",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def resolve_precision(settings: AnySettings, device: torch.device) -> AnySettings:
    """Return the settings with the precision that 'auto' means on a device."""
    if settings.precision != "auto":
        return settings
    return settings.model_copy(
        update={"precision": "bf16" if _is_ampere_or_newer(device) else "fp32"}
    )


def _is_ampere_or_newer(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _check_precision(precision: Precision, device: torch.device) -> None:
    is_universal = precision in ("fp32", "auto") or (precision, device.type) == ("bf16", "cpu")
    if not (is_universal or _is_ampere_or_newer(device)):
        raise DeviceError(
            f"--precision {precision} needs a CUDA device of capability 8.0 or more"
            f"{' or a CPU' if precision == 'bf16' else ''}, not {device}",
            hint="--precision fp32 works everywhere",
        )


def move(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in channels-last format: faster, above all on a CPU."""
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def precision(precision: Precision) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions inside the context.

    PyTorch's default on CUDA is TF32 for convolutions and float32 for matrices. For bfloat16
    see `autocast`.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Compute one forward pass in bfloat16, if the precision says so.

    One pass only: autocast caches rounded weights until it ends, and a step changes the weights.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def explaining_compile_errors(compiles: bool) -> Iterator[None]:
    """Turn a failure of torch.compile into a one-line error.

    Raises:
        DeviceError: compilation failed; usually there is no suitable C++ compiler.
    """
    try:
        yield
    except Exception as error:
        if not compiles or not type(error).__module__.startswith(
            ("torch._dynamo", "torch._inductor")
        ):
            raise
        raise DeviceError(
            f"torch.compile failed ({first_line(error)})",
            hint="leave out --compile; SKELNAS_DEBUG=1 shows the full output of the compiler",
        ) from error
