"""Measure how far float32 searches drift apart: between engines, and the reference from itself.

    python benchmarks/divergence.py --out benchmarks/results/divergence.json

Several searches start from the same weights and use the same batches of random clips: the reference
engine, the fused engine, the reference with another memory layout, which changes the order of sums,
and the reference in float64. Each line has the distances of weights and alphas from those of the
reference, relative to how far the reference has moved since the start.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from about import about
from torch import Tensor

from skelnas.config import SearchSettings
from skelnas.data.dataset import Batch
from skelnas.nas.bilevel import Bilevel
from skelnas.nas.supernet import Supernet
from skelnas.primitives import SPACES


class Search:
    """A supernet that takes the steps of a search with default settings."""

    def __init__(self, engine: str, memory: torch.memory_format, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        supernet = Supernet(
            in_channels=3, num_classes=10, primitives=SPACES["sar"], channels=8, engine=engine
        )
        supernet.to(memory_format=memory).to(dtype)
        self.memory, self.dtype = memory, dtype
        self.bilevel = Bilevel(supernet, SearchSettings())

    def step(self, *batches: Batch) -> None:
        """Take one second-order step."""
        converted = (
            replace(batch, x=batch.x.to(self.dtype, memory_format=self.memory)) for batch in batches
        )
        self.bilevel.step(*converted, lr=0.015)

    def state(self) -> dict[str, Tensor]:
        """Return all weights and all alphas as two vectors."""
        parts = {"weights": self.bilevel.weights.tensors, "alphas": self.bilevel.alphas}
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
            Batch(
                torch.randn(shape, generator=generator),
                torch.randint(10, shape[:1], generator=generator),
                args.batch,
            )
            for _ in range(2)
        )
        for search in searches.values():
            search.step(training, validation)
        if step & (step - 1) and step != args.steps:  # only powers of two and the last step
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
        report = {**about("cpu"), "results": lines}
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
