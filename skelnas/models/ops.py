"""Candidate operations as modules, which own the weights.

In the supernet, normalisation has neither scale nor running statistics, and pools are normalised;
in the derived network, normalisation has both, and pools are not normalised (the paper's method,
after DARTS). The supernet's arithmetic is an engine's; the network runs these modules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skelnas.engine import reference
from skelnas.engine.fused.images import depthwise, depthwise_grad_image, depthwise_grad_kernel
from skelnas.genotype import NUM_INPUT_NODES
from skelnas.models.norm import BatchNorm
from skelnas.models.stack import CellSpec
from skelnas.primitives import PRIMITIVES, Primitive

SE_REDUCTION = 16
"""Channels over the width of the hidden layer of squeeze-and-excitation (authors' release)."""


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
        x = torch.relu(x[:, :, ::2, ::2])  # [N, C, T / 2, V / 2]
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
            return F.conv2d(x[:, :, ::2, ::2], self.weight, padding=padding, groups=self.groups)
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
        hidden = torch.relu(self.squeeze(x.mean(dim=(2, 3))))  # [N, C] -> [N, H]
        gate = torch.sigmoid(self.excite(hidden))  # [N, H] -> [N, C]
        return x * gate[:, :, None, None]


def make_norm(channels: int, searching: bool) -> BatchNorm:
    """Make a batch normalisation, for the supernet without scale and running statistics."""
    return BatchNorm(channels, affine=not searching, track_running_stats=not searching)


def relu_conv_norm(in_channels: int, out_channels: int, searching: bool = False) -> nn.Module:
    """Make the 1 x 1 preprocessing of a cell's input node: ReLU, convolution, normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        make_norm(out_channels, searching),
    )


def make_preprocessing(spec: CellSpec, searching: bool = False) -> tuple[nn.Module, nn.Module]:
    """Make the modules that bring the two inputs of a cell to its size and channels."""
    before_last, last = spec.input_channels
    resize = FactorizedReduce if spec.after_reduction else relu_conv_norm
    return (
        resize(before_last, spec.channels, searching),
        relu_conv_norm(last, spec.channels, searching),
    )


def op_stride(reduction: bool, source: int) -> int:
    """Return 2 for operations next to the input nodes of a reduction cell, else 1."""
    return 2 if reduction and source < NUM_INPUT_NODES else 1


Factory = Callable[[int, int, bool], nn.Module]
"""Makes an operation from its channels, its stride and whether it is for the supernet."""


def make_op(op: str, channels: int, stride: int, searching: bool = False) -> nn.Module:
    """Make a candidate operation.

    Args:
        op: an id of `skelnas.primitives.PRIMITIVES`; ``none`` gives an empty module.
        channels: C, of input and output.
        stride: 1 or 2, along T and V alike.
        searching: whether it is for the supernet; see the docstring of this module.

    Raises:
        ValueError: there is no such operation.
    """
    if op not in FACTORIES:
        raise ValueError(f"unknown operation {op!r}")
    return FACTORIES[op](channels, stride, searching)


def register_op(primitive: Primitive, function: reference.Function, factory: Factory) -> None:
    """Add a candidate operation to the spaces, the engines and the networks of this process.

    Args:
        primitive: its id, kind and line style.
        function: maps x [N, C, T, V], the weights and the stride to [N, C, T', V'].
        factory: makes the module; its parameters are the weights, in the order of the function.

    Raises:
        ValueError: the id is taken.
    """
    if primitive.id in PRIMITIVES:
        raise ValueError(f"there is already an operation {primitive.id!r}")
    PRIMITIVES[primitive.id] = primitive
    reference.OPS[primitive.id] = function
    FACTORIES[primitive.id] = factory


def _dense(channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, bias=False)


def _pointwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1, bias=False)


def _none(channels: int, stride: int, searching: bool) -> nn.Module:
    return nn.Identity()


def _max_pool(channels: int, stride: int, searching: bool) -> nn.Module:
    pool = nn.MaxPool2d(3, stride, padding=1)
    return nn.Sequential(pool, make_norm(channels, searching)) if searching else pool


def _avg_pool(channels: int, stride: int, searching: bool) -> nn.Module:
    pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    return nn.Sequential(pool, make_norm(channels, searching)) if searching else pool


def _skip_connect(channels: int, stride: int, searching: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, searching)


def _se_connect(channels: int, stride: int, searching: bool) -> nn.Module:
    return (
        SqueezeExcite(channels) if stride == 1 else FactorizedReduce(channels, channels, searching)
    )


def _conv_3x3(channels: int, stride: int, searching: bool) -> nn.Module:
    conv = _dense(channels, (3, 3), (stride, stride))
    return nn.Sequential(nn.ReLU(), conv, make_norm(channels, searching))


def _conv_7x1_1x7(channels: int, stride: int, searching: bool) -> nn.Module:
    along_v, along_t = _dense(channels, (1, 7), (1, stride)), _dense(channels, (7, 1), (stride, 1))
    return nn.Sequential(nn.ReLU(), along_v, along_t, make_norm(channels, searching))


def _sep_conv(kernel: int, channels: int, stride: int, searching: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        Depthwise(channels, kernel, stride),
        _pointwise(channels),
        make_norm(channels, searching),
        nn.ReLU(),
        Depthwise(channels, kernel, 1),
        _pointwise(channels),
        make_norm(channels, searching),
    )


def _dil_conv(kernel: int, channels: int, stride: int, searching: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        Dilated(channels, kernel, stride),
        _pointwise(channels),
        make_norm(channels, searching),
    )


FACTORIES: dict[str, Factory] = {
    "none": _none,
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip_connect,
    "conv_3x3": _conv_3x3,
    "sep_conv_3x3": partial(_sep_conv, 3),
    "sep_conv_5x5": partial(_sep_conv, 5),
    "sep_conv_7x7": partial(_sep_conv, 7),
    "dil_conv_3x3": partial(_dil_conv, 3),
    "dil_conv_5x5": partial(_dil_conv, 5),
    "conv_7x1_1x7": _conv_7x1_1x7,
    "se_connect": _se_connect,
}
"""The module of each operation id."""
