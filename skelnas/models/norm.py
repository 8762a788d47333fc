"""Normalisation as a module, with the batch statistics of `skelnas.engine.norm`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelnas.engine import norm


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's, whose batch may lie on several ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        of_batch = self.training or not self.track_running_stats
        if not (of_batch and norm.is_over_ranks()):
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


class JointNorm(BatchNorm):
    """Each number of each joint by its own mean and variance over clips and frames.

    So the stem sees how a joint moves about its usual place, and small motions as large as
    positions (after ST-GCN, which begins so; here without scale and shift).
    """

    def __init__(self, num_channels: int, num_joints: int) -> None:
        super().__init__(num_channels * num_joints, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        clips, channels, _, joints = x.shape
        numbers = x.transpose(2, 3).flatten(1, 2).unsqueeze(3)
        return super().forward(numbers).reshape(clips, channels, joints, -1).transpose(2, 3)
