"""Compare cells in the emulator with the reference; a process of its own, without the interpreter.

    python -m ptx '[{"shape": [2, 16, 4, 3], "primitives": ["conv_3x3"]}]'

prints a JSON list with the outcome of each cell. Needs `benchmarks` on the path.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from torch import Tensor

from ptx.emulation import emulated
from skelnas.engine import reference
from skelnas.engine.triton.check import Cell, make_cell
from skelnas.engine.triton.mixed_cell import evaluate
from skelnas.primitives import SPACES

CPU = torch.device("cpu")


def compare(
    shape: list[int],
    primitives: list[str] = SPACES["sar"],
    reduction: bool = False,
    nodes: int = 1,
    frozen: bool = False,
    barriers: bool = True,
    capability: tuple[int, int] = (9, 0),
    products: str | None = None,
) -> dict[str, Any]:
    """Compare a cell with the reference.

    Args:
        shape: of its inputs, [N, C, T, V].
        primitives, reduction, nodes: the cell.
        frozen: run it also without gradients of the weights, which takes other kernels.
        barriers: leave them in.
        capability: of the GPU that kernels are compiled for.
        products: instead of those of the tile sizes, see `Blocks`.

    Returns:
        The largest error, relative to the norm of each result, that of the reference in float32,
        and all races.
    """
    coarse, exact = (
        make_cell(primitives, shape, reduction, nodes, CPU, dtype)
        for dtype in (torch.float32, torch.float64)
    )
    with torch.no_grad():
        for one, other in zip(exact.leaves, coarse.leaves, strict=True):
            one.copy_(other)
    expected = differentiate(exact, reference.cell)
    rounding = largest_error(differentiate(coarse, reference.cell), expected)
    with emulated(tuple(capability), products, barriers) as emulator:
        found = differentiate(coarse, evaluate)
        for weight in coarse.leaves[3:]:
            weight.requires_grad_(False)
        found += differentiate(coarse, evaluate) if frozen else []
    expected += expected[:4] if frozen else []
    return {
        "error": largest_error(found, expected),
        "rounding": rounding,
        "races": dict(emulator.races),
        "launches": emulator.num_launches,
    }


def largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest distance of two tensors, relative to the norm of the expected one."""
    errors = [
        ((one - other).norm() / other.norm().clamp_min(1e-12)).item()
        for one, other in zip(found, expected, strict=True)
    ]
    return max(errors, key=lambda error: float("inf") if error != error else error)


def differentiate(cell: Cell, engine: Any) -> list[Tensor]:
    """Return a cell's output and the gradients of everything that needs one."""
    out = engine(cell.inputs, cell.op_weights, cell.primitives, cell.weights, cell.reduction)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().to(out.dtype)
    leaves = [leaf for leaf in cell.leaves if leaf.requires_grad]
    gradients = torch.autograd.grad(
        out, leaves, upstream.view_as(out), allow_unused=True, materialize_grads=True
    )
    return [out.detach(), *gradients]


def fill_new_memory() -> None:
    """Let new memory hold NaN, so that reading it before it is written shows."""

    def filling(make: Any) -> Any:
        def filled(*args: Any, **named: Any) -> Tensor:
            tensor: Tensor = make(*args, **named)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else 99)

        return filled

    torch.empty_like = filling(torch.empty_like)
    Tensor.new_empty = filling(Tensor.new_empty)  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=json.loads, help="the arguments of `compare`, for each cell")
    fill_new_memory()
    for cell in parser.parse_args().cells:
        print(json.dumps(compare(**cell)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
