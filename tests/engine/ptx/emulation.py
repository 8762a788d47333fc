"""Run the cells of the Triton engine in the emulator."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import triton
from ahead_of_time import Capability, Launch, sizes_of, source_of
from torch import Tensor
from triton.backends.compiler import GPUTarget

from ptx.machine import Block, Divergence, Machine
from ptx.memory import GlobalMemory
from ptx.program import Program, parse
from skelnas.engine.triton import blocks, launches
from skelnas.engine.triton.blocks import Blocks

TOGETHER = 64
"""Blocks that run at once."""


class Kernel(NamedTuple):
    """A compiled kernel and its bytes of shared memory."""

    program: Program
    shared: int


class Emulator:
    """Runs launches, one after the other.

    Attributes:
        capability: of the GPU that kernels are compiled for.
        barriers: whether barriers are executed.
        races: all that were found.
        num_launches: launches so far.
    """

    def __init__(self, capability: Capability = (9, 0), barriers: bool = True) -> None:
        self.capability = capability
        self.barriers = barriers
        self.races = Counter[str]()
        self.num_launches = 0
        self._kernels: dict[Any, Kernel] = {}

    def launch(
        self, kernel: Any, grid: tuple[int, ...], size: Blocks, arguments: Mapping[str, Any]
    ) -> None:
        """Run a kernel; stands in for `skelnas.engine.triton.launches.launch`."""
        if not all(grid):
            return
        taken = {name: arguments[name] for name in kernel.arg_names}
        call = Launch(kernel, grid, size, taken)
        self.num_launches += 1
        x, y, z = (*grid, 1, 1)[:3]
        memory = memory_of(call)
        for column in ([(i, j, k) for i in range(x)] for k in range(z) for j in range(y)):
            for start in range(0, x, TOGETHER):
                part = column[start : start + TOGETHER]
                try:
                    self.run(call, memory, part)
                except Divergence:
                    for block in part:
                        self.run(call, memory, [block])
        for race, count in memory.finish().items():
            self.races[f"{call.name}: {race}"] += count

    def run(
        self,
        call: Launch,
        memory: GlobalMemory,
        some: Sequence[Block],
        counts: Counter[str] | None = None,
    ) -> int:
        """Run some blocks of a launch and return the number of instructions of a warp."""
        kernel = self.kernel(call)
        x, y, z = (*call.grid, 1, 1)[:3]
        arguments = [
            value.data_ptr() if isinstance(value, Tensor) else int(value)
            for name, value in call.arguments.items()
            if name not in call.constants
        ]
        machine = Machine(
            kernel.program, memory, [*arguments, 0, 0], (x, y, z), some, kernel.shared, counts
        )
        with np.errstate(all="ignore"):
            executed = machine.run()
        for race, count in machine.shared.races.items():
            self.races[f"{call.name}: {race}"] += count
        return executed

    def kernel(self, call: Launch) -> Kernel:
        """Compile the kernel of a launch, once for each alignment of its tensors."""
        aligned = tuple(
            value.data_ptr() % 16 == 0
            for value in call.arguments.values()
            if isinstance(value, Tensor)
        )
        key = call.variant, aligned
        if key not in self._kernels:
            target = GPUTarget("cuda", 10 * self.capability[0] + self.capability[1], 32)
            binary = triton.compile(source_of(call), target=target, options=call.blocks.options)
            ptx = binary.asm["ptx"]
            if not self.barriers:
                ptx = re.sub(r"bar\.sync[^;]*;", "", ptx)
            self._kernels[key] = Kernel(parse(ptx), binary.metadata.shared)
        return self._kernels[key]


def memory_of(call: Launch) -> GlobalMemory:
    """Return the memory of a launch's tensors."""
    tensors = {name: value for name, value in call.arguments.items() if isinstance(value, Tensor)}
    return GlobalMemory(tensors)


@contextmanager
def emulated(
    capability: Capability = (9, 0), products: str | None = None, barriers: bool = True
) -> Iterator[Emulator]:
    """Evaluate cells in an emulator inside the context."""
    emulator = Emulator(capability, barriers)
    before = launches.launch, blocks.choose
    launches.launch = emulator.launch
    blocks.choose = sizes_of(capability, products)
    try:
        yield emulator
    finally:
        launches.launch, blocks.choose = before
