"""Candidate operations as modules: the owners of weights, in the supernet and in the network.

In the supernet normalisation has neither scale nor running statistics and pools are followed
by one; in the derived network normalisation has both and pools stand alone (the paper's
method, after DARTS). The supernet's arithmetic is an engine's; the network runs these modules.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skelnas.engine.fused.images import (
    depthwise,
    depthwise_grad_image,
    depthwise_grad_kernel,
)
from skelnas.genotype import NUM_INPUT_NODES
from skelnas.models.norm import BatchNorm
from skelnas.models.stack import CellSpec

SE_REDUCTION = 16
"""How much narrower the hidden layer of squeeze-and-excitation is (authors' release)."""


class FactorizedReduce(nn.Module):
    """Halve T and V: ReLU, two 1 x 1 convolutions of stride 2 side by side, normalisation.

    Differs from DARTS, like the authors' release: the second convolution is not shifted by
    one pixel, so that odd sizes (50 → 25 → 13 joints) work.

    A 1 x 1 convolution of stride 2 sees every second pixel only, so those are taken first.
    That saves work, and it steps around a fault of PyTorch 2.13.0: on a CPU the weight
    gradient of such a convolution of 8 channels in channels-last order, at 112 x 50, writes
    beyond its memory and kills the process.
    """

    def __init__(self, in_channels: int, out_channels: int, searching: bool = False) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv2 = nn.Conv2d(in_channels, out_channels - half, 1, bias=False)
        self.norm: nn.Module = make_norm(out_channels, searching)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to [N, C', T / 2, V / 2], rounded up."""
        x = torch.relu(x[:, :, ::2, ::2])
        reduced: Tensor = self.norm(torch.cat([self.conv1(x), self.conv2(x)], dim=1))
        return reduced


class Dilated(nn.Conv2d):
    """A depthwise convolution with dilation 2.

    At stride 2 it sees every second pixel only, so those are taken first, and neither stride nor
    dilation is left. At stride 1 a CPU takes the fused engine's gradients. PyTorch's own take
    twice as long in float32 and ten times in bfloat16, and at stride 2 five times and more.
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
            return F.conv2d(x[:, :, ::2, ::2], self.weight, padding=padding, groups=self.groups)
        if self.training and x.device.type == "cpu":
            y: Tensor = _DilatedOnCPU.apply(x, self.weight.to(x.dtype))  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class _DilatedOnCPU(torch.autograd.Function):
    """A depthwise convolution with dilation 2 and the fused engine's gradients."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(image, kernel)
        return depthwise(image, kernel, dilation=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        image, kernel = ctx.saved_tensors
        return (
            depthwise_grad_image(gradient, image, kernel, dilation=2),
            depthwise_grad_kernel(gradient, image, kernel, dilation=2),
        )


class Depthwise(nn.Conv2d):
    """A convolution of each channel by itself.

    At stride 2 on a CPU it is computed in float32 under autocast, too: there PyTorch's gradient in
    bfloat16 takes up to fifty times as long (seen in 2.13.0).
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape, or to half of T and V, rounded up."""
        if self.stride != (2, 2) or x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (the paper's SeConnect).

    Hidden width is C // 16, at least 1; both layers are bias-free (authors' release).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // SE_REDUCTION, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


def make_norm(channels: int, searching: bool) -> BatchNorm:
    """Make a normalisation: plain batch statistics in the supernet, the usual one elsewhere."""
    return BatchNorm(channels, affine=not searching, track_running_stats=not searching)


def relu_conv_norm(in_channels: int, out_channels: int, searching: bool = False) -> nn.Module:
    """Make the 1 x 1 preprocessing of a cell's input node: ReLU, convolution, normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        make_norm(out_channels, searching),
    )


def make_preprocessing(spec: CellSpec, searching: bool = False) -> tuple[nn.Module, nn.Module]:
    """Make what brings the two outputs before a cell to its size and channels."""
    older, last = spec.input_channels
    shrink = FactorizedReduce if spec.after_reduction else relu_conv_norm
    return (
        shrink(older, spec.channels, searching),
        relu_conv_norm(last, spec.channels, searching),
    )


def op_stride(reduction: bool, source: int) -> int:
    """Return 2 for operations next to the input nodes of a reduction cell, else 1."""
    return 2 if reduction and source < NUM_INPUT_NODES else 1


def make_op(name: str, channels: int, stride: int, searching: bool = False) -> nn.Module:
    """Make a candidate operation.

    Args:
        name: an id of `skelnas.primitives.PRIMITIVES`; ``none`` gives an empty module.
        channels: C, of input and output.
        stride: 1 or 2, of T and V alike.
        searching: whether it is for the supernet (see the module's text).
    """
    c = channels
    norm = make_norm(c, searching)

    def dense(kernel: tuple[int, int], strides: tuple[int, int]) -> nn.Conv2d:
        padding = (kernel[0] // 2, kernel[1] // 2)
        return nn.Conv2d(c, c, kernel, strides, padding, bias=False)

    def pointwise() -> nn.Conv2d:
        return nn.Conv2d(c, c, 1, bias=False)

    def pooled(pool: nn.Module) -> nn.Module:
        return nn.Sequential(pool, norm) if searching else pool

    match name:
        case "none":
            return nn.Identity()
        case "max_pool_3x3":
            return pooled(nn.MaxPool2d(3, stride, padding=1))
        case "avg_pool_3x3":
            return pooled(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False))
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(c, c, searching)
        case "se_connect":
            return SqueezeExcite(c) if stride == 1 else FactorizedReduce(c, c, searching)
        case "conv_3x3":
            return nn.Sequential(nn.ReLU(), dense((3, 3), (stride, stride)), norm)
        case "conv_7x1_1x7":
            return nn.Sequential(
                nn.ReLU(), dense((1, 7), (1, stride)), dense((7, 1), (stride, 1)), norm
            )
        case "sep_conv_3x3" | "sep_conv_5x5" | "sep_conv_7x7":
            kernel = int(name[-1])
            first = [nn.ReLU(), Depthwise(c, kernel, stride), pointwise(), make_norm(c, searching)]
            return nn.Sequential(*first, nn.ReLU(), Depthwise(c, kernel, 1), pointwise(), norm)
        case "dil_conv_3x3" | "dil_conv_5x5":
            kernel = int(name[-1])
            return nn.Sequential(nn.ReLU(), Dilated(c, kernel, stride), pointwise(), norm)
        case _:
            raise ValueError(f"unknown operation {name!r}")
