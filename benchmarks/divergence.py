"""How far float32 searches drift apart: the engines, and the reference from itself.

    python benchmarks/divergence.py --out benchmarks/results/divergence.json

Several searches start from the same weights and see the same batches of random clips. One is the
reference engine; the others are the fused engine, the reference with its images in another order
of memory, so that sums are taken in another order, and the reference in float64. Each line says
how far the weights and the alphas of each are from those of the reference, relative to how far
the reference has moved since the start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas import architect
from skelnas.genotype import SPACES
from skelnas.job import descend
from skelnas.models.supernet import Supernet
from skelnas.search import ALPHA_BETAS

Batch = tuple[Tensor, Tensor]


class Search:
    """A supernet that takes the steps of a search, with its settings at their defaults."""

    def __init__(self, engine: str, memory: torch.memory_format, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.net = Supernet(
            in_channels=3, num_classes=10, primitives=SPACES["sar"], channels=8, engine=engine
        )
        self.net.to(memory_format=memory).to(dtype)
        self.memory, self.dtype = memory, dtype
        self.weights = [weight for _, weight in self.net.named_weights()]
        self.alphas = list(self.net.alphas.values())
        self.sgd = torch.optim.SGD(self.weights, lr=0.015, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(self.alphas, 3e-4, betas=ALPHA_BETAS, weight_decay=1e-3)

    def loss(self, batch: Batch) -> Tensor:
        """Evaluate the loss of a batch."""
        x, labels = batch
        return F.cross_entropy(self.net(x.to(self.dtype, memory_format=self.memory)), labels)

    def step(self, training: Batch, validation: Batch) -> None:
        """Move alphas and weights by one second-order step."""
        buffers = [self.sgd.state[weight].get("momentum_buffer") for weight in self.weights]
        virtual = architect.VirtualStep(0.015, 0.9, buffers if buffers[0] is not None else None, 3e-4)  # fmt: skip  # noqa: E501
        losses = partial(self.loss, training), partial(self.loss, validation)
        found = architect.second_order(*losses, self.weights, self.alphas, virtual)
        for alpha, gradient in zip(self.alphas, found.alphas, strict=True):
            alpha.grad = gradient
        self.adam.step()
        descend(self.sgd, self.loss(training), 0.015, 5.0)

    def state(self) -> dict[str, Tensor]:
        """Return all weights and all alphas as two vectors."""
        parts = {"weights": self.weights, "alphas": self.alphas}
        return {
            name: torch.cat([t.detach().double().flatten() for t in tensors])
            for name, tensors in parts.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=26)
    parser.add_argument("--joints", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    last, first, single, double = (
        torch.channels_last, torch.contiguous_format, torch.float32, torch.float64,
    )  # fmt: skip
    searches = {
        "reference": Search("reference", last, single),
        "fused": Search("fused", last, single),
        "reference, other order of sums": Search("reference", first, single),
        "reference, float64": Search("reference", last, double),
    }
    start = searches["reference"].state()
    generator = torch.Generator().manual_seed(1)
    shape = (args.batch, 3, args.frames, args.joints)
    lines: list[dict[str, Any]] = []
    for step in range(1, args.steps + 1):
        training, validation = (
            (
                torch.randn(shape, generator=generator),
                torch.randint(10, shape[:1], generator=generator),
            )
            for _ in range(2)
        )
        for search in searches.values():
            search.step(training, validation)
        if step & (step - 1) and step != args.steps:  # powers of two, and the last
            continue
        states = {name: search.state() for name, search in searches.items()}
        reference = states.pop("reference")
        moved = {part: (reference[part] - start[part]).norm() for part in start}
        line: dict[str, Any] = {"step": step}
        for name, state in states.items():
            line[name] = {
                part: ((state[part] - reference[part]).norm() / moved[part]).item()
                for part in start
            }
        lines.append(line)
        print(json.dumps(line), flush=True)
    if args.out:
        report = {
            "command": " ".join(["python", "benchmarks/divergence.py", *sys.argv[1:]]),
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {name: version(name) for name in ("skelnas", "torch")},
            "threads": args.threads,
            "results": lines,
        }
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
