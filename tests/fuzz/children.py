"""Judge fuzzed inputs in child processes, with limits of time and memory.

Neither HDF5 nor the opening of a pipe can be interrupted, so a child that goes beyond its limits is
killed, which is a finding, and another one continues.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from skelnas.errors import InputError, UsageError

CPU_SECONDS, SECONDS = 10, 40
"""To make and read one input. Other processes may take most of the machine."""

MEMORY_BYTES = 1 << 30
"""Beyond what the process has at the start."""

MAX_MESSAGE_CHARS = 4000
IN_MEMORY = next((folder for folder in ("/dev/shm",) if Path(folder).is_dir()), None)
"""A folder in memory, if there is one."""

ACCEPTED, REFUSED = "accepted", "refused"

Judge = Callable[[int], str]
"""Reads the input of a number, and returns the verdict: one of the two, or what was found."""


@dataclass
class Tally:
    """The outcome: each input was accepted, refused or is a finding (its number, what happened)."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)


def verdict_on(error: Exception, name: str = "") -> str:
    """Return the verdict on an input that was not read.

    Args:
        error: what reading it raised.
        name: must be in the message of a refusal.
    """
    message = str(error)
    if not isinstance(error, InputError | UsageError):
        return f"{type(error).__name__}: {message[:300]}"
    if "\n" in message or not 0 < len(message) < MAX_MESSAGE_CHARS or name not in message:
        return f"an invalid message: {message[:300]!r}"
    return REFUSED


def run(
    judge: Judge,
    *,
    count: int,
    batch: int,
    seconds: float = 1e9,
    keep: Callable[[int], object] | None = None,
) -> Tally:
    """Judge the inputs 0 to `count` - 1, or fewer if the time runs out.

    Args:
        judge: called in a child.
        count: number of inputs.
        batch: inputs of one child.
        seconds: no further batch begins after this time.
        keep: called with the number of each finding.
    """
    tally = Tally()
    began = time.perf_counter()
    for first in range(0, count, batch):
        verdicts = list(_judge_batch(judge, first, min(first + batch, count)))
        tally.inputs += len(verdicts)
        tally.accepted += sum(verdict == ACCEPTED for _, verdict in verdicts)
        tally.refused += sum(verdict == REFUSED for _, verdict in verdicts)
        findings = [entry for entry in verdicts if entry[1] not in (ACCEPTED, REFUSED)]
        tally.findings += findings
        for number, _ in findings if keep else []:
            keep(number)
        if time.perf_counter() - began > seconds:
            break
    tally.seconds = time.perf_counter() - began
    return tally


def _judge_batch(judge: Judge, first: int, last: int) -> Iterator[tuple[int, str]]:
    """Yield the verdicts on some inputs; after a crash, continue with the next one."""
    while first < last:
        for number, verdict in _run_child(judge, first, last):
            yield number, verdict
            first = number + 1


def _run_child(judge: Judge, first: int, last: int) -> Iterator[tuple[int, str]]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            _limit()
            sys.stdout = sys.stderr = io.StringIO()
            for number in range(first, last):
                os.write(writing, (json.dumps(_judge_in_time(judge, number)) + "\n").encode())
        finally:
            os._exit(0)
    os.close(writing)
    number = first
    with os.fdopen(reading) as verdicts:
        for line in verdicts:
            yield number, json.loads(line)
            number += 1
    _, status = os.waitpid(child, 0)
    if number < last:
        number_of_signal = os.WTERMSIG(status)
        name = signal.Signals(number_of_signal).name if number_of_signal else "no signal"
        yield number, f"the process ended: {name}"


def _judge_in_time(judge: Judge, number: int) -> str:
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return judge(number)
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("error")
