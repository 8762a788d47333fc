"""Tile sizes of the kernels for each kind of GPU, without autotuning.

The values are reasoned and modelled, not measured: nothing has run on a GPU yet. A tile holds about
1,024 numbers of a tensor, 4 or 8 per thread, so that a few accumulators and their addresses fit
into a thread's 255 registers (a test compiles the kernels and checks). The late cells, with few
pixels and many channels, still give more programs than a GPU has multiprocessors. Sums for weights
are split so that the matrices of all edges give several programs per multiprocessor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

PRODUCTS = ("ieee", "tf32x3")
"""Ways to multiply matrices of float32, in the terms of `triton.language.dot`: FMA, and three
products of tensor cores that together are as exact."""


class Blocks(NamedTuple):
    """Tile sizes, and how they are multiplied.

    Attributes:
        pixels: pixels of a tile in kernels that convolve.
        light: pixels of a tile in kernels that only add up.
        programs: at least, of the sums over all pixels for weights.
        warps: warps of a program.
        product_warps: those of a program that multiplies matrices and little else.
        edges: whose dense convolutions of one image a program computes at once.
        stages: of a loop that are loaded ahead (the compiler's default is 3).
        sums: sums of tiles that a program adds up at once.
        products: one of PRODUCTS; FMA until a GPU has shown that the other is faster.
    """

    pixels: int
    light: int
    programs: int
    warps: int
    product_warps: int
    edges: int
    stages: int = 3
    sums: int = 8192
    products: str = "ieee"

    @property
    def options(self) -> dict[str, Any]:
        """The options of the compiler."""
        return {
            "num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True,
        }  # fmt: skip

    @property
    def multiplying(self) -> Blocks:
        """Those of kernels that multiply matrices: fewer threads read less shared memory."""
        return self._replace(warps=self.product_warps)

    @property
    def collecting(self) -> Blocks:
        """Those of the kernel that collects a node's gradient.

        It holds so much in registers that it loads nothing ahead, and with FMA takes more threads.
        """
        return self._replace(stages=1, warps=8 if self.products == "ieee" else self.warps)

    @property
    def finishing(self) -> Blocks:
        """Those of kernels that add up sums: few programs, which many threads make shorter."""
        return self._replace(warps=16)


BLOCKS: dict[tuple[int, int], dict[int, Blocks]] = {
    (8, 0): {
        16: Blocks(64, 64, 864, 4, 4, 2),
        32: Blocks(32, 32, 864, 8, 8, 2),
        64: Blocks(16, 16, 864, 8, 8, 2, 2),
    },
    (8, 6): {
        16: Blocks(64, 64, 672, 4, 4, 2),
        32: Blocks(32, 32, 672, 8, 8, 2),
        64: Blocks(16, 16, 672, 8, 8, 2, 2),
    },
    (8, 9): {
        16: Blocks(64, 64, 1024, 4, 4, 2),
        32: Blocks(32, 32, 1024, 8, 8, 2),
        64: Blocks(16, 16, 1024, 8, 8, 2, 2),
    },
    (9, 0): {
        16: Blocks(64, 64, 1056, 4, 4, 2),
        32: Blocks(32, 32, 1056, 8, 4, 2),
        64: Blocks(16, 16, 1056, 8, 8, 2, 2),
    },
}
"""By compute capability and padded channels. Later GPUs use the last entry."""

INTERPRETED = Blocks(16, 16, 16, 1, 1, 2, sums=64)
"""For the interpreter: several tiles even for small images, and several additions of their sums."""


def padded_channels(channels: int) -> int:
    """Return the channels of a tile: a power of two, at least 16."""
    return max(16, 1 << (channels - 1).bit_length())


def choose(channels: int, device: torch.device) -> Blocks:
    """Return the tile sizes for a cell on a device."""
    if device.type != "cuda":
        return INTERPRETED
    return for_capability(channels, torch.cuda.get_device_capability(device))


def for_capability(channels: int, capability: tuple[int, int]) -> Blocks:
    """Return the tile sizes for a cell on GPUs of a compute capability."""
    nearest = max((each for each in BLOCKS if each <= capability), default=min(BLOCKS))
    return BLOCKS[nearest][padded_channels(channels)]
