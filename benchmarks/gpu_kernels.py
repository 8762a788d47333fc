"""Time the Triton kernels on a GPU: each beside its model, and cells with other tile sizes.

    python benchmarks/gpu_kernels.py profile --out profile.json
    python benchmarks/gpu_kernels.py sweep --out sweep.json

`profile` takes a second-order step (eagerly, so that the profiler sees all kernels) and sets the
time of each beside that of `results/kernel_model.json`. `sweep` times forward and backward of a
normal cell of each width, for several numbers of pixels and warps; what is fastest belongs into
`skelnas/engine/triton/blocks.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from about import about
from search_step import Trial

from skelnas.engine.triton import blocks
from skelnas.engine.triton.blocks import Blocks
from skelnas.engine.triton.check import make_cell
from skelnas.primitives import SPACES

MODEL = Path(__file__).parent / "results/kernel_model.json"

WIDTHS = {16: (112, 50), 32: (56, 25), 64: (28, 13)}
"""T and V of the paper's cells, by their channels."""

PIXELS, WARPS = (16, 32, 64, 128), (2, 4, 8)


def profile(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the measured and the modelled time of each kernel in a step."""
    trial = Trial("triton", args, args.batch, "second")
    for _ in range(3):
        trial.step()
    cuda = torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[cuda]) as profiled:
        trial.step()
        torch.cuda.synchronize()
    modelled: dict[str, float] = defaultdict(float)
    for row in json.loads(MODEL.read_text(encoding="utf-8"))["kernels"]:
        modelled[row["kernel"].split(",")[0]] += row["seconds"]
    measured, launches = Counter[str](), Counter[str]()
    for event in profiled.events():
        if event.device_type.name == "CUDA":
            measured[event.name] += event.device_time / 1e6
            launches[event.name] += 1
    return [
        {"kernel": name, "launches": launches[name], "seconds": seconds,
         "modelled": modelled.get(name)}
        for name, seconds in measured.most_common()
    ]  # fmt: skip


def sweep(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the time of a cell for each width and tile size, the fastest first."""
    device = torch.device("cuda")
    choose = blocks.choose
    found = []
    for width, (t, v) in WIDTHS.items():
        cell = make_cell(SPACES["sar"], (args.batch, width, t, v), False, 4, device)
        default = choose(width, device)
        for pixels, light, warps in product(PIXELS, PIXELS, WARPS):
            if not 512 <= pixels * width <= 4096 or not 512 <= light * width <= 4096:
                continue
            size = Blocks(pixels, light, default.programs, warps)
            blocks.choose = lambda channels, device, size=size: size
            row: dict[str, Any] = {"channels": width, **size._asdict()}
            try:
                row["seconds"] = median_seconds(lambda cell=cell: evaluate(cell))
            except Exception as error:  # a size that the GPU or the compiler refuses
                row["error"] = f"{type(error).__name__}: {error}"[:200]
            found.append(row | {"is_default": size == default})
            print(json.dumps(found[-1]), flush=True)
    blocks.choose = choose
    return sorted(found, key=lambda row: (row["channels"], row.get("seconds", float("inf"))))


def evaluate(cell: Any) -> None:
    """Run a cell forward and backward."""
    from skelnas.engine.triton.mixed_cell import evaluate

    out = evaluate(cell.inputs, cell.op_weights, cell.primitives, cell.weights, cell.reduction)
    torch.autograd.grad(out.sum(), cell.leaves, allow_unused=True)


def median_seconds(work: Callable[[], None], turns: int = 10) -> float:
    """Return the median time of some work on the GPU."""
    times = []
    for turn in range(turns + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        if turn > 1:
            times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["profile", "sweep"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True, help="write the results to this file")
    args = parser.parse_args()
    args.device, args.space, args.channels, args.frames, args.joints = "cuda", "sar", 16, 112, 50
    rows = profile(args) if args.what == "profile" else sweep(args)
    everything = {**about("cuda"), "batch": args.batch, "rows": rows}
    args.out.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
