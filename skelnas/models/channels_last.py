"""The order of gradients in memory, which decides how fast a CPU computes with them."""

from __future__ import annotations

import torch
from torch import Tensor


def with_channels_last_gradient(x: Tensor) -> Tensor:
    """Return x, to be used where PyTorch hands back its gradient in another order than x has.

    The gradients of slices, means and concatenations are slices themselves, or in the order of
    [N, C, T, V]. On a CPU, what then computes with them takes much longer than with a copy in
    channels-last order (PyTorch 2.13.0, `benchmarks/train_step.py`). Where x is in another order
    its gradient is left alone: for one clip, PyTorch's batch normalisation takes one order for the
    other and returns wrong numbers.

    Args:
        x: [N, C, T, V].
    """
    if not (x.requires_grad and x.device.type == "cpu") or torch.compiler.is_compiling():
        return x
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x
    x = x.view_as(x)  # so that gradients of other uses of x stay as they are
    x.register_hook(_copied)  # type: ignore[no-untyped-call]
    return x


def _copied(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
