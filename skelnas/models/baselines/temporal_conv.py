"""Res-TCN: convolutions over time, with each frame as one vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from skelnas.models.baselines.base import Baseline, Dropout, Shape
from skelnas.models.norm import BatchNorm

STEM = 64
UNITS = (*3 * [(64, 1)], (128, 2), *2 * [(128, 1)], (256, 2), *2 * [(256, 1)])
"""Channels and stride of each unit."""

KERNEL = 8
"""Frames of a convolution."""


class TemporalConv(Baseline):
    """Kim and Reiter: Interpretable 3D Human Action Analysis with TCNs, CVPR workshops 2017.

    The coordinates of all joints of all persons are the channels of a frame. A convolution, nine
    residual units (normalisation, ReLU, dropout, convolution), the mean over time, a classifier.
    Where a unit changes the width, its residual has a 1 x 1 convolution. The number of parameters
    is not published (Table IV has a dash); on NTU it is 1.874 million. The original's L1 penalty on
    the weights is left out: all models are trained the same way here.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.stem = nn.Conv2d(shape.channels * shape.persons * shape.joints, STEM, (KERNEL, 1))
        width, self.units = STEM, nn.Sequential()
        for channels, stride in UNITS:
            self.units.append(_Unit(width, channels, stride))
            width = channels
        self.norm = BatchNorm(width)
        self.classifier = nn.Linear(width, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, M x V] to logits [N, classes]."""
        frames = x.transpose(2, 3).flatten(1, 2).unsqueeze(3)  # [N, C * M * V, T, 1]
        x = self.norm(self.units(self.stem(_pad(frames)))).relu()
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


class _Unit(nn.Module):
    """Normalisation and convolution, with a residual around both."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = nn.Sequential(BatchNorm(in_channels), nn.ReLU(), Dropout(0.5))
        self.convolution = nn.Conv2d(in_channels, channels, (KERNEL, 1), (stride, 1))
        same = in_channels == channels
        self.around = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, 1] to [N, C', T / stride, 1], rounded up."""
        y: Tensor = self.convolution(_pad(self.before(x)))
        around: Tensor = self.around(x[:, :, :: self.stride])
        return y + around


def _pad(x: Tensor) -> Tensor:
    """Pad with zeros in time, to keep the number of frames; at the end with one more."""
    return F.pad(x, (0, 0, (KERNEL - 1) // 2, KERNEL // 2))
