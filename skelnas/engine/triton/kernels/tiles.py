"""What kernels share: places in a tile, convolutions of a tile, sums over a tile."""

from __future__ import annotations

import triton
import triton.language as tl

INTS = ["N", "T", "V", "TO", "VO", "K", "first", "source", "slots", "terms", "pools_at", "tiles"]
INTS += ["extra", "num_ops", "num_weights"]
"""Sizes and places that kernels take as they come: none is compiled anew for a value of them."""


@triton.jit
def edge_between(source, target):
    """Return the number of an edge as the reference counts; targets count from 0."""
    return target * (target + 3) // 2 + source


@triton.jit
def pixels_of(tile, per_clip, BP: tl.constexpr):
    """Return the clip of a tile, the numbers of its pixels in the clip, and which are there."""
    chunks = tl.cdiv(per_clip, BP)
    pixel = (tile % chunks) * BP + tl.arange(0, BP)
    return (tile // chunks).to(tl.int64), pixel, pixel < per_clip


@triton.jit
def count_of(tile, per_clip, BP: tl.constexpr):
    """Return how many pixels there are in each of some tiles."""
    chunks = tl.cdiv(per_clip, BP)
    return tl.minimum(BP, per_clip - (tile % chunks) * BP)


@triton.jit
def relu(x):
    """Return ReLU, which lets NaN through as PyTorch's does."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def tap_of(
    image, row: tl.constexpr, mean, rstd, t, v, inside, T, V, C: tl.constexpr, BC: tl.constexpr,
    NORMED: tl.constexpr,
):  # fmt: skip
    """Return the ReLU of the pixels at (t, v), zero outside; of normalised ones if asked."""
    c = tl.arange(0, BC)
    there = inside & (t >= 0) & (t < T) & (v >= 0) & (v < V)
    mask = there[:, None] & (c < C)[None, :]
    x = tl.load(image + (t * V + v)[:, None] * row + c[None, :], mask=mask, other=0.0)
    if NORMED:
        x = tl.where(mask, (x - mean[None, :]) * rstd[None, :], 0.0)
    return relu(x)


@triton.jit
def dense_tile(
    image, row: tl.constexpr, weight, t, v, inside, T, V,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, SIZE: tl.constexpr,
    STRIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Convolve the ReLU of an image with a weight [C, SIZE, SIZE, C]."""
    c = tl.arange(0, BC)
    real = (c < C)[:, None] & (c < C)[None, :]
    acc = tl.zeros([BP, BC], dtype=image.dtype.element_ty)
    for tap in range(SIZE * SIZE):
        tt = t * STRIDE + tap // SIZE - SIZE // 2
        vv = v * STRIDE + tap % SIZE - SIZE // 2
        x = tap_of(image, row, 0.0, 1.0, tt, vv, inside, T, V, C, BC, False)
        w = tl.load(
            weight + (c[None, :] * SIZE * SIZE + tap) * C + c[:, None], mask=real, other=0.0
        )
        acc += tl.dot(x, w, input_precision=PRECISION)
    return acc


@triton.jit
def depthwise_tile(
    image, row: tl.constexpr, mean, rstd, kernel, t, v, inside, T, V,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, SIZE: tl.constexpr,
    DILATION: tl.constexpr, STRIDE: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """Convolve each channel of the ReLU of an image with its own kernel [C, SIZE, SIZE]."""
    c = tl.arange(0, BC)
    acc = tl.zeros([BP, BC], dtype=image.dtype.element_ty)
    for tap in range(SIZE * SIZE):
        tt = t * STRIDE + (tap // SIZE - SIZE // 2) * DILATION
        vv = v * STRIDE + (tap % SIZE - SIZE // 2) * DILATION
        x = tap_of(image, row, mean, rstd, tt, vv, inside, T, V, C, BC, NORMED)
        acc += x * tl.load(kernel + c * SIZE * SIZE + tap, mask=c < C, other=0.0)[None, :]
    return acc


@triton.jit
def vectors(table, slot, which, C: tl.constexpr, BC: tl.constexpr, COUNT: tl.constexpr):
    """Return one of the COUNT vectors [C] that a table holds for a slot."""
    c = tl.arange(0, BC)
    return tl.load(table + (slot * COUNT + which) * C + c, mask=c < C, other=0.0)


@triton.jit
def rows_of(rows, slot, n, num_clips, per_clip, C: tl.constexpr):
    """Return where the rows of a clip begin in slot `slot` of [slots, P, C]."""
    return rows + (slot * num_clips.to(tl.int64) + n) * per_clip * C


@triton.jit
def affine_tap(
    up, up_row: tl.constexpr, y, coefficients, slot, t, v, inside, T, V,
    C: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Return the gradient of a raw output at (t, v), zero outside: a * up + b * y + c."""
    channel = tl.arange(0, BC)
    there = inside & (t >= 0) & (t < T) & (v >= 0) & (v < V)
    mask = there[:, None] & (channel < C)[None, :]
    pixel = (t * V + v)[:, None]
    g = tl.load(up + pixel * up_row + channel[None, :], mask=mask, other=0.0)
    raw = tl.load(y + pixel * C + channel[None, :], mask=mask, other=0.0)
    a = vectors(coefficients, slot, 0, C, BC, 3)
    b = vectors(coefficients, slot, 1, C, BC, 3)
    constant = vectors(coefficients, slot, 2, C, BC, 3)
    return tl.where(mask, a[None, :] * g + b[None, :] * raw + constant[None, :], 0.0)


@triton.jit
def store_pair_sums(
    sums, slot, tile, tiles, up, y, inside, count, C: tl.constexpr, BC: tl.constexpr
):
    """Store a tile's sums of the gradient and of centred y, and of their centred product.

    The tile's own mean of the gradient is taken off, so that nothing large cancels.
    """
    c = tl.arange(0, BC)
    by_up = tl.sum(up, 0)
    product = tl.sum(tl.where(inside[:, None], up - by_up[None, :] / count, 0.0) * y, 0)
    first = sums + (slot.to(tl.int64) * 3 * tiles + tile) * C + c
    tl.store(first, by_up, mask=c < C)
    tl.store(first + tiles * C, tl.sum(y, 0), mask=c < C)
    tl.store(first + 2 * tiles * C, product, mask=c < C)
