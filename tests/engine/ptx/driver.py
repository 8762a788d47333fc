"""Launch a cell as on a GPU, with a driver that stands in for CUDA's and runs nothing.

    python -m ptx.driver '{"primitives": ["conv_3x3"], "width": 16}'

Triton binds the arguments, compiles, looks at what the GPU has, and calls the driver; that is, all
of a launch happens but the launch. Prints the launches, by kernel and channels, as
`gpu_kernels.profile` joins them with what a profiler sees. Needs `benchmarks` on the path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from gpu_kernels import join, noted_launches
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from skelnas.engine.triton import blocks, check

CAPABILITY = (9, 0)


class Utils:
    """What Triton asks about a GPU."""

    def __init__(self, shared: int) -> None:
        self.shared = shared

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self.shared}

    def load_binary(self, name: str, *_: Any) -> tuple[None, str, int, int, int]:
        """Return module, function, registers, spills and most threads."""
        return None, name, 0, 0, 1024

    def unload_module(self, module: None) -> None:
        pass


class Driver:
    """Stands in for Triton's driver.

    Attributes:
        ran: the kernels that would have run.
    """

    def __init__(self, shared: int) -> None:
        self.utils = Utils(shared)
        self.ran: list[str] = []

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 10 * CAPABILITY[0] + CAPABILITY[1], 32)

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Return what launches a kernel; it gets the grid, stream, function and arguments."""

        def launch(x: int, y: int, z: int, stream: int, function: str, *_: Any) -> None:
            self.ran.append(function)

        return launch


def launch_cell(
    primitives: Sequence[str], width: int, shared: int = 227 * 1024
) -> dict[str, dict[str, int]]:
    """Launch all kernels of a cell and return how often, by kernel and channels.

    Args:
        primitives, width: the cell.
        shared: bytes of shared memory that a program may have.
    """
    stand_in = Driver(shared)
    driver.set_active(stand_in)
    blocks.choose = lambda channels, device: blocks.for_capability(channels, CAPABILITY)
    cell = check.make_cell(primitives, (2, width, 5, 4), True, 1, torch.device("cpu"))
    with noted_launches() as launched:
        check._differentiate(check.evaluate, cell, cell.leaves)
    found = join(launched, [(name, 1e-6) for name in stand_in.ran])
    return {f"{name}, {channels} channels": len(times) for (name, channels), times in found.items()}


if __name__ == "__main__":
    try:
        print(json.dumps(launch_cell(**json.loads(sys.argv[1]))))
    except Exception as error:
        sys.exit(check.reason(error))
