"""Normalisation folded into the convolutions in front of it: the same function, less work."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from skelnas.models.norm import BatchNorm
from skelnas.models.ops import FactorizedReduce

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def fold(network: AnyModule) -> AnyModule:
    """Return a copy of a trained network whose convolutions normalise.

    A convolution followed by a normalisation with fixed statistics is a convolution with other
    weights and a bias. They are computed in float64, and so are the same but for one rounding.
    A normalisation with anything between it and a convolution stays as it is.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        if isinstance(module, FactorizedReduce) and isinstance(module.norm, BatchNorm):
            half, norm = module.conv1.out_channels, module.norm
            module.conv1 = _fold(module.conv1, norm, slice(half))
            module.conv2 = _fold(module.conv2, norm, slice(half, None))
            module.norm = nn.Identity()
        elif isinstance(module, nn.Sequential):
            for index, (before, after) in enumerate(pairwise(module)):
                if isinstance(before, nn.Conv2d) and isinstance(after, BatchNorm):
                    module[index] = _fold(before, after, slice(None))
                    module[index + 1] = nn.Identity()
    return folded


def _fold(convolution: nn.Conv2d, norm: BatchNorm, channels: slice) -> nn.Conv2d:
    """Return a convolution that normalises; its channels are these of the normalisation."""
    mean, variance, weight, bias = (
        _double(numbers)[channels]
        for numbers in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = weight * (variance + norm.eps).rsqrt()
    before = _double(convolution.bias) if convolution.bias is not None else 0.0
    folded, kind = copy.deepcopy(convolution), convolution.weight.dtype
    folded.weight = nn.Parameter(
        (_double(convolution.weight) * scale[:, None, None, None]).to(kind)
    )
    folded.bias = nn.Parameter(((before - mean) * scale + bias).to(kind))
    return folded


def _double(numbers: Tensor | None) -> Tensor:
    assert numbers is not None
    return numbers.detach().double()
