"""What the machine has: processor, memory, threads, devices."""

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
        name: what ``--device`` calls it, with a number where there are several.
        model: what it is.
        total_bytes, free_bytes: of its memory; None where nobody says.
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
        cores: that this process may use.
        load: processes that compute or wait to, of the last minute; None where nobody says.
        threads: that PyTorch computes with on a CPU.
        devices: the CPU first.
    """

    system: str
    cores: int
    load: float | None
    threads: int
    devices: list[Device]


def look_at_machine() -> Machine:
    """Describe this machine."""
    cpu = torch.device("cpu")
    found = [Device("cpu", _processor(), _total_bytes(), _whole(free_bytes(cpu)))]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        model = f"{about.name}, capability {about.major}.{about.minor}, CUDA {torch.version.cuda}"
        free, total = torch.cuda.mem_get_info(number)
        found.append(Device(f"cuda:{number}", model, total, free))
    if torch.backends.mps.is_available():
        free_there = _whole(free_bytes(torch.device("mps")))
        found.append(Device("mps", platform.machine(), None, free_there))
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Machine(system, _cores(), _load(), torch.get_num_threads(), found)


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
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _total_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
