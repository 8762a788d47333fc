"""Watches a process and all that it starts: time, processor time, memory (Linux)."""

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
    """What a run has taken.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: the most memory that all its processes held at one moment, each page once.
        cpu_seconds: of all its processes.
        other_cpu_seconds: of everything else on the machine meanwhile.
    """

    seconds: float
    peak_bytes: int
    cpu_seconds: float
    other_cpu_seconds: float


def watch(run: subprocess.Popen[bytes]) -> Watched:
    """Look at a process again and again until it ends."""
    began, machine_began = time.perf_counter(), _machine_seconds()
    peak = 0
    times: dict[int, float] = {}
    while run.poll() is None:
        processes = _family(run.pid)
        peak = max(peak, sum(map(_memory, processes)))
        for process in processes:  # one that has just ended has no time any more
            times[process] = max(times.get(process, 0.0), _cpu_seconds(process))
        time.sleep(SECONDS_BETWEEN)
    own = sum(times.values())
    others = _machine_seconds() - machine_began - own
    return Watched(time.perf_counter() - began, peak, own, max(0.0, others))


def _family(process: int) -> list[int]:
    """List a process and its descendants."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(one for child in children for one in _family(int(child)))]


def _memory(process: int) -> int:
    """Return the resident bytes, with a page that n processes share as a page / n."""
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
    """Return the processor time that the whole machine has spent not idle."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS
