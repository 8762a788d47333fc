"""ST-GCN: convolutions over the bones of a body, and over time."""

from __future__ import annotations

from torch import Tensor, nn

from skelnas.models.baselines.base import Baseline, Dropout, Shape
from skelnas.models.baselines.graph import SUBSETS, GraphSum
from skelnas.models.norm import BatchNorm

UNITS = (*4 * [(64, 1)], (128, 2), *2 * [(128, 1)], (256, 2), *2 * [(256, 1)])
"""Channels and stride in time of each unit."""

KERNEL = 9
"""Frames of a convolution over time."""


class STGCN(Baseline):
    """Yan, Xiong and Lin: Spatial Temporal Graph Convolutional Networks, AAAI 2018.

    Ten units, as in the release (the paper's text counts nine): a sum over neighbours in three
    subsets, with a learned importance for each edge in each unit, then a convolution over time. The
    mean over time, joints and persons is classified. On NTU it has 3.099 million parameters,
    published as 3.1. Absent persons are zeros and count in the mean, as in the release.

    Raises:
        ValueError: the shape has no bones.
    """

    needs_bones = True

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if not shape.bones:
            raise ValueError("ST-GCN needs bones")
        self.norm = BatchNorm(shape.channels * shape.joints)
        width, self.units = shape.channels, nn.Sequential()
        for index, (channels, stride) in enumerate(UNITS):
            self.units.append(_Unit(shape, width, channels, stride, residual=index > 0))
            width = channels
        self.classifier = nn.Linear(width, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, M x V] to logits [N, classes]."""
        x = self.split_persons(x)
        num_channels, num_joints = self.shape.channels, self.shape.joints
        numbers = x.transpose(2, 3).flatten(1, 2).unsqueeze(3)  # [N x M, C * V, T, 1]
        x = self.norm(numbers).reshape(x.shape[0], num_channels, num_joints, -1)  # [.., C, V, T]
        x = self.units(x.transpose(2, 3)).mean(dim=(2, 3))  # [N x M, C, T, V] -> [N x M, C']
        logits: Tensor = self.classifier(self.join_persons(x).mean(dim=1))
        return logits


class _Unit(nn.Module):
    """Sum over neighbours, convolution over time, and the residual around both."""

    def __init__(
        self, shape: Shape, in_channels: int, channels: int, stride: int, *, residual: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.graph = nn.Sequential(
            nn.Conv2d(in_channels, SUBSETS * channels, 1),
            GraphSum(shape.joints, shape.bones),
            BatchNorm(channels),
            nn.ReLU(),
        )
        self.over_time = nn.Sequential(
            nn.Conv2d(channels, channels, (KERNEL, 1), (stride, 1), (KERNEL // 2, 0)),
            BatchNorm(channels),
            Dropout(0.5),
        )
        self.around: nn.Module | None = nn.Identity() if residual else None
        if residual and in_channels != channels:
            self.around = nn.Sequential(nn.Conv2d(in_channels, channels, 1), BatchNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N x M, C, T, V] to [N x M, C', T / stride, V], rounded up."""
        y: Tensor = self.over_time(self.graph(x))
        if self.around is not None:
            y = y + self.around(x[:, :, :: self.stride])
        return y.relu()
