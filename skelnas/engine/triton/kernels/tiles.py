"""Functions shared by the kernels: pixels of a tile, its convolutions, sums over it."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    dilation,
    first_weight,
    kernel_size,
    num_stages,
    num_taps,
    num_weights,
    two_stage_index,
)

INTS = ["N", "T", "V", "TO", "VO", "K", "first", "source", "slots", "first_slot", "stage2_slot"]
INTS += ["pool_slot", "tiles", "gated", "num_ops", "length"]
"""Sizes and offsets whose values do not specialise a kernel."""


@triton.jit
def edge_between(source, target):
    """Return the number of an edge, see `skelnas.engine.wiring`; targets count from 0."""
    return target * (target + 3) // 2 + source


@triton.jit
def pixels_of(tile, per_clip, BP: tl.constexpr):
    """Return the clip of a tile, the indices of its pixels in the clip, and which are valid."""
    chunks = tl.cdiv(per_clip, BP)
    pixel = (tile % chunks) * BP + tl.arange(0, BP)
    return (tile // chunks).to(tl.int64), pixel, pixel < per_clip


@triton.jit
def count_of(tile, per_clip, BP: tl.constexpr):
    """Return the number of pixels of one or more tiles."""
    chunks = tl.cdiv(per_clip, BP)
    return tl.minimum(BP, per_clip - (tile % chunks) * BP)


@triton.jit
def weights_of(
    packed, k, K, C: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr, STAGE: tl.constexpr
):  # fmt: skip
    """Return a pointer to the weights of a stage, in packed ones of the K edges of a node."""
    first = packed + K * first_weight(OPS, J) + k * num_weights(OPS, J, C)
    return first + (STAGE - 1) * (num_taps(OPS, J) + C) * C


@triton.jit
def relu(x):
    """Return the ReLU; like PyTorch's, it passes NaN on."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def tap_of(
    image, row: tl.constexpr, mean, rstd, t, v, inside, T, V, C: tl.constexpr, BC: tl.constexpr,
    NORMED: tl.constexpr,
):  # fmt: skip
    """Return the ReLU of the pixels at (t, v), normalised first if NORMED; zero outside."""
    c = tl.arange(0, BC)
    valid = inside & (t >= 0) & (t < T) & (v >= 0) & (v < V)
    mask = valid[:, None] & (c < C)[None, :]
    x = tl.load(image + (t * V + v)[:, None] * row + c[None, :], mask=mask, other=0.0)
    if NORMED:
        x = tl.where(mask, (x - mean[None, :]) * rstd[None, :], 0.0)
    return relu(x)


@triton.jit
def depthwise_tile(
    image, row: tl.constexpr, mean, rstd, kernel, t, v, inside, T, V,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, SIZE: tl.constexpr,
    DILATION: tl.constexpr, STRIDE: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """Convolve each channel of the ReLU of an image with a turned kernel [SIZE, SIZE, C]."""
    c = tl.arange(0, BC)
    acc = tl.zeros([BP, BC], dtype=image.dtype.element_ty)
    for tap in range(SIZE * SIZE):
        tt = t * STRIDE + (tap // SIZE - SIZE // 2) * DILATION
        vv = v * STRIDE + (tap % SIZE - SIZE // 2) * DILATION
        x = tap_of(image, row, mean, rstd, tt, vv, inside, T, V, C, BC, NORMED)
        acc += x * tl.load(kernel + tap * C + c, mask=c < C, other=0.0)[None, :]
    return acc


@triton.jit
def load_vector(table, slot, index, C: tl.constexpr, BC: tl.constexpr, COUNT: tl.constexpr):
    """Return one of the COUNT vectors [C] that a table holds for a slot."""
    c = tl.arange(0, BC)
    return tl.load(table + (slot * COUNT + index) * C + c, mask=c < C, other=0.0)


@triton.jit
def rows_of(rows, slot, n, num_clips, per_clip, C: tl.constexpr):
    """Return a pointer to the rows of a clip in a slot of [slots, P, C]."""
    return rows + (slot * num_clips.to(tl.int64) + n) * per_clip * C


@triton.jit
def affine_tap(
    up, up_row: tl.constexpr, y, coefficients, slot, t, v, inside, T, V,
    C: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Return the gradient of a raw output at (t, v), zero outside: a * up + b * y + c."""
    channel = tl.arange(0, BC)
    valid = inside & (t >= 0) & (t < T) & (v >= 0) & (v < V)
    mask = valid[:, None] & (channel < C)[None, :]
    pixel = (t * V + v)[:, None]
    g = tl.load(up + pixel * up_row + channel[None, :], mask=mask, other=0.0)
    raw = tl.load(y + pixel * C + channel[None, :], mask=mask, other=0.0)
    a = load_vector(coefficients, slot, 0, C, BC, 3)
    b = load_vector(coefficients, slot, 1, C, BC, 3)
    constant = load_vector(coefficients, slot, 2, C, BC, 3)
    return tl.where(mask, a[None, :] * g + b[None, :] * raw + constant[None, :], 0.0)


@triton.jit
def depthwise_stage_tile(
    image, y, norms, kernel, slot, n, num_clips, t, v, inside, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """Return the depthwise output of a stage; the second one reads the first one's, `slot` of y."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    if STAGE == 1:
        h = depthwise_tile(
            image, ROW, 0.0, 1.0, kernel, t, v, inside, T, V,
            C, BC, BP, SIZE, dilation(OPS, J), STRIDE, False,
        )  # fmt: skip
    else:
        mean = load_vector(norms, slot, 0, C, BC, 2)
        rstd = load_vector(norms, slot, 1, C, BC, 2)
        h = depthwise_tile(
            rows_of(y, slot, n, num_clips, TO * VO, C), C, mean, rstd, kernel, t, v, inside,
            TO, VO, C, BC, BP, SIZE, 1, 1, True,
        )  # fmt: skip
    return h


@triton.jit
def grad_output_tile(
    up, inner_up, y, coefficients, edge, first, k, K, n, num_clips, t, v, inside, slots,
    stage2_slot, TO, VO, C: tl.constexpr, BC: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr,
    STAGE: tl.constexpr,
):  # fmt: skip
    """Return a tile of the gradient of a raw output of an edge."""
    SECOND: tl.constexpr = two_stage_index(OPS, J)
    targets = up
    target_slot = first + k
    if (STAGE == 1) & (num_stages(OPS, J) == 2):
        targets = inner_up
        target_slot = SECOND * K + k
    edge_slot = J
    if STAGE == 2:
        edge_slot = stage2_slot + SECOND
    return affine_tap(
        rows_of(targets, target_slot, n, num_clips, TO * VO, C), C,
        rows_of(y, edge * slots + edge_slot, n, num_clips, TO * VO, C), coefficients,
        edge * (slots + 3) + edge_slot, t, v, inside, TO, VO, C, BC,
    )  # fmt: skip


@triton.jit
def store_pair_sums(
    sums, slot, tile, tiles, up, y, inside, count, C: tl.constexpr, BC: tl.constexpr
):
    """Store a tile's sums of the gradient, of centred y, and of their product.

    In the product the tile's mean gradient is subtracted, which avoids cancellation.
    """
    c = tl.arange(0, BC)
    up_sum = tl.sum(up, 0)
    product = tl.sum(tl.where(inside[:, None], up - up_sum[None, :] / count, 0.0) * y, 0)
    first = sums + (slot.to(tl.int64) * 3 * tiles + tile) * C + c
    tl.store(first, up_sum, mask=c < C)
    tl.store(first + tiles * C, tl.sum(y, 0), mask=c < C)
    tl.store(first + 2 * tiles * C, product, mask=c < C)
