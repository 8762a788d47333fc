"""Normalise, weigh and add in one step, and the gradient of that.

For a raw output y, centred to mean 0 over its P pixels, an edge adds

    share * BN(y) = (share * rstd) * y,   rstd = 1 / sqrt(mean(y^2) + eps),

so that normalised values are never written. With the upstream gradient g, centred too, and
q = sum over pixels of g * y, a channel's gradients are

    d share = rstd * q,   d y = share * rstd * (g - y * rstd^2 * q / P).

Where y = h W^T is a pointwise convolution of a centred h, mean(y^2) comes from the small
matrix h^T h and q from g^T h, so that y is not written either: h goes into the sum through
one product with the scaled W. Both gradients are sums of a part linear in g and one linear
in y (or h); this module returns their factors.

The large tensors are taken one edge after the other, each while it is in the cache; the small
ones are those of K edges at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-5
"""Of PyTorch's batch norm."""


def centre_(rows: Tensor) -> Tensor:
    """Take off each channel's mean over the pixels of [P, C], in place."""
    return rows.sub_(rows.mean(0))


def measure(ys: Sequence[Tensor]) -> Tensor:
    """Return rstd [K, C] of K centred tensors [P, C]."""
    return torch.stack([(y * y).mean(0) for y in ys]).add_(EPS).rsqrt_()


class Factors(NamedTuple):
    """What takes the upstream gradients and the rows themselves to the rows' gradients.

    Attributes:
        by_share: [K], the gradients of the shares.
        of_up, of_own: [K, C], or for pointwise convolutions [K, C_out, C_in] and
            [K, C_in, C_in].
    """

    by_share: Tensor
    of_up: Tensor
    of_own: Tensor


def norm_factors(q: Tensor, rstd: Tensor, share: Tensor, num_pixels: int) -> Factors:
    """Differentiate share * BN(y).

    Args:
        q: [K, C], the sum over pixels of the centred upstream gradient times centred y.
        rstd: [K, C].
        share: [K].
    """
    scaled = rstd * q
    of_up = rstd * share[:, None]
    return Factors(scaled.sum(1), of_up, (of_up * rstd).mul_(scaled).div_(-num_pixels))


def measure_pointwise(grams: Tensor, weight: Tensor, num_pixels: int) -> tuple[Tensor, Tensor]:
    """Measure y = h weight^T without computing it.

    Args:
        grams: h^T h of centred h, [K, C_in, C_in] or [C_in, C_in].
        weight: [K, C_out, C_in].

    Returns:
        weight h^T h, as the weight, and rstd [K, C_out].
    """
    spread = weight @ grams
    variance = (weight * spread).sum(2).div_(num_pixels)
    return spread, variance.clamp_min_(0).add_(EPS).rsqrt_()


def scaled(weight: Tensor, rstd: Tensor, share: Tensor | None = None) -> Tensor:
    """Return the matrices [K, C_in, C_out] that take h to share * BN(h weight^T)."""
    scale = rstd if share is None else rstd * share[:, None]
    return (weight * scale[:, :, None]).mT


def pointwise_factors(
    weight: Tensor, spread: Tensor, rstd: Tensor, share: Tensor, met: Tensor, num_pixels: int
) -> tuple[Factors, Tensor]:
    """Differentiate share * BN(h weight^T); return factors for h, and the weights' gradients.

    Args:
        met: up^T h [K, C_out, C_in], of the centred upstream gradients.
        weight, spread, rstd: as in `measure_pointwise`.
        share: [K].
    """
    factors = norm_factors((weight * met).sum(2), rstd, share, num_pixels)
    of_up, of_y = factors.of_up[:, :, None], factors.of_own[:, :, None]
    by_weight = (met * of_up).addcmul_(spread, of_y)
    return Factors(factors.by_share, weight * of_up, weight.mT @ (weight * of_y)), by_weight
