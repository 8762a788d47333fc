"""Everything to run on the first GPU, most valuable parts first, in about ten minutes.

    python benchmarks/gpu.py --out gpu-results

Needs PyTorch for CUDA with its Triton, and `pip install -e .[test]`. Each part is a command with a
time limit, whose output goes to a file of the folder as it comes. Its outcome is recorded when it
ends, so that a cut loses at most one part. A second run takes the parts that the first did not come
to, then those that failed; the sweep continues where it stopped. `--list` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from skelnas.primitives import SPACES

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = sys.executable
CHECK = """
import sys, torch
from skelnas.engine import triton
from skelnas.primitives import SPACES
cells = triton.Cells(SPACES["sar"], (16, 32, 64), 4)
sys.exit(triton.why_not(torch.device("cuda"), cells, tf32=True) or 0)
"""
"""Does what `auto` does before a search, which also compiles all kernels of the paper's cells."""

SANITIZED = json.dumps([SPACES["sar"], [16], 2]), json.dumps(False)
"""Arguments of the engine's own check: a cell of each kind, without TF32."""

EPOCH_CLIPS, BATCH = 40_091, 8
"""The training part of NTU RGB+D 60 (cross-subject); a search takes half of it an epoch."""

TAIL = 4000
"""Characters of the output that are recorded."""

NOT_REACHED = "no time left"
"""Outcome of a part that was not started."""


class Part(NamedTuple):
    """A command.

    Attributes:
        name: of its record.
        command: what to run, from the root of the repository.
        seconds: its time limit.
    """

    name: str
    command: list[str]
    seconds: int


def parts(out: Path) -> list[Part]:
    """Return all parts, the most valuable first."""

    def bench(name: str, *arguments: object) -> list[str]:
        return [PYTHON, str(HERE / name), *map(str, arguments)]

    def step(batch: int, *arguments: object) -> list[str]:
        name = "_".join(["search_step", str(batch), *map(str, arguments[1:2])])
        return bench(
            "search_step.py", "--batch", batch, "--order", "second", *arguments,
            "--out", out / f"{name}.json",
        )  # fmt: skip

    def compiled(batch: int, mode: str) -> list[str]:
        """Return the step of the reference, compiled, beside the engine of the search."""
        return step(batch, "--compile", mode, "--engine", "triton")

    def sanitize(tool: str) -> list[str]:
        check = [PYTHON, "-m", "skelnas.engine.triton.check", "cuda:0", *SANITIZED]
        return ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *check]

    skelnas = [PYTHON, "-m", "skelnas"]
    cache, found, trained = out / "clips.h5", out / "search", out / "train"
    genotype, exported = out / "genotype.json", out / "model.onnx"
    clips = 2_000
    epochs = round(EPOCH_CLIPS / clips)  # as many steps as one epoch has there
    tests = [PYTHON, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    workers = ["-n", "8"] if find_spec("xdist") else []
    folders = ["tests/engine", "tests/nas", "tests/runtime", "tests/data"]
    return [
        Part("check", [PYTHON, "-c", CHECK], 240),
        Part("tests", [*tests, *workers, *folders], 300),
        Part("step, batch 8", step(8), 120),
        Part("profile", bench("gpu_kernels.py", "profile", "--out", out / "profile.json"), 60),
        Part("graph replay", [*tests, "tests/nas/test_flat_weights.py"], 60),
        Part("sanitizer, memory", sanitize("memcheck"), 120),
        Part("sanitizer, races", sanitize("racecheck"), 180),
        Part("step, batch 64", step(64), 180),
        Part("sweep", bench("gpu_kernels.py", "sweep", "--out", out / "sweep.json"), 240),
        Part(
            "clips",
            [*skelnas, "prepare", "synthetic", str(cache), "--clips", str(clips), "--force"],
            120,
        ),
        Part(
            "epoch",
            [*skelnas, "search", str(cache), "--out", str(found), "--epochs", str(epochs),
             "--batch-size", str(BATCH), "--device", "cuda", "--force"],
            300,
        ),
        Part("compiled, batch 8", compiled(8, "default"), 400),
        Part("compiled, batch 64", compiled(64, "default"), 400),
        Part("derive", [*skelnas, "derive", str(found), "--out", str(genotype)], 30),
        Part(
            "training",
            [*skelnas, "train", str(cache), "--genotype", str(genotype), "--out", str(trained),
             "--epochs", "1", "--device", "cuda", "--force"],
            180,
        ),
        Part(
            "latency",
            [*skelnas, "evaluate", str(cache), str(trained), "--latency", "--device", "cuda",
             "--json"],
            60,
        ),
        Part(
            "export",
            [*skelnas, "export", str(trained), "--out", str(exported), "--format", "onnx"],
            60,
        ),
        Part("max-autotune, batch 8", compiled(8, "max-autotune"), 500),
        Part("max-autotune, batch 64", compiled(64, "max-autotune"), 500),
    ]  # fmt: skip


def run_parts(some: Sequence[Part], out: Path, seconds: float) -> list[dict[str, Any]]:
    """Run the parts that have not ended well yet, within a time; write a record after each.

    Parts that were not reached before come first, so that one that fails does not keep them.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    path = out / "parts.json"
    records: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    outcomes = {part.name: records.get(part.name, {}).get("outcome", NOT_REACHED) for part in some}
    left = [part for part in some if outcomes[part.name] != "done"]
    for part in sorted(left, key=lambda part: outcomes[part.name] != NOT_REACHED):
        limit = min(part.seconds, end - time.monotonic())
        if limit > 0:
            print(f"{part.name}: {shlex.join(part.command)}", flush=True)
            records[part.name] = run_part(part, limit, out / f"{part.name}.txt")
            print(f"  {records[part.name]['outcome']}", flush=True)
        elif outcomes[part.name] == NOT_REACHED:
            records[part.name] = {"outcome": NOT_REACHED}
        replacement = path.with_suffix(".part")
        replacement.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
        replacement.replace(path)
    return [{"name": part.name, **records[part.name]} for part in some]


def run_part(part: Part, limit: float, log: Path) -> dict[str, Any]:
    """Run a part, with its output in a file, and return what became of it."""
    if shutil.which(part.command[0]) is None:
        return {"outcome": f"{part.command[0]} is not installed"}
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            part.command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
            outcome = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:.0f} s"
        finally:
            stop_group(process)
    return {
        "outcome": outcome,
        "seconds": round(time.monotonic() - started, 1),
        "command": shlex.join(part.command),
        "output": log.read_text(encoding="utf-8", errors="replace")[-TAIL:],
    }


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, which would keep the GPU."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of records")
    parser.add_argument("--seconds", type=float, default=600, help="time for all parts")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    args = parser.parse_args()
    some = parts(args.out.resolve())
    if args.list:
        for part in some:
            print(f"{part.name} ({part.seconds} s): {shlex.join(part.command)}")
        return
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    records = run_parts(some, args.out.resolve(), args.seconds)
    sys.exit(any(record["outcome"] != "done" for record in records))


if __name__ == "__main__":
    main()
