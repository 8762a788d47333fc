"""HCN: joints become channels, so that a convolution sees all of them at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelnas.models.baselines.base import Baseline, Dropout, Shape

POINT_CHANNELS = 64
"""Width of the layers that process each joint alone; the widths of later ones are multiples."""

HIDDEN = 512
POOLED = 4
"""Frames and positions before the hidden layer."""

MAX_STEP = 0.1
"""Of the centre in a frame, in sizes of the body, as in `skelnas.data.normalisation`."""


class HCN(Baseline):
    """Li, Zhong, Xie and Pu: Co-occurrence Feature Learning from Skeleton Data, IJCAI 2018.

    Positions and motions go through two streams of the same form: layers for each joint alone, then
    joints and channels are swapped, so that later layers mix all joints. The streams are
    concatenated, and persons are merged by the maximum.

    The paper's widths (32 in the second convolution, 256 in the hidden layer, 32 frames) give
    0.78 million parameters on NTU. SAR-NAS's Table III names 2.64 million; widths of 64 and
    512 at 64 frames give 2.648, so those are taken. Whatever T is, a last maximum leaves 4 x 4
    numbers a channel, as 64 frames do by themselves: the count does not depend on T (ours).
    Motion is zero in the last frame and where a person or a joint comes or goes, as `--streams
    motion` has it; the paper stretches it to T frames. Nothing normalises in this network, so
    weights but the classifier's start as He et al. (2015) say (ours): as PyTorch starts them, it
    hardly learns. At a rate of 0.1 its units die within some epochs, hence `highest_lr`.
    """

    highest_lr = 0.01

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        width = POINT_CHANNELS
        self.position = _Stream(shape)
        self.motion = _Stream(shape)
        self.together = nn.Sequential(
            *_block(2 * width, 2 * width, relu=True),
            *_block(2 * width, 4 * width, relu=True),
            nn.AdaptiveMaxPool2d(POOLED),
        )
        self.hidden = nn.Sequential(
            nn.Linear(4 * width * POOLED**2, HIDDEN), nn.ReLU(), Dropout(0.5)
        )
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
        self.classifier = nn.Linear(HIDDEN, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, M x V] to logits [N, classes]."""
        x = self.split_persons(x)
        streams = [self.position(x), self.motion(motions(x))]
        x = self.together(torch.cat(streams, dim=1))  # [N x M, 4 * width, 4, 4]
        x = self.join_persons(x).amax(dim=1)  # [N, M, ...] -> [N, 4 * width, 4, 4]
        x = self.hidden(x.flatten(1))  # [N, 4 * width * 4 * 4] -> [N, hidden]
        logits: Tensor = self.classifier(x)
        return logits


class _Stream(nn.Module):
    """The layers for positions, or for motions, before both are concatenated."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = POINT_CHANNELS
        self.point = nn.Sequential(nn.Conv2d(shape.channels, width, 1), nn.ReLU())
        self.over_time = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.co_occurrence = nn.Sequential(
            nn.Conv2d(shape.joints, width // 2, 3, padding=1),
            _pool(),
            *_block(width // 2, width, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N x M, C, T, V] to [N x M, width, T / 4, width / 4]."""
        x = self.over_time(self.point(x))
        y: Tensor = self.co_occurrence(x.transpose(1, 3))  # [N x M, V, T, width] -> ...
        return y


def _block(in_channels: int, out_channels: int, *, relu: bool) -> list[nn.Module]:
    """Make a 3 x 3 convolution with dropout and a pool that halves both sides."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return [convolution, *([nn.ReLU()] if relu else []), Dropout(0.5), _pool()]


def _pool() -> nn.Module:
    return nn.MaxPool2d(2, ceil_mode=True)


def motions(x: Tensor) -> Tensor:
    """Return the difference to the next frame, zero where a joint was not found in either.

    Args:
        x: [N x M, C, T, V], all zero where a person is absent or a joint was not found.

    Returns:
        The same shape, zero in the last frame.
    """
    found = x.ne(0).any(dim=1, keepdim=True)  # [N x M, 1, T, V]
    start = found[:, :, :1] | _at_origin(x[:, :, :2], found[:, :, :1])
    before = torch.cat([start, found[:, :, 1:-1]], dim=2)
    both = before[:, :, : x.shape[2] - 1] & found[:, :, 1:]
    differences = (x[:, :, 1:] - x[:, :, :-1]) * both
    return torch.cat([differences, torch.zeros_like(x[:, :, :1])], dim=2)


def _at_origin(x: Tensor, found: Tensor) -> Tensor:
    """Return which joint of the first frame is the centre at the origin, not one that is lost.

    It is the only one of a person at zero there, and a small step away in the next frame.

    Args:
        x: [N x M, C, 2 or 1, V], the first frames.
        found: [N x M, 1, 1, V], in the first.
    """
    start = x[:, :, :1]
    is_only_one = (~found).sum(dim=3, keepdim=True) == 1
    extent = start.amax(3, keepdim=True) - start.amin(3, keepdim=True)  # [N x M, C, 1, 1]
    step = x[:, :, -1:].norm(dim=1, keepdim=True)  # [N x M, 1, 1, V], from the origin
    is_small: Tensor = step < MAX_STEP * extent.norm(dim=1, keepdim=True)
    return ~found & is_only_one & is_small
