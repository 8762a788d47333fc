"""Images as rows of channels, and their convolutions with gradients.

An image is [N, C, T, V] in channels-last order; its rows are the same memory viewed as [P, C], with
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
    """View an image as [P, C]; copies it only if it is not in channels-last order."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])  # [N, C, T, V] -> [P, C]


def to_image(rows: Tensor, size: Size) -> Tensor:
    """View [P, C] as an image [N, C, T, V] in channels-last order."""
    return rows.view(*size, -1).permute(0, 3, 1, 2)  # [P, C] -> [N, T, V, C] -> [N, C, T, V]


def every_second(image: Tensor) -> Tensor:
    """Return every second pixel along T and V, starting with the first."""
    return image[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)


def depthwise(image: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel with its own kernel [C, 1, kT, kV], padded to keep the size."""
    padding = [dilation * (size // 2) for size in kernel.shape[-2:]]
    return F.conv2d(image, kernel, None, stride, padding, dilation, groups=len(kernel))


def depthwise_grad_image(
    grad_y: Tensor, image: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Return the gradient of `depthwise` with respect to its image.

    At stride 1 it is the convolution with the mirrored kernel, which a CPU computes more than ten
    times as fast as PyTorch's gradient of a dilated convolution.
    """
    if stride == 1:
        return depthwise(grad_y, kernel.flip(2, 3), 1, dilation)
    return _depthwise_gradients(grad_y, image, kernel, stride, (True, False))[0]


def depthwise_grad_kernel(
    grad_y: Tensor, image: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Return the gradient of `depthwise` with respect to its kernel.

    With dilation 2, pixels interact only with pixels of the same parity along T and V. So the four
    parities become four smaller images without dilation, which is faster on a CPU.
    """
    if dilation == 2:
        grad_y, image = _split_parities(grad_y), _split_parities(image)
    return _depthwise_gradients(grad_y, image, kernel, stride, (False, True))[1]


def one_over_pool_size(image: Tensor, stride: int) -> Tensor:
    """Return [T', V'], 1 over the number of the image's pixels under a 3 x 3 pool."""

    def one_over(length: int) -> Tensor:
        is_pixel = F.pad(image.new_ones(length), (1, 1))
        return is_pixel.unfold(0, 3, stride).sum(1).reciprocal_()  # [L + 2] -> [L', 3] -> [L']

    return one_over(image.shape[2])[:, None] * one_over(image.shape[3])  # [T', 1] * [V']


def dense_gradients(
    grad_y: Tensor, image: Tensor, weight: Tensor, stride: tuple[int, int], with_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of a dense convolution: of its image and, if asked for, its weight."""
    padding = [size // 2 for size in weight.shape[-2:]]
    grad_image, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_y, image, weight, None, stride, padding, [1, 1], False, [0, 0], 1,
        [True, with_weight, False],
    )  # fmt: skip
    return grad_image, grad_weight


def _depthwise_gradients(
    grad_y: Tensor, image: Tensor, kernel: Tensor, stride: int, mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of image and kernel, as far as the mask asks for them."""
    padding = [size // 2 for size in kernel.shape[-2:]]
    grad_image, grad_kernel, _ = torch.ops.aten.convolution_backward(
        grad_y, image, kernel, None, [stride] * 2, padding, [1, 1], False, [0, 0],
        len(kernel), [*mask, False],
    )  # fmt: skip
    return grad_image, grad_kernel


def _split_parities(image: Tensor) -> Tensor:
    """Rearrange [N, C, T, V] to [4 N, C, T / 2, V / 2]; odd sizes are padded with zeros."""
    n, c, t, v = image.shape
    padded = F.pad(image.permute(0, 2, 3, 1), (0, 0, 0, v % 2, 0, t % 2))  # [N, T, V, C]
    split = padded.view(n, (t + 1) // 2, 2, (v + 1) // 2, 2, c)
    split = split.permute(0, 2, 4, 1, 3, 5)  # [N, 2, 2, T / 2, V / 2, C]
    split = split.reshape(4 * n, (t + 1) // 2, (v + 1) // 2, c)  # [4 N, T / 2, V / 2, C]
    return split.permute(0, 3, 1, 2)  # [4 N, C, T / 2, V / 2]
