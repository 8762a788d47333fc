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
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from random import Random

import children
import numpy as np
from cache_changes import make_input, make_seeds
from children import Tally

from skelnas.data.cache import Cache
from skelnas.data.inspect import find_damage, inspect
from skelnas.data.readers.base import find_layout_problem

BATCH = 200
"""Inputs of one child process."""


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
        try:
            digest = _digest(path)
        except Exception as error:
            return children.verdict_on(error)
        if must_refuse:
            return "accepted, though it must be refused"
        if seed != self._seeds[-1] and digest not in self._digests.values():
            return "read differently in spite of its checksums"
        return children.ACCEPTED


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
    with tempfile.TemporaryDirectory(dir=children.IN_MEMORY) as folder:
        fuzzer = Fuzzer(Path(folder), seed)

        def keep_input(number: int) -> None:
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                path, _, _ = fuzzer.make(number)
                (keep / f"cache-{seed}-{number}.h5").write_bytes(path.read_bytes())

        return children.run(
            fuzzer.judge, count=count, batch=BATCH, seconds=seconds, keep=keep_input
        )


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
