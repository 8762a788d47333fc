"""Time a step of the search with each engine, and check that all engines agree.

    python benchmarks/search_step.py --out benchmarks/results/search_step.json

Every engine that runs here gets the same supernet, batches and optimiser state. They take turns, so
that other work on the machine slows all of them alike. A speed is printed only if loss and
first-order gradient of the alphas agree, and if after the timed steps another one changes weights
and alphas as the reference does; recorded steps are compared with the same engine's eager ones. The
full gradient of the step is compared with that of the reference
in float64 and reported, since a finite difference in float32 is less accurate.

Memory is the peak of a separate process that takes a few steps, minus what it used before (on a
CPU: Linux only). Launches are the operations that PyTorch dispatches, including views (CPU), or the
kernels that run (CUDA), in one step. The floor is the longer of two times: the step's arithmetic at
the measured rate of a large matrix product, and its traffic at that of a large copy.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from about import about
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from skelnas.config import Order, SearchSettings
from skelnas.data.dataset import Batch
from skelnas.engine import ENGINES, triton
from skelnas.nas.bilevel import NUM_WARMUP_STEPS, Bilevel
from skelnas.nas.supernet import Supernet
from skelnas.primitives import SPACES
from skelnas.runtime import devices

COMPILED = "reference, torch.compile "
"""Prefix of the name of the compiled reference; its mode follows. That of `max-autotune` records
CUDA graphs of its own."""
RECORDED = ", CUDA graph"
"""Suffix of an engine's name if its step is recorded."""
LR = 0.015
"""Learning rate of w at the start of a search."""

PASSES: dict[Order, tuple[int, int]] = {"first": (2, 2), "second": (5, 3)}
"""Forward passes of a step, and how many of their backward passes need weight gradients."""

LARGEST_DIFFERENCE = {"weights": 0.1, "alphas": 0.6}
"""Between the same step of two engines, relative to its length. In the first step, reference and
fused engine differ by 0.02 and 0.27: Adam divides small gradients by their size."""

ACCESSES_A_CELL = 280
"""Tensors [N, C, T, V] that both passes of a normal cell must write or read, if only the four raw
outputs of each edge are stored: 14 edges, 4 outputs, written once and read four times."""


class Trial:
    """A supernet with one engine, its optimisers and its batches."""

    def __init__(
        self, engine: str, args: argparse.Namespace, batch_size: int, order: Order
    ) -> None:
        self.device = torch.device(args.device)
        torch.manual_seed(0)
        supernet = Supernet(
            in_channels=3,
            num_classes=60,
            primitives=SPACES[args.space],
            channels=args.channels,
            joints=args.joints,
            engine=engine.split(",")[0],
        )
        devices.move(supernet, self.device)
        self.settings = SearchSettings(order=order, cuda_graphs=engine.endswith(RECORDED))
        self.bilevel = Bilevel(supernet, self.settings)
        shape = (batch_size, 3, args.frames, args.joints)
        self.batches = [
            Batch(
                torch.randn(shape).to(self.device),
                torch.randint(60, (batch_size,)).to(self.device),
                batch_size,
            )
            for _ in range(2)
        ]
        if engine.startswith(COMPILED):
            supernet.compile(mode=engine.removeprefix(COMPILED))

    def alpha_gradient(self, order: Order) -> tuple[Tensor, Tensor]:
        """Return the gradient of all alphas as one vector, and the validation loss."""
        self.bilevel.settings = SearchSettings(order=order)
        result = self.bilevel.architecture_gradient(*self.batches, lr=LR)
        self.bilevel.settings = self.settings
        return torch.cat([alpha.flatten() for alpha in result.alphas]), result.validation_loss

    def in_float64(self) -> Trial:
        """Return a copy in float64."""
        trial = copy.copy(self)
        supernet = copy.deepcopy(self.bilevel.supernet).double()
        trial.bilevel = Bilevel(supernet, self.settings)
        trial.batches = [replace(batch, x=batch.x.double()) for batch in trial.batches]
        return trial

    def step(self) -> None:
        """Take one step."""
        self.bilevel.step(*self.batches, lr=LR)

    def copy_state(self, other: Trial) -> None:
        """Continue from where another trial is."""
        ours, theirs = self.bilevel, other.bilevel
        with torch.no_grad():
            ours.weights.values.copy_(theirs.weights.values)
            ours.weight_optimizer.velocity.copy_(theirs.weight_optimizer.velocity)
            for alpha, value in zip(ours.alphas, theirs.alphas, strict=True):
                alpha.copy_(value)
        ours.alpha_optimizer.load_state_dict(copy.deepcopy(theirs.alpha_optimizer.state_dict()))

    def parameters(self) -> dict[str, Tensor]:
        """Return copies of all weights and of all alphas, each as one vector."""
        alphas = torch.cat([alpha.detach().flatten() for alpha in self.bilevel.alphas])
        return {"weights": self.bilevel.weights.values.clone(), "alphas": alphas}

    def warm(self) -> None:
        """Take the steps that are slower than later ones."""
        for _ in range(NUM_WARMUP_STEPS + 1 if self.settings.cuda_graphs else 1):
            self.step()

    def seconds(self) -> float:
        """Take one step, wait for the device and return the time, on CUDA by its own clock."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self.step()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1000
        started = time.perf_counter()
        self.step()
        return time.perf_counter() - started


def measure_engines(
    args: argparse.Namespace, batch_size: int, order: Order
) -> list[dict[str, Any]]:
    """Compare and time all engines in turns; return one record an engine."""
    cells = triton.Cells(SPACES[args.space], tuple(args.channels * n for n in (1, 2, 4)), 4)
    why_not = triton.why_not(torch.device(args.device), cells, tf32=False)
    engines = ["reference", *args.engine]
    engines = [engine for engine in ENGINES if engine in engines]
    if why_not and "triton" in engines:
        print(f"without the Triton engine: {why_not}", file=sys.stderr)
        engines.remove("triton")
    names = [*engines, *(COMPILED + mode for mode in args.compile)]
    if args.device == "cuda":
        names += [f"{engine}{RECORDED}" for engine in engines]
    trials = {name: Trial(name, args, batch_size, order) for name in names}
    expected, expected_loss = trials["reference"].alpha_gradient("first")
    truth, _ = trials["reference"].in_float64().alpha_gradient(order)
    records = []
    for name, trial in trials.items():
        gradient, loss = trial.alpha_gradient("first")
        if abs(loss - expected_loss) > 1e-4 or cosine(gradient, expected) < 0.9999:
            sys.exit(
                f"{name} computes something else: loss {loss:.6f} instead of {expected_loss:.6f}, "
                f"cosine of the first-order gradient {cosine(gradient, expected):.6f}"
            )
        gradient, _ = trial.alpha_gradient(order)
        records.append({"engine": name, "cosine_to_float64": cosine(gradient, truth)})
    warm_alike(trials)
    times = time_in_turns(trials, args.turns)
    check_steps(trials)
    reference = statistics.median(times["reference"])
    for record in records:
        seconds = times[record["engine"]]
        record |= {
            "batch_size": batch_size,
            "order": order,
            "seconds": statistics.median(seconds),
            "p20_p50_p80": np.percentile(seconds, (20, 50, 80)).tolist(),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "times_reference": reference / statistics.median(seconds),
            "times_reference_fastest": min(times["reference"]) / min(seconds),
            "launches": count_launches(trials[record["engine"]]),
        }
    del trials
    for record in records:
        record["peak_bytes"] = peak_in_a_process(args, record["engine"], batch_size, order)
    return records


def warm_alike(trials: dict[str, Trial]) -> None:
    """Let all trials take the same number of steps before they are timed."""
    recorded = any(trial.settings.cuda_graphs for trial in trials.values())
    for trial in trials.values():
        for _ in range(NUM_WARMUP_STEPS + 1 if recorded else 1):
            trial.step()


def time_in_turns(trials: dict[str, Trial], turns: int) -> dict[str, list[float]]:
    """Let trials take turns; return the seconds of each step."""
    times: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(turns):
        for name, trial in trials.items():
            times[name].append(trial.seconds())
    return times


def check_steps(trials: dict[str, Trial]) -> None:
    """Compare one more step of each engine, after those that were timed, with another's.

    A recorded engine is compared with its eager twin, and the others with the reference.
    """
    for name, trial in trials.items():
        twin = name.removesuffix(RECORDED)
        other = trials["reference" if twin == name else twin]
        if other is trial:
            continue
        other.copy_state(trial)
        start = trial.parameters()
        trial.step()
        other.step()
        found, expected = trial.parameters(), other.parameters()
        for kind, limit in LARGEST_DIFFERENCE.items():
            length = (expected[kind] - start[kind]).norm()
            difference = ((found[kind] - expected[kind]).norm() / length).item()
            if not difference <= limit:
                sys.exit(f"{name} takes another step: {kind} differ by {difference:.2f} of it")


def cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine of the angle between two vectors."""
    return F.cosine_similarity(one.double(), other.double(), dim=0).item()


def count_launches(trial: Trial) -> int:
    """Count the kernels (CUDA) or dispatched operations (elsewhere) of one step."""
    cuda = trial.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CUDA if cuda else kind.CPU]) as profile:
        trial.step()
    if cuda:
        return sum(event.device_type.name == "CUDA" for event in profile.events())
    return sum(event.name.startswith("aten::") for event in profile.events())


def peak_in_a_process(args: argparse.Namespace, engine: str, batch_size: int, order: Order) -> int:
    """Run this program again, to take two steps with one engine and print its peak memory."""
    command = [sys.executable, __file__, "--peak-of", engine, "--batch", str(batch_size)]
    for name in ("device", "threads", "channels", "frames", "joints", "space"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run([*command, "--order", order], capture_output=True, text=True, check=True)
    return int(done.stdout)


def peak_of(args: argparse.Namespace) -> int:
    """Return the peak memory of steps in bytes, without weights, batches and PyTorch itself."""
    trial = Trial(args.peak_of, args, args.batch[0], args.order[0])
    if trial.device.type == "cuda":
        before = torch.cuda.memory_allocated(trial.device)
        trial.warm()
        trial.step()
        return torch.cuda.max_memory_allocated(trial.device) - before
    before = _status("VmRSS")
    trial.step()
    trial.step()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """Read a memory figure of this process, in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure_floor(args: argparse.Namespace, batch_size: int, order: Order) -> dict[str, float]:
    """Measure the two rates of the device, and derive the time that no engine can beat."""
    device = torch.device(args.device)
    a = torch.randn(2048, 2048, device=device)
    rate = 2 * 2048**3 / fastest(lambda: a @ a, device)
    bandwidth = measure_bandwidth(device)

    trial = Trial("reference", args, batch_size, order)
    with FlopCounterMode(display=False) as counter:
        trial.bilevel.supernet(trial.batches[0].x)
    forwards, with_weights = PASSES[order]
    flops = counter.get_total_flops() * (2 * forwards + with_weights)
    pixels = batch_size * args.frames * args.joints
    traffic = 4 * ACCESSES_A_CELL * pixels * args.channels * (2 + 4 / 2) * forwards
    return {
        "flops_per_second": rate,
        "bytes_per_second": bandwidth,
        "step_flops": flops,
        "step_bytes": traffic,
        "floor_seconds": max(flops / rate, traffic / bandwidth),
    }


def measure_bandwidth(device: torch.device) -> float:
    """Return the bytes that a large copy reads and writes in a second."""
    big = torch.empty(64 * 2**20, device=device)
    return 2 * big.nbytes / fastest(big.clone, device)


def fastest(work: Callable[[], Tensor], device: torch.device, turns: int = 10) -> float:
    """Return the shortest of several times that some work takes."""
    times = []
    for _ in range(turns):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--order", nargs="+", choices=list(PASSES), default=list(PASSES))
    parser.add_argument("--space", default="sar", choices=list(SPACES))
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--frames", type=int, default=112)
    parser.add_argument("--joints", type=int, default=50)
    parser.add_argument("--turns", type=int, help="timed steps; 30 on CUDA, else 5")
    parser.add_argument(
        "--engine", nargs="+", choices=list(ENGINES), default=list(ENGINES),
        help="engines to compare with the reference",
    )  # fmt: skip
    parser.add_argument(
        "--compile", nargs="+", choices=["default", "reduce-overhead", "max-autotune"], default=[],
        metavar="MODE", help="also the reference, compiled in these modes of torch.compile",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.turns = args.turns or (30 if args.device == "cuda" else 5)
    torch.set_num_threads(args.threads)
    if 1 in args.batch:
        parser.error(
            "--batch 1: normalised over one clip, each channel's mean is 0, so the logits do not "
            "depend on it and gradients are nothing but rounding"
        )
    if args.peak_of:
        print(peak_of(args))
        return

    report: dict[str, Any] = {
        **about(args.device),
        "shape": [3, args.frames, args.joints],
        "channels": args.channels,
        "results": [],
    }
    for order in args.order:
        for batch_size in args.batch:
            floor = measure_floor(args, batch_size, order)
            for record in measure_engines(args, batch_size, order):
                record["share_of_floor"] = floor["floor_seconds"] / record["seconds"]
                report["results"].append(record | {"floor": floor})
                print(
                    f"{order} order, batch {batch_size}, {record['engine']}: "
                    f"{record['seconds']:.2f} s ({record['fastest']:.2f} to "
                    f"{record['slowest']:.2f}), {record['times_reference']:.2f} x the reference, "
                    f"peak {record['peak_bytes'] / 2**20:,.0f} MiB, "
                    f"{record['launches']:,} launches, "
                    f"{record['share_of_floor']:.0%} of the floor's speed, "
                    f"cosine to float64 {record['cosine_to_float64']:.5f}"
                )
            if args.out:
                args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
