"""Forward kernels: raw outputs of a node's edges, their statistics, and sums of them."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    kernel_size,
    num_stages,
    num_taps,
    op_position,
    two_stage_index,
)
from skelnas.engine.triton.kernels.tiles import (
    INTS,
    count_of,
    depthwise_stage_tile,
    edge_between,
    load_vector,
    pixels_of,
    rows_of,
    tap_of,
    weights_of,
)


@triton.jit
def _store_raw(out, sums, slot, c, real, tile, tiles, per_clip, pixel, inside, value,
               C: tl.constexpr, BP: tl.constexpr):  # fmt: skip
    """Store a tile of raw outputs, and its sums and centred sums of squares.

    A column is the channel `c` of a slot, whose rows of the clip start at `out`; columns that are
    not `real` are padding.
    """
    mask = inside[:, None] & real[None, :]
    tl.store((out + c)[None, :] + pixel[:, None] * C, value, mask=mask)
    total = tl.sum(tl.where(mask, value, 0.0), 0)
    centred = tl.where(mask, value - total[None, :] / count_of(tile, per_clip, BP), 0.0)
    first = sums + (slot.to(tl.int64) * 2 * tiles + tile) * C + c
    tl.store(first, total, mask=real)
    tl.store(first + tiles * C, tl.sum(centred * centred, 0), mask=real)


@triton.jit
def _dense_tile(
    image, weight, c, real, t, v, inside, T, V, C: tl.constexpr, BC: tl.constexpr,
    BP: tl.constexpr, ROW: tl.constexpr, STRIDE: tl.constexpr, SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Convolve the ReLU of an image with turned weights [SIZE, SIZE, C, C'] of several edges.

    A column is the output channel `c` of the edge whose weights start at `weight`.
    """
    c_in = tl.arange(0, BC)
    weight += c
    acc = tl.zeros([BP, c.shape[0]], dtype=image.dtype.element_ty)
    taps = SIZE * SIZE
    if SIZE == 1:  # a loop even so: without one the compiler holds far more in registers
        taps = tl.minimum(T, 1)
    for tap in range(taps):
        tt = t * STRIDE + tap // SIZE - SIZE // 2
        vv = v * STRIDE + tap % SIZE - SIZE // 2
        x = tap_of(image, ROW, 0.0, 1.0, tt, vv, inside, T, V, C, BC, False)
        mask = (c_in < C)[:, None] & real[None, :]
        w = tl.load(weight[None, :] + (tap * C + c_in)[:, None] * C, mask=mask, other=0.0)
        acc += tl.dot(x, w, input_precision=PRECISION)
    return acc


@triton.jit
def _separable_tile(
    image, y, norms, turned, edge, slots, k, K, n, num_clips, t, v, inside, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr, STAGE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Return a tile of a stage of a separable convolution."""
    kernel = weights_of(turned, k, K, C, OPS, J, STAGE)
    h = depthwise_stage_tile(
        image, y, norms, kernel, edge * slots + J, n, num_clips, t, v, inside, T, V, TO, VO,
        C, BC, BP, ROW, STRIDE, OPS, J, STAGE,
    )  # fmt: skip
    c = tl.arange(0, BC)
    real = (c < C)[:, None] & (c < C)[None, :]
    matrix = kernel + num_taps(OPS, J) * C
    w = tl.load(matrix + c[:, None] * C + c[None, :], mask=real, other=0.0)
    return tl.dot(h, w, input_precision=PRECISION)


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
    POOLS: tl.constexpr, EDGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the raw outputs of all edges that leave a node, and sums for their statistics.

    Stage 1: the first stage of every convolution of the ReLU of node x, and both pools of x.
    Stage 2: second stages of the normalised first ones. The outputs go to the slots of an edge from
    `first_slot` on, `pools` [2, P, C] are those of x. Programs: (tiles, jobs); a job is a dense
    operation on up to EDGES edges, a separable one on one edge, or the pools.
    """
    tile, job = tl.program_id(0), tl.program_id(1)
    tiles = tl.num_programs(0)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    image = x + n * T * V * ROW
    c = tl.arange(0, BC)
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if num_stages(OPS, j) == 0:
            if STAGE == 1:
                group = job - jobs
                if (group >= 0) & (group < tl.cdiv(K, EDGES)):
                    column = tl.arange(0, EDGES * BC)
                    each, channel = group * EDGES + column // BC, column % BC
                    real = (each < K) & (channel < C)
                    weight = weights_of(turned, each, K, C, OPS, j, 1)
                    value = _dense_tile(
                        image, weight, channel, real, t, v, inside, T, V,
                        C, BC, BP, ROW, STRIDE, kernel_size(OPS, j), PRECISION,
                    )  # fmt: skip
                    slot = edge_between(source, first + each) * slots + j
                    out = rows_of(y, slot, n, N, TO * VO, C)
                    _store_raw(
                        out, sums, slot, channel, real, tile, tiles, TO * VO, pixel, inside, value,
                        C, BP,
                    )  # fmt: skip
                jobs += tl.cdiv(K, EDGES)
        elif num_stages(OPS, j) >= STAGE:
            k = job - jobs
            if (k >= 0) & (k < K):
                edge = edge_between(source, first + k)
                value = _separable_tile(
                    image, y, norms, turned, edge, slots, k, K, n, N, t, v, inside, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS, j, STAGE, PRECISION,
                )  # fmt: skip
                slot = edge * slots + first_slot + (j if STAGE == 1 else two_stage_index(OPS, j))
                out = rows_of(y, slot, n, N, TO * VO, C)
                _store_raw(
                    out, sums, slot, c, c < C, tile, tiles, TO * VO, pixel, inside, value, C, BP
                )
            jobs += K
    if POOLS:
        if job == jobs:
            best, mean, _ = _pool(image, t, v, inside, T, V, C, BC, BP, ROW, STRIDE)
            slot = pool_slot + 2 * source
            out = rows_of(pools, 0, n, N, TO * VO, C)
            _store_raw(out, sums, slot, c, c < C, tile, tiles, TO * VO, pixel, inside, best, C, BP)
            slot += 1
            out = rows_of(pools, 1, n, N, TO * VO, C)
            _store_raw(out, sums, slot, c, c < C, tile, tiles, TO * VO, pixel, inside, mean, C, BP)


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
