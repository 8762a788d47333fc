"""Everything to run on the first GPU, in the order of its value, in about ten minutes.

    python benchmarks/gpu.py --out gpu-results

Needs PyTorch for CUDA with its Triton, and `pip install -e .[test]`. Each part is a command with a
time limit. Its outcome is written to the folder when it ends, so that a cut loses at most one part;
a second run continues with the parts that have not ended well. `--list` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON = sys.executable
CELLS = '[["none","max_pool_3x3","avg_pool_3x3","skip_connect","conv_3x3","sep_conv_3x3",'
CELLS += '"dil_conv_3x3","se_connect"],[16],2]'
"""One cell of each kind, for the sanitizer."""

EPOCH_CLIPS, BATCH = 40_091, 8
"""The training part of NTU RGB+D 60 (cross-subject); a search takes half of it an epoch."""

TAIL = 4000
"""Characters of the output that are recorded."""


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

    def step(batch: int) -> list[str]:
        return bench(
            "search_step.py", "--batch", batch, "--order", "second", "--compile",
            "--out", out / f"search_step_{batch}.json",
        )  # fmt: skip

    def sanitize(tool: str) -> list[str]:
        check = [PYTHON, "-m", "skelnas.engine.triton.check", "cuda:0", CELLS, "false"]
        return ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *check]

    skelnas = [PYTHON, "-m", "skelnas"]
    cache, found, trained = out / "clips.h5", out / "search", out / "train"
    genotype, exported = out / "genotype.json", out / "model.onnx"
    clips = 2_000
    epochs = round(EPOCH_CLIPS / clips)  # as many steps as one epoch has there
    tests = [PYTHON, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    return [
        Part("tests", [*tests, "tests/engine", "tests/nas", "tests/runtime", "tests/data"], 300),
        Part("sanitizer, memory", sanitize("memcheck"), 180),
        Part("sanitizer, races", sanitize("racecheck"), 180),
        Part("graph replay", [*tests, "tests/nas/test_flat_weights.py"], 60),
        Part("step, batch 8", step(8), 240),
        Part("profile", bench("gpu_kernels.py", "profile", "--out", out / "profile.json"), 60),
        Part("step, batch 64", step(64), 240),
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
    ]  # fmt: skip


def run_parts(some: Sequence[Part], out: Path, seconds: float) -> list[dict[str, Any]]:
    """Run the parts that have not ended well yet, within a time; write a record after each."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    path = out / "parts.json"
    records: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    for part in some:
        if records.get(part.name, {}).get("outcome") == "done":
            continue
        limit = min(part.seconds, end - time.monotonic())
        if limit <= 0:
            records[part.name] = {"outcome": "no time left"}
        else:
            print(f"{part.name}: {shlex.join(part.command)}", flush=True)
            records[part.name] = run_part(part, limit)
            print(f"  {records[part.name]['outcome']}", flush=True)
        replacement = path.with_suffix(".part")
        replacement.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
        replacement.replace(path)
    return [{"name": part.name, **records[part.name]} for part in some]


def run_part(part: Part, limit: float) -> dict[str, Any]:
    """Run a part and return what became of it."""
    if shutil.which(part.command[0]) is None:
        return {"outcome": f"{part.command[0]} is not installed"}
    started = time.monotonic()
    process = subprocess.Popen(
        part.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=limit)
        outcome = "done" if process.returncode == 0 else f"exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        outcome = f"stopped after {limit:.0f} s"
    return {
        "outcome": outcome,
        "seconds": round(time.monotonic() - started, 1),
        "command": shlex.join(part.command),
        "output": output[-TAIL:],
    }


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
