"""Fuzz caches: broken ones must be refused cleanly, and what has checksums never read differently.

    nice -n 19 python tests/fuzz/fuzz_caches.py --count 1000000 --keep findings/
    python tests/fuzz/fuzz_caches.py --seed 0 --only 4711

Half of the inputs have changed bytes, half a changed HDF5 structure. Every input is a pure function
of the seed and its number. It is read in a child process with limits of time and memory, since the
HDF5 library cannot be interrupted. A cache must be refused with an InputError, or yield clips that
pass all checks and, if it has checksums, those of the cache it was made from. Any other outcome is
a finding, and the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from cache_changes import make_input, make_seeds

from skelnas.data.cache import Cache
from skelnas.data.inspect import find_damage, inspect
from skelnas.data.readers.base import find_layout_problem
from skelnas.errors import InputError

SECONDS = 5
"""CPU time of one input, in whole seconds."""

MEMORY_BYTES = 1 << 30
"""Beyond what the process has at the start."""

BATCH = 200
"""Inputs of one child process."""

MAX_MESSAGE_CHARS = 2000
IN_MEMORY = next((folder for folder in ("/dev/shm",) if Path(folder).is_dir()), None)


@dataclass
class Tally:
    """The outcome: each input was accepted, refused or is a finding (its number, what happened)."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)


class Fuzzer:
    """Makes inputs in a folder and reads them.

    Args:
        folder: empty.
        seed: of the inputs.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._path = folder / "changed.h5"
        self._seeds = make_seeds(folder)
        self._digests = {path: _digest(path) for path in self._seeds}

    def make(self, number: int) -> tuple[Path, Path, bool]:
        """Return the path of an input, its seed, and whether it must be refused."""
        return (self._path, *make_input(self._seeds, Random(f"{self._seed} {number}"), self._path))

    def judge(self, number: int) -> str:
        """Return `accepted`, `refused` or a description of the finding."""
        path, seed, must_refuse = self.make(number)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            digest = _digest(path)
        except InputError as error:
            message = str(error)
            is_valid = "\n" not in message and len(message) < MAX_MESSAGE_CHARS
            return "refused" if is_valid else f"an invalid message: {message[:300]!r}"
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if must_refuse:
            return "accepted, though it must be refused"
        if seed != self._seeds[-1] and digest not in self._digests.values():
            return "read differently in spite of its checksums"
        return "accepted"

    def batch(self, first: int, last: int) -> Iterator[tuple[int, str]]:
        """Judge inputs in a child process and yield their verdicts; start again after a crash."""
        while first < last:
            for number, verdict in self._run_child(first, last):
                yield number, verdict
                first = number + 1

    def _run_child(self, first: int, last: int) -> Iterator[tuple[int, str]]:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(reading)
                self._judge_all(first, last, writing)
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

    def _judge_all(self, first: int, last: int, pipe: int) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        warnings.simplefilter("error")
        for number in range(first, last):
            os.write(pipe, (json.dumps(self.judge(number)) + "\n").encode())


def _digest(path: Path) -> str:
    """Read all of a cache that the program reads, check it, and return a hash of it."""
    with Cache.open(path) as cache:
        clips = cache.load(range(len(cache)))
        facts = inspect(cache)
        head = (cache.source, cache.rule, cache.layout, cache.classes, cache.max_persons)
        head += (cache.skelnas_version, cache.skipped, cache.failed, cache.storage)
        columns = [*cache.splits.values(), clips.labels, clips.num_persons, clips.num_frames]
        columns += [cache.clips.subjects, cache.clips.cameras, cache.clips.setups]
        single = [cache.read(index)[0] for index in range(len(cache))]
        damage = find_damage(cache)
    assert find_layout_problem(cache.layout) is None
    assert len(set(cache.clips.names)) == len(cache.clips.names) == len(clips.labels)
    assert 0 <= clips.labels.min() <= clips.labels.max() < len(cache.classes)
    assert np.isfinite(clips.poses).all()
    assert not clips.poses[~clips.present].any()
    assert set(damage) <= {"there are no checksums, so changed numbers cannot be detected"}
    assert b"".join(poses.tobytes() for poses in single) == clips.poses.tobytes()
    for text in (json.dumps(cache.rule), facts.source, *cache.classes, *cache.clips.names):
        text.encode()
    content = repr((head, list(cache.splits), facts.two_person_share, clips.fingerprint()))
    data = [np.asarray(column, np.int64).tobytes() for column in columns]
    return hashlib.sha256(b"".join([content.encode(), *data])).hexdigest()


def run(*, count: int, seed: int = 0, seconds: float = 1e9, keep: Path | None = None) -> Tally:
    """Fuzz with `count` inputs, or fewer if the time runs out."""
    tally = Tally()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        fuzzer = Fuzzer(Path(folder), seed)
        for first in range(0, count, BATCH):
            verdicts = list(fuzzer.batch(first, min(first + BATCH, count)))
            tally.inputs += len(verdicts)
            tally.accepted += sum(verdict == "accepted" for _, verdict in verdicts)
            tally.refused += sum(verdict == "refused" for _, verdict in verdicts)
            findings = [entry for entry in verdicts if entry[1] not in ("accepted", "refused")]
            tally.findings += findings
            for number, _ in findings if keep else []:
                keep.mkdir(parents=True, exist_ok=True)
                path, _, _ = fuzzer.make(number)
                (keep / f"cache-{seed}-{number}.h5").write_bytes(path.read_bytes())
            if time.perf_counter() - began > seconds:
                break
    tally.seconds = time.perf_counter() - began
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    parser.add_argument("--only", type=int, help="run a single input, with a traceback")
    arguments = parser.parse_args()
    if arguments.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            path, seed, must_refuse = Fuzzer(Path(folder), arguments.seed).make(arguments.only)
            print(f"made from {seed.name}", "and must be refused" * must_refuse)
            try:
                print(_digest(path))
            except Exception:
                traceback.print_exc()
        return 0
    tally = run(
        count=arguments.count, seed=arguments.seed, seconds=arguments.seconds, keep=arguments.keep
    )
    print(json.dumps(asdict(tally)))
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
