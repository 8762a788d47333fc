"""Kernels of the backward pass: from the gradients of a node's targets to its own."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.tiles import (
    INTS,
    affine_tap,
    count_of,
    edge_between,
    pixels_of,
    rows_of,
    store_pair_sums,
    vectors,
)


@triton.jit(do_not_specialize=INTS)
def meet(
    up, x, y, norms, sums, N, TO, VO, K, first, source, slots, terms, pools_at,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr, OPS: tl.constexpr,
    NUM_OPS: tl.constexpr, POOLS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Sum, for all edges that leave a node, the target's gradient times each raw output.

    `sums` has for each edge `slots` of them and three more: both pools, and the node itself.
    `up` [targets, P, C] are the gradients of the targets. Programs: (tiles, edges).
    """
    tile, k = tl.program_id(0), tl.program_id(1)
    tiles = tl.num_programs(0)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    count = count_of(tile, TO * VO, BP)
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    at = pixel[:, None] * C + c[None, :]
    edge = edge_between(source, first + k)
    g = tl.load(rows_of(up, first + k, n, N, TO * VO, C) + at, mask=mask, other=0.0)
    for j in tl.static_range(NUM_OPS + 2 * POOLS):
        if j < NUM_OPS:
            own = j
            if (OPS >> (64 * j + 8)) & 15 == 2:
                own = terms + ((OPS >> (64 * j + 20)) & 15)
            slot = edge * slots + own
        else:
            own = slots + j - NUM_OPS
            slot = pools_at + 2 * source + j - NUM_OPS
        raw = tl.load(rows_of(y, slot, n, N, TO * VO, C) + at, mask=mask, other=0.0)
        centred = tl.where(mask, raw - vectors(norms, slot, 0, C, BC, 2)[None, :], 0.0)
        store_pair_sums(
            sums, edge * (slots + 3) + own, tile, tiles, g, centred, inside, count, C, BC
        )
    if SCALED:
        image = x + n * TO * VO * ROW
        value = tl.load(image + pixel[:, None] * ROW + c[None, :], mask=mask, other=0.0)
        slot = (edge * (slots + 3) + slots + 2).to(tl.int64)
        tl.store(sums + (slot * 3 * tiles + tile) * C + c, tl.sum(g * value, 0), mask=c < C)


@triton.jit(do_not_specialize=INTS)
def finish_gradients(
    sums, norms, mix, coefficients, by_mix,
    N, TO, VO, K, first, source, slots, terms, pools_at, tiles,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROWS: tl.constexpr,
    OPS: tl.constexpr, NUM_OPS: tl.constexpr, STAGE: tl.constexpr, IDS: tl.constexpr,
    MAXIMUM: tl.constexpr, AVERAGE: tl.constexpr,
):  # fmt: skip
    """Turn sums into what takes a gradient and y to the gradient of y, and into d share.

    Stage 2 is that of the results that enter a target, pools included; stage 1 that of first
    stages whose second is done. A program a result.
    """
    job = tl.program_id(0)
    edge = edge_between(source, first + job % K)
    own = 0
    place = -1
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if STAGE == 2 or (OPS >> (64 * j + 8)) & 15 == 2:
            mine = job // K == jobs
            if STAGE == 2 and (OPS >> (64 * j + 8)) & 15 == 2:
                own = tl.where(mine, terms + ((OPS >> (64 * j + 20)) & 15), own)
            else:
                own = tl.where(mine, j, own)
            place = tl.where(mine, (OPS >> (64 * j + 12)) & 15, place)
            jobs += 1
    slot = edge * slots + own
    if job >= jobs * K:
        pool = job // K - jobs
        own = slots + pool
        slot = pools_at + 2 * source + pool
        place = tl.where(pool == 0, MAXIMUM, AVERAGE)
    table = edge * (slots + 3) + own
    share = 1.0
    if STAGE == 2:
        share = tl.load(mix + edge * IDS + place, mask=place >= 0, other=0.0)

    c = tl.arange(0, BC)
    first_sum = sums + table.to(tl.int64) * 3 * tiles * C
    total = tl.zeros([BC], dtype=sums.dtype.element_ty)
    for start in range(0, tiles, ROWS):
        tile = start + tl.arange(0, ROWS)
        mask = (tile < tiles)[:, None] & (c < C)[None, :]
        at = first_sum + tile[:, None] * C + c[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
    pixels = N * TO * VO
    mean = total / pixels
    q = tl.zeros([BC], dtype=sums.dtype.element_ty)
    for start in range(0, tiles, ROWS):
        tile = start + tl.arange(0, ROWS)
        mask = (tile < tiles)[:, None] & (c < C)[None, :]
        at = first_sum + tile[:, None] * C + c[None, :]
        count = tl.where(tile < tiles, count_of(tile, TO * VO, BP), 1)[:, None]
        apart = tl.load(at, mask=mask, other=0.0) / count - mean[None, :]
        by_y = tl.load(at + tiles * C, mask=mask, other=0.0)
        q += tl.sum(tl.load(at + 2 * tiles * C, mask=mask, other=0.0) + apart * by_y, 0)

    rstd = vectors(norms, slot, 1, C, BC, 2)
    a = share * rstd
    b = -a * rstd * rstd * q / pixels
    constant = -a * mean - b * vectors(norms, slot, 0, C, BC, 2)
    out = coefficients + table * 3 * C + c
    tl.store(out, a, mask=c < C)
    tl.store(out + C, b, mask=c < C)
    tl.store(out + 2 * C, constant, mask=c < C)
    if STAGE == 2:
        tl.store(by_mix + edge * IDS + place, tl.sum(rstd * q, 0), mask=place >= 0)


@triton.jit
def _back_through_edge(
    acc, above, raw, coefficients, table, weights, by_h, k, K, n, num_clips, i, o, odd_t, odd_v,
    inside, TO, VO, C: tl.constexpr, BC: tl.constexpr, STRIDE: tl.constexpr, CODE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add what a node's ReLU gets from one convolution of an edge: all taps that reach a tile."""
    SIZE: tl.constexpr = CODE & 15
    DILATION: tl.constexpr = (CODE >> 4) & 15
    STAGES: tl.constexpr = (CODE >> 8) & 15
    SEPARABLE: tl.constexpr = (CODE >> 16) & 15
    BEFORE: tl.constexpr = (CODE >> 32) & 0xFFFFFFFF
    DEPTH: tl.constexpr = SIZE * SIZE * C
    c = tl.arange(0, BC)
    for tap in range(SIZE * SIZE):
        back_t = odd_t - (tap // SIZE - SIZE // 2) * DILATION
        back_v = odd_v - (tap % SIZE - SIZE // 2) * DILATION
        if ((back_t | back_v) & (STRIDE - 1)) == 0:
            tt, vv = i + (back_t >> (STRIDE // 2)), o + (back_v >> (STRIDE // 2))
            if STAGES == 0:
                by_y = affine_tap(above, C, raw, coefficients, table, tt, vv, inside, TO, VO, C, BC)
                at = weights + K * BEFORE + k * DEPTH * C + tap * C
                at += c[:, None] * SIZE * SIZE * C + c[None, :]
                w = tl.load(at, mask=(c < C)[:, None] & (c < C)[None, :], other=0.0)
                acc += tl.dot(by_y, w, input_precision=PRECISION)
            else:
                there = inside & (tt >= 0) & (tt < TO) & (vv >= 0) & (vv < VO)
                h = rows_of(by_h, SEPARABLE * K + k, n, num_clips, TO * VO, C)
                at = h + (tt * VO + vv)[:, None] * C + c[None, :]
                g = tl.load(at, mask=there[:, None] & (c < C)[None, :], other=0.0)
                at = weights + K * BEFORE + k * STAGES * (DEPTH + C * C) + tap
                acc += g * tl.load(at + c * SIZE * SIZE, mask=c < C, other=0.0)[None, :]
    return acc


@triton.jit(do_not_specialize=INTS)
def to_node(
    up, x, y, coefficients, weights, by_h, by_pools, places, scales, everywhere, base, out,
    N, T, V, TO, VO, K, first, source, slots, extra,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    BASE_ROW: tl.constexpr, STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr,
    POOLS: tl.constexpr, SCALED: tl.constexpr, BASED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Collect a node's gradient from all edges that leave it, and write it once.

    `base` is what came from elsewhere. At stride 2 pixels of one parity in T and V make a tile:
    the same kernel taps reach them. Programs: (tiles of one parity, parities).
    """
    tile, parity = tl.program_id(0), tl.program_id(1)
    odd_t, odd_v = parity // STRIDE, parity % STRIDE
    wide = tl.cdiv(V, STRIDE)
    n, pixel, inside = pixels_of(tile, tl.cdiv(T, STRIDE) * wide, BP)
    i, o = pixel // wide, pixel % wide
    t, v = i * STRIDE + odd_t, o * STRIDE + odd_v
    inside = inside & (t < T) & (v < V)
    c = tl.arange(0, BC)
    mask = inside[:, None] & (c < C)[None, :]
    through = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    direct = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    if BASED:
        at = base + (n * T * V + (t * V + v))[:, None] * BASE_ROW + c[None, :]
        direct = tl.load(at, mask=mask, other=0.0)
    for k in range(K):
        edge = edge_between(source, first + k)
        above = rows_of(up, first + k, n, N, TO * VO, C)
        for j in tl.static_range(NUM_OPS):
            through = _back_through_edge(
                through, above, rows_of(y, edge * slots + j, n, N, TO * VO, C), coefficients,
                edge * (slots + 3) + j, weights, by_h, k, K, n, N, i, o, odd_t, odd_v, inside,
                TO, VO, C, BC, STRIDE, OPS >> (64 * j), PRECISION,
            )  # fmt: skip
        if SCALED:
            at = above + pixel[:, None] * C + c[None, :]
            scale = tl.load(scales + (edge * N + n) * C + c, mask=c < C, other=0.0)
            direct += tl.load(at, mask=mask, other=0.0) * scale[None, :]
            if extra:
                more = tl.load(everywhere + (k * N + n) * C + c, mask=c < C, other=0.0)
                direct += more[None, :]
    if POOLS:
        behind = N.to(tl.int64) * TO * VO * C
        for tap in range(9):
            back_t, back_v = odd_t - tap // 3 + 1, odd_v - tap % 3 + 1
            if ((back_t | back_v) & (STRIDE - 1)) == 0:
                tt, vv = i + (back_t >> (STRIDE // 2)), o + (back_v >> (STRIDE // 2))
                there = inside & (tt >= 0) & (tt < TO) & (vv >= 0) & (vv < VO)
                seen = there[:, None] & (c < C)[None, :]
                where = (n * TO * VO + (tt * VO + vv)[:, None]) * C + c[None, :]
                which = tl.load(places + where, mask=seen, other=255).to(tl.int32)
                by_max = tl.load(by_pools + where, mask=seen, other=0.0)
                direct += tl.where(which == tap, by_max, 0.0)
                direct += tl.load(by_pools + behind + where, mask=seen, other=0.0)
    own = (t * V + v)[:, None]
    value = tl.load(x + n * T * V * ROW + own * ROW + c[None, :], mask=mask, other=0.0)
    total = direct + tl.where(value > 0, through, 0.0)
    tl.store(out + n * T * V * C + own * C + c[None, :], total, mask=mask)
