"""Monitor a process and its descendants: time, CPU time and memory (Linux)."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS_BETWEEN = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Watched:
    """The time and memory of a run.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: peak memory of all its processes together; shared pages count once.
        cpu_seconds: of all its processes.
        other_cpu_seconds: of everything else on the machine in the same time.
    """

    seconds: float
    peak_bytes: int
    cpu_seconds: float
    other_cpu_seconds: float


def watch(run: subprocess.Popen[bytes]) -> Watched:
    """Poll a process until it ends."""
    started, machine_started = time.perf_counter(), _machine_seconds()
    peak = 0
    times: dict[int, float] = {}
    while run.poll() is None:
        processes = _family(run.pid)
        peak = max(peak, sum(map(_memory, processes)))
        for process in processes:  # a process that has just ended reports 0
            times[process] = max(times.get(process, 0.0), _cpu_seconds(process))
        time.sleep(SECONDS_BETWEEN)
    cpu_seconds = sum(times.values())
    others = _machine_seconds() - machine_started - cpu_seconds
    return Watched(time.perf_counter() - started, peak, cpu_seconds, max(0.0, others))


def _family(process: int) -> list[int]:
    """List a process and its descendants."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(one for child in children for one in _family(int(child)))]


def _memory(process: int) -> int:
    """Return the resident bytes, counting a page shared by n processes as 1 / n."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_seconds() -> float:
    """Return the CPU time of the whole machine, without idle time."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS
