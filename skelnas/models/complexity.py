"""The size of a network and its cost for one clip."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skelnas.models.norm import BatchNorm


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

    def __add__(self, other: Complexity) -> Complexity:
        return Complexity(self.parameters + other.parameters, self.macs + other.macs)


def measure(network: nn.Module, input_shape: tuple[int, int, int]) -> Complexity:
    """Count the parameters of a network and its multiply-adds for a clip of shape (C, T, V)."""
    network = copy.deepcopy(network).eval()
    parameters = list(network.parameters())
    like = parameters[0] if parameters else torch.zeros(())  # a pool has none
    clip = torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)
    counter = _MacCounter()
    with torch.no_grad(), counter:
        network(clip)
    return Complexity(sum(parameter.numel() for parameter in parameters), counter.macs)


def count_normalised(network: nn.Module, input_shape: tuple[int, int, int]) -> int | None:
    """Count the values that a clip of shape (C, T, V) gives each channel of a normalisation.

    Returns:
        The fewest of all normalisations, or None if there is none.
    """
    network = copy.deepcopy(network).eval()
    counts: list[int] = []

    def record(norm: BatchNorm, inputs: tuple[Tensor]) -> None:
        counts.append(inputs[0].numel() // norm.num_features)

    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.register_forward_pre_hook(record)
    with torch.no_grad():
        network(torch.zeros(1, *input_shape))
    return min(counts, default=None)


class _MacCounter(TorchFunctionMode):
    """Counts the multiply-adds of the functions called in the context.

    PyTorch's `FlopCounterMode` gives the same numbers, but it imports its compiler, as the "meta"
    device does: that takes longer than all else that `skelnas evaluate` imports.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):
            self.macs += out.numel() * args[1][0].numel()  # of one output channel
        elif func is Tensor.matmul:
            self.macs += out.numel() * args[0].shape[-1]
        return out
