"""Res-TCN: a frame is one long vector, convolved over time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from skelnas.models.baselines.base import Baseline, Dropout, Shape
from skelnas.models.norm import BatchNorm

STEM = 64
UNITS = (*3 * [(64, 1)], (128, 2), *2 * [(128, 1)], (256, 2), *2 * [(256, 1)])
"""Channels of each unit, and its stride."""

KERNEL = 8
"""Frames that a convolution sees."""


class TemporalConv(Baseline):
    """Kim and Reiter: Interpretable 3D Human Action Analysis with TCNs, CVPR workshops 2017.

    The numbers of all joints of all persons are the channels of a frame. A convolution, nine
    residual units (normalise, ReLU, dropout, convolve) whose ways around are plain but for 1 x 1
    convolutions where the width changes, the mean over time, a classifier. Its parameters are
    not published (Table IV has a dash); on NTU these are 1.874 million. The penalty on the
    absolute values of its weights is not part of it: all models train alike here.
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
        frames = x.transpose(2, 3).flatten(1, 2).unsqueeze(3)
        x = self.norm(self.units(self.stem(_pad(frames)))).relu()
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


class _Unit(nn.Module):
    """A convolution with normalisation in front of it, and the way around both."""

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
    """Add zeros in time, so that as many frames come out of a convolution; one more behind."""
    return F.pad(x, (0, 0, (KERNEL - 1) // 2, KERNEL // 2))
