"""Backward kernels: from the gradients of a node's targets to the gradient of the node."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    dilation,
    kernel_size,
    num_stages,
    op_position,
    separable_index,
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
    weights_of,
)


@triton.jit(do_not_specialize=INTS)
def sum_products(
    up, x, y, pools, norms, sums, N, TO, VO, K, first, source, slots, stage2_slot, pool_slot,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr, OPS: tl.constexpr,
    NUM_OPS: tl.constexpr, POOLS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Sum the target's gradient times each raw output, for all edges that leave a node.

    `sums` has `slots + 3` rows an edge: its raw outputs, both pools and the node. Programs:
    (tiles, edges).
    """
    tile, k = tl.program_id(0), tl.program_id(1)
    tiles = tl.num_programs(0)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    count = count_of(tile, TO * VO, BP)
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    offsets = pixel[:, None] * C + c[None, :]
    edge = edge_between(source, first + k)
    g = tl.load(rows_of(up, first + k, n, N, TO * VO, C) + offsets, mask=mask, other=0.0)
    for j in tl.static_range(NUM_OPS + 2 * POOLS):
        if j < NUM_OPS:
            edge_slot = j
            if num_stages(OPS, j) == 2:
                edge_slot = stage2_slot + two_stage_index(OPS, j)
            slot = edge * slots + edge_slot
            rows = rows_of(y, slot, n, N, TO * VO, C)
        else:
            edge_slot = slots + j - NUM_OPS
            slot = pool_slot + 2 * source + j - NUM_OPS
            rows = rows_of(pools, j - NUM_OPS, n, N, TO * VO, C)
        raw = tl.load(rows + offsets, mask=mask, other=0.0)
        centred = tl.where(mask, raw - load_vector(norms, slot, 0, C, BC, 2)[None, :], 0.0)
        store_pair_sums(
            sums, edge * (slots + 3) + edge_slot, tile, tiles, g, centred, inside, count, C, BC
        )
    if SCALED:
        image = x + n * TO * VO * ROW
        value = tl.load(image + pixel[:, None] * ROW + c[None, :], mask=mask, other=0.0)
        slot = (edge * (slots + 3) + slots + 2).to(tl.int64)
        tl.store(sums + (slot * 3 * tiles + tile) * C + c, tl.sum(g * value, 0), mask=c < C)


@triton.jit(do_not_specialize=INTS)
def finish_gradients(
    sums, norms, op_weights, coefficients, grad_op_weights,
    N, TO, VO, K, first, source, slots, stage2_slot, pool_slot, tiles,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROWS: tl.constexpr,
    OPS: tl.constexpr, NUM_OPS: tl.constexpr, STAGE: tl.constexpr, IDS: tl.constexpr,
    MAX_POOL: tl.constexpr, AVG_POOL: tl.constexpr,
):  # fmt: skip
    """Turn sums into `coefficients` of gradients of y, and into gradients of the op weights.

    Stage 2: all outputs that enter a target, pools included. Stage 1: first stages whose second
    stage is done. One program an output. Tiles are combined as in `finish_statistics`; q is
    relative to the mean gradient so far.
    """
    job = tl.program_id(0)
    edge = edge_between(source, first + job % K)
    edge_slot = 0
    position = -1
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if STAGE == 2 or num_stages(OPS, j) == 2:
            is_job = job // K == jobs
            if STAGE == 2 and num_stages(OPS, j) == 2:
                second = stage2_slot + two_stage_index(OPS, j)
                edge_slot = tl.where(is_job, second, edge_slot)
            else:
                edge_slot = tl.where(is_job, j, edge_slot)
            position = tl.where(is_job, op_position(OPS, j), position)
            jobs += 1
    slot = edge * slots + edge_slot
    if job >= jobs * K:
        pool = job // K - jobs
        edge_slot = slots + pool
        slot = pool_slot + 2 * source + pool
        position = tl.where(pool == 0, MAX_POOL, AVG_POOL)
    table = edge * (slots + 3) + edge_slot
    op_weight = 1.0
    if STAGE == 2:
        op_weight = tl.load(op_weights + edge * IDS + position, mask=position >= 0, other=0.0)

    c = tl.arange(0, BC)
    first_sum = sums + table.to(tl.int64) * 3 * tiles * C
    number = 0.0
    mean = tl.zeros([BC], dtype=sums.dtype.element_ty)
    all_y = tl.zeros([BC], dtype=sums.dtype.element_ty)
    q = tl.zeros([BC], dtype=sums.dtype.element_ty)
    for start in range(0, tiles, ROWS):
        tile = start + tl.arange(0, ROWS)
        mask = (tile < tiles)[:, None] & (c < C)[None, :]
        pointers = first_sum + tile[:, None] * C + c[None, :]
        total = tl.load(pointers, mask=mask, other=0.0)
        y_sum = tl.load(pointers + tiles * C, mask=mask, other=0.0)
        product = tl.load(pointers + 2 * tiles * C, mask=mask, other=0.0)
        count = tl.where(tile < tiles, count_of(tile, TO * VO, BP), 0).to(total.dtype)
        of_these = tl.sum(count, 0)
        their_mean = tl.sum(total, 0) / of_these
        their_y = tl.sum(y_sum, 0)
        deviation = total / tl.maximum(count, 1.0)[:, None] - their_mean[None, :]
        q += tl.sum(product + deviation * y_sum, 0)
        part = of_these / (number + of_these)
        step = their_mean - mean
        q += step * ((1.0 - part) * their_y - part * all_y)
        mean += step * part
        all_y += their_y
        number += of_these

    rstd = load_vector(norms, slot, 1, C, BC, 2)
    a = op_weight * rstd
    b = -a * rstd * rstd * q / number
    constant = -a * mean - b * load_vector(norms, slot, 0, C, BC, 2)
    out = coefficients + table * 3 * C + c
    tl.store(out, a, mask=c < C)
    tl.store(out + C, b, mask=c < C)
    tl.store(out + 2 * C, constant, mask=c < C)
    if STAGE == 2:
        pointer = grad_op_weights + edge * IDS + position
        tl.store(pointer, tl.sum(rstd * q, 0), mask=position >= 0)


@triton.jit
def _edge_gradient(
    acc, target, raw, coefficients, table, weights, turned, grad_h, k, K, n, num_clips, i, o,
    odd_t, odd_v, inside, TO, VO, C: tl.constexpr, BC: tl.constexpr, STRIDE: tl.constexpr,
    OPS: tl.constexpr, J: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the gradient of a node's ReLU from one convolution of an edge: all taps on a tile."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    DILATION: tl.constexpr = dilation(OPS, J)
    SEPARABLE: tl.constexpr = separable_index(OPS, J)
    c = tl.arange(0, BC)
    for tap in range(SIZE * SIZE):
        back_t = odd_t - (tap // SIZE - SIZE // 2) * DILATION
        back_v = odd_v - (tap % SIZE - SIZE // 2) * DILATION
        if ((back_t | back_v) & (STRIDE - 1)) == 0:
            tt, vv = i + (back_t >> (STRIDE // 2)), o + (back_v >> (STRIDE // 2))
            if num_stages(OPS, J) == 0:
                grad_y = affine_tap(
                    target, C, raw, coefficients, table, tt, vv, inside, TO, VO, C, BC
                )
                matrix = weights_of(weights, k, K, C, OPS, J, 1) + tap * C
                pointers = matrix + c[:, None] * SIZE * SIZE * C + c[None, :]
                w = tl.load(pointers, mask=(c < C)[:, None] & (c < C)[None, :], other=0.0)
                acc += tl.dot(grad_y, w, input_precision=PRECISION)
            else:
                valid = inside & (tt >= 0) & (tt < TO) & (vv >= 0) & (vv < VO)
                h = rows_of(grad_h, SEPARABLE * K + k, n, num_clips, TO * VO, C)
                pointers = h + (tt * VO + vv)[:, None] * C + c[None, :]
                g = tl.load(pointers, mask=valid[:, None] & (c < C)[None, :], other=0.0)
                kernel = weights_of(turned, k, K, C, OPS, J, 1)
                acc += g * tl.load(kernel + tap * C + c, mask=c < C, other=0.0)[None, :]
    return acc


@triton.jit(do_not_specialize=INTS)
def node_gradient(
    up, x, y, coefficients, weights, turned, grad_h, grad_pools, max_indices, scales, per_pixel,
    base, out, N, T, V, TO, VO, K, first, source, slots, gated,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    BASE_ROW: tl.constexpr, STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr,
    POOLS: tl.constexpr, SCALED: tl.constexpr, HAS_BASE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Collect the gradient of a node from all edges that leave it, and write it once.

    `base` is its gradient from outside the cell. At stride 2 a tile has pixels of one parity along
    T and V, which the same kernel taps reach. Programs: (tiles of one parity, parities).
    """
    tile, parity = tl.program_id(0), tl.program_id(1)
    odd_t, odd_v = parity // STRIDE, parity % STRIDE
    width = tl.cdiv(V, STRIDE)
    n, pixel, inside = pixels_of(tile, tl.cdiv(T, STRIDE) * width, BP)
    i, o = pixel // width, pixel % width
    t, v = i * STRIDE + odd_t, o * STRIDE + odd_v
    inside = inside & (t < T) & (v < V)
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    through = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    direct = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    if HAS_BASE:
        pointers = base + (n * T * V + (t * V + v))[:, None] * BASE_ROW + c[None, :]
        direct = tl.load(pointers, mask=mask, other=0.0)
    for k in range(K):
        edge = edge_between(source, first + k)
        target = rows_of(up, first + k, n, N, TO * VO, C)
        for j in tl.static_range(NUM_OPS):
            through = _edge_gradient(
                through, target, rows_of(y, edge * slots + j, n, N, TO * VO, C), coefficients,
                edge * (slots + 3) + j, weights, turned, grad_h, k, K, n, N, i, o, odd_t, odd_v,
                inside, TO, VO, C, BC, STRIDE, OPS, j, PRECISION,
            )  # fmt: skip
        if SCALED:
            pointers = target + pixel[:, None] * C + c[None, :]
            scale = tl.load(scales + (edge * N + n) * C + c, mask=c < C, other=0.0)
            direct += tl.load(pointers, mask=mask, other=0.0) * scale[None, :]
            if gated:
                of_mean = tl.load(per_pixel + (k * N + n) * C + c, mask=c < C, other=0.0)
                direct += of_mean[None, :]
    if POOLS:
        avg_offset = N.to(tl.int64) * TO * VO * C
        for tap in range(9):
            back_t, back_v = odd_t - tap // 3 + 1, odd_v - tap % 3 + 1
            if ((back_t | back_v) & (STRIDE - 1)) == 0:
                tt, vv = i + (back_t >> (STRIDE // 2)), o + (back_v >> (STRIDE // 2))
                valid = inside & (tt >= 0) & (tt < TO) & (vv >= 0) & (vv < VO)
                valid_mask = valid[:, None] & (c < C)[None, :]
                offsets = (n * TO * VO + (tt * VO + vv)[:, None]) * C + c[None, :]
                index = tl.load(max_indices + offsets, mask=valid_mask, other=255).to(tl.int32)
                grad_max = tl.load(grad_pools + offsets, mask=valid_mask, other=0.0)
                direct += tl.where(index == tap, grad_max, 0.0)
                direct += tl.load(grad_pools + avg_offset + offsets, mask=valid_mask, other=0.0)
    in_clip = (t * V + v)[:, None]
    value = tl.load(x + n * T * V * ROW + in_clip * ROW + c[None, :], mask=mask, other=0.0)
    total = direct + tl.where(value > 0, through, 0.0)
    tl.store(out + n * T * V * C + in_clip * C + c[None, :], total, mask=mask)
