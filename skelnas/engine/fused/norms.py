"""Normalise, weigh and add in one step, and the gradient of that.

For a raw output y, centred to mean 0 over its P pixels, an edge adds

    p * BN(y) = (p * rstd) * y,   rstd = 1 / sqrt(mean(y^2) + eps),

where p is the weight of the operation. Normalised values are never written. With the upstream
gradient g, centred too, and q = sum over pixels of g * y, a channel's gradients are

    d p = rstd * q,   d y = p * rstd * (g - y * rstd^2 * q / P).

If y = h W^T is a pointwise convolution of a centred h, then mean(y^2) follows from the small matrix
h^T h, and q from g^T h. So y is not written either: h is added through one product with the scaled
W. The gradient of y (or h) is the sum of a part linear in g and a part linear in y (or h); this
module returns the factors of both.

Large tensors are processed edge by edge, each while it is in the cache; small ones for all K edges
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skelnas.engine.norm import EPS


def centre_(rows: Tensor) -> Tensor:
    """Subtract each channel's mean over the pixels of [P, C], in place."""
    return rows.sub_(rows.mean(0))


def compute_rstd(ys: Sequence[Tensor]) -> Tensor:
    """Return rstd [K, C] of K centred tensors [P, C]."""
    return torch.stack([(y * y).mean(0) for y in ys]).add_(EPS).rsqrt_()


class Factors(NamedTuple):
    """The gradient of the op weights, and the factors of the gradient of y (or h).

    Attributes:
        grad_op_weights: [K].
        of_g: factors of the upstream gradients: [K, C], or [K, C_out, C_in] if y is pointwise.
        of_y: factors of y: [K, C]; or of h: [K, C_in, C_in].
    """

    grad_op_weights: Tensor
    of_g: Tensor
    of_y: Tensor


def norm_factors(q: Tensor, rstd: Tensor, op_weights: Tensor, num_pixels: int) -> Factors:
    """Differentiate op_weights * BN(y).

    Args:
        q: [K, C], the sum over pixels of centred upstream gradient times centred y.
        rstd: [K, C].
        op_weights: [K].
        num_pixels: P.
    """
    scaled_q = rstd * q
    of_g = rstd * op_weights[:, None]
    of_y = (of_g * rstd).mul_(scaled_q).div_(-num_pixels)
    return Factors(scaled_q.sum(1), of_g, of_y)


def pointwise_rstd(gram: Tensor, weight: Tensor, num_pixels: int) -> tuple[Tensor, Tensor]:
    """Return the rstd of y = h weight^T without computing y.

    Args:
        gram: h^T h of centred h, [K, C_in, C_in] or [C_in, C_in].
        weight: [K, C_out, C_in].
        num_pixels: P.

    Returns:
        weight h^T h, of the weight's shape; and rstd [K, C_out].
    """
    weight_gram = weight @ gram  # [K, C_out, C_in] @ [(K,) C_in, C_in] -> [K, C_out, C_in]
    variance = (weight * weight_gram).sum(2).div_(num_pixels)
    return weight_gram, variance.clamp_min_(0).add_(EPS).rsqrt_()


def scaled(weight: Tensor, rstd: Tensor, op_weights: Tensor | None = None) -> Tensor:
    """Return the matrices [K, C_in, C_out] that map h to op_weights * BN(h weight^T)."""
    scale = rstd if op_weights is None else rstd * op_weights[:, None]
    return (weight * scale[:, :, None]).mT  # [K, C_out, C_in] -> [K, C_in, C_out]


def pointwise_factors(
    weight: Tensor,
    weight_gram: Tensor,
    rstd: Tensor,
    op_weights: Tensor,
    cross: Tensor,
    num_pixels: int,
) -> tuple[Factors, Tensor]:
    """Differentiate op_weights * BN(h weight^T).

    Args:
        weight, weight_gram, rstd: as in `pointwise_rstd`.
        op_weights: [K].
        cross: [K, C_out, C_in], g^T h with the centred upstream gradients g.
        num_pixels: P.

    Returns:
        The factors for h, and the gradient of the weight.
    """
    factors = norm_factors((weight * cross).sum(2), rstd, op_weights, num_pixels)
    of_g, of_y = factors.of_g[:, :, None], factors.of_y[:, :, None]
    grad_weight = (cross * of_g).addcmul_(weight_gram, of_y)
    of_h = weight.mT @ (weight * of_y)  # [K, C_in, C_out] @ [K, C_out, C_in] -> [K, C_in, C_in]
    return Factors(factors.grad_op_weights, weight * of_g, of_h), grad_weight
