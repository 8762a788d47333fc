"""Kernels of squeeze-and-excitation and skips: what scales the channels of each clip."""

from __future__ import annotations

import triton
import triton.language as tl

from skelnas.engine.triton.kernels.tiles import edge_between

INTS = ["N", "pixels", "chunks", "K", "first", "source", "slots", "tiles"]


@triton.jit
def _means(
    squeezed, clip, there, pixels, chunks, C: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Return the channels' means [BN, BC] of some clips from the sums of their tiles."""
    c = tl.arange(0, BC)
    mask = there[:, None] & (c < C)[None, :]
    total = tl.zeros([BN, BC], dtype=squeezed.dtype.element_ty)
    for chunk in range(chunks):
        at = squeezed + (clip * chunks + chunk)[:, None] * C + c[None, :]
        total += tl.load(at, mask=mask, other=0.0)
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
    own = weights + k * 2 * H * C
    mask = (h < H)[:, None] & (c < C)[None, :]
    squeeze = tl.load(own + h[:, None] * C + c[None, :], mask=mask, other=0.0)
    mask = (c < C)[:, None] & (h < H)[None, :]
    return squeeze, tl.load(own + H * C + c[:, None] * H + h[None, :], mask=mask, other=0.0)


@triton.jit(do_not_specialize=INTS)
def scales_of(
    squeezed, mix, weights, scales, N, pixels, chunks, K, first, source,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BH: tl.constexpr, BN: tl.constexpr,
    IDS: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Compute what skip and gate together scale a clip's channels by. Programs: (clips, edges)."""
    k = tl.program_id(1)
    clip = tl.program_id(0) * BN + tl.arange(0, BN)
    there = clip < N
    c = tl.arange(0, BC)
    edge = edge_between(source, first + k)
    scale = tl.zeros([BN, BC], dtype=scales.dtype.element_ty)
    if SKIP >= 0:
        scale += tl.load(mix + edge * IDS + SKIP)
    if GATE >= 0:
        mean = _means(squeezed, clip, there, pixels, chunks, C, BC, BN)
        squeeze, excite = _weights(weights, k, C, BC, H, BH)
        _, gate = _gate(mean, squeeze, excite)
        scale += tl.load(mix + edge * IDS + GATE) * gate
    at = scales + (edge * N + clip)[:, None] * C + c[None, :]
    tl.store(at, scale, mask=there[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=INTS)
def through_scales(
    squeezed, mix, weights, sums, by_mix, by_weights, everywhere,
    N, pixels, chunks, tiles, K, first, source, slots,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BH: tl.constexpr, BN: tl.constexpr,
    IDS: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Differentiate in shares, weights and means of skip and gate; a program an edge.

    `sums` are those of `meet`: of the target's gradient times the node, for each tile.
    `everywhere` [edges, N, C] is what every pixel of a clip gets through its mean.
    """
    k = tl.program_id(0)
    c, h = tl.arange(0, BC), tl.arange(0, BH)
    edge = edge_between(source, first + k)
    met_at = sums + (edge * (slots + 3) + slots + 2).to(tl.int64) * 3 * tiles * C
    by_skip = tl.zeros([BC], dtype=sums.dtype.element_ty)
    by_gate = tl.zeros([BC], dtype=sums.dtype.element_ty)
    by_squeeze = tl.zeros([BH, BC], dtype=sums.dtype.element_ty)
    by_excite = tl.zeros([BC, BH], dtype=sums.dtype.element_ty)
    for start in range(0, N, BN):
        clip = start + tl.arange(0, BN)
        there = clip < N
        met = _means(met_at, clip, there, 1, tiles // N, C, BC, BN)
        by_skip += tl.sum(met, 0)
        if GATE >= 0:
            mean = _means(squeezed, clip, there, pixels, chunks, C, BC, BN)
            squeeze, excite = _weights(weights, k, C, BC, H, BH)
            hidden, gate = _gate(mean, squeeze, excite)
            by_gate += tl.sum(gate * met, 0)
            by_logit = tl.load(mix + edge * IDS + GATE) * met * gate * (1.0 - gate)
            by_hidden = tl.sum(by_logit[:, :, None] * excite[None, :, :], 1)
            by_hidden = tl.where(hidden > 0, by_hidden, 0.0)
            by_squeeze += tl.sum(by_hidden[:, :, None] * mean[:, None, :], 0)
            by_excite += tl.sum(by_logit[:, :, None] * hidden[:, None, :], 0)
            by_mean = tl.sum(by_hidden[:, :, None] * squeeze[None, :, :], 1)
            at = everywhere + (k * N + clip)[:, None] * C + c[None, :]
            tl.store(at, by_mean / pixels, mask=there[:, None] & (c < C)[None, :])
    if SKIP >= 0:
        tl.store(by_mix + edge * IDS + SKIP, tl.sum(by_skip, 0))
    if GATE >= 0:
        tl.store(by_mix + edge * IDS + GATE, tl.sum(by_gate, 0))
        own = by_weights + k * 2 * H * C
        mask = (h < H)[:, None] & (c < C)[None, :]
        tl.store(own + h[:, None] * C + c[None, :], by_squeeze, mask=mask)
        mask = (c < C)[:, None] & (h < H)[None, :]
        tl.store(own + H * C + c[:, None] * H + h[None, :], by_excite, mask=mask)
