"""Backward kernels of the stages of convolutions, and of their weights."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    dilation,
    first_tap,
    first_weight,
    kernel_size,
    max_of,
    num_stages,
    num_taps,
    num_weights,
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
def _grad_output(
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
                grad_y = _grad_output(
                    up, inner_up, y, coefficients, edge, first, k, K, n, N, t, v, inside, slots,
                    stage2_slot, TO, VO, C, BC, OPS, j, STAGE,
                )  # fmt: skip
                kernel = weights + K * first_weight(OPS, j) + num_taps(OPS, j) * C
                kernel += (k * num_stages(OPS, j) + STAGE - 1) * (num_taps(OPS, j) + C) * C
                real = (c < C)[:, None] & (c < C)[None, :]
                w = tl.load(kernel + c[:, None] * C + c[None, :], mask=real, other=0.0)
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
def _correlate(
    up, inner_up, x, y, norms, coefficients, edge, first, k, K, tap, split, splits, tiles, slots,
    stage2_slot, N, T, V, TO, VO, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
    ROW: tl.constexpr, STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr,
    STAGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum the gradient of a raw output times the pixel that a tap of its kernel reads, [C', C]."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    DILATION: tl.constexpr = dilation(OPS, J) if STAGE == 1 else 1
    STEP: tl.constexpr = STRIDE if STAGE == 1 else 1
    acc = tl.zeros([BC, BC], dtype=y.dtype.element_ty)
    mean = load_vector(norms, edge * slots + J, 0, C, BC, 2)
    rstd = load_vector(norms, edge * slots + J, 1, C, BC, 2)
    down, right = (tap // SIZE - SIZE // 2) * DILATION, (tap % SIZE - SIZE // 2) * DILATION
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, TO * VO, BP)
        t, v = pixel // VO, pixel % VO
        grad_y = _grad_output(
            up, inner_up, y, coefficients, edge, first, k, K, n, N, t, v, inside, slots,
            stage2_slot, TO, VO, C, BC, OPS, J, STAGE,
        )  # fmt: skip
        if STAGE == 1:
            image = x + n * T * V * ROW
            value = tap_of(
                image, ROW, 0.0, 1.0, t * STEP + down, v * STEP + right, inside, T, V, C, BC, False
            )
        else:
            image = rows_of(y, edge * slots + J, n, N, TO * VO, C)
            value = tap_of(image, C, mean, rstd, t + down, v + right, inside, TO, VO, C, BC, True)
        acc += tl.dot(tl.trans(grad_y), value, input_precision=PRECISION)
    return acc


@triton.jit(do_not_specialize=INTS)
def correlate_taps(
    up, inner_up, x, y, norms, coefficients, correlations,
    N, T, V, TO, VO, K, first, source, slots, stage2_slot, tiles,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Correlate the gradients of all raw outputs with what each tap of their kernels reads.

    The gradients of all weights follow from these matrices: see `weight_gradients`. Programs:
    (splits, taps of all stages, edges); each takes every `splits`-th tile and stores its sum in
    `correlations` [splits, taps, edges, C', C].
    """
    split, job, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    edge = edge_between(source, first + k)
    c = tl.arange(0, BC)
    matrix = (split.to(tl.int64) * tl.num_programs(1) + job) * K + k
    out = correlations + matrix * C * C + c[:, None] * C + c[None, :]
    real = (c < C)[:, None] & (c < C)[None, :]
    for j in tl.static_range(NUM_OPS):
        for stage in tl.static_range(1, 1 + max_of(num_stages(OPS, j), 1)):
            tap = job - first_tap(OPS, j) - (stage - 1) * num_taps(OPS, j)
            if (tap >= 0) & (tap < num_taps(OPS, j)):
                total = _correlate(
                    up, inner_up, x, y, norms, coefficients, edge, first, k, K, tap, split,
                    tl.num_programs(0), tiles, slots, stage2_slot, N, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS, j, stage, PRECISION,
                )  # fmt: skip
                tl.store(out, total, mask=real)


@triton.jit
def _stage_gradients(
    correlations, weights, turned, grad_weights, weight_offset, k, K, before, column,
    C: tl.constexpr, BC: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Store the gradients of a dense weight, or of both weights of a separable stage.

    With the correlations G of a tap, that of a depthwise kernel is the sum over C' of W * G, and
    that of the pointwise weight W the sum over all taps of G times the kernel.
    """
    SIZE: tl.constexpr = kernel_size(OPS, J)
    DEPTH: tl.constexpr = SIZE * SIZE * C
    row = tl.arange(0, BC)[:, None]
    columns = column[None, :]
    real = (row < C) & (columns < C)
    pointwise = weight_offset + DEPTH + row * C + columns
    if num_stages(OPS, J) > 0:
        w = tl.load(weights + pointwise, mask=real, other=0.0)
        grad_w = tl.zeros_like(w)
    for tap in range(SIZE * SIZE):
        matrix = ((before + tap) * K + k) * C * C
        g = tl.load(correlations + matrix + row * C + columns, mask=real, other=0.0)
        if num_stages(OPS, J) == 0:
            out = grad_weights + weight_offset + (row * SIZE * SIZE + tap) * C + columns
            tl.store(out, g, mask=real)
        else:
            kernel = turned + weight_offset + tap * C + column
            grad_w += g * tl.load(kernel, mask=column < C, other=0.0)[None, :]
            out = grad_weights + weight_offset + column * SIZE * SIZE + tap
            tl.store(out, tl.sum(w * g, 0), mask=column < C)
    if num_stages(OPS, J) > 0:
        tl.store(grad_weights + pointwise, grad_w, mask=real)


@triton.jit(do_not_specialize=INTS)
def weight_gradients(
    correlations, weights, turned, grad_weights, K,
    C: tl.constexpr, BC: tl.constexpr, COLUMNS: tl.constexpr, OPS: tl.constexpr,
    NUM_OPS: tl.constexpr,
):  # fmt: skip
    """Turn correlations [taps, edges, C', C] into the gradients of the weights.

    Programs: (groups of COLUMNS channels C, stages of all operations, edges).
    """
    job, k = tl.program_id(1), tl.program_id(2)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        for stage in tl.static_range(max_of(num_stages(OPS, j), 1)):
            if job == jobs:
                offset = K * first_weight(OPS, j) + k * num_weights(OPS, j, C)
                if stage == 1:
                    offset += num_weights(OPS, j, C) // 2
                _stage_gradients(
                    correlations, weights, turned, grad_weights, offset, k, K,
                    first_tap(OPS, j) + stage * num_taps(OPS, j), column, C, BC, OPS, j,
                )  # fmt: skip
            jobs += 1
