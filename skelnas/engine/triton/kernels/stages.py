"""Kernels of the backward pass through the stages of convolutions, to their weights."""

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
    tap_of,
    vectors,
)


@triton.jit
def _edge_through_pointwise(
    above_all, above_slot, x, y, norms, coefficients, weights, by_h, by_weights, edge, k, K, job,
    split, splits, tiles, slots, terms, num_clips, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, CODE: tl.constexpr, J: tl.constexpr, STAGE: tl.constexpr,
    WANTED: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the gradient of one edge through the pointwise convolution of a stage."""
    SIZE: tl.constexpr = CODE & 15
    DILATION: tl.constexpr = ((CODE >> 4) & 15) if STAGE == 1 else 1
    STAGES: tl.constexpr = (CODE >> 8) & 15
    SECOND: tl.constexpr = (CODE >> 20) & 15
    BEFORE: tl.constexpr = (CODE >> 32) & 0xFFFFFFFF
    STEP: tl.constexpr = STRIDE if STAGE == 1 else 1
    DEPTH: tl.constexpr = SIZE * SIZE * C
    c, taps = tl.arange(0, BC), tl.arange(0, TAPS)
    real = (c < C)[:, None] & (c < C)[None, :]
    per_clip = TO * VO
    at_weight = K * BEFORE + (k * STAGES + STAGE - 1) * (DEPTH + C * C)
    own = J
    if STAGE == 2:
        own = terms + SECOND
    kernel = weights + at_weight
    w = tl.load(kernel + DEPTH + c[:, None] * C + c[None, :], mask=real, other=0.0)
    by_w = tl.zeros([BC, BC], dtype=y.dtype.element_ty)
    by_kernel = tl.zeros([TAPS, BC], dtype=y.dtype.element_ty)
    mean = vectors(norms, edge * slots + J, 0, C, BC, 2)
    rstd = vectors(norms, edge * slots + J, 1, C, BC, 2)
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, per_clip, BP)
        t, v = pixel // VO, pixel % VO
        mask = inside[:, None] & (c < C)[None, :]
        by_y = affine_tap(
            rows_of(above_all, above_slot, n, num_clips, per_clip, C), C,
            rows_of(y, edge * slots + own, n, num_clips, per_clip, C),
            coefficients, edge * (slots + 3) + own, t, v, inside, TO, VO, C, BC,
        )  # fmt: skip
        h_up = tl.dot(by_y, w, input_precision=PRECISION)
        out = rows_of(by_h, job, n, num_clips, per_clip, C)
        tl.store(out + pixel[:, None] * C + c[None, :], h_up, mask=mask)
        if WANTED:
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
                factor = tl.load(kernel + c * SIZE * SIZE + tap, mask=c < C, other=0.0)
                h += value * factor[None, :]
                met = tl.sum(value * h_up, 0)
                by_kernel += tl.where((taps == tap)[:, None], met[None, :], 0.0)
            by_w += tl.dot(tl.trans(by_y), h, input_precision=PRECISION)
    if WANTED:
        mine = by_weights + at_weight
        tl.store(mine + DEPTH + c[:, None] * C + c[None, :], by_w, mask=real)
        some = (taps < SIZE * SIZE)[:, None] & (c < C)[None, :]
        tl.store(mine + c[None, :] * SIZE * SIZE + taps[:, None], by_kernel, mask=some)


@triton.jit(do_not_specialize=INTS)
def through_pointwise(
    up, inner_up, x, y, norms, coefficients, weights, by_h, by_pools, by_weights,
    N, T, V, TO, VO, K, first, source, slots, terms, pools_at, tiles, num_weights,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, STAGE: tl.constexpr,
    POOLS: tl.constexpr, WANTED: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take gradients through the pointwise convolutions of a stage, to the depthwise outputs.

    Those of the weights, depthwise ones included, come with it: the depthwise output is
    computed again. As one more job, the gradients of all edges become those of the pools.
    Programs: (splits, jobs); each takes every `splits`-th tile and has weights' sums of its own.
    """
    split, job = tl.program_id(0), tl.program_id(1)
    splits = tl.num_programs(0)
    k = job % K
    edge = edge_between(source, first + k)
    mine = by_weights + split.to(tl.int64) * num_weights
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if (OPS >> (64 * j + 8)) & 15 >= STAGE:
            if job // K == jobs:
                if STAGE == 1 and (OPS >> (64 * j + 8)) & 15 == 2:
                    above = inner_up
                    slot = ((OPS >> (64 * j + 20)) & 15) * K + k
                else:
                    above = up
                    slot = first + k
                _edge_through_pointwise(
                    above, slot, x, y, norms, coefficients, weights, by_h, mine, edge, k, K, job,
                    split, splits, tiles, slots, terms, N, T, V, TO, VO, C, BC, BP, ROW, STRIDE,
                    OPS >> (64 * j), j, STAGE, WANTED, TAPS, PRECISION,
                )  # fmt: skip
            jobs += 1
    if POOLS:
        if job == K * jobs:
            for tile in range(split, tiles, splits):
                _pools_of_tile(
                    up, y, coefficients, by_pools, tile, first, source, K, slots, pools_at,
                    N, T, V, TO, VO, C, BC, BP, STRIDE,
                )  # fmt: skip


@triton.jit
def _pools_of_tile(
    up, y, coefficients, by_pools, tile, first, source, K, slots, pools_at, N, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    """Store a tile of the gradients of both pools, that of the mean over its number of pixels."""
    c = tl.arange(0, BC)
    n, pixel, inside = pixels_of(tile, TO * VO, BP)
    t, v = pixel // VO, pixel % VO
    mask = inside[:, None] & (c < C)[None, :]
    by_max = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    by_mean = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    slot = pools_at + 2 * source
    maximum = rows_of(y, slot, n, N, TO * VO, C)
    mean = rows_of(y, slot + 1, n, N, TO * VO, C)
    for e in range(K):
        above = rows_of(up, first + e, n, N, TO * VO, C)
        table = edge_between(source, first + e) * (slots + 3) + slots
        by_max += affine_tap(above, C, maximum, coefficients, table, t, v, inside, TO, VO, C, BC)
        by_mean += affine_tap(above, C, mean, coefficients, table + 1, t, v, inside, TO, VO, C, BC)
    high = tl.minimum(t * STRIDE + 1, T - 1) - tl.maximum(t * STRIDE - 1, 0) + 1
    wide = tl.minimum(v * STRIDE + 1, V - 1) - tl.maximum(v * STRIDE - 1, 0) + 1
    out = by_pools + (n * TO * VO + pixel[:, None]) * C + c[None, :]
    tl.store(out, by_max, mask=mask)
    behind = N.to(tl.int64) * TO * VO * C
    tl.store(out + behind, by_mean / tl.where(inside, high * wide, 1)[:, None], mask=mask)


@triton.jit
def _back_through_depthwise(
    by_h, weights, k, K, t, v, inside, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, CODE: tl.constexpr,
):  # fmt: skip
    """Return a tile of the gradient of what a second depthwise stage sees."""
    SIZE: tl.constexpr = CODE & 15
    BEFORE: tl.constexpr = (CODE >> 32) & 0xFFFFFFFF
    kernel = weights + K * BEFORE + (k * 2 + 1) * (SIZE * SIZE * C + C * C)
    c = tl.arange(0, BC)
    acc = tl.zeros([BP, BC], dtype=by_h.dtype.element_ty)
    for tap in range(SIZE * SIZE):
        tt, vv = t - tap // SIZE + SIZE // 2, v - tap % SIZE + SIZE // 2
        there = inside & (tt >= 0) & (tt < TO) & (vv >= 0) & (vv < VO)
        at = by_h + (tt * VO + vv)[:, None] * C + c[None, :]
        g = tl.load(at, mask=there[:, None] & (c < C)[None, :], other=0.0)
        acc += g * tl.load(kernel + c * SIZE * SIZE + tap, mask=c < C, other=0.0)[None, :]
    return acc


@triton.jit(do_not_specialize=INTS)
def through_depthwise(
    by_h, y, norms, weights, inner_up, sums, N, TO, VO, K, first, source, slots,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, OPS: tl.constexpr,
    NUM_OPS: tl.constexpr,
):  # fmt: skip
    """Take gradients through second depthwise stages and the ReLU before; sum them as `meet` does.

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
        if (OPS >> (64 * j + 8)) & 15 == 2:
            if job // K == (OPS >> (64 * j + 20)) & 15:
                acc = _back_through_depthwise(
                    rows_of(by_h, job, n, N, TO * VO, C), weights, k, K, t, v, inside, TO, VO,
                    C, BC, BP, OPS >> (64 * j),
                )  # fmt: skip
                slot = edge * slots + j
                at = pixel[:, None] * C + c[None, :]
                raw = tl.load(rows_of(y, slot, n, N, TO * VO, C) + at, mask=mask, other=0.0)
                centred = tl.where(mask, raw - vectors(norms, slot, 0, C, BC, 2)[None, :], 0.0)
                acc = tl.where(centred > 0, acc, 0.0)
                tl.store(rows_of(inner_up, job, n, N, TO * VO, C) + at, acc, mask=mask)
                store_pair_sums(
                    sums, edge * (slots + 3) + j, tile, tiles, acc, centred, inside, count, C, BC
                )


@triton.jit
def _tap_of_dense_weights(
    up, x, y, coefficients, by_weights, edge, j, first, k, K, tap, split, splits, tiles, slots,
    N, T, V, TO, VO, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, CODE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Differentiate in the weights [C, C] of one tap of an edge."""
    SIZE: tl.constexpr = CODE & 15
    BEFORE: tl.constexpr = (CODE >> 32) & 0xFFFFFFFF
    DEPTH: tl.constexpr = SIZE * SIZE * C
    c = tl.arange(0, BC)
    acc = tl.zeros([BC, BC], dtype=y.dtype.element_ty)
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, TO * VO, BP)
        t, v = pixel // VO, pixel % VO
        by_y = affine_tap(
            rows_of(up, first + k, n, N, TO * VO, C), C,
            rows_of(y, edge * slots + j, n, N, TO * VO, C), coefficients,
            edge * (slots + 3) + j, t, v, inside, TO, VO, C, BC,
        )  # fmt: skip
        tt, vv = t * STRIDE + tap // SIZE - SIZE // 2, v * STRIDE + tap % SIZE - SIZE // 2
        image = x + n * T * V * ROW
        value = tap_of(image, ROW, 0.0, 1.0, tt, vv, inside, T, V, C, BC, False)
        acc += tl.dot(tl.trans(by_y), value, input_precision=PRECISION)
    at = by_weights + K * BEFORE + k * DEPTH * C + tap * C
    at += c[:, None] * SIZE * SIZE * C + c[None, :]
    tl.store(at, acc, mask=(c < C)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=INTS)
def to_dense_weights(
    up, x, y, coefficients, by_weights,
    N, T, V, TO, VO, K, first, source, slots, tiles, num_weights,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Differentiate in the weights of dense convolutions.

    Programs: (splits, taps of all dense operations, edges); as in `through_pointwise`.
    """
    split, job, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    edge = edge_between(source, first + k)
    mine = by_weights + split.to(tl.int64) * num_weights
    for j in tl.static_range(NUM_OPS):
        if (OPS >> (64 * j + 8)) & 15 == 0:
            tap = job - ((OPS >> (64 * j + 24)) & 255)
            if (tap >= 0) & (tap < ((OPS >> (64 * j)) & 15) * ((OPS >> (64 * j)) & 15)):
                _tap_of_dense_weights(
                    up, x, y, coefficients, mine, edge, j, first, k, K, tap, split,
                    tl.num_programs(0), tiles, slots, N, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS >> (64 * j), PRECISION,
                )  # fmt: skip
