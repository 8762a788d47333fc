"""Measure how fast batches are made from each store, and the error of float16.

    python benchmarks/batches.py --out benchmarks/results/batches.json [CACHE ...]

Speed is measured on random walks in the shape of NTU RGB+D: 25 joints in 3-D, one or two
persons, 84 frames on average, sampled to 112. Cases are timed in turns, so that other
work on the machine slows all of them alike, and each result is the median of several turns. The
error of float16 is measured on all clips of each cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skelnas.config import AugmentSettings, ClipSettings, Store
from skelnas.data.cache import Cache, Clips
from skelnas.data.dataset import Dataset
from skelnas.data.readers.ntu import LAYOUT

STORES: tuple[Store, ...] = ("float32", "float16", "host")
BATCH_SIZES = (8, 64)
STREAMS = ("joint", "joint,bone,motion")
AUGMENTS = {
    "none": None,
    "rotate, scale, crop": AugmentSettings(rotate=15, scale=0.1, crop=0.5),
    "all": AugmentSettings(rotate=15, scale=0.1, crop=0.5, shear=0.1, flip=0.5, jitter=0.01),
}


def make_clips(num_clips: int) -> Clips:
    """Make random walks about as long as the clips of NTU RGB+D."""
    generator = np.random.default_rng(0)
    num_persons = 1 + (generator.random(num_clips) < 0.2)
    num_frames = generator.integers(40, 129, num_clips)
    rows = num_persons * num_frames
    steps = generator.normal(0, 0.01, (int(rows.sum()), len(LAYOUT.joints), 3))
    return Clips(
        names=[f"clip{index}" for index in range(num_clips)],
        labels=generator.integers(0, 60, num_clips),
        poses=(3 + steps.cumsum(axis=0) % 1).astype(np.float32),
        present=np.ones(int(rows.sum()), dtype=np.bool_),
        starts=np.cumsum(rows) - rows,
        num_persons=num_persons,
        num_frames=num_frames,
    )


def clips_per_second(
    dataset: Dataset, batch_size: int, augment: AugmentSettings | None, num_batches: int
) -> float:
    """Time making batches of random clips, including the wait for the device."""
    order = np.random.default_rng(0).integers(0, len(dataset), (num_batches, batch_size))
    generator = torch.Generator().manual_seed(0)
    dataset.batch(torch.from_numpy(order[0]), augment, generator)
    wait(dataset.device)
    started = time.perf_counter()
    for indices in torch.from_numpy(order):
        dataset.batch(indices, augment, generator)
    wait(dataset.device)
    return order.size / (time.perf_counter() - started)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(device: torch.device, num_clips: int, clips_a_turn: int, turns: int) -> list[Any]:
    """Time all cases in turns; return one record per case."""
    clips = make_clips(num_clips)
    cases = list(itertools.product(STREAMS, BATCH_SIZES, AUGMENTS, STORES))
    datasets = {
        (streams, store): Dataset(clips, LAYOUT, 2, ClipSettings(streams=streams), device, store)
        for streams, store in itertools.product(STREAMS, STORES)
    }
    speeds: dict[Any, list[float]] = {case: [] for case in cases}
    for _ in range(turns):
        for case in cases:
            streams, batch_size, augment, store = case
            count = clips_a_turn // batch_size
            speed = clips_per_second(datasets[streams, store], batch_size, AUGMENTS[augment], count)
            speeds[case].append(speed)
    return [
        {
            **dict(zip(("streams", "batch_size", "augment", "store"), case, strict=True)),
            "clips_per_second": round(statistics.median(measured)),
            "slowest_turn": round(min(measured)),
            "fastest_turn": round(max(measured)),
        }
        for case, measured in speeds.items()
    ]


def measure_error(path: Path) -> dict[str, Any]:
    """Compare all clips of a cache in float16 and float32, as joints and as motions."""
    record: dict[str, Any] = {"cache": path.name}
    with Cache.open(path) as cache:
        clips = cache.load(range(len(cache)))
        record |= {"source": cache.source, "clips": len(cache)}
        for streams, center in itertools.product(("joint", "motion"), (True, False)):
            settings = ClipSettings(streams=streams, center=center)
            exact, rounded = (
                Dataset(
                    clips, cache.layout, cache.max_persons, settings, torch.device("cpu"), store
                )
                for store in ("float32", "float16")
            )
            squares, count, largest = 0.0, 0, 0.0
            for indices in torch.arange(len(cache)).split(64):
                one, other = exact.batch(indices).x, rounded.batch(indices).x
                error = (one - other)[one != 0].double()
                squares, count = squares + error.square().sum().item(), count + error.numel()
                largest = max(largest, error.abs().max().item())
            name = f"{streams}, {'centred' if center else 'as recorded'}"
            record[name] = {"rms": (squares / count) ** 0.5, "max": largest}
    return record


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = [line for line in _cpu_info() if line.startswith("model name")]
    return cpus[0].partition(":")[2].strip() if cpus else platform.processor()


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "caches", nargs="*", type=Path, help="caches to measure the error of float16 on"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=2000, help="clips to choose from")
    parser.add_argument("--per-turn", type=int, default=512, help="clips per turn of a case")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the result to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    load_before = os.getloadavg()
    cases = measure(device, arguments.clips, arguments.per_turn, arguments.turns)
    result = {
        "what": "clips a second of making batches, T = 112, 2 persons of 25 joints",
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(device),
        "threads": arguments.threads,
        "load_average_before_and_after": [load_before[0], os.getloadavg()[0]],
        "turns": arguments.turns,
        "clips_a_turn": arguments.per_turn,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("skelnas", "torch", "numpy")},
        },
        "cases": cases,
        "float16_error": [measure_error(path) for path in arguments.caches],
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
