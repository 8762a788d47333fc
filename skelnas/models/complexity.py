"""The size of a network and its cost for one clip."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Complexity:
    """The size of a network and its cost for one clip.

    Attributes:
        parameters: number of learned values.
        macs: multiply-adds of convolutions and matrix products. As usual in the field, those of
            normalisation, pooling and element-wise operations are not counted.
    """

    parameters: int
    macs: int

    @property
    def flops(self) -> int:
        """Floating-point operations, two for each multiply-add."""
        return 2 * self.macs


def measure(network: nn.Module, input_shape: tuple[int, int, int]) -> Complexity:
    """Count the parameters of a network and its multiply-adds for a clip of shape (C, T, V)."""
    network = copy.deepcopy(network).to("meta").eval()  # shapes without values
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *input_shape, device="meta"))
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Complexity(num_parameters, counter.get_total_flops() // 2)
