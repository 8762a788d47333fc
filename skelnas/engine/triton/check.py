"""Check the kernels on a device against the reference, with small random cells.

    python -m skelnas.engine.triton.check DEVICE CELLS TF32

prints the largest error, without and perhaps with TF32; see `skelnas.engine.triton.checked`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from skelnas.engine import reference
from skelnas.engine.triton import Cells
from skelnas.engine.triton.layout import CONNECTIONS, CONVOLUTIONS
from skelnas.engine.triton.mixed_cell import evaluate
from skelnas.engine.wiring import NUM_INPUTS

SIZE = (3, 19, 13)
"""N, T, V: odd sizes, and several tiles per clip."""


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


def largest_error(device: torch.device, cells: Cells) -> float:
    """Return the largest error of the outputs and gradients of the kernels on a device.

    All widths and both kinds of cells are checked. Errors are relative to the norm of the
    reference's result in float64.
    """
    errors = [
        error
        for width in cells.widths
        for reduction in (False, True)
        for error in _errors(device, cells, width, reduction)
    ]
    return max(errors, key=lambda error: float("inf") if error != error else error)


def _errors(device: torch.device, cells: Cells, width: int, reduction: bool) -> list[float]:
    n, t, v = SIZE
    exact, coarse = (
        make_cell(cells.primitives, (n, width, t, v), reduction, cells.num_nodes, device, dtype)
        for dtype in (torch.float64, torch.float32)
    )
    expected = _differentiate(reference.cell, exact, exact.leaves)
    found = _differentiate(evaluate, coarse, coarse.leaves)
    for weight in coarse.leaves[3:]:  # other kernels
        weight.requires_grad_(False)
    found += _differentiate(evaluate, coarse, coarse.leaves[:3])
    return [
        ((one - other).norm() / other.norm().clamp_min(1e-12)).item()
        for one, other in zip(found, expected + expected[:4], strict=True)
    ]


def _differentiate(
    run: Callable[..., Tensor], cell: Cell, leaves: Sequence[Tensor]
) -> list[Tensor]:
    """Return a cell's output and the gradients of some leaves."""
    out = run(cell.inputs, cell.op_weights, cell.primitives, cell.weights, cell.reduction)
    upstream = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=out.dtype).sin()
    gradients = torch.autograd.grad(
        out, leaves, upstream.view_as(out), allow_unused=True, materialize_grads=True
    )
    return [out.detach(), *gradients]


def reason(failure: BaseException) -> str:
    """Return what failed in one line; what Triton cannot compile may be in a function called."""
    while _is_place(failure) and _is_place(failure.__cause__):
        failure = failure.__cause__
    first, *_, last = 2 * (str(failure).strip().splitlines() or [""])
    return f"{type(failure).__name__}: {last if _is_place(failure) else first}"


def _is_place(failure: BaseException | None) -> TypeGuard[BaseException]:
    """Return whether an error is Triton's for a line of a kernel: where, source and maybe why."""
    return type(failure).__name__ == "CompilationError"


def main() -> None:
    """Print pairs of whether TF32 was allowed and the largest error, as JSON."""
    device, cells, tf32 = torch.device(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "true"
    primitives, widths, num_nodes = cells
    errors = []
    for rounded in (False, True)[: 1 + tf32]:
        torch.backends.cuda.matmul.allow_tf32 = rounded
        try:
            errors.append((rounded, largest_error(device, Cells(primitives, widths, num_nodes))))
        except Exception as failure:  # whatever a compiler or driver raises
            sys.exit(reason(failure))
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
