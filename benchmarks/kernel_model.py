"""Model the time of a step's kernels from what an emulator counts; needs no GPU.

    python benchmarks/kernel_model.py --out benchmarks/results/kernel_model.json

Every kernel that a second-order step launches is compiled for an H100, or with `--capability 8.0`
for an A100. One program of each kind of job is executed by the emulator in `tests/engine/ptx` at
the real sizes; it counts the instructions of a warp, the wavefronts of shared memory (and the least
that the same words need), products of tensor cores, and the sectors of global memory. Times the
number of programs these give for each launch the longest of

- issue: four instructions a cycle and multiprocessor,
- shared: one wavefront a cycle and multiprocessor,
- tensor cores: half a product of [16, 8] by [8, 8] a cycle and multiprocessor,
- memory: the bytes that the launch must move, at the bandwidth,
- latency: the instructions of the programs that run one after the other, at `--cycles` each,

plus `--gap` for a launch. No GPU has confirmed it: trust the order, not the milliseconds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from about import about
from ahead_of_time import Launch, compile_for
from kernel_report import COVERED, PASSES, cost, decode, parse, passes

from skelnas.engine.triton.blocks import PRODUCTS

sys.path.append(str(Path(__file__).parents[1] / "tests/engine"))
from ptx.emulation import Emulator, memory_of
from ptx.machine import Block


class Gpu(NamedTuple):
    """A GPU; `shared` is the shared memory of a multiprocessor."""

    multiprocessors: int
    clock: float
    bandwidth: float
    shared: int


GPUS = {"9.0": Gpu(132, 1.755e9, 3.35e12, 227 * 1024), "8.0": Gpu(108, 1.41e9, 2.04e12, 163 * 1024)}
"""By capability: an H100 and an A100 of 80 GB, both SXM, from NVIDIA's data sheets."""
REGISTERS, THREADS, MOST_BLOCKS = 65536, 2048, 32
"""What a multiprocessor has."""
TENSOR = 0.5
"""Products of [16, 8] by [8, 8] in TF32 that it computes in a cycle: the peak of an A100 (156
TFLOP/s in NVIDIA's data sheet), and half of that of an H100 (495), since `mma.sync` and a `wgmma`
of 16 columns are not assumed to reach it."""


def sizes_of_jobs(launch: Launch) -> list[int]:
    """Return how many programs, along the second axis of the grid, do each kind of job."""
    a = launch.arguments
    ops, k, pools = decode(a.get("OPS", 0), a.get("NUM_OPS", 0)), a.get("K", 1), a.get("POOLS", 0)
    match launch.name:
        case "convolve_and_pool" if a["STAGE"] == 1:
            groups = -(-k // a["EDGES"])
            return [k if op.stages else groups for op in ops] + [1] * pools
        case "convolve_and_pool" | "pointwise_backward":
            return [k for op in ops if op.stages >= a["STAGE"]] + [1] * pools
        case "node_gradient":  # parities
            return [1] * launch.grid[1]
        case "matrix_gradients":
            return [each for op in ops for each in [1] * op.stages or [op.size**2]]
        case "depthwise_gradients":
            return [op.size for op in ops for _ in range(op.stages)]
    return list(launch.grid[1:2]) or [1]


def jobs(launch: Launch) -> list[tuple[Block, int]]:
    """Return a program of each kind of job, and how many programs do that job."""
    x, _, z = (*launch.grid, 1, 1)[:3]
    one = (
        0 if launch.name in ("matrix_gradients", "depthwise_gradients") else min(x - 1, x // 2 + 1)
    )
    sizes = sizes_of_jobs(launch)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [
        ((one, start + size // 2, 0), x * size * z)
        for start, size in zip(starts, sizes, strict=True)
    ]


ALIKE = {"convolve_and_pool", "pool", "sum_products", "pointwise_backward", "depthwise_backward"}
"""Kernels whose programs do the same for any number of edges and tiles."""


def count(
    emulator: Emulator, launch: Launch, known: dict[Any, Counter[str]]
) -> list[tuple[int, Counter[str]]]:
    """Return the number of programs of each kind of job, and what one of them does."""
    memory = memory_of(launch)
    found = []
    for number, (block, programs) in enumerate(jobs(launch)):
        size = [launch.arguments.get(name) for name in ("T", "V", "TO", "VO")]
        key = (launch.variant, number, *size)
        if launch.name not in ALIKE or key not in known:
            counts = Counter[str]()
            counts["steps"] = emulator.run(launch, memory, [block], counts)
            known[key] = counts
        found.append((programs, known[key]))
    return found


def seconds(
    launch: Launch, found: list[tuple[int, Counter[str]]], usage: Any, args: argparse.Namespace
) -> tuple[float, str]:
    """Return the modelled time of a launch, and what limits it."""
    gpu = GPUS[args.capability]
    programs = sum(number for number, _ in found)
    threads = 32 * launch.blocks.warps
    resident = min(
        REGISTERS // (-(-usage.registers // 8) * 8 * threads),
        gpu.shared // (usage.shared + 1024),
        THREADS // threads,
        MOST_BLOCKS,
    )
    used = min(programs, gpu.multiprocessors)

    def total(*names: str) -> int:
        return sum(number * sum(counts[name] for name in names) for number, counts in found)

    steps = [counts["steps"] for _, counts in found]
    queue = total("steps") / (gpu.multiprocessors * resident)
    limits = {
        "issue": total("instructions") / (4 * used * gpu.clock),
        "shared": total("load wavefronts", "store wavefronts") / (used * gpu.clock),
        "tensor": total("mma", "wgmma") / (TENSOR * used * gpu.clock),
        "memory": cost(launch)[0] / gpu.bandwidth,
        "latency": args.cycles * max(max(steps), queue) / gpu.clock,
    }
    limit = max(limits, key=limits.__getitem__)
    return limits[limit] + args.gap, limit


def model(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each kernel and number of channels."""
    capability = parse(args.capability)
    emulator = Emulator(capability)
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    counted: dict[Any, Any] = {}
    known: dict[Any, Counter[str]] = {}
    for name, launched in passes(args, capability).items():
        for launch in launched:
            a = launch.arguments
            sizes = launch.grid, a.get("K"), a.get("target"), a.get("tiles"), a.get("chunks")
            if (key := (launch.variant, sizes)) not in counted:
                usage = compile_for(launch, capability)
                counted[key] = usage, count(emulator, launch, known)
            usage, found = counted[key]
            time, limit = seconds(launch, found, usage, args)
            stage = f", stage {a['STAGE']}" if "STAGE" in launch.constants else ""
            row = rows.setdefault(
                (launch.name + stage, a["C"]),
                {"kernel": launch.name + stage, "channels": a["C"], "launches": 0,
                 "fewest_programs": math.inf, "registers": 0, "spilled": 0, "shared": 0,
                 "wavefronts": 0, "least_wavefronts": 0, "products": 0, "instructions": 0,
                 "sectors": 0, "seconds": 0.0, "limits": Counter()},
            )  # fmt: skip
            repeats = PASSES[name]
            row["launches"] += repeats
            row["fewest_programs"] = min(row["fewest_programs"], math.prod(launch.grid))
            row["registers"] = max(row["registers"], usage.registers)
            row["spilled"] = max(row["spilled"], usage.spilled)
            row["shared"] = max(row["shared"], usage.shared)
            for programs, counts in found:
                times = repeats * programs
                for kind in ("load", "store"):
                    row["wavefronts"] += times * counts[f"{kind} wavefronts"]
                    row["least_wavefronts"] += times * counts[f"{kind} least wavefronts"]
                row["products"] += times * (counts["mma"] + counts["wgmma"])
                row["instructions"] += times * counts["instructions"]
                row["sectors"] += times * counts["sectors"]
            row["seconds"] += repeats * time
            row["limits"][limit] += repeats
    return sorted(rows.values(), key=lambda row: -row["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="sar", choices=COVERED)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--frames", type=int, default=112)
    parser.add_argument("--joints", type=int, default=50)
    parser.add_argument("--width", type=int, help="only cells with this number of channels")
    parser.add_argument("--capability", default="9.0", choices=GPUS)
    parser.add_argument("--products", choices=PRODUCTS, help="instead of those of the engine")
    parser.add_argument("--cycles", type=float, default=6.0, help="of an instruction of one warp")
    parser.add_argument("--gap", type=float, default=1.2e-6, help="seconds between two launches")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = model(args)
    for row in rows:
        print(
            f"{1e3 * row['seconds']:7.2f} ms {row['launches']:4d} launches, "
            f"{1e6 * row['seconds'] / row['launches']:6.1f} us each, "
            f"{row['fewest_programs']:5d} programs, "
            f"{row['wavefronts'] / max(row['least_wavefronts'], 1):5.1f} x wavefronts, "
            f"{row['registers']} registers: {row['kernel']}, {row['channels']} channels "
            f"({', '.join(f'{limit} {n}' for limit, n in row['limits'].items())})"
        )
    step = sum(row["seconds"] for row in rows)
    print(f"{1e3 * step:.1f} ms a step, {sum(row['launches'] for row in rows)} launches")
    if args.out:
        options = {name: value for name, value in vars(args).items() if name != "out"}
        everything = {**about("cpu"), "options": options, "seconds": step, "kernels": rows}
        args.out.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
