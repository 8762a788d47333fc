"""Kernels of skip and squeeze-and-excitation, which scale the channels of each clip."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.tiles import edge_between

INTS = ["N", "pixels", "chunks", "K", "first", "source", "slots", "tiles"]


@triton.jit
def _means(
    squeezed, clip, valid, pixels, chunks, C: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Return the channel means [BN, BC] of some clips, from the sums of their tiles."""
    c = tl.arange(0, BC)
    mask = valid[:, None] & (c < C)[None, :]
    total = tl.zeros([BN, BC], dtype=squeezed.dtype.element_ty)
    for chunk in range(chunks):
        pointers = squeezed + (clip * chunks + chunk)[:, None] * C + c[None, :]
        total += tl.load(pointers, mask=mask, other=0.0)
    return total / pixels


@triton.jit
def _gate(mean, squeeze, excite):
    """Return the hidden layer [BN, BH] of squeeze-and-excitation, and its gate [BN, BC]."""
    hidden = tl.sum(mean[:, None, :] * squeeze[None, :, :], 2)
    hidden = tl.where(hidden < 0, 0.0, hidden)
    logit = tl.sum(hidden[:, None, :] * excite[None, :, :], 2)
    return hidden, 1.0 / (1.0 + tl.exp(-logit))


@triton.jit
def _weights(weights, k, C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BH: tl.constexpr):
    """Return the weights of an edge: [BH, BC] and [BC, BH]."""
    c, h = tl.arange(0, BC), tl.arange(0, BH)
    edge_weights = weights + k * 2 * H * C
    mask = (h < H)[:, None] & (c < C)[None, :]
    squeeze = tl.load(edge_weights + h[:, None] * C + c[None, :], mask=mask, other=0.0)
    mask = (c < C)[:, None] & (h < H)[None, :]
    pointers = edge_weights + H * C + c[:, None] * H + h[None, :]
    return squeeze, tl.load(pointers, mask=mask, other=0.0)


@triton.jit(do_not_specialize=INTS)
def channel_scales(
    squeezed, op_weights, weights, scales, N, pixels, chunks, K, first, source,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BH: tl.constexpr, BN: tl.constexpr,
    IDS: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Compute the factors of skip and gate together. Programs: (blocks of clips, edges)."""
    k = tl.program_id(1)
    clip = tl.program_id(0) * BN + tl.arange(0, BN)
    valid = clip < N
    c = tl.arange(0, BC)
    edge = edge_between(source, first + k)
    scale = tl.zeros([BN, BC], dtype=scales.dtype.element_ty)
    if SKIP >= 0:
        scale += tl.load(op_weights + edge * IDS + SKIP)
    if GATE >= 0:
        mean = _means(squeezed, clip, valid, pixels, chunks, C, BC, BN)
        squeeze, excite = _weights(weights, k, C, BC, H, BH)
        _, gate = _gate(mean, squeeze, excite)
        scale += tl.load(op_weights + edge * IDS + GATE) * gate
    pointers = scales + (edge * N + clip)[:, None] * C + c[None, :]
    tl.store(pointers, scale, mask=valid[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=INTS)
def scales_backward(
    squeezed, op_weights, weights, sums, grad_op_weights, grad_weights, per_pixel,
    N, pixels, chunks, tiles, K, first, source, slots,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BH: tl.constexpr, BN: tl.constexpr,
    IDS: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of op weights, weights and means of skip and gate; one program an edge.

    `sums` has each tile's sum of the target's gradient times the node, from `sum_products`.
    `per_pixel` [edges, N, C] is the gradient that each pixel of a clip receives through the mean.
    """
    k = tl.program_id(0)
    c, h = tl.arange(0, BC), tl.arange(0, BH)
    edge = edge_between(source, first + k)
    cross_sums = sums + (edge * (slots + 3) + slots + 2).to(tl.int64) * 3 * tiles * C
    grad_skip = tl.zeros([BC], dtype=sums.dtype.element_ty)
    grad_gate = tl.zeros([BC], dtype=sums.dtype.element_ty)
    grad_squeeze = tl.zeros([BH, BC], dtype=sums.dtype.element_ty)
    grad_excite = tl.zeros([BC, BH], dtype=sums.dtype.element_ty)
    for start in range(0, N, BN):
        clip = start + tl.arange(0, BN)
        valid = clip < N
        cross = _means(cross_sums, clip, valid, 1, tiles // N, C, BC, BN)
        grad_skip += tl.sum(cross, 0)
        if GATE >= 0:
            mean = _means(squeezed, clip, valid, pixels, chunks, C, BC, BN)
            squeeze, excite = _weights(weights, k, C, BC, H, BH)
            hidden, gate = _gate(mean, squeeze, excite)
            grad_gate += tl.sum(gate * cross, 0)
            grad_logit = tl.load(op_weights + edge * IDS + GATE) * cross * gate * (1.0 - gate)
            grad_hidden = tl.sum(grad_logit[:, :, None] * excite[None, :, :], 1)
            grad_hidden = tl.where(hidden > 0, grad_hidden, 0.0)
            grad_squeeze += tl.sum(grad_hidden[:, :, None] * mean[:, None, :], 0)
            grad_excite += tl.sum(grad_logit[:, :, None] * hidden[:, None, :], 0)
            grad_mean = tl.sum(grad_hidden[:, :, None] * squeeze[None, :, :], 1)
            pointers = per_pixel + (k * N + clip)[:, None] * C + c[None, :]
            tl.store(pointers, grad_mean / pixels, mask=valid[:, None] & (c < C)[None, :])
    if SKIP >= 0:
        tl.store(grad_op_weights + edge * IDS + SKIP, tl.sum(grad_skip, 0))
    if GATE >= 0:
        tl.store(grad_op_weights + edge * IDS + GATE, tl.sum(grad_gate, 0))
        edge_grads = grad_weights + k * 2 * H * C
        mask = (h < H)[:, None] & (c < C)[None, :]
        tl.store(edge_grads + h[:, None] * C + c[None, :], grad_squeeze, mask=mask)
        mask = (c < C)[:, None] & (h < H)[None, :]
        tl.store(edge_grads + H * C + c[:, None] * H + h[None, :], grad_excite, mask=mask)
