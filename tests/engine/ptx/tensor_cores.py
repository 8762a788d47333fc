"""Products of tensor cores: fragments, rounding to TF32, and tiles in shared memory.

Fragments and descriptors are as in NVIDIA's PTX ISA: "Matrix Fragments for mma.m16n8k8", "Register
Fragments for wgmma.mma_async.m64nNk8" and "Matrix Descriptor Format". How tensor cores round is not
documented. They are known to cut bits off where IEEE arithmetic rounds (Fasi et al., PeerJ Computer
Science 7:e330, 2021); what is assumed here cuts off as much as a float32 accumulator can.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ptx.memory import Array

WARP = 32
ROW, COLUMN = np.arange(WARP) // 4, np.arange(WARP) % 4
"""Of a lane in a fragment of 8 x 4."""

DROPPED = np.uint32(0x1FFF)
"""The lowest bits of a float32, which TF32 lacks."""

TERMS = 4
"""Products that are added at once."""


def round_to_tf32(value: Array) -> Array:
    """Round float32 to TF32, ties away from zero; infinities and NaN stay."""
    bits = value.view(np.uint32)
    rounded = bits + np.uint32(0x1000) & ~DROPPED
    kept: Array = np.where(np.isfinite(value), rounded, bits)
    return kept


def multiply(a: Array, b: Array, c: Array) -> Array:
    """Return A B + C, for each warp, with its 16 rows.

    Args:
        a: [warps, 4, 32], bits of the fragment of A [16, 8]; the lowest 13 are ignored.
        b: [warps, N, 8], bits of the transpose of B, likewise.
        c: [warps, N / 2, 32], float32, fragment of C [16, N].

    Returns:
        Like c.
    """
    left = np.zeros((len(a), 16, 8), np.uint32)
    for number in range(4):  # upper left, lower left, upper right, lower right
        left[:, ROW + number % 2 * 8, COLUMN + number // 2 * 4] = a[:, number]
    left, right = ((bits & ~DROPPED).view(np.float32).astype(np.float64) for bits in (left, b))
    sums = np.zeros((len(a), 16, b.shape[1]), np.float32)
    at = [
        (ROW + number // 2 % 2 * 8, number // 4 * 8 + 2 * COLUMN + number % 2)
        for number in range(c.shape[1])
    ]
    for number, (row, column) in enumerate(at):
        sums[:, row, column] = c[:, number]
    for k in range(0, 8, TERMS):
        products = left[:, :, None, k : k + TERMS] * right[:, None, :, k : k + TERMS]
        sums = _add(np.concatenate([products, sums[..., None]], -1))
    return np.stack([sums[:, row, column] for row, column in at], 1)


def transpose_of(fragment: Array) -> Array:
    """Return the transpose [warps, 8, 8] of a matrix B from its fragment [warps, 2, 32]."""
    transpose = np.zeros((len(fragment), 8, 8), fragment.dtype)
    for number in range(2):
        transpose[:, ROW, COLUMN + 4 * number] = fragment[:, number]
    return transpose


def _add(terms: Array) -> Array:
    """Add along the last axis: all are cut to the last of the 24 bits of the largest one."""
    finite = np.isfinite(terms).all(-1, keepdims=True)
    _, exponent = np.frexp(np.abs(terms).max(-1, keepdims=True))
    shift = np.where(finite, 24 - exponent, 0)
    cut = np.ldexp(np.trunc(np.ldexp(terms, shift)), -shift)
    total = np.where(finite, cut, terms).sum(-1)
    nearest = total.astype(np.float32)
    is_beyond = np.abs(nearest.astype(np.float64)) > np.abs(total)  # rounded up: cut instead
    towards: Array = np.where(is_beyond, np.nextafter(nearest, np.float32(0)), nearest)
    return towards


class Descriptor(NamedTuple):
    """Where a tile B [8, N] for `wgmma` lies in shared memory; rows of its transpose are swizzled.

    Attributes:
        start: its first byte.
        stride: bytes between groups of eight rows.
        width: bytes of a swizzled row: 32, 64 or 128.
    """

    start: int
    stride: int
    width: int

    @classmethod
    def decode(cls, bits: int) -> Descriptor:
        """Decode the 64 bits of a matrix descriptor."""
        mode, base = bits >> 62, bits >> 49 & 7
        if not mode or base:
            raise NotImplementedError(f"matrix descriptor {bits:#x}")
        return cls((bits & 0x3FFF) << 4, (bits >> 32 & 0x3FFF) << 4, 256 >> mode)

    def addresses(self, columns: int) -> Array:
        """Return the bytes at which the elements [columns, 8] lie."""
        n, k = np.arange(columns)[:, None], np.arange(8)[None, :]
        address = self.start + n // 8 * self.stride + n % 8 * self.width + 4 * k
        sixteens = self.width // 16 - 1  # the bits of 16 bytes in a row, changed by those above 128
        swizzled: Array = address ^ (address >> 3 & sixteens << 4)
        return swizzled
