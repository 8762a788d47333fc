"""Backward kernels of the stages of separable convolutions, and of pools."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    kernel_size,
    num_stages,
    num_taps,
    two_stage_index,
)
from skelnas.engine.triton.kernels.tiles import (
    INTS,
    affine_tap,
    count_of,
    edge_between,
    grad_output_tile,
    load_vector,
    pixels_of,
    rows_of,
    store_pair_sums,
    weights_of,
)


@triton.jit(do_not_specialize=INTS)
def pointwise_backward(
    up, inner_up, y, pools, coefficients, weights, grad_h, grad_pools,
    N, T, V, TO, VO, K, first, source, slots, stage2_slot,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, STRIDE: tl.constexpr,
    OPS: tl.constexpr, NUM_OPS: tl.constexpr, STAGE: tl.constexpr, POOLS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the depthwise outputs of a stage from those of the pointwise ones.

    One more job computes the gradients of the pools. Programs: (tiles, jobs).
    """
    tile, job = tl.program_id(0), tl.program_id(1)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    c = tl.arange(0, BC)
    k = job % K
    edge = edge_between(source, first + k)
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if num_stages(OPS, j) >= STAGE:
            if job // K == jobs:
                grad_y = grad_output_tile(
                    up, inner_up, y, coefficients, edge, first, k, K, n, N, t, v, inside, slots,
                    stage2_slot, TO, VO, C, BC, OPS, j, STAGE,
                )  # fmt: skip
                matrix = weights_of(weights, k, K, C, OPS, j, STAGE) + num_taps(OPS, j) * C
                real = (c < C)[:, None] & (c < C)[None, :]
                w = tl.load(matrix + c[:, None] * C + c[None, :], mask=real, other=0.0)
                out = rows_of(grad_h, job, n, N, TO * VO, C) + pixel[:, None] * C + c[None, :]
                grad_tile = tl.dot(grad_y, w, input_precision=PRECISION)
                tl.store(out, grad_tile, mask=inside[:, None] & (c < C)[None, :])
            jobs += 1
    if POOLS:
        if job == K * jobs:
            _pool_gradients(
                up, pools, coefficients, grad_pools, tile, first, source, K, slots,
                N, T, V, TO, VO, C, BC, BP, STRIDE,
            )  # fmt: skip


@triton.jit
def _pool_gradients(
    up, pools, coefficients, grad_pools, tile, first, source, K, slots, N, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """Store a tile of the gradients of both pools; the mean's is divided by its pixel count."""
    c = tl.arange(0, BC)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    mask = inside[:, None] & (c < C)[None, :]
    grad_max = tl.zeros([BP, BC], dtype=pools.dtype.element_ty)
    grad_mean = tl.zeros([BP, BC], dtype=pools.dtype.element_ty)
    maximum = rows_of(pools, 0, n, N, TO * VO, C)
    mean = rows_of(pools, 1, n, N, TO * VO, C)
    for e in range(K):
        target = rows_of(up, first + e, n, N, TO * VO, C)
        table = edge_between(source, first + e) * (slots + 3) + slots
        grad_max += affine_tap(target, C, maximum, coefficients, table, t, v, inside, TO, VO, C, BC)
        grad_mean += affine_tap(
            target, C, mean, coefficients, table + 1, t, v, inside, TO, VO, C, BC
        )
    height = tl.minimum(t * STRIDE + 1, T - 1) - tl.maximum(t * STRIDE - 1, 0) + 1
    width = tl.minimum(v * STRIDE + 1, V - 1) - tl.maximum(v * STRIDE - 1, 0) + 1
    out = grad_pools + (n * TO * VO + pixel[:, None]) * C + c[None, :]
    tl.store(out, grad_max, mask=mask)
    avg_offset = N.to(tl.int64) * TO * VO * C
    tl.store(out + avg_offset, grad_mean / tl.where(inside, height * width, 1)[:, None], mask=mask)


@triton.jit
def _depthwise_backward_tile(
    grad_h, turned, k, K, t, v, inside, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Return a tile of the gradient of the input of a second depthwise stage."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    kernel = weights_of(turned, k, K, C, OPS, J, 2)
    c = tl.arange(0, BC)
    acc = tl.zeros([BP, BC], dtype=grad_h.dtype.element_ty)
    for tap in range(SIZE * SIZE):
        tt, vv = t - tap // SIZE + SIZE // 2, v - tap % SIZE + SIZE // 2
        valid = inside & (tt >= 0) & (tt < TO) & (vv >= 0) & (vv < VO)
        pointers = grad_h + (tt * VO + vv)[:, None] * C + c[None, :]
        g = tl.load(pointers, mask=valid[:, None] & (c < C)[None, :], other=0.0)
        acc += g * tl.load(kernel + tap * C + c, mask=c < C, other=0.0)[None, :]
    return acc


@triton.jit(do_not_specialize=INTS)
def depthwise_backward(
    grad_h, y, norms, turned, inner_up, sums, N, TO, VO, K, first, source, slots,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, OPS: tl.constexpr,
    NUM_OPS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the inputs of second stages, and sums of them like `sum_products`.

    Programs: (tiles, jobs).
    """
    tile, job = tl.program_id(0), tl.program_id(1)
    tiles = tl.num_programs(0)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    count = count_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    k = job % K
    edge = edge_between(source, first + k)
    for j in tl.static_range(NUM_OPS):
        if num_stages(OPS, j) == 2:
            if job // K == two_stage_index(OPS, j):
                acc = _depthwise_backward_tile(
                    rows_of(grad_h, job, n, N, TO * VO, C), turned, k, K, t, v, inside, TO, VO,
                    C, BC, BP, OPS, j,
                )  # fmt: skip
                slot = edge * slots + j
                offsets = pixel[:, None] * C + c[None, :]
                raw = tl.load(rows_of(y, slot, n, N, TO * VO, C) + offsets, mask=mask, other=0.0)
                centred = tl.where(mask, raw - load_vector(norms, slot, 0, C, BC, 2)[None, :], 0.0)
                acc = tl.where(centred > 0, acc, 0.0)
                tl.store(rows_of(inner_up, job, n, N, TO * VO, C) + offsets, acc, mask=mask)
                store_pair_sums(
                    sums, edge * (slots + 3) + j, tile, tiles, acc, centred, inside, count, C, BC
                )
