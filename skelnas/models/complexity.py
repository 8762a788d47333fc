"""How large a network is and how much it computes for one clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skelnas.models.baselines.graph import GraphSum


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a network for one clip.

    Attributes:
        parameters: learned numbers.
        macs: multiply-adds of convolutions, linear layers and sums over the bones of a graph,
            as dense products; normalisation, pools and other sums are not counted, as usual
            in the field.
    """

    parameters: int
    macs: int

    @property
    def flops(self) -> int:
        """Floating-point operations: two a multiply-add."""
        return 2 * self.macs


def measure(model: nn.Module, input_shape: tuple[int, int, int]) -> Complexity:
    """Count parameters, and multiply-adds of one clip of shape (C, T, V)."""
    macs = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features
        elif isinstance(module, GraphSum):
            macs += output.numel() * module.macs_per_number

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    training = model.training
    model.eval()
    try:
        parameter = next(model.parameters())
        with torch.no_grad():
            model(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Complexity(sum(p.numel() for p in model.parameters()), macs)
