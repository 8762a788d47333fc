"""Forward kernels: raw outputs of a node's edges, their statistics, and sums of them."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    first_weight,
    kernel_size,
    num_stages,
    op_position,
    two_stage_index,
)
from skelnas.engine.triton.kernels.tiles import (
    INTS,
    count_of,
    dense_tile,
    depthwise_stage_tile,
    edge_between,
    load_vector,
    pixels_of,
    rows_of,
)


@triton.jit
def _store_raw(out, sums, slot, tile, tiles, per_clip, pixel, inside, value,
               C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):  # fmt: skip
    """Store a tile of a raw output, and its sum and centred sum of squares.

    `out` are the rows of the clip, `slot` is that of the sums.
    """
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    tl.store(out + pixel[:, None] * C + c[None, :], value, mask=mask)
    total = tl.sum(tl.where(mask, value, 0.0), 0)
    centred = tl.where(mask, value - total[None, :] / count_of(tile, per_clip, BP), 0.0)
    first = sums + (slot.to(tl.int64) * 2 * tiles + tile) * C + c
    tl.store(first, total, mask=c < C)
    tl.store(first + tiles * C, tl.sum(centred * centred, 0), mask=c < C)


@triton.jit
def _convolve(
    image, y, norms, turned, edge, slots, k, K, n, num_clips, t, v, inside, T, V, per_clip, width,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr, STAGE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Return a tile of a raw output: a dense convolution, or a stage of a separable one."""
    SIZE: tl.constexpr = kernel_size(OPS, J)
    STAGES: tl.constexpr = num_stages(OPS, J)
    BEFORE: tl.constexpr = first_weight(OPS, J)
    DEPTH: tl.constexpr = SIZE * SIZE * C
    if STAGES == 0:
        weight = turned + K * BEFORE + k * DEPTH * C
        value = dense_tile(
            image, ROW, weight, t, v, inside, T, V, C, BC, BP, SIZE, STRIDE, PRECISION
        )
    else:
        kernel = turned + K * BEFORE + (k * STAGES + STAGE - 1) * (DEPTH + C * C)
        h = depthwise_stage_tile(
            image, y, norms, kernel, edge * slots + J, n, num_clips, t, v, inside, T, V,
            per_clip // width, width, C, BC, BP, ROW, STRIDE, OPS, J, STAGE,
        )  # fmt: skip
        c = tl.arange(0, BC)
        real = (c < C)[:, None] & (c < C)[None, :]
        w = tl.load(kernel + DEPTH + c[:, None] * C + c[None, :], mask=real, other=0.0)
        value = tl.dot(h, w, input_precision=PRECISION)
    return value


@triton.jit
def _pool(
    image, t, v, inside, T, V, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
    ROW: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """Return a tile of both pools, and the index 0 to 8 of the (first) maximum."""
    c = tl.arange(0, BC)
    low = float("-inf")
    best = tl.full([BP, BC], low, dtype=image.dtype.element_ty)
    total = tl.zeros([BP, BC], dtype=image.dtype.element_ty)
    number = tl.zeros([BP], dtype=image.dtype.element_ty)
    index = tl.zeros([BP, BC], dtype=tl.int32)
    for tap in range(9):
        tt, vv = t * STRIDE + tap // 3 - 1, v * STRIDE + tap % 3 - 1
        valid = inside & (tt >= 0) & (tt < T) & (vv >= 0) & (vv < V)
        mask = valid[:, None] & (c < C)[None, :]
        pointers = image + (tt * V + vv)[:, None] * ROW + c[None, :]
        value = tl.load(pointers, mask=mask, other=low)
        larger = (value > best) | (value != value)
        best = tl.where(larger, value, best)
        index = tl.where(larger, tap, index)
        total += tl.where(mask, value, 0.0)
        number += valid.to(image.dtype.element_ty)
    best = tl.where(inside[:, None], best, 0.0)
    return best, total / tl.where(inside, number, 1.0)[:, None], index


@triton.jit(do_not_specialize=INTS)
def convolve_and_pool(
    x, y, pools, norms, sums, turned,
    N, T, V, TO, VO, K, first, source, slots, first_slot, pool_slot,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, STAGE: tl.constexpr,
    POOLS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the raw outputs of all edges that leave a node, and sums for their statistics.

    Stage 1: the first stage of every convolution of the ReLU of node x, and both pools of x.
    Stage 2: second stages of the normalised first ones. The outputs go to the slots of an edge from
    `first_slot` on, `pools` [2, P, C] are those of x. Programs: (tiles, jobs); a job is one
    operation on one edge, or the pools.
    """
    tile, job = tl.program_id(0), tl.program_id(1)
    tiles = tl.num_programs(0)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    k = job % K
    edge = edge_between(source, first + k)
    image = x + n * T * V * ROW
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if STAGE == 1 or num_stages(OPS, j) == 2:
            if job // K == jobs:
                value = _convolve(
                    image, y, norms, turned, edge, slots, k, K, n, N, t, v, inside, T, V,
                    TO * VO, VO, C, BC, BP, ROW, STRIDE, OPS, j, STAGE, PRECISION,
                )  # fmt: skip
                slot = edge * slots + first_slot + jobs
                out = rows_of(y, slot, n, N, TO * VO, C)
                _store_raw(out, sums, slot, tile, tiles, TO * VO, pixel, inside, value, C, BC, BP)
            jobs += 1
    if POOLS:
        if job == K * jobs:
            best, mean, _ = _pool(image, t, v, inside, T, V, C, BC, BP, ROW, STRIDE)
            slot = pool_slot + 2 * source
            out = rows_of(pools, 0, n, N, TO * VO, C)
            _store_raw(out, sums, slot, tile, tiles, TO * VO, pixel, inside, best, C, BC, BP)
            out = rows_of(pools, 1, n, N, TO * VO, C)
            _store_raw(out, sums, slot + 1, tile, tiles, TO * VO, pixel, inside, mean, C, BC, BP)


@triton.jit(do_not_specialize=INTS)
def pool(
    x, pools, max_indices, N, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """Compute both pools of x again, and the index of each maximum, for the backward pass.

    Programs: tiles.
    """
    n, pixel, inside = pixels_of(tl.program_id(0), TO * VO, BP)
    best, mean, index = _pool(
        x + n * T * V * ROW, pixel // VO, pixel % VO, inside, T, V, C, BC, BP, ROW, STRIDE
    )
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    offsets = pixel[:, None] * C + c[None, :]
    tl.store(rows_of(pools, 0, n, N, TO * VO, C) + offsets, best, mask=mask)
    tl.store(rows_of(pools, 1, n, N, TO * VO, C) + offsets, mean, mask=mask)
    tl.store(max_indices + n * TO * VO * C + offsets, index.to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=INTS)
def finish_statistics(
    sums, norms, N, TO, VO, K, first, source, slots, first_slot, pool_slot, tiles, num_ops,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROWS: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Turn the sums of all tiles into mean and 1 / sqrt(variance + eps); one program an output.

    Tiles are combined by their means and centred squares (Chan et al., 1979): ROWS at once, then
    with those before.
    """
    job = tl.program_id(0)
    slot = edge_between(source, first + job % K) * slots + first_slot + job // K
    slot = tl.where(job < num_ops * K, slot, pool_slot + 2 * source + job - num_ops * K)
    c = tl.arange(0, BC)
    first_sum = sums + slot.to(tl.int64) * 2 * tiles * C
    number = 0.0
    mean = tl.zeros([BC], dtype=sums.dtype.element_ty)
    squares = tl.zeros([BC], dtype=sums.dtype.element_ty)
    for start in range(0, tiles, ROWS):
        tile = start + tl.arange(0, ROWS)
        mask = (tile < tiles)[:, None] & (c < C)[None, :]
        pointers = first_sum + tile[:, None] * C + c[None, :]
        total = tl.load(pointers, mask=mask, other=0.0)
        within = tl.load(pointers + tiles * C, mask=mask, other=0.0)
        count = tl.where(tile < tiles, count_of(tile, TO * VO, BP), 0).to(total.dtype)
        of_these = tl.sum(count, 0)
        their_mean = tl.sum(total, 0) / of_these
        deviation = total / tl.maximum(count, 1.0)[:, None] - their_mean[None, :]
        squares += tl.sum(within + count[:, None] * deviation * deviation, 0)
        part = of_these / (number + of_these)
        step = their_mean - mean
        squares += step * step * number * part
        mean += step * part
        number += of_these
    tl.store(norms + slot * 2 * C + c, mean, mask=c < C)
    tl.store(norms + (slot * 2 + 1) * C + c, 1.0 / tl.sqrt(squares / number + EPS), mask=c < C)


@triton.jit
def _add_output(
    acc, rows, norms, op_weights, slot, edge, pixel, mask,
    C: tl.constexpr, BC: tl.constexpr, IDS: tl.constexpr, POSITION: tl.constexpr,
):  # fmt: skip
    """Add a raw output, `rows` of a clip, to a tile, normalised and weighted."""
    c = tl.arange(0, BC)
    scale = tl.load(op_weights + edge * IDS + POSITION) * load_vector(norms, slot, 1, C, BC, 2)
    value = tl.load(rows + pixel[:, None] * C + c[None, :], mask=mask, other=0.0)
    return acc + (value - load_vector(norms, slot, 0, C, BC, 2)[None, :]) * scale[None, :]


@triton.jit
def _add_edge(
    acc, y, pools, norms, op_weights, scales, image, row: tl.constexpr, edge, slots, stage2_slot,
    source, pool_slot, n, num_clips, per_clip, pixel, mask,
    C: tl.constexpr, BC: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr,
    IDS: tl.constexpr, MAX_POOL: tl.constexpr, AVG_POOL: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Add everything that an edge contributes to a tile."""
    for j in tl.static_range(NUM_OPS):
        slot = edge * slots + j
        if num_stages(OPS, j) == 2:
            slot = edge * slots + stage2_slot + two_stage_index(OPS, j)
        rows = rows_of(y, slot, n, num_clips, per_clip, C)
        acc = _add_output(
            acc, rows, norms, op_weights, slot, edge, pixel, mask, C, BC, IDS, op_position(OPS, j)
        )
    slot = pool_slot + 2 * source
    if MAX_POOL >= 0:
        rows = rows_of(pools, 2 * source, n, num_clips, per_clip, C)
        acc = _add_output(
            acc, rows, norms, op_weights, slot, edge, pixel, mask, C, BC, IDS, MAX_POOL
        )
    if AVG_POOL >= 0:
        rows = rows_of(pools, 2 * source + 1, n, num_clips, per_clip, C)
        acc = _add_output(
            acc, rows, norms, op_weights, slot + 1, edge, pixel, mask, C, BC, IDS, AVG_POOL
        )
    if SCALED:
        c = tl.arange(0, BC)
        scale = tl.load(scales + (edge * num_clips + n) * C + c, mask=c < C, other=0.0)
        rows = image + n * per_clip * row
        value = tl.load(rows + pixel[:, None] * row + c[None, :], mask=mask, other=0.0)
        acc += value * scale[None, :]
    return acc


@triton.jit(do_not_specialize=[*INTS, "target"])
def combine(
    y, pools, norms, op_weights, scales, x0, x1, nodes, out, squeezed,
    N, TO, VO, target, slots, stage2_slot, pool_slot,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    OPS0: tl.constexpr, NUM_OPS0: tl.constexpr, SCALED0: tl.constexpr,
    OPS: tl.constexpr, NUM_OPS: tl.constexpr, SCALED: tl.constexpr,
    IDS: tl.constexpr, MAX_POOL: tl.constexpr, AVG_POOL: tl.constexpr,
):  # fmt: skip
    """Sum everything that enters a node; write it and each tile's sum of it. Programs: tiles.

    `nodes` and `out` are the rows, ROW apart, of the first and of this intermediate node. The first
    two edges come from the inputs; their operations may differ from those of the rest.
    """
    tile = tl.program_id(0)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    edge = edge_between(0, target)
    acc = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    acc = _add_edge(
        acc, y, pools, norms, op_weights, scales, x0, C, edge, slots, stage2_slot, 0, pool_slot,
        n, N, TO * VO, pixel, mask, C, BC, OPS0, NUM_OPS0, IDS, MAX_POOL, AVG_POOL, SCALED0,
    )  # fmt: skip
    acc = _add_edge(
        acc, y, pools, norms, op_weights, scales, x1, C, edge + 1, slots, stage2_slot, 1, pool_slot,
        n, N, TO * VO, pixel, mask, C, BC, OPS0, NUM_OPS0, IDS, MAX_POOL, AVG_POOL, SCALED0,
    )  # fmt: skip
    for before in range(target):
        acc = _add_edge(
            acc, y, pools, norms, op_weights, scales, nodes + before * C, ROW, edge + 2 + before,
            slots, stage2_slot, 2 + before, pool_slot, n, N, TO * VO, pixel, mask, C, BC, OPS,
            NUM_OPS, IDS, MAX_POOL, AVG_POOL, SCALED,
        )  # fmt: skip
    rows = out + n * TO * VO * ROW
    tl.store(rows + pixel[:, None] * ROW + c[None, :], acc, mask=mask)
    tl.store(squeezed + tile * C + c, tl.sum(tl.where(mask, acc, 0.0), 0), mask=c < C)
