"""A small cell with random weights, and whether the kernels compute what they should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skelnas.engine import reference
from skelnas.engine.triton.layout import CONNECTIONS, CONVOLUTIONS, NUM_INPUTS
from skelnas.engine.triton.mixed_cell import evaluate

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "conv_3x3",
    "sep_conv_3x3",
    "dil_conv_3x3",
    "se_connect",
)
"""One of each kind."""

NODES = 2

SHAPE = (3, 16, 19, 13)
"""N, C, T, V: odd sizes, and several tiles a clip."""


class Cell(NamedTuple):
    """What an engine is given."""

    inputs: tuple[Tensor, Tensor]
    mix: Tensor
    primitives: Sequence[str]
    weights: list[list[tuple[Tensor, ...]]]
    reduction: bool

    @property
    def leaves(self) -> list[Tensor]:
        """All that the result can be differentiated in."""
        weights = [tensor for edge in self.weights for op in edge for tensor in op]
        return [*self.inputs, self.mix, *weights]


def make_cell(
    primitives: Sequence[str],
    shape: Sequence[int],
    reduction: bool,
    num_nodes: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Cell:
    """Make a cell of numbers that are always the same, drawn in float32."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: Sequence[int]) -> Tensor:
        scale = max(torch.Size(shape[1:]).numel(), 1) ** -0.5 if shape[0] == channels else 1.0
        return (scale * torch.randn(tuple(shape), generator=generator)).to(device, dtype)

    channels = shape[1]
    sources = [source for node in range(num_nodes) for source in range(NUM_INPUTS + node)]
    weights = [
        [
            tuple(
                draw(each).requires_grad_()
                for each in shapes_of(op, channels, reduction and source < NUM_INPUTS)
            )
            for op in primitives
        ]
        for source in sources
    ]
    mix = draw((len(sources), len(primitives))).softmax(1).requires_grad_()
    return Cell(
        (draw(shape).requires_grad_(), draw(shape).requires_grad_()),
        mix, primitives, weights, reduction,
    )  # fmt: skip


def shapes_of(op: str, channels: int, halving: bool) -> list[tuple[int, ...]]:
    """Return the shapes of an operation's weights, as `skelnas.models.ops` makes them."""
    c = channels
    if op in CONNECTIONS and halving:
        return [(c // 2, c, 1, 1), (c - c // 2, c, 1, 1)]
    if op == "se_connect":
        hidden = max(c // 16, 1)
        return [(hidden, c), (c, hidden)]
    if op not in CONVOLUTIONS:
        return []
    size, _, stages, _ = CONVOLUTIONS[op]
    return [(c, 1, size, size), (c, c, 1, 1)] * stages or [(c, c, size, size)]


def largest_error(device: torch.device) -> float:
    """Return the largest error of a result or gradient of the kernels on a device.

    As a part of the norm of what the reference finds in float64.
    """
    errors = [0.0]
    for reduction in (False, True):
        found = []
        for dtype in (torch.float32, torch.float64):
            given = make_cell(PRIMITIVES, SHAPE, reduction, NODES, device, dtype)
            run = evaluate if dtype == torch.float32 else reference.cell
            out = run(given.inputs, given.mix, given.primitives, given.weights, reduction)
            upstream = torch.linspace(-1, 1, out.numel(), device=device, dtype=dtype).sin()
            gradients = torch.autograd.grad(
                out, given.leaves, upstream.view_as(out), allow_unused=True, materialize_grads=True
            )
            found.append([out.detach(), *gradients])
        errors += [
            ((one - other).norm() / other.norm().clamp_min(1e-12)).item()
            for one, other in zip(*found, strict=True)
        ]
    return max(errors, key=lambda error: float("inf") if error != error else error)
