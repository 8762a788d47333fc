"""How large the tiles of the kernels are, for each kind of GPU; nobody waits for tuning.

The values are reasoned, not measured: nothing has run on a GPU yet. A tile holds about 1,024
numbers of a tensor, 4 or 8 a thread, so that a few accumulators and their addresses stay in a
thread's 255 registers (a test compiles the kernels and asks); and the late cells, with few pixels
and many channels, still make more programs than a GPU has multiprocessors. Sums for weights are
split so that 9 taps of 5 edges make a few programs for each multiprocessor; (8, 6) has the fewest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Blocks(NamedTuple):
    """Sizes of tiles.

    Attributes:
        pixels: of a tile of the kernels that convolve.
        light: of a tile of those that only add up.
        splits: parts into which sums over all pixels for weights are divided, each a program.
        warps: of a program.
    """

    pixels: int
    light: int
    splits: int
    warps: int


BLOCKS: dict[tuple[int, int], dict[int, Blocks]] = {
    (8, 0): {16: Blocks(64, 64, 16, 4), 32: Blocks(32, 32, 8, 8), 64: Blocks(16, 16, 4, 8)},
    (8, 6): {16: Blocks(64, 64, 12, 4), 32: Blocks(32, 32, 6, 8), 64: Blocks(16, 16, 4, 8)},
    (8, 9): {16: Blocks(64, 64, 16, 4), 32: Blocks(32, 32, 8, 8), 64: Blocks(16, 16, 4, 8)},
    (9, 0): {16: Blocks(64, 64, 16, 4), 32: Blocks(32, 32, 8, 8), 64: Blocks(16, 16, 4, 8)},
}
"""By compute capability, and by channels that a program reserves. Later GPUs take the last."""

INTERPRETED = Blocks(16, 16, 2, 1)
"""Without a GPU, where size does not matter: several tiles even of small images."""


def reserved(channels: int) -> int:
    """Return how many channels a program reserves: a power of two, at least 16."""
    return max(16, 1 << (channels - 1).bit_length())


def choose(channels: int, device: torch.device) -> Blocks:
    """Return the sizes for a cell on a device."""
    if device.type != "cuda":
        return INTERPRETED
    return for_capability(channels, torch.cuda.get_device_capability(device))


def for_capability(channels: int, capability: tuple[int, int]) -> Blocks:
    """Return the sizes for a cell on GPUs of a compute capability."""
    known = max((each for each in BLOCKS if each <= capability), default=min(BLOCKS))
    return BLOCKS[known][reserved(channels)]
