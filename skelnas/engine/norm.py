"""Batch normalisation without scale and shift, whose batch may span several ranks."""

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
def over_ranks(enabled: bool) -> Iterator[None]:
    """Compute statistics over the clips of all ranks inside the context, if enabled."""
    global _over_ranks
    before, _over_ranks = _over_ranks, enabled and distributed.world_size() > 1
    try:
        yield
    finally:
        _over_ranks = before


def is_over_ranks() -> bool:
    """Return whether statistics are computed over several ranks."""
    return _over_ranks


def batch_norm(x: Tensor) -> Tensor:
    """Normalise each channel of x [N, C, T, V] by the mean and variance of the batch."""
    if not _over_ranks:
        return F.batch_norm(x, None, None, training=True, eps=EPS)
    return standardise(x, EPS)[0]


def standardise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel by the mean and variance over the clips of all ranks.

    Each rank centres its values; the means, variances and counts of all ranks then give those of
    the whole batch (Chan et al., 1979), without the cancellation of a sum of squares. The result
    can be differentiated any number of times; backward needs one tensor of the size of x.
    Statistics are computed in float32 or wider.

    Args:
        x: [N, C, T, V], the clips of this rank.
        eps: added to the variance.

    Returns:
        x normalised; and the mean [C] and unbiased variance [C] of the whole batch, detached.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    local_mean = wide.mean(dim=(0, 2, 3))
    centred = wide - local_mean[:, None, None]
    local_variance = centred.square().mean(dim=(0, 2, 3))
    local_count = local_mean.new_full((1,), x.numel() // x.shape[1])

    table = distributed.all_gather(torch.cat([local_mean, local_variance, local_count]))
    means, variances, counts = torch.split(table, [x.shape[1], x.shape[1], 1], dim=1)
    count = counts.sum()
    fractions = counts / count
    mean = (fractions * means).sum(0)
    variance = (fractions * (variances + (means - mean).square())).sum(0)

    scale = (variance + eps).rsqrt()
    shift = (local_mean - mean) * scale
    y = torch.addcmul(shift[:, None, None], centred, scale[:, None, None])
    return y.to(x.dtype), mean.detach(), (variance * count / (count - 1)).detach()
