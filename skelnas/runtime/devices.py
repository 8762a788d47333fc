"""The device that a verb runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from skelnas.config import Device, DeviceSettings, Precision
from skelnas.errors import DeviceError
from skelnas.runtime import distributed

AnySettings = TypeVar("AnySettings", bound=DeviceSettings)


def choose(settings: DeviceSettings) -> torch.device:
    """Return the device that is asked for, and set the number of CPU threads.

    Of several ranks each has a GPU of its own.

    Raises:
        DeviceError: the device is not there, or cannot compute as it is asked.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    available: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and distributed.world_size() == 1,
        "cpu": True,
    }
    usable = [name for name, there in available.items() if there]
    name = usable[0] if settings.device == "auto" else settings.device
    if name not in usable:
        raise DeviceError(
            f"device {name} is not available", hint=f"usable here: {', '.join(usable)}, auto"
        )
    several = name == "cuda" and distributed.world_size() > 1
    device = _own_gpu() if several else torch.device(name)
    _check_precision(settings.precision, device)
    return device


def _own_gpu() -> torch.device:
    """Return the GPU of this rank: the one with its number on its machine."""
    number, there = distributed.local_rank(), torch.cuda.device_count()
    if number >= there:
        raise DeviceError(
            f"rank {distributed.rank()} is number {number} on its machine, which has {there} GPUs",
            hint="--nproc-per-node of torchrun is at most the number of GPUs",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def settle(settings: AnySettings, device: torch.device) -> AnySettings:
    """Return the settings with the precision that 'auto' stands for on a device."""
    if settings.precision != "auto":
        return settings
    return settings.model_copy(update={"precision": "bf16" if _is_capable(device) else "fp32"})


def _is_capable(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _check_precision(wanted: Precision, device: torch.device) -> None:
    everywhere = wanted in ("fp32", "auto") or (wanted, device.type) == ("bf16", "cpu")
    if not (everywhere or _is_capable(device)):
        raise DeviceError(
            f"--precision {wanted} needs a CUDA device of capability 8.0 or more"
            f"{' or a CPU' if wanted == 'bf16' else ''}, not {device}",
            hint="--precision fp32 works everywhere",
        )


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in channels-last order: faster there, and much so on a CPU."""
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def precision(wanted: Precision) -> Iterator[None]:
    """Let products of float32 be rounded as it is asked, for a while.

    On CUDA PyTorch itself would take TF32 for convolutions and float32 for matrices. Nothing
    is done here for bfloat16: that is `autocast`.
    """
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32 = convolutions.allow_tf32 = wanted == "tf32"
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before


def autocast(wanted: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Let a forward pass compute in bfloat16 where that is asked and safe.

    For one pass only: rounded weights are kept until it ends, and then they have changed.
    """
    return torch.autocast(device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Say in one line, where a model is compiled, that PyTorch's compiler cannot do it here.

    Raises:
        DeviceError: it cannot; most often it finds no C++ compiler, or not one that suits it.
    """
    try:
        yield
    except Exception as error:
        if not wanted or not type(error).__module__.startswith(
            ("torch._dynamo", "torch._inductor")
        ):
            raise
        raise DeviceError(
            f"torch.compile failed ({str(error).splitlines()[0]})",
            hint="leave out --compile; with SKELNAS_DEBUG=1 all that the compiler said is shown",
        ) from error
