"""Batch normalisation: what its gradient is computed from."""

from __future__ import annotations

import torch
from torch import Tensor

from skelnas.models.norm import BatchNorm


def test_a_slice_of_channels_is_copied_before_the_gradient_is_computed() -> None:
    torch.manual_seed(0)
    norm = BatchNorm(4).double()
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    y = norm(x)
    seen: list[Tensor] = []
    y.grad_fn.register_prehook(lambda gradients: seen.extend(gradients))

    gradient = torch.randn(3, 12, 5, 6, dtype=torch.float64)[:, 4:8]
    (found,) = torch.autograd.grad(y, x, gradient)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)

    plain = torch.nn.BatchNorm2d(4).double()
    (expected,) = torch.autograd.grad(plain(x), x, gradient)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
