"""Measure how the gradient of the alphas changes if raw outputs are stored in bfloat16.

    python benchmarks/rounded_outputs.py

Raw outputs, those that batch normalisation reads, are most of what a forward pass keeps. Here the
reference engine computes in float64 and rounds only them; their gradients are not rounded. Printed
is the cosine of the alphas' gradient to that without rounding, and beside it that of float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from about import about
from search_step import Trial, cosine
from torch import Tensor

from skelnas.engine import reference


class _Rounded(torch.autograd.Function):
    """Rounds to bfloat16, but not the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.bfloat16().to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@contextmanager
def rounded_outputs() -> Iterator[None]:
    """Round all raw outputs inside the context."""
    batch_norm = reference.batch_norm
    reference.batch_norm = lambda y: batch_norm(_Rounded.apply(y))
    try:
        yield
    finally:
        reference.batch_norm = batch_norm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--frames", type=int, default=26)
    parser.add_argument("--joints", type=int, default=20)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 8], help="before")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.device, args.space = "cpu", "sar"
    torch.set_num_threads(args.threads)
    print(json.dumps(about("cpu")))
    for steps in args.steps:
        trial = Trial("reference", args, args.batch, "second")
        for _ in range(steps):
            trial.step()
        exact = trial.in_float64()
        for order in ("first", "second"):
            truth, _ = exact.alpha_gradient(order)
            single, _ = trial.alpha_gradient(order)
            with rounded_outputs():
                rounded, _ = exact.alpha_gradient(order)
            print(
                f"{order} order after {steps} steps: float32 {cosine(single, truth):.4f}, "
                f"rounded outputs {cosine(rounded, truth):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
