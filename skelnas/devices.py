"""The device that a verb runs on."""

from __future__ import annotations

import torch
from torch import nn

from skelnas import parallel
from skelnas.config import Device, DeviceSettings
from skelnas.errors import DeviceError


def choose(settings: DeviceSettings) -> torch.device:
    """Return the device that is asked for, and set the number of CPU threads.

    Of several ranks each has a GPU of its own.

    Raises:
        DeviceError: the device is not there.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    available: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and parallel.world_size() == 1,
        "cpu": True,
    }
    usable = [name for name, there in available.items() if there]
    name = usable[0] if settings.device == "auto" else settings.device
    if name not in usable:
        raise DeviceError(
            f"device {name} is not available", hint=f"usable here: {', '.join(usable)}, auto"
        )
    return _own_gpu() if name == "cuda" and parallel.world_size() > 1 else torch.device(name)


def _own_gpu() -> torch.device:
    """Return the GPU of this rank: the one with its number on its machine."""
    number, there = parallel.local_rank(), torch.cuda.device_count()
    if number >= there:
        raise DeviceError(
            f"rank {parallel.rank()} is number {number} on its machine, which has {there} GPUs",
            hint="--nproc-per-node of torchrun is at most the number of GPUs",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in channels-last order: faster there, and much so on a CPU."""
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
