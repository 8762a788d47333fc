"""The layers that candidate operations are made of, besides those of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skelnas.engine import reference
from skelnas.engine.fused.images import depthwise, depthwise_grad_image, depthwise_grad_kernel
from skelnas.models.channels_last import with_channels_last_gradient
from skelnas.models.norm import make_norm

SE_REDUCTION = 16
"""Channels over the width of the hidden layer of squeeze-and-excitation (authors' release)."""

MAX_JOINT_GROUPS = 4
"""Groups of channels with their own mixing of joints in ``joint_conv`` (ours)."""

JOINT_NOISE = 0.5
"""Norm of what a joint gets from random others at first, over that from itself (ours)."""


def every_second_pixel(x: Tensor) -> Tensor:
    """Map [N, C, T, V] to [N, C, T / 2, V / 2], rounded up."""
    return with_channels_last_gradient(x)[:, :, ::2, ::2]


class FactorizedReduce(nn.Module):
    """Halve T and V: ReLU, two 1 x 1 convolutions of stride 2 side by side, normalisation.

    Differs from DARTS, like the authors' release: the second convolution is not shifted by
    one pixel, so that odd sizes (50 → 25 → 13 joints) work.

    A 1 x 1 convolution of stride 2 sees only every second pixel, so the image is subsampled first.
    That saves work, and it avoids a bug of PyTorch 2.13.0: on a CPU, the weight gradient of such a
    convolution with 8 channels in channels-last order, at 112 x 50, writes beyond its memory and
    kills the process.
    """

    def __init__(self, in_channels: int, out_channels: int, searching: bool = False) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv2 = nn.Conv2d(in_channels, out_channels - half, 1, bias=False)
        self.norm: nn.Module = make_norm(out_channels, searching)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to [N, C', T / 2, V / 2], rounded up."""
        x = torch.relu(every_second_pixel(x))  # [N, C, T / 2, V / 2]
        reduced: Tensor = self.norm(torch.cat([self.conv1(x), self.conv2(x)], dim=1))
        return reduced


class Dilated(nn.Conv2d):
    """A depthwise convolution with dilation 2.

    At stride 2 it sees only every second pixel, so the image is subsampled first and neither stride
    nor dilation remains. At stride 1 a CPU uses the gradients of the fused engine: PyTorch's take
    twice as long in float32 and ten times as long in bfloat16, at stride 2 five times or more.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        padding = 2 * (kernel // 2)
        super().__init__(
            channels, channels, kernel, stride, padding, 2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape, or to half of T and V, rounded up."""
        if self.stride == (2, 2):
            padding = self.kernel_size[0] // 2
            return F.conv2d(every_second_pixel(x), self.weight, padding=padding, groups=self.groups)
        if self.training and x.device.type == "cpu":
            y: Tensor = _DilatedOnCPU.apply(x, self.weight.to(x.dtype))  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class _DilatedOnCPU(torch.autograd.Function):
    """A depthwise convolution with dilation 2 and the gradients of the fused engine."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(image, kernel)
        return depthwise(image, kernel, dilation=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        image, kernel = ctx.saved_tensors
        return (
            depthwise_grad_image(grad_y, image, kernel, dilation=2),
            depthwise_grad_kernel(grad_y, image, kernel, dilation=2),
        )


class Depthwise(nn.Conv2d):
    """A depthwise convolution.

    At stride 2 on a CPU it is computed in float32 also under autocast, since PyTorch's gradient in
    bfloat16 takes up to fifty times as long (as of 2.13.0).
    """

    def __init__(self, channels: int, kernel: int | tuple[int, int], stride: int) -> None:
        along_t, along_v = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (along_t // 2, along_v // 2)
        super().__init__(
            channels, channels, (along_t, along_v), stride, padding, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape, or to half of T and V, rounded up."""
        if self.stride != (2, 2) or x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class JointMixing(nn.Module):
    """Replace each joint by a learned weighted sum of all joints of the person.

    Groups of channels have a matrix each: as many groups as divide the channels, up to
    `MAX_JOINT_GROUPS`. Every joint starts as itself plus a little of all others, so that the
    operation begins near a 1 x 1 convolution, and passes signals and gradients as one does; the
    noise makes groups differ and lets gradients tell joints apart.
    """

    def __init__(self, channels: int, joints: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        groups = max(n for n in range(1, MAX_JOINT_GROUPS + 1) if channels % n == 0)
        identity = torch.eye(joints)[::stride]  # [V', V]
        noise = torch.randn(groups, *identity.shape) * (JOINT_NOISE / joints**0.5)
        self.weight = nn.Parameter(identity + noise)  # [G, V', V]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, M * V] to the same shape, or to half of T and V, rounded up."""
        return reference.mix_joints(x, self.weight, self.stride)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels.

    Source: the paper's SeConnect. The hidden layer has C // 16 units, at least 1; neither layer has
    a bias (authors' release).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // SE_REDUCTION, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        means = with_channels_last_gradient(x).mean(dim=(2, 3))  # [N, C, T, V] -> [N, C]
        hidden = torch.relu(self.squeeze(means))  # [N, C] -> [N, H]
        gate = torch.sigmoid(self.excite(hidden))  # [N, H] -> [N, C]
        return x * gate[:, :, None, None]
