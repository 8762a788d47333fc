"""Images as rows of channels, and depthwise convolutions of them.

An image is [N, C, T, V] in channels-last order; its rows are the same memory as [P, C], with
P = N * T * V pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int, int]
"""N, T and V of an image."""


def size_of(image: Tensor) -> Size:
    """Return N, T and V."""
    n, _, t, v = image.shape
    return n, t, v


def to_rows(image: Tensor) -> Tensor:
    """View an image as [P, C]; copies only what is not in channels-last order."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def to_image(rows: Tensor, size: Size) -> Tensor:
    """View [P, C] as an image [N, C, T, V] in channels-last order."""
    return rows.view(*size, -1).permute(0, 3, 1, 2)


def every_second(image: Tensor) -> Tensor:
    """Take every second pixel of T and V, beginning with the first."""
    return image[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)


def depthwise(image: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel with its own kernel [C, 1, k, k], padded to keep the size."""
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(image, kernel, None, stride, padding, dilation, groups=len(kernel))


def depthwise_input_gradient(
    gradient: Tensor, image: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Differentiate `depthwise` in its image.

    At stride 1 that is the convolution with the mirrored kernel, which a CPU computes more
    than ten times faster than PyTorch's own gradient of a dilated convolution.
    """
    if stride == 1:
        return depthwise(gradient, kernel.flip(2, 3), 1, dilation)
    return _convolution_gradient(gradient, image, kernel, stride, (True, False))[0]


def depthwise_kernel_gradient(
    gradient: Tensor, image: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Differentiate `depthwise` in its kernel.

    With dilation 2 a pixel meets only pixels of its own parity in T and V, so that the four
    parities are four smaller images without dilation; faster on a CPU, as above.
    """
    if dilation == 2:
        gradient, image = _split_parities(gradient), _split_parities(image)
    return _convolution_gradient(gradient, image, kernel, stride, (False, True))[1]


def one_over_pool_size(image: Tensor, stride: int) -> Tensor:
    """Return, [T', V'], 1 over the number of pixels of the image that a 3 x 3 pool sees."""

    def one_over(length: int) -> Tensor:
        there = F.pad(image.new_ones(length), (1, 1))
        return there.unfold(0, 3, stride).sum(1).reciprocal_()

    return one_over(image.shape[2])[:, None] * one_over(image.shape[3])


def dense_gradients(
    gradient: Tensor, image: Tensor, weight: Tensor, stride: tuple[int, int], with_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Differentiate a convolution of all channels in its image and, if asked, its weight."""
    padding = [size // 2 for size in weight.shape[-2:]]
    by_image, by_weight, _ = torch.ops.aten.convolution_backward(
        gradient, image, weight, None, stride, padding, [1, 1], False, [0, 0], 1,
        [True, with_weight, False],
    )  # fmt: skip
    return by_image, by_weight


def _convolution_gradient(
    gradient: Tensor, image: Tensor, kernel: Tensor, stride: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    padding = kernel.shape[-1] // 2
    by_image, by_kernel, _ = torch.ops.aten.convolution_backward(
        gradient, image, kernel, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
        len(kernel), [*wanted, False],
    )  # fmt: skip
    return by_image, by_kernel


def _split_parities(image: Tensor) -> Tensor:
    """Rearrange [N, C, T, V] to [4 N, C, T / 2, V / 2], odd sizes filled up with zeros."""
    n, c, t, v = image.shape
    padded = F.pad(image.permute(0, 2, 3, 1), (0, 0, 0, v % 2, 0, t % 2))
    split = padded.view(n, (t + 1) // 2, 2, (v + 1) // 2, 2, c).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(4 * n, (t + 1) // 2, (v + 1) // 2, c).permute(0, 3, 1, 2)
