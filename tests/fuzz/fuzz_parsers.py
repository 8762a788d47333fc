"""Fuzz the parsers of raw data: thousands of broken files must be refused cleanly.

    python tests/fuzz/fuzz_parsers.py ntu pyskl --count 1000000 --seconds 3600 --keep findings/
    python tests/fuzz/fuzz_parsers.py ntu --seed 0 --only 4711

Every input is a pure function of the parser, the seed and its number, so that findings can be
reproduced. A file must yield recordings that pass `check_recording`, or raise InputError. Any other
outcome is a finding: an exception, a warning, a hang, too much memory, or accepting what the slow
reference reader of a format refuses. The exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mutations import mutate
from targets import TARGETS, Target

from skelnas.data.readers.base import check_recording
from skelnas.errors import InputError

HANG_SECONDS = 5.0
MEMORY_BYTES = 6 << 30
MAX_MESSAGE_CHARS = 4000
IN_MEMORY = next((folder for folder in ("/dev/shm",) if Path(folder).is_dir()), None)
"""A folder in memory, if there is one."""


@dataclass
class Tally:
    """The outcome of fuzzing a parser.

    Attributes:
        parser: its name.
        inputs: number of inputs; each was accepted, refused or is a finding.
        slowest: seconds of the slowest input.
        findings: (number of the input, what happened).
    """

    parser: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)


class HangError(Exception):
    """An input takes too long."""


def make_input(parser: str, target: Target, seed: int, number: int) -> bytes:
    """Make an input; the first ones are the valid files."""
    random = Random(f"{parser} {seed} {number}")
    if number < len(target.seeds):
        return target.wrap(target.seeds[number], random)
    return target.wrap(mutate(target.seeds, random), random)


def judge(target: Target, data: bytes) -> str:
    """Read a file and return `accepted`, `refused` or a description of the finding."""
    try:
        for recording, source in target.read(data):
            check_recording(recording, source.layout, source.max_persons)
    except InputError as error:
        message = str(error)
        is_valid = message and "\n" not in message and len(message) < MAX_MESSAGE_CHARS
        return "refused" if is_valid else f"an invalid message: {message[:300]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "accepted"


def run(
    parser: str, *, count: int, seed: int = 0, seconds: float = 1e9, keep: Path | None = None
) -> Tally:
    """Fuzz a parser with `count` inputs, or fewer if the time runs out."""
    tally = Tally(parser)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, _strict():
        target = TARGETS[parser](Path(folder))
        for number in range(count):
            data = make_input(parser, target, seed, number)
            start = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
            verdict = judge(target, data)
            signal.setitimer(signal.ITIMER_REAL, 0)
            tally.inputs += 1
            tally.slowest = max(tally.slowest, time.perf_counter() - start)
            if number < len(target.seeds) and verdict == "refused":
                verdict = "a valid file is refused"
            if verdict in ("accepted", "refused"):
                setattr(tally, verdict, getattr(tally, verdict) + 1)
            else:
                tally.findings.append((number, verdict))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{parser}-{seed}-{number}").write_bytes(data)
            if time.perf_counter() - began > seconds:
                break
    tally.seconds = time.perf_counter() - began
    return tally


@contextmanager
def _strict() -> Iterator[None]:
    """Turn warnings and hangs into exceptions."""

    def stop(*_: Any) -> None:
        raise HangError(f"more than {HANG_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parsers", nargs="+", choices=[*TARGETS, "all"])
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="time for each parser")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    parser.add_argument("--only", type=int, help="run a single input, with a traceback")
    arguments = parser.parse_args()
    faulthandler.enable()
    _limit_memory()
    names = list(TARGETS) if "all" in arguments.parsers else arguments.parsers
    if arguments.only is not None:
        with tempfile.TemporaryDirectory() as folder, _strict():
            target = TARGETS[names[0]](Path(folder))
            data = make_input(names[0], target, arguments.seed, arguments.only)
            print(data, *target.read(data), sep="\n")
        return 0
    num_findings = 0
    for name in names:
        tally = run(
            name,
            count=arguments.count,
            seed=arguments.seed,
            seconds=arguments.seconds,
            keep=arguments.keep,
        )
        num_findings += len(tally.findings)
        print(json.dumps(asdict(tally)), flush=True)
    return 1 if num_findings else 0


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


if __name__ == "__main__":
    sys.exit(main())
