"""A running average of what a network has learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average (EMA) of the weights of a network and of its statistics.

    The running statistics of normalisation are averaged like the weights, for those of the last
    steps belong to the weights of the last steps (ours, as usual).

    Args:
        network: what is averaged; it knows nothing of it.
        decay: how much of the average a step leaves, in the long run.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the network after so many steps; of the first ones the average forgets more."""
        learned = self._learned()
        if not self._average:
            self._average = {name: value.clone() for name, value in learned.items()}
            return
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self._average.values()), list(learned.values()), 1 - decay)

    def give(self) -> None:
        """Let the network be its average."""
        self.network.load_state_dict(self._average, strict=False)

    @contextmanager
    def given(self) -> Iterator[None]:
        """Let the network be its average for a while."""
        own = {name: value.clone() for name, value in self._learned().items()}
        self.give()
        try:
            yield
        finally:
            self.network.load_state_dict(own, strict=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return the average under the names of the network; nothing before the first step."""
        return dict(self._average)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with an average.

        Raises:
            KeyError, ValueError: it is that of another network.
        """
        for name, value in self._learned().items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"average/{name} has the shape {list(tensors[name].shape)}")
            self._average[name] = value.detach().clone().copy_(tensors[name])

    def _learned(self) -> dict[str, Tensor]:
        """Return everything but counters."""
        state = self.network.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}
