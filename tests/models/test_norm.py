"""Batch normalisation: what its gradient is computed from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from skelnas.models.norm import BatchNorm


@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_of_a_slice_of_channels(clips: int, order: torch.memory_format) -> None:
    """It is copied first where the image is in channels-last order, and is right in any."""
    torch.manual_seed(0)
    norm = BatchNorm(4).double()
    x = torch.randn(clips, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=order)
    x.requires_grad_()
    upstream = torch.randn(clips, 12, 5, 6, dtype=torch.float64)
    y = norm(x)
    seen: list[Tensor] = []
    y.grad_fn.register_prehook(lambda gradients: seen.extend(gradients))
    together = torch.cat([2 * y, y, 3 * y], dim=1)
    (found,) = torch.autograd.grad(together, x, upstream.contiguous(memory_format=order))
    assert seen[0].is_contiguous(memory_format=order)

    gradient = upstream[:, :4] * 2 + upstream[:, 4:8] + upstream[:, 8:] * 3
    centred = (x - x.mean((0, 2, 3), keepdim=True)).detach()
    rstd = (centred.square().mean((0, 2, 3), keepdim=True) + norm.eps).rsqrt()
    hat = centred * rstd
    mean = gradient.mean((0, 2, 3), keepdim=True)
    expected = rstd * (gradient - mean - hat * (gradient * hat).mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
