"""Fuzz what skelnas wrote and reads again, and settings: broken files must be refused cleanly.

    nice python tests/fuzz/fuzz_folders.py all --count 1000000 --keep findings/
    python tests/fuzz/fuzz_folders.py model --seed 0 --only 4711

Every input is a pure function of the target, the seed and its number: a folder of which one or two
files were damaged, changed otherwise, or replaced by a pipe, a link or nothing. It is read in a
child process with limits of time and memory. A folder must be refused with an InputError or a
UsageError that names it, or read; and read as it was written if it has checksums and was damaged.
Any other outcome is a finding, and the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from random import Random

import children
import run_targets
import text_targets
from children import Tally
from folder_changes import change, write
from text_targets import Target

from skelnas.errors import SkelnasError

TARGETS = text_targets.TARGETS | run_targets.TARGETS


class Fuzzer:
    """Makes the inputs of a target in a folder and reads them.

    Args:
        name: of the target.
        folder: empty.
        seed: of the inputs.
    """

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.target: Target = TARGETS[name]()
        self._name = name
        self._seed = seed
        self.folder = folder / "fuzzed"
        self._known = set()
        for valid in (*self.target.seeds, *self.target.old):
            write(self.folder, valid)
            self._known.add(repr(self.target.read(self.folder)))

    def make(self, number: int, folder: Path | None = None) -> bool:
        """Write an input, and return whether it must be read as it was written, or not at all."""
        random = Random(f"{self._name} {self._seed} {number}")
        target = self.target
        is_sealed = bool(target.seeds) and random.random() < 0.5
        seeds = target.seeds if is_sealed else target.old
        files, damaged, changed = change(seeds, random, target.names)
        write(folder or self.folder, files)
        return is_sealed and not changed and damaged <= target.sealed

    def judge(self, number: int) -> str:
        """Return the verdict on an input."""
        must_be_known = self.make(number)
        try:
            content = repr(self.target.read(self.folder))
        except Exception as error:
            return children.verdict_on(error, self.folder.name)
        if must_be_known and content not in self._known:
            return "read differently in spite of its checksums"
        return children.ACCEPTED


def run(
    name: str, *, count: int, seed: int = 0, seconds: float = 1e9, keep: Path | None = None
) -> Tally:
    """Fuzz a target with `count` inputs, or fewer if the time runs out."""
    with tempfile.TemporaryDirectory(dir=children.IN_MEMORY) as folder:
        fuzzer = Fuzzer(name, Path(folder), seed)

        def keep_input(number: int) -> None:
            if keep is not None:
                fuzzer.make(number, keep / f"{name}-{seed}-{number}")

        return children.run(
            fuzzer.judge,
            count=count,
            batch=fuzzer.target.batch,
            seconds=seconds,
            keep=keep_input,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="+", choices=[*TARGETS, "all"])
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="time for each target")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of findings")
    parser.add_argument("--only", type=int, help="run a single input, with a traceback")
    arguments = parser.parse_args()
    names = list(TARGETS) if "all" in arguments.targets else arguments.targets
    if arguments.only is not None:
        _run_one(names[0], arguments.seed, arguments.only)
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
        print(json.dumps({"target": name, **asdict(tally)}), flush=True)
    return 1 if num_findings else 0


def _run_one(name: str, seed: int, number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(name, Path(folder), seed)
        fuzzer.make(number)
        for path in sorted(fuzzer.folder.rglob("*")):
            size = path.stat().st_size if path.is_file() else "not a file"
            print(path.name, size, path.read_bytes()[:300] if path.is_file() else "")
        try:
            print(repr(fuzzer.target.read(fuzzer.folder))[:1000])
        except SkelnasError as error:
            print("refused:", error)
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
