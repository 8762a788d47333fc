"""The machine: processor, memory, threads and devices."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from skelnas.runtime.memory import free_bytes


@dataclass(frozen=True)
class Device:
    """A device that PyTorch can compute on.

    Attributes:
        name: as in ``--device``, CUDA devices with their index.
        model: make and model.
        total_bytes, free_bytes: of its memory; None if unknown.
    """

    name: str
    model: str
    total_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True)
class Machine:
    """The machine as PyTorch sees it.

    Attributes:
        system: operating system and architecture.
        cores: available to this process.
        load: the load average of the last minute; None if unknown.
        threads: used by PyTorch on the CPU.
        devices: the CPU first.
    """

    system: str
    cores: int
    load: float | None
    threads: int
    devices: list[Device]


def describe_machine() -> Machine:
    """Describe this machine."""
    cpu = torch.device("cpu")
    devices = [Device("cpu", _processor(), _total_bytes(), _to_int(free_bytes(cpu)))]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        model = f"{gpu.name}, capability {gpu.major}.{gpu.minor}, CUDA {torch.version.cuda}"
        free, total = torch.cuda.mem_get_info(index)
        devices.append(Device(f"cuda:{index}", model, total, free))
    if torch.backends.mps.is_available():
        mps_free = _to_int(free_bytes(torch.device("mps")))
        devices.append(Device("mps", platform.machine(), None, mps_free))
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Machine(system, _cores(), _load(), torch.get_num_threads(), devices)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _total_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _to_int(number: float | None) -> int | None:
    return None if number is None else int(number)
