"""Measure how much `--float16` and `--compress` save, and how much they slow down reading.

    python benchmarks/storage.py --ntu RAW --rounds 5

RAW is a folder with real NTU RGB+D files. They are written repeatedly, under different names,
until the cache has --clips clips; then it is read in order, and clip by clip in random order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from prepare import about

from skelnas.data.cache import Cache, CacheWriter, Storage
from skelnas.data.cache.storage import clip_checksum
from skelnas.data.readers.base import Recording
from skelnas.data.readers.ntu import Ntu

STORAGES = {
    "float32": Storage(),
    "float16": Storage(float16=True),
    "float32 gzip": Storage(compress=True),
    "float16 gzip": Storage(float16=True, compress=True),
}


def write(path: Path, source: Ntu, clips: list[Recording], count: int, storage: Storage) -> None:
    with CacheWriter(
        path, source="ntu", rule={}, layout=source.layout, max_persons=2, storage=storage
    ) as writer:
        for number in range(count):
            clip = clips[number % len(clips)]
            writer.add(replace(clip, name=f"{clip.name}-{number}"))
        labels = writer.table().labels
        writer.finish(classes=source.classes(labels), splits=source.splits(writer.table()))


def cpu_seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def measure(path: Path, write_cache: Callable[[], None], num_bytes: int) -> dict[str, Any]:
    """Time writing, reading everything in order, and reading single clips in random order."""
    written = cpu_seconds(write_cache)
    with Cache.open(path) as cache:
        order = np.random.default_rng(0).permutation(len(cache))
        whole = cpu_seconds(lambda: [cache.load(clips) for clips in cache.read_ranges()])
        single = cpu_seconds(lambda: [cache.read(int(index)) for index in order[:500]])
    return {
        "megabytes": path.stat().st_size / 1e6,
        "write_megabytes_a_second": num_bytes / 1e6 / written,
        "read_megabytes_a_second": num_bytes / 1e6 / whole,
        "random_clip_ms": 1000 * single / min(500, len(order)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ntu", type=Path, required=True, help="folder with .skeleton files")
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder for the caches")
    parser.add_argument("--out", type=Path, help="JSON lines file to add the result to")
    options = parser.parse_args()
    source = Ntu(options.ntu)
    clips = [source.read(item) for item in source.catalogue().items]
    num_bytes = sum(clips[n % len(clips)].poses.nbytes for n in range(options.clips))
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in STORAGES}
    checksums: list[float] = []
    stored = [Storage().to_rows(clip) for clip in clips]
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        path = Path(work, "cache.h5")
        for _ in range(options.rounds):
            for name, storage in STORAGES.items():

                def write_cache(storage: Storage = storage) -> None:
                    write(path, source, clips, options.clips, storage)

                rounds[name].append(measure(path, write_cache, num_bytes))
            started = time.process_time()
            for rows in stored:
                clip_checksum(*rows)
            checksums.append(1e6 * (time.process_time() - started) / len(stored))
    medians = {
        name: {
            key: float(f"{statistics.median(result[key] for result in results):.3g}")
            for key in results[0]
        }
        for name, results in rounds.items()
    }
    sizes = {"clips": options.clips, "megabytes_as_float32": round(num_bytes / 1e6)}
    result = {"storage": medians, "checksum_microseconds_a_clip": statistics.median(checksums)}
    line = json.dumps({"what": "storage", **about(), **sizes, **result})
    print(line)
    if options.out:
        with options.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
