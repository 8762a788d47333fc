"""Normalisation of channels by the statistics of a batch, which may lie on several ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.runtime import distributed

EPS = 1e-5
"""Added to the variance (PyTorch's default)."""

_over_ranks = False


@contextmanager
def over_ranks(wanted: bool) -> Iterator[None]:
    """Let statistics be those of the clips of all ranks for a while, instead of this one's."""
    global _over_ranks
    before, _over_ranks = _over_ranks, wanted and distributed.world_size() > 1
    try:
        yield
    finally:
        _over_ranks = before


def is_over_ranks() -> bool:
    """Say whether statistics are those of the clips of several ranks."""
    return _over_ranks


def batch_norm(x: Tensor) -> Tensor:
    """Normalise each channel of x [N, C, T, V] by the mean and variance of the batch."""
    if not _over_ranks:
        return F.batch_norm(x, None, None, training=True, eps=EPS)
    return standardise(x, EPS)[0]


def standardise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel by the mean and variance over the clips of all ranks.

    Each rank centres its own values; means, variances and counts of all ranks then give those
    of the whole (Chan et al., 1979), without the cancellation of a sum of squares. All of it
    can be differentiated as often as needed. Kept for the backward pass: one tensor as large
    as x. Statistics are computed in float32 at least.

    Args:
        x: [N, C, T, V], the clips of this rank.
        eps: added to the variance.

    Returns:
        x normalised; and [C], the mean and the unbiased variance of the whole, detached.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    own_mean = wide.mean(dim=(0, 2, 3))
    centred = wide - own_mean[:, None, None]
    own_variance = centred.square().mean(dim=(0, 2, 3))
    own_count = own_mean.new_full((1,), x.numel() // x.shape[1])

    table = distributed.all_gather(torch.cat([own_mean, own_variance, own_count]))
    means, variances, counts = torch.split(table, [x.shape[1], x.shape[1], 1], dim=1)
    count = counts.sum()
    shares = counts / count
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)

    scale = (variance + eps).rsqrt()
    shift = (own_mean - mean) * scale
    y = torch.addcmul(shift[:, None, None], centred, scale[:, None, None])
    return y.to(x.dtype), mean.detach(), (variance * count / (count - 1)).detach()
