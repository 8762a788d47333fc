"""Check the kernels on a device against the reference, with a small random cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skelnas.engine import reference
from skelnas.engine.triton.layout import CONNECTIONS, CONVOLUTIONS
from skelnas.engine.triton.mixed_cell import evaluate
from skelnas.engine.wiring import NUM_INPUTS

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
"""N, C, T, V: odd sizes, and several tiles per clip."""


class Cell(NamedTuple):
    """The arguments of an engine."""

    inputs: tuple[Tensor, Tensor]
    op_weights: Tensor
    primitives: Sequence[str]
    weights: list[list[tuple[Tensor, ...]]]
    reduction: bool

    @property
    def leaves(self) -> list[Tensor]:
        """All tensors with a gradient."""
        weights = [tensor for edge in self.weights for op in edge for tensor in op]
        return [*self.inputs, self.op_weights, *weights]


def make_cell(
    primitives: Sequence[str],
    shape: Sequence[int],
    reduction: bool,
    num_nodes: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Cell:
    """Make a cell of fixed random numbers, drawn in float32."""
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
                for each in weight_shapes(op, channels, reduction and source < NUM_INPUTS)
            )
            for op in primitives
        ]
        for source in sources
    ]
    op_weights = draw((len(sources), len(primitives))).softmax(1).requires_grad_()
    return Cell(
        (draw(shape).requires_grad_(), draw(shape).requires_grad_()),
        op_weights, primitives, weights, reduction,
    )  # fmt: skip


def weight_shapes(op: str, channels: int, strided: bool) -> list[tuple[int, ...]]:
    """Return the shapes of an operation's weights, the same as in `skelnas.models.ops`."""
    c = channels
    if op in CONNECTIONS and strided:
        return [(c // 2, c, 1, 1), (c - c // 2, c, 1, 1)]
    if op == "se_connect":
        hidden = max(c // 16, 1)
        return [(hidden, c), (c, hidden)]
    if op not in CONVOLUTIONS:
        return []
    size, _, stages, _ = CONVOLUTIONS[op]
    return [(c, 1, size, size), (c, c, 1, 1)] * stages or [(c, c, size, size)]


def largest_error(device: torch.device) -> float:
    """Return the largest error of the outputs and gradients of the kernels on a device.

    Errors are relative to the norm of the reference's result in float64.
    """
    errors = [0.0]
    for reduction in (False, True):
        found = []
        for dtype in (torch.float32, torch.float64):
            cell = make_cell(PRIMITIVES, SHAPE, reduction, NODES, device, dtype)
            run = evaluate if dtype == torch.float32 else reference.cell
            out = run(cell.inputs, cell.op_weights, cell.primitives, cell.weights, reduction)
            upstream = torch.linspace(-1, 1, out.numel(), device=device, dtype=dtype).sin()
            gradients = torch.autograd.grad(
                out, cell.leaves, upstream.view_as(out), allow_unused=True, materialize_grads=True
            )
            found.append([out.detach(), *gradients])
        errors += [
            ((one - other).norm() / other.norm().clamp_min(1e-12)).item()
            for one, other in zip(*found, strict=True)
        ]
    return max(errors, key=lambda error: float("inf") if error != error else error)
