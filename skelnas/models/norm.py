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
