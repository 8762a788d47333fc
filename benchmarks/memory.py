"""Measure the peak memory of a search step, with and without checkpointed cells.

    python benchmarks/memory.py --out benchmarks/results/memory.json

Each case runs `skelnas search` on synthetic clips, for two steps of 4 clips and for two of 8.
Memory is the largest resident set of the process. A clip takes a quarter of the difference between
the two; the rest is Python, PyTorch and the weights.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from about import about, publish

from skelnas.data.prepare import prepare
from skelnas.data.readers.synthetic import Synthetic

CASES = {
    "first order": "--order first",
    "difference": "",
    "difference, reference engine": "--engine reference",
    "exact": "--hessian exact",
}
"""Flags of each case."""


def peak_bytes(cache: Path, out: Path, flags: str) -> int:
    """Run a search of one epoch; return its peak resident memory in bytes."""
    command = [sys.executable, "-m", "skelnas", "search", str(cache), "--out", str(out), "--force"]
    run = subprocess.Popen([*command, "--epochs", "1", "--device", "cpu", *flags.split()])
    _, status, usage = os.wait4(run.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} {flags} failed")
    return 1024 * usage.ru_maxrss


def measure(flags: str, folder: Path) -> dict[str, Any]:
    """Run a case with both batch sizes; return one record."""
    small, large = (
        peak_bytes(folder / f"{size}.h5", folder / "run", f"{flags} --batch-size {size}")
        for size in (4, 8)
    )
    return {
        "flags": flags,
        "megabytes_of_8_clips": round(large / 1e6),
        "megabytes_a_clip": round((large - small) / 4e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flags", default="--threads 1", help="flags of every search")
    parser.add_argument("--out", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in (4, 8):  # half of the clips train, and half of those train w
            prepare(Synthetic(8 * size), folder / f"{size}.h5")
        cases = [
            {"case": case + suffix, **measure(f"{arguments.flags} {flags} {extra}".strip(), folder)}
            for (case, flags), (suffix, extra) in itertools.product(
                CASES.items(), {"": "", ", checkpointed cells": "--checkpoint-cells"}.items()
            )
        ]
    result = {
        "what": "peak memory of `skelnas search`, the paper's supernet on clips of 112 x 50",
        **about("cpu"),
        "cases": cases,
    }
    publish(result, arguments.out)


if __name__ == "__main__":
    main()
