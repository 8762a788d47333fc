"""Batch normalisation as a module, whose statistics can span several ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from skelnas.engine import norm
from skelnas.models.channels_last import with_channels_last_gradient

MOMENTUM = 0.1
"""Fraction of the running statistics that is from the last batch (PyTorch's default)."""


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's batch normalisation, over several ranks inside `skelnas.engine.norm.over_ranks`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        uses_batch = self.training or not self.track_running_stats
        if not (uses_batch and norm.is_over_ranks()):
            return with_channels_last_gradient(super().forward(x))  # cells are concatenated
        y, mean, variance = norm.standardise(x, self.eps)
        assert self.momentum is not None
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.affine:
            y = torch.addcmul(self.bias[:, None, None], y, self.weight[:, None, None])
        return y


def make_norm(channels: int, searching: bool) -> BatchNorm:
    """Make a batch normalisation, for the supernet without scale and running statistics."""
    return BatchNorm(channels, affine=not searching, track_running_stats=not searching)


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a network."""
    return [
        statistic
        for module in network.modules()
        if isinstance(module, BatchNorm)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]


@contextmanager
def first_batch(network: nn.Module) -> Iterator[None]:
    """Make the running statistics those of the first batch, forward and back inside the context.

    PyTorch mixes them with a mean of 0 and a variance of 1, of which a tenth is left after 22
    batches. A person in a picture has a variance of a thousandth, so a network that has seen few
    batches would be another one in evaluation. After some hundred batches all is the same.
    """
    statistics = running_statistics(network)
    for statistic in statistics:
        statistic.zero_()
    yield
    for statistic in statistics:
        statistic /= MOMENTUM


class JointNorm(BatchNorm):
    """Normalise each channel of each joint over clips and frames.

    The stem then sees how a joint moves around its mean position, and small motions at the scale of
    large ones (after the first layer of ST-GCN; without scale and shift).
    """

    def __init__(self, num_channels: int, num_joints: int) -> None:
        super().__init__(num_channels * num_joints, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        n, c, _, v = x.shape
        numbers = x.transpose(2, 3).flatten(1, 2).unsqueeze(3)  # [N, C * V, T, 1]
        normed = super().forward(numbers).reshape(n, c, v, -1)  # [N, C, V, T]
        return normed.transpose(2, 3)  # [N, C, T, V]
