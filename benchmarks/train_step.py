"""Time a training step on a CPU, and the same without what makes it fast there.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json

Without: gradients stay in the order in which PyTorch hands them back, and freed memory goes back to
the system. Both take turns, each time in a process of its own; losses are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from about import about, publish

from skelnas.genotype import BUILT_IN
from skelnas.models import layers, network, norm
from skelnas.runtime import devices

SIZES = {"small": (6, 16, 32, 1), "paper's": (9, 36, 112, 2)}
"""Layers, channels, frames and threads."""

BATCH_SIZE, JOINTS, NUM_CLASSES = 32, 20, 10


def take_steps(size: str, with_all: bool) -> dict[str, float]:
    """Train for some steps; return the median of their seconds, and the last loss."""
    num_layers, channels, frames, threads = SIZES[size]
    torch.set_num_threads(threads)
    if with_all:
        devices.keep_freed_memory()
    else:
        for module in (layers, network, norm):
            module.with_channels_last_gradient = lambda x: x  # type: ignore[attr-defined]
    torch.manual_seed(0)
    model = network.Network(
        BUILT_IN["ntu_cs112se30"],
        in_channels=3,
        num_classes=NUM_CLASSES,
        channels=channels,
        num_layers=num_layers,
    ).train()
    devices.move(model, torch.device("cpu"))
    x = torch.randn(BATCH_SIZE, 3, frames, JOINTS).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH_SIZE) % NUM_CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seconds = []
    for _ in range(11):
        started = time.perf_counter()
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "loss": loss.item()}


def measure(size: str, turns: int) -> dict[str, Any]:
    """Let both take turns; return the seconds of each."""
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    for _ in range(turns):
        for name, steps in found.items():
            command = [sys.executable, __file__, "--one", size, *(["--without"] * (name != "with"))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            steps.append(json.loads(done.stdout))
    losses = [steps[0]["loss"] for steps in found.values()]
    if abs(losses[0] - losses[1]) > 0.01:
        sys.exit(f"they train differently: the losses are {losses[0]} and {losses[1]}")
    seconds = {name: [step["seconds"] for step in steps] for name, steps in found.items()}
    medians = [statistics.median(values) for values in seconds.values()]
    return {"size": size, **seconds, "times": medians[1] / medians[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--one", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(take_steps(arguments.one, not arguments.without)))
        return
    report = {**about("cpu"), "sizes": [measure(size, arguments.turns) for size in SIZES]}
    publish(report, arguments.out)


if __name__ == "__main__":
    main()
