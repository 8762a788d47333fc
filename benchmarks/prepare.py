"""Measure the speed of `skelnas prepare`: one file, a whole data set, more workers.

    python benchmarks/prepare.py parse --ntu RAW
    python benchmarks/prepare.py scale --ntu RAW --names ntu60-clips.txt.gz
    python benchmarks/prepare.py scale --kinetics RAW

RAW is a folder with real recordings; a few are enough. `parse` times one core on these files.
`scale` makes a whole data set of symbolic links to them, under its official names, and runs the
installed command on it. Each prints a line of JSON, and `--out` appends it to a file.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from watching import watch

from skelnas.data.prepare import report_path
from skelnas.data.readers.bodies import Detections, choose_persons
from skelnas.data.readers.ntu_file import NUM_JOINTS, parse, parse_by_line


def parse_needed_tokens(data: bytes, where: str) -> Detections:
    """Split only x, y and z off each joint's line: the fastest parser without NumPy.

    It checks nothing: a broken file gives a partial result or any exception.
    """
    lines = iter(data.splitlines())
    num_frames = int(next(lines))
    frames, slots, bodies, joints = [], [], [], []
    for frame in range(num_frames):
        for slot in range(int(next(lines))):
            frames.append(frame)
            slots.append(slot)
            bodies.append(int(next(lines).split(None, 1)[0]))
            for line in itertools.islice(lines, 1, 1 + NUM_JOINTS):
                joints += line.split(None, 3)[:3]
    return Detections(
        num_frames,
        np.array(frames),
        np.array(slots),
        np.array(bodies),
        np.array(list(map(float, joints)), np.float32).reshape(-1, NUM_JOINTS, 3),
    )


PARSERS: dict[str, Callable[[bytes, str], Detections]] = {
    "in bulk": parse,
    "needed tokens": parse_needed_tokens,
    "line by line": parse_by_line,
}
"""The parsers to compare; `skelnas prepare ntu` uses the first."""


def measure_parse(folder: Path, rounds: int) -> dict[str, Any]:
    """Time the parsers and the body rule in turns, in milliseconds of one core per file."""
    files = [(path.read_bytes(), path.name) for path in sorted(folder.rglob("*.skeleton"))]
    for data, name in files:
        first, *others = (parse_one(data, name) for parse_one in PARSERS.values())
        for other in others:
            for one, another in zip(vars(first).values(), vars(other).values(), strict=True):
                np.testing.assert_array_equal(one, another, name)
    parsed = [parse(data, name) for data, name in files]
    times: dict[str, list[float]] = {name: [] for name in [*PARSERS, "rule for bodies"]}
    for _ in range(rounds):
        for name, parse_one in PARSERS.items():
            times[name].append(_cpu_ms(lambda file, f=parse_one: f(*file), files))
        rule = _cpu_ms(lambda detections: choose_persons(detections, "denoise", ""), parsed)
        times["rule for bodies"].append(rule)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return {
        "files": len(files),
        "mean_kilobytes": round(sum(len(data) for data, _ in files) / len(files) / 1000),
        "rounds": rounds,
        "cpu_ms_a_file": medians,
        "spread_ms": {name: round(max(ms) - min(ms), 3) for name, ms in times.items()},
        "parse_and_rule_ms": round(medians["in bulk"] + medians["rule for bodies"], 3),
    }


def _cpu_ms(function: Callable[[Any], object], inputs: list[Any]) -> float:
    started = time.process_time()
    for one in inputs:
        function(one)
    return 1000 * (time.process_time() - started) / len(inputs)


def link_ntu(raw: Path, names: Iterable[str], folder: Path) -> None:
    """Link every official name to one of the real files, in turn."""
    files = itertools.cycle(sorted(raw.rglob("*.skeleton")))
    for name, file in zip(names, files, strict=False):
        (folder / f"{name}.skeleton").symlink_to(file.resolve())


def link_kinetics(raw: Path, count: int, folder: Path) -> None:
    """Make `count` links to real validation clips, and their label file."""
    labels = json.loads((raw / "kinetics_val_label.json").read_bytes())
    files = sorted((raw / "val").glob("*.json"))
    (folder / "val").mkdir()
    entries = {}
    for number in range(count):
        file = files[number % len(files)]
        name = f"{file.stem}-{number:06}"
        (folder / "val" / f"{name}.json").symlink_to(file.resolve())
        entries[name] = labels[file.stem]
    (folder / "kinetics_val_label.json").write_text(json.dumps(entries))


def measure_prepare(
    source: str, folder: Path, out: Path, workers: int, flags: list[str]
) -> dict[str, Any]:
    """Run the installed command and monitor all of its processes."""
    skelnas = Path(sys.executable).with_name("skelnas")
    command = [skelnas, "prepare", source, folder, out, "--force", "--workers", workers, *flags]
    before = os.getloadavg()[0]
    run = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watched = watch(run)
    if run.returncode:
        raise SystemExit(f"skelnas prepare {source} ended with exit code {run.returncode}")
    report = json.loads(report_path(out).read_text())
    return {
        "workers": workers,
        "flags": flags,
        "clips": report["clips"],
        "broken": len(report["failed"]),
        "left_out_on_purpose": len(report["skipped"]),
        "splits": report["splits"],
        "seconds": round(watched.seconds, 1),
        "files_a_second": round(report["clips"] / watched.seconds),
        "peak_megabytes": round(watched.peak_bytes / 1e6),
        "cpu_seconds": round(watched.cpu_seconds, 1),
        "cpu_seconds_of_others": round(watched.other_cpu_seconds, 1),
        "cache_megabytes": round(out.stat().st_size / 1e6),
        "load_before": round(before, 2),
    }


def measure_scale(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare a whole data set of links with each number of workers."""
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        folder, out = Path(work, "raw"), Path(work, "cache.h5")
        folder.mkdir()
        if options.ntu:
            source = "ntu"
            names = gzip.decompress(options.names.read_bytes()).decode().split()[: options.limit]
            link_ntu(options.ntu, names, folder)
        else:
            source = "kinetics"
            link_kinetics(options.kinetics, options.limit or 10_000, folder)
        runs = [
            measure_prepare(source, folder, out, workers, options.flags)
            for workers in options.workers
        ]
    return {"source": source, "runs": runs}


def about() -> dict[str, Any]:
    """Return where, when and with which versions this was measured."""
    cpu = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = facts.read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    versions = {name: version(name) for name in ("skelnas", "numpy", "h5py")}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": f"{cpu}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **versions},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["parse", "scale"])
    parser.add_argument("--ntu", type=Path, help="folder with .skeleton files")
    parser.add_argument("--kinetics", type=Path, help="folder with val/ and its label file")
    parser.add_argument("--names", type=Path, help="official clip names, one per line, .txt.gz")
    parser.add_argument("--limit", type=int, help="maximum number of links")
    parser.add_argument("--workers", type=int, nargs="+", default=[os.cpu_count()])
    parser.add_argument(
        "--flags", nargs="*", default=[], help="flags of prepare without --, such as resume"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", type=Path, help="folder for links and caches (2 GB for NTU60)")
    parser.add_argument("--out", type=Path, help="JSON lines file to add the result to")
    options = parser.parse_args()
    options.flags = [f"--{flag}" for flag in options.flags]
    if bool(options.ntu) == bool(options.kinetics):
        parser.error("expected one of --ntu and --kinetics")
    if options.what == "scale" and options.ntu and not options.names:
        parser.error("scale --ntu: expected --names")
    if options.what == "parse":
        result = measure_parse(options.ntu, options.rounds)
    else:
        result = measure_scale(options)
    line = json.dumps({"what": options.what, **about(), **result})
    print(line)
    if options.out:
        with options.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
