"""Backward kernels of the weights of convolutions: dense, pointwise and depthwise.

Each program sums over every `splits`-th tile and stores the result at the place of its weight in
`parts` [splits, length], whose rows are packed weights of all edges that leave the node. Their sum
is the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.packed import (
    dilation,
    kernel_size,
    num_stages,
    num_taps,
    separable_index,
    two_stage_index,
)
from skelnas.engine.triton.kernels.tiles import (
    INTS,
    depthwise_stage_tile,
    edge_between,
    grad_output_tile,
    load_vector,
    pixels_of,
    rows_of,
    tap_of,
    weights_of,
)


@triton.jit
def _matrix_sum(
    up, inner_up, x, y, norms, coefficients, turned, edge, first, k, K, tap, split, splits, tiles,
    slots, stage2_slot, N, T, V, TO, VO, C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
    ROW: tl.constexpr, STRIDE: tl.constexpr, OPS: tl.constexpr, J: tl.constexpr,
    STAGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum the gradient of a raw output times what its matrix multiplies, [C', C].

    That is the pixel under a tap of a dense kernel, or the depthwise output of a stage.
    """
    SIZE: tl.constexpr = kernel_size(OPS, J)
    acc = tl.zeros([BC, BC], dtype=y.dtype.element_ty)
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, TO * VO, BP)
        t, v = pixel // VO, pixel % VO
        grad_y = grad_output_tile(
            up, inner_up, y, coefficients, edge, first, k, K, n, N, t, v, inside, slots,
            stage2_slot, TO, VO, C, BC, OPS, J, STAGE,
        )  # fmt: skip
        image = x + n * T * V * ROW
        if num_stages(OPS, J) == 0:
            tt, vv = t * STRIDE + tap // SIZE - SIZE // 2, v * STRIDE + tap % SIZE - SIZE // 2
            value = tap_of(image, ROW, 0.0, 1.0, tt, vv, inside, T, V, C, BC, False)
        else:
            kernel = weights_of(turned, k, K, C, OPS, J, STAGE)
            value = depthwise_stage_tile(
                image, y, norms, kernel, edge * slots + J, n, N, t, v, inside, T, V, TO, VO,
                C, BC, BP, ROW, STRIDE, OPS, J, STAGE,
            )  # fmt: skip
        acc += tl.dot(tl.trans(grad_y), value, input_precision=PRECISION)
    return acc


@triton.jit(do_not_specialize=INTS)
def matrix_gradients(
    up, inner_up, x, y, norms, coefficients, turned, parts,
    N, T, V, TO, VO, K, first, source, slots, stage2_slot, tiles, length,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of all matrices [C', C]: taps of dense kernels and pointwise weights.

    Programs: (splits, matrices of an edge, edges).
    """
    split, job, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    edge = edge_between(source, first + k)
    c = tl.arange(0, BC)
    row, column = c[:, None], c[None, :]
    real = (row < C) & (column < C)
    part = parts + split.to(tl.int64) * length
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        if num_stages(OPS, j) == 0:
            tap = job - jobs
            if (tap >= 0) & (tap < num_taps(OPS, j)):
                total = _matrix_sum(
                    up, inner_up, x, y, norms, coefficients, turned, edge, first, k, K, tap, split,
                    tl.num_programs(0), tiles, slots, stage2_slot, N, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS, j, 1, PRECISION,
                )  # fmt: skip
                out = weights_of(part, k, K, C, OPS, j, 1)
                out += (row * num_taps(OPS, j) + tap) * C + column
                tl.store(out, total, mask=real)
            jobs += num_taps(OPS, j)
        for stage in tl.static_range(1, num_stages(OPS, j) + 1):
            if job == jobs:
                total = _matrix_sum(
                    up, inner_up, x, y, norms, coefficients, turned, edge, first, k, K, 0, split,
                    tl.num_programs(0), tiles, slots, stage2_slot, N, T, V, TO, VO,
                    C, BC, BP, ROW, STRIDE, OPS, j, stage, PRECISION,
                )  # fmt: skip
                out = weights_of(part, k, K, C, OPS, j, stage) + num_taps(OPS, j) * C
                out += row * C + column
                tl.store(out, total, mask=real)
            jobs += 1


@triton.jit
def _store_row_of_taps(
    out, grad, x, y, norms, slot, row, split, splits, tiles, N, T, V, TO, VO,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, SIZE: tl.constexpr, DILATION: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """Sum the gradient of a depthwise output times the pixels under a row of its kernel's taps."""
    c = tl.arange(0, BC)
    mean = load_vector(norms, slot, 0, C, BC, 2)
    rstd = load_vector(norms, slot, 1, C, BC, 2)
    zeros = tl.zeros([BP, BC], dtype=y.dtype.element_ty)
    sums = (zeros,) * SIZE
    down = (row - SIZE // 2) * DILATION
    for tile in range(split, tiles, splits):
        n, pixel, inside = pixels_of(tile, TO * VO, BP)
        t, v = pixel // VO, pixel % VO
        pointers = grad + (n * TO * VO + pixel[:, None]) * C + c[None, :]
        g = tl.load(pointers, mask=inside[:, None] & (c < C)[None, :], other=0.0)
        added = ()
        for tap in tl.static_range(SIZE):
            right = (tap - SIZE // 2) * DILATION
            if STAGE == 1:
                value = tap_of(
                    x + n * T * V * ROW, ROW, 0.0, 1.0, t * STRIDE + down, v * STRIDE + right,
                    inside, T, V, C, BC, False,
                )  # fmt: skip
            else:
                value = tap_of(
                    rows_of(y, slot, n, N, TO * VO, C), C, mean, rstd, t + down, v + right,
                    inside, TO, VO, C, BC, True,
                )  # fmt: skip
            added = added + (sums[tap] + g * value,)  # noqa: RUF005 - Triton knows no star
        sums = added
    for tap in tl.static_range(SIZE):
        tl.store(out + (c * SIZE + row) * SIZE + tap, tl.sum(sums[tap], 0), mask=c < C)


@triton.jit(do_not_specialize=INTS)
def depthwise_gradients(
    x, y, norms, grad_h, inner_grad_h, parts,
    N, T, V, TO, VO, K, first, source, slots, tiles, length,
    C: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, ROW: tl.constexpr,
    STRIDE: tl.constexpr, OPS: tl.constexpr, NUM_OPS: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of all depthwise kernels.

    Programs: (splits, rows of the kernels of an edge, edges).
    """
    split, job, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    edge = edge_between(source, first + k)
    part = parts + split.to(tl.int64) * length
    jobs = 0
    for j in tl.static_range(NUM_OPS):
        for stage in tl.static_range(1, num_stages(OPS, j) + 1):
            row = job - jobs
            if (row >= 0) & (row < kernel_size(OPS, j)):
                if stage == 1:
                    grad = rows_of(grad_h, separable_index(OPS, j) * K + k, 0, N, TO * VO, C)
                    dilated = dilation(OPS, j)
                else:
                    grad = rows_of(inner_grad_h, two_stage_index(OPS, j) * K + k, 0, N, TO * VO, C)
                    dilated = 1
                out = weights_of(part, k, K, C, OPS, j, stage)
                _store_row_of_taps(
                    out, grad, x, y, norms, edge * slots + j, row, split,
                    tl.num_programs(0), tiles, N, T, V, TO, VO, C, BC, BP, ROW, STRIDE,
                    kernel_size(OPS, j), dilated, stage,
                )  # fmt: skip
            jobs += kernel_size(OPS, j)
