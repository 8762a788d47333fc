"""Backward kernels of the stages of convolutions, and of their weights."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    dilation,
    first_tap,
    first_weight,
    kernel_size,
    num_stages,
    two_stage_index,
)
from skelnas.engine.triton.kernels.tiles import (
    INTS,
    affine_tap,
    count_of,
    edge_between,
    load_vector,
    pixels_of,
    rows_of,
    store_pair_sums,
    tap_of,
)


@triton.jit
def _pointwise_backward_edge(
    targets, target_slot, x, y, norms, coefficients, weights, turned, grad_h, grad_weights, edge,
    k, K, job, split, splits, tiles, slots, stage2_slot, num_clips, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr, STAGE: tl.constexpr,
    GRAD_WEIGHTS: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Differentiate the pointwise convolution of a stage on one edge."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    DILATION: tl.constexpr = dilation(OPS, J) if STAGE == 1 else 1
    STAGES: tl.constexpr = num_stages(OPS, J)
    SECOND: tl.constexpr = two_stage_index(OPS, J)
    BEFORE: tl.constexpr = first_weight(OPS, J)
    STEP: tl.constexpr = STRIDE if STAGE == 1 else 1
    DEPTH: tl.constexpr = SIZE * SIZE * C
    c, taps = tl.arange(0, BC), tl.arange(0, TAPS)
    real = (c < C)[:, None] & (c < C)[None, :]
    per_clip = TO * VO
    weight_offset = K * BEFORE + (k * STAGES + STAGE - 1) * (DEPTH + C * C)
    edge_slot = J
    if STAGE == 2:
        edge_slot = stage2_slot + SECOND
    kernel = weights + weight_offset
    turned_kernel = turned + weight_offset
    w = tl.load(kernel + DEPTH + c[:, None] * C + c[None, :], mask=real, other=0.0)
    grad_pointwise = tl.zeros([BC, BC], dtype=y.dtype.element_ty)
    grad_kernel = tl.zeros([TAPS, BC], dtype=y.dtype.element_ty)
    mean = load_vector(norms, edge * slots + J, 0, C, BC, 2)
    rstd = load_vector(norms, edge * slots + J, 1, C, BC, 2)
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, per_clip, BP)
        t, v = pixel // VO, pixel % VO
        mask = inside[:, None] & (c < C)[None, :]
        grad_y = affine_tap(
            rows_of(targets, target_slot, n, num_clips, per_clip, C), C,
            rows_of(y, edge * slots + edge_slot, n, num_clips, per_clip, C),
            coefficients, edge * (slots + 3) + edge_slot, t, v, inside, TO, VO, C, BC,
        )  # fmt: skip
        grad_tile = tl.dot(grad_y, w, input_precision=PRECISION)
        out = rows_of(grad_h, job, n, num_clips, per_clip, C)
        tl.store(out + pixel[:, None] * C + c[None, :], grad_tile, mask=mask)
        if GRAD_WEIGHTS:
            h = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
            for tap in range(SIZE * SIZE):
                tt = t * STEP + (tap // SIZE - SIZE // 2) * DILATION
                vv = v * STEP + (tap % SIZE - SIZE // 2) * DILATION
                if STAGE == 1:
                    image = x + n * T * V * ROW
                    value = tap_of(image, ROW, 0.0, 1.0, tt, vv, inside, T, V, C, BC, False)
                else:
                    image = rows_of(y, edge * slots + J, n, num_clips, per_clip, C)
                    value = tap_of(image, C, mean, rstd, tt, vv, inside, TO, VO, C, BC, True)
                factor = tl.load(turned_kernel + tap * C + c, mask=c < C, other=0.0)
                h += value * factor[None, :]
                cross = tl.sum(value * grad_tile, 0)
                grad_kernel += tl.where((taps == tap)[:, None], cross[None, :], 0.0)
            grad_pointwise += tl.dot(tl.trans(grad_y), h, input_precision=PRECISION)
    if GRAD_WEIGHTS:
        kernel_grad = grad_weights + weight_offset
        tl.store(kernel_grad + DEPTH + c[:, None] * C + c[None, :], grad_pointwise, mask=real)
        tap_mask = (taps < SIZE * SIZE)[:, None] & (c < C)[None, :]
        tl.store(kernel_grad + c[None, :] * SIZE * SIZE + taps[:, None], grad_kernel, mask=tap_mask)


@triton.jit(do_not_specialize=INTS)
def pointwise_backward(
    up, inner_up, x, y, norms, coefficients, weights, turned, grad_h, grad_pools, grad_weights,
    N, T, V, TO, VO, K, first, source, slots, stage2_slot, pool_slot, tiles, num_weights,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, STAGE: tl.constexpr,
    POOLS: tl.constexpr, GRAD_WEIGHTS: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the depthwise outputs of a stage from those of the pointwise ones.

    If asked for, the gradients of the weights, depthwise ones included, are computed along with
    them; the depthwise outputs are recomputed. One more job computes the gradients of the pools.
    Programs: (splits, jobs); each takes every `splits`-th tile and sums its weight gradients.
    """
    split, job = tl.program_id(0), tl.program_id(1)
    splits = tl.num_programs(0)
    k = job % K
    edge = edge_between(source, first + k)
    split_grads = grad_weights + split.to(tl.int64) * num_weights
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if num_stages(OPS, j) >= STAGE:
            if job // K == jobs:
                if STAGE == 1 and num_stages(OPS, j) == 2:
                    targets = inner_up
                    slot = two_stage_index(OPS, j) * K + k
                else:
                    targets = up
                    slot = first + k
                _pointwise_backward_edge(
                    targets, slot, x, y, norms, coefficients, weights, turned, grad_h, split_grads,
                    edge, k, K, job, split, splits, tiles, slots, stage2_slot, N, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS, j, STAGE, GRAD_WEIGHTS, TAPS, PRECISION,
                )  # fmt: skip
            jobs += 1
    if POOLS:
        if job == K * jobs:
            for tile in range(split, tiles, splits):
                _pool_gradients(
                    up, y, coefficients, grad_pools, tile, first, source, K, slots, pool_slot,
                    N, T, V, TO, VO, C, BC, BP, STRIDE,
                )  # fmt: skip


@triton.jit
def _pool_gradients(
    up, y, coefficients, grad_pools, tile, first, source, K, slots, pool_slot, N, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """Store a tile of the gradients of both pools; the mean's is divided by its pixel count."""
    c = tl.arange(0, BC)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    mask = inside[:, None] & (c < C)[None, :]
    grad_max = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    grad_mean = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    slot = pool_slot + 2 * source
    maximum = rows_of(y, slot, n, N, TO * VO, C)
    mean = rows_of(y, slot + 1, n, N, TO * VO, C)
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
    BEFORE: tl.constexpr = first_weight(OPS, J)
    kernel = turned + K * BEFORE + (k * 2 + 1) * (SIZE * SIZE * C + C * C)
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


@triton.jit
def _dense_weight_gradient_tap(
    up, x, y, coefficients, grad_weights, edge, j, first, k, K, tap, split, splits, tiles, slots,
    N, T, V, TO, VO, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradient [C, C] of one tap of an edge's dense weight."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    BEFORE: tl.constexpr = first_weight(OPS, J)
    DEPTH: tl.constexpr = SIZE * SIZE * C
    c = tl.arange(0, BC)
    acc = tl.zeros([BC, BC], dtype=y.dtype.element_ty)
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, TO * VO, BP)
        t, v = pixel // VO, pixel % VO
        grad_y = affine_tap(
            rows_of(up, first + k, n, N, TO * VO, C), C,
            rows_of(y, edge * slots + j, n, N, TO * VO, C), coefficients,
            edge * (slots + 3) + j, t, v, inside, TO, VO, C, BC,
        )  # fmt: skip
        tt, vv = t * STRIDE + tap // SIZE - SIZE // 2, v * STRIDE + tap % SIZE - SIZE // 2
        image = x + n * T * V * ROW
        value = tap_of(image, ROW, 0.0, 1.0, tt, vv, inside, T, V, C, BC, False)
        acc += tl.dot(tl.trans(grad_y), value, input_precision=PRECISION)
    pointers = grad_weights + K * BEFORE + k * DEPTH * C + tap * C
    pointers += c[:, None] * SIZE * SIZE * C + c[None, :]
    tl.store(pointers, acc, mask=(c < C)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=INTS)
def dense_weight_gradients(
    up, x, y, coefficients, grad_weights,
    N, T, V, TO, VO, K, first, source, slots, tiles, num_weights,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the weights of dense convolutions.

    Programs: (splits, taps of all dense operations, edges); as in `pointwise_backward`.
    """
    split, job, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    edge = edge_between(source, first + k)
    split_grads = grad_weights + split.to(tl.int64) * num_weights
    for j in tl.static_range(NUM_OPS):
        if num_stages(OPS, j) == 0:
            tap = job - first_tap(OPS, j)
            if (tap >= 0) & (tap < kernel_size(OPS, j) * kernel_size(OPS, j)):
                _dense_weight_gradient_tap(
                    up, x, y, coefficients, split_grads, edge, j, first, k, K, tap, split,
                    tl.num_programs(0), tiles, slots, N, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS, j, PRECISION,
                )  # fmt: skip
