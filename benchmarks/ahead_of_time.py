"""List the kernel launches of a cell and compile the kernels ahead of time, without a GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from skelnas.engine.triton import blocks, launches
from skelnas.engine.triton.blocks import Blocks, for_capability
from skelnas.engine.triton.check import make_cell
from skelnas.engine.triton.mixed_cell import evaluate

Capability = tuple[int, int]

TYPES = {torch.float32: "*fp32", torch.uint8: "*u8"}


class Launch(NamedTuple):
    """A kernel with its grid and arguments."""

    kernel: Any
    grid: tuple[int, ...]
    blocks: Blocks
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self.kernel.fn.__name__)

    @property
    def variant(self) -> tuple[Any, ...]:
        """What determines the binary: launches of one variant share it."""
        return self.name, self.blocks.warps, self.blocks.stages, *sorted(self.constants.items())

    @property
    def constants(self) -> dict[str, Any]:
        """The arguments that are compile-time constants."""
        params = self.kernel.params
        return {each.name: self.arguments[each.name] for each in params if each.is_constexpr}

    @property
    def signature(self) -> dict[str, str]:
        """The type of each argument."""
        values = {each.name: self.arguments[each.name] for each in self.kernel.params}
        types = {
            name: TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
            for name, value in values.items()
        }
        return types | dict.fromkeys(self.constants, "constexpr")


class Compiled(NamedTuple):
    """What a compiled kernel needs.

    Attributes:
        registers: registers per thread.
        spilled: bytes per thread that do not fit into the registers.
        shared: bytes of shared memory per program.
    """

    registers: int
    spilled: int
    shared: int


def source_of(launch: Launch) -> ASTSource:
    """Return the source of a kernel, specialised as for a launch."""
    names = launch.kernel.arg_names
    aligned = {
        name
        for name, value in launch.arguments.items()
        if isinstance(value, Tensor) and value.data_ptr() % 16 == 0
    }
    return ASTSource(
        launch.kernel,
        launch.signature,
        {(names.index(name),): value for name, value in launch.constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )


def compile_for(launch: Launch, capability: Capability) -> Compiled:
    """Compile a kernel for a GPU, which need not be present."""
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    binary = triton.compile(source_of(launch), target=target, options=launch.blocks.options)
    return Compiled(*_usage(binary.asm["cubin"]), shared=binary.metadata.shared)


def _usage(binary: bytes) -> tuple[int, int]:
    """Return the registers and stack bytes per thread, from cuobjdump."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        done = subprocess.run([tool, "-res-usage", file.name], capture_output=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout.decode())
    if not found:
        raise ValueError(f"{tool} reports no usage: {done.stdout!r}")
    return int(found[1]), int(found[2])


def sizes_of(capability: Capability, products: str | None) -> Callable[[int, object], Blocks]:
    """Return what chooses tile sizes as on a GPU of this capability, maybe with other products."""

    def choose(channels: int, device: object) -> Blocks:
        size = for_capability(channels, capability)
        return size._replace(products=products or size.products)

    return choose


@contextmanager
def recording(capability: Capability, products: str | None = None) -> Iterator[list[Launch]]:
    """Record launches, as on a GPU of this capability, instead of running them.

    Args:
        capability: of the GPU.
        products: replace those of the tile sizes, see `Blocks`.
    """
    launched: list[Launch] = []

    def record(
        kernel: Any, grid: tuple[int, ...], size: Blocks, arguments: Mapping[str, Any]
    ) -> None:
        if all(grid):
            taken = {name: arguments[name] for name in kernel.arg_names}
            launched.append(Launch(kernel, grid, size, taken))

    before = launches.launch, blocks.choose
    launches.launch = record
    blocks.choose = sizes_of(capability, products)
    try:
        yield launched
    finally:
        launches.launch, blocks.choose = before


def launches_of(
    primitives: Sequence[str],
    shape: Sequence[int],
    reduction: bool,
    capability: Capability,
    num_nodes: int = 4,
    grad_weights: bool = True,
    grad_inputs: tuple[bool, bool] = (True, True),
    products: str | None = None,
) -> tuple[list[Launch], list[Launch]]:
    """Return the launches for a cell, forward and backward.

    Args:
        primitives, reduction, num_nodes: the cell.
        shape: of its inputs.
        capability: of the GPU.
        grad_weights: whether the backward pass computes the gradients of the weights.
        grad_inputs: whether it computes those of the inputs.
        products: instead of those of the tile sizes, see `Blocks`.
    """
    cell = make_cell(primitives, shape, reduction, num_nodes, torch.device("cpu"))
    for weight in cell.leaves[3:]:
        weight.requires_grad_(grad_weights)
    for image, wanted in zip(cell.inputs, grad_inputs, strict=True):
        image.requires_grad_(wanted)
    with recording(capability, products) as launched:
        out = evaluate(cell.inputs, cell.op_weights, cell.primitives, cell.weights, reduction)
        forward = list(launched)
        torch.autograd.grad(out, [cell.op_weights], torch.empty_like(out), allow_unused=True)
    return forward, launched[len(forward) :]


def distinct(launched: Iterable[Launch]) -> list[Launch]:
    """Return one launch of each variant."""
    return list({launch.variant: launch for launch in launched}.values())
