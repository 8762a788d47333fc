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
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

EPS = 1e-5
"""Of PyTorch's batch norm."""


def centre_(rows: Tensor) -> Tensor:
    """Take off each channel's mean over the pixels of [P, C], in place."""
    return rows.sub_(rows.mean(0))


def measure(y: Tensor) -> Tensor:
    """Return rstd [C] of centred rows [P, C]."""
    return (y * y).mean(0).add_(EPS).rsqrt_()


class Factors(NamedTuple):
    """What takes the upstream gradient and the rows themselves to the rows' gradient.

    Attributes:
        by_share: [C], whose sum is the gradient of the share.
        of_up, of_own: [C], or for a pointwise convolution [C_out, C_in] and [C_in, C_in].
    """

    by_share: Tensor
    of_up: Tensor
    of_own: Tensor


def norm_factors(y: Tensor, rstd: Tensor, share: Tensor, up: Tensor) -> Factors:
    """Differentiate share * BN(y); y and up are centred [P, C]."""
    return _factors((up * y).sum(0), rstd, share, len(y))


def _factors(q: Tensor, rstd: Tensor, share: Tensor, num_pixels: int) -> Factors:
    by_share = rstd * q
    of_up = rstd * share
    return Factors(by_share, of_up, (of_up * rstd).mul_(by_share).div_(-num_pixels))


def measure_pointwise(h: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Measure y = h weight^T without computing it.

    Args:
        h: [P, C_in], centred.
        weight: [C_out, C_in].

    Returns:
        weight h^T h [C_out, C_in], and rstd [C_out].
    """
    spread = weight @ (h.t() @ h)
    variance = (weight * spread).sum(1).div_(len(h))
    return spread, variance.clamp_min_(0).add_(EPS).rsqrt_()


def pointwise_factors(
    weight: Tensor, spread: Tensor, rstd: Tensor, share: Tensor, met: Tensor, num_pixels: int
) -> tuple[Factors, Tensor]:
    """Differentiate share * BN(h weight^T); return factors for h, and the weight's gradient.

    Args:
        met: up^T h [C_out, C_in], of the centred upstream gradient.
        weight, spread, rstd: as in `measure_pointwise`.
    """
    by_share, of_up, of_y = _factors((weight * met).sum(1), rstd, share, num_pixels)
    of_up, of_y = of_up[:, None], of_y[:, None]
    by_weight = (met * of_up).addcmul_(spread, of_y)
    return Factors(by_share, weight * of_up, weight.t() @ (weight * of_y)), by_weight
