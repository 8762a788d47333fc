"""Time the Triton kernels on a GPU: each beside its model, and cells with other tile sizes.

    python benchmarks/gpu_kernels.py profile --out profile.json
    python benchmarks/gpu_kernels.py sweep --out sweep.json

`profile` takes second-order steps (eagerly, so that the profiler sees all kernels) and sets the
time of each beside that of `results/kernel_model.json`. `sweep` times forward and backward of a
normal cell of each width, for several numbers of pixels, warps and stages and both ways to multiply
float32, and prints the line of `skelnas/engine/triton/blocks.py` with the fastest. It writes a row
after each size; sizes that are in the file are not timed again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from about import about
from search_step import Trial

from skelnas.engine.triton import blocks, launches
from skelnas.engine.triton.blocks import PRODUCTS, Blocks
from skelnas.engine.triton.check import make_cell
from skelnas.primitives import SPACES

MODEL = Path(__file__).parent / "results/kernel_model.json"

WIDTHS = {16: (112, 50), 32: (56, 25), 64: (28, 13)}
"""T and V of the paper's cells, by their channels."""

PIXELS, WARPS, STAGES, EDGES = (16, 32, 64, 128), (2, 4, 8), (2, 3), (1, 2, 4)

SMALL = (2, 7)
"""Clips, and T and V, of the cells that are only compiled: their kernels are the same."""

GPU = torch.device("cuda")

OTHERS = "all others"
"""Row of the kernels that are not the engine's."""


def profile(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the measured and the modelled time that a step spends in each kernel."""
    trial = Trial("triton", args, args.batch, "second")
    for _ in range(3):
        trial.step()
    steps = []
    for _ in range(args.turns):
        cuda = torch.profiler.ProfilerActivity.CUDA
        with noted_launches() as launched, torch.profiler.profile(activities=[cuda]) as profiled:
            trial.step()
            torch.cuda.synchronize()
        events = [event for event in profiled.events() if event.device_type.name == "CUDA"]
        events.sort(key=lambda event: event.time_range.start)
        steps.append(join(launched, [(event.name, event.device_time / 1e6) for event in events]))
    modelled = {
        (row["kernel"], row["channels"]): row["seconds"]
        for row in json.loads(MODEL.read_text(encoding="utf-8"))["kernels"]
    }
    return summarise(steps, modelled)


@contextmanager
def noted_launches() -> Iterator[list[tuple[str, int]]]:
    """Note the kernel and channels of every launch of the engine, in the words of the model."""
    noted: list[tuple[str, int]] = []
    launch = launches.launch

    def note(kernel: Any, grid: Any, size: Blocks, arguments: Mapping[str, Any]) -> None:
        if all(grid):
            name = kernel.fn.__name__
            if "STAGE" in kernel.arg_names:
                name += f", stage {arguments['STAGE']}"
            noted.append((name, arguments["C"]))
        launch(kernel, grid, size, arguments)

    launches.launch = note
    try:
        yield noted
    finally:
        launches.launch = launch


def join(
    launched: Sequence[tuple[str, int]], events: Iterable[tuple[str, float]]
) -> dict[tuple[str, int | None], list[float]]:
    """Return the seconds of each launch, by kernel and channels.

    Args:
        launched: kernel and channels of the engine's launches, in order.
        events: name and seconds of all kernels that ran, in order.

    Raises:
        ValueError: the engine's kernels did not run in the order of their launches.
    """
    seconds: dict[tuple[str, int | None], list[float]] = defaultdict(list)
    names = {name.split(",")[0] for name, _ in launched}
    expected = iter(launched)
    for name, time in events:
        if name not in names:
            seconds[OTHERS, None].append(time)
            continue
        key = next(expected, ("nothing", 0))
        if key[0].split(",")[0] != name:
            raise ValueError(f"{name} ran where {key[0]} was launched")
        seconds[key].append(time)
    if key := next(expected, None):
        raise ValueError(f"{key[0]} was launched and did not run")
    return seconds


def summarise(
    steps: Sequence[Mapping[tuple[str, int | None], Sequence[float]]],
    modelled: Mapping[tuple[str, int | None], float],
) -> list[dict[str, Any]]:
    """Return a row for each kernel: its launches and seconds a step, the slowest first."""
    rows = []
    for key in {key: None for step in steps for key in step}:
        totals = [math.fsum(step.get(key, ())) for step in steps]
        rows.append(
            {"kernel": key[0], "channels": key[1], "launches": len(steps[-1].get(key, ())),
             "seconds": statistics.median(totals),
             "p20_p50_p80": np.percentile(totals, (20, 50, 80)).tolist(),
             "modelled": modelled.get(key)}
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row["seconds"])


def sizes(width: int, default: Blocks) -> list[Blocks]:
    """Return tile sizes for a width, those that differ least from the default first."""

    def fits(size: Blocks) -> bool:
        return all(512 <= pixels * width <= 4096 for pixels in (size.pixels, size.light))

    found = [
        default._replace(pixels=pixels, product_warps=warps, stages=stages, products=products)
        for pixels, warps, stages, products in product(PIXELS, WARPS, STAGES, PRODUCTS)
    ]
    found += [default._replace(light=light, warps=warps) for light, warps in product(PIXELS, WARPS)]
    found += [default._replace(edges=edges) for edges in EDGES]
    order = {size: sum(map(lambda a, b: a != b, size, default)) for size in found if fits(size)}
    return sorted(order, key=order.__getitem__)


def sweep(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a cell of each width with several tile sizes; return the rows, the fastest first."""
    device = torch.device("cuda")
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    known = {(row["channels"], *(row[name] for name in Blocks._fields)) for row in rows}
    defaults = {width: blocks.choose(width, device) for width in WIDTHS}
    left = [
        (width, size)
        for width, default in defaults.items()
        for size in sizes(width, default)
        if (width, *size) not in known
    ]
    left.sort(key=lambda each: sum(map(lambda a, b: a != b, each[1], defaults[each[0]])))
    workers = min(8, os.cpu_count() or 1)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        for (width, size), compiled in zip(left, pool.map(compile_cell, left), strict=True):
            row = {"channels": width, **size._asdict(), "is_default": size == defaults[width]}
            row |= compiled or time_cell(width, size, args.batch)
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(args, rows)
    rows.sort(key=lambda row: (row["channels"], row.get("seconds", math.inf)))
    print(table_line(torch.cuda.get_device_capability(device), rows))
    return rows


def table_line(capability: tuple[int, int], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the line of the table of tile sizes for a GPU, with the fastest of each width."""
    fastest = {
        width: Blocks(**{name: row[name] for name in Blocks._fields})
        for width in WIDTHS
        for row in sorted(rows, key=lambda row: -row.get("seconds", math.inf))
        if row["channels"] == width and "seconds" in row
    }
    entries = (f"{width}: Blocks{tuple(size)}" for width, size in fastest.items())
    return f"    {capability}: {{{', '.join(entries)}}},"


def compile_cell(each: tuple[int, Blocks]) -> dict[str, str]:
    """Compile the kernels of a cell, for Triton's cache; return the error, if there is one."""
    width, size = each
    clips, length = SMALL
    blocks.choose = lambda channels, device: size
    try:
        evaluate(make_cell(SPACES["sar"], (clips, width, length, length), False, 4, GPU))
    except Exception as error:  # a size that the GPU or the compiler refuses
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    return {}


def time_cell(width: int, size: Blocks, batch: int) -> dict[str, float]:
    """Return the time of a cell of the paper's size."""
    choose = blocks.choose
    blocks.choose = lambda channels, device: size
    try:
        cell = make_cell(SPACES["sar"], (batch, width, *WIDTHS[width]), False, 4, GPU)
        return {"seconds": median_seconds(lambda: evaluate(cell))}
    finally:
        blocks.choose = choose


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


def write(args: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all rows so far."""
    everything = {**about("cuda"), "batch": args.batch, "rows": rows}
    replacement = args.out.with_suffix(".part")
    replacement.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    replacement.replace(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["profile", "sweep"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=30, help="profiled steps")
    parser.add_argument("--out", type=Path, required=True, help="write the results to this file")
    args = parser.parse_args()
    args.device, args.space, args.channels, args.frames, args.joints = "cuda", "sar", 16, 112, 50
    write(args, profile(args) if args.what == "profile" else sweep(args))


if __name__ == "__main__":
    main()
