"""Show what bounds a search step on a CPU: its products, or everything else.

    python benchmarks/cpu_bound.py --out benchmarks/results/cpu_bound.json

The fused engine and the reference take turns. A profile divides the fused step into products
(convolutions and matrix products of oneDNN and MKL, and pools) and the rest, whose bytes are those
of all tensors that its operations read and write. Four rates show whether other shapes or layouts
would make the products faster.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from about import about, publish
from search_step import Trial, fastest, measure_bandwidth, time_in_turns, warm_alike

from skelnas.runtime import devices

BATCH_SIZE, CHANNELS, FRAMES, JOINTS = 8, 16, 112, 50
ENGINES = "fused", "reference"
PRODUCTS = (
    "aten::mkldnn_convolution",
    "aten::convolution_backward",
    "aten::mm",
    "aten::bmm",
    "aten::addmm",
    "aten::addmm_",
    "aten::max_pool2d_with_indices",
    "aten::max_pool2d_with_indices_backward",
)
"""Where PyTorch calls oneDNN or MKL, or pools."""


def profile(trial: Trial) -> dict[str, Any]:
    """Take one step; return seconds of its products and of the rest, and the bytes of the rest."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, record_shapes=True) as recorded:
        trial.step()
    seconds = {"products": 0.0, "rest": 0.0}
    moved = 0
    for event in recorded.key_averages(group_by_input_shape=True):
        is_product = event.key in PRODUCTS
        seconds["products" if is_product else "rest"] += event.self_cpu_time_total / 1e6
        if not is_product and event.key.startswith("aten::") and event.self_cpu_time_total:
            sizes = [math.prod(shape) for shape in event.input_shapes if shape]
            if sizes and event.self_cpu_time_total / event.count > 5:  # views move nothing
                moved += 4 * event.count * (sum(sizes) + max(sizes))
    return {"seconds": seconds, "bytes_of_the_rest": moved}


def rates() -> dict[str, float]:
    """Return the speed of dense convolutions and products of the first cell, in GFLOP/s."""
    image = torch.randn(BATCH_SIZE, CHANNELS, FRAMES, JOINTS)
    last = image.contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(CHANNELS, CHANNELS, 3, 3)
    four = torch.randn(4 * CHANNELS, CHANNELS, 3, 3)
    blocked = image.to_mkldnn()
    rows = last.permute(0, 2, 3, 1).reshape(-1, CHANNELS)  # [N * T * V, C]
    square = torch.randn(CHANNELS, CHANNELS)
    cpu = torch.device("cpu")
    pixels = len(rows)
    dense = 2e-9 * pixels * CHANNELS**2 * 9

    def in_blocks() -> torch.Tensor:
        convolved: torch.Tensor = torch.ops.aten.mkldnn_convolution(
            blocked, kernel, None, (1, 1), (1, 1), (1, 1), 1
        )
        return convolved

    return {
        "3 x 3, channels last": dense / fastest(lambda: F.conv2d(last, kernel, padding=1), cpu),
        "3 x 3, oneDNN's blocks": dense / fastest(in_blocks, cpu),
        "3 x 3, four edges at once": 4 * dense / fastest(
            lambda: F.conv2d(last, four, padding=1), cpu
        ),
        "1 x 1": dense / 9 / fastest(lambda: rows @ square, cpu),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    devices.keep_freed_memory()
    sizes = {"device": "cpu", "space": "sar", "channels": CHANNELS}
    sizes |= {"frames": FRAMES, "joints": JOINTS}
    args = argparse.Namespace(**sizes)
    trials = {engine: Trial(engine, args, BATCH_SIZE, "second") for engine in ENGINES}
    warm_alike(trials)
    times = time_in_turns(trials, arguments.turns)
    report = {
        **about("cpu"),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "all_seconds": times,
        "fused": profile(trials["fused"]),
        "bytes_per_second": measure_bandwidth(torch.device("cpu")),
        "gflop_per_second": rates(),
    }
    publish(report, arguments.out)


if __name__ == "__main__":
    main()
