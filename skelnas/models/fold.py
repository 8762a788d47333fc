"""Fold normalisation into the convolutions before it: the same function with less work."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from skelnas.models.layers import FactorizedReduce
from skelnas.models.norm import BatchNorm

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def fold(network: AnyModule) -> AnyModule:
    """Return a copy of a trained network with normalisation folded into its convolutions.

    A convolution followed by a normalisation with fixed statistics is a convolution with other
    weights and a bias. They are computed in float64, so they are exact up to one rounding. A
    normalisation that does not directly follow a convolution stays.
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
    """Return the convolution with the normalisation of these channels folded in."""
    mean, variance, weight, bias = (
        _double(values)[channels]
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = weight * (variance + norm.eps).rsqrt()
    old_bias = _double(convolution.bias) if convolution.bias is not None else 0.0
    folded, dtype = copy.deepcopy(convolution), convolution.weight.dtype
    folded.weight = nn.Parameter(
        (_double(convolution.weight) * scale[:, None, None, None]).to(dtype)
    )
    folded.bias = nn.Parameter(((old_bias - mean) * scale + bias).to(dtype))
    return folded


def _double(values: Tensor | None) -> Tensor:
    assert values is not None
    return values.detach().double()
