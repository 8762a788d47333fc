"""Batch normalisation as a module, whose statistics can span several ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelnas.engine import norm


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's batch normalisation, over several ranks inside `skelnas.engine.norm.over_ranks`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        uses_batch = self.training or not self.track_running_stats
        if not (uses_batch and norm.is_over_ranks()):
            return super().forward(x)
        y, mean, variance = norm.standardise(x, self.eps)
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value, self.momentum or 0.0)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.affine:
            y = torch.addcmul(self.bias[:, None, None], y, self.weight[:, None, None])
        return y


def make_norm(channels: int, searching: bool) -> BatchNorm:
    """Make a batch normalisation, for the supernet without scale and running statistics."""
    return BatchNorm(channels, affine=not searching, track_running_stats=not searching)


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
