"""Running average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average (EMA) of the weights and the running statistics of a network.

    The running statistics are averaged like the weights, because those of the last steps belong
    to the weights of the last steps (ours, as usual).

    `torch.optim.swa_utils.AveragedModel` keeps a second network and counts updates on the device;
    the decay warm-up would have to read that count at each step.

    Args:
        network: to be averaged.
        decay: fraction of the average that a step keeps, after the first steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Include the network as it is after `steps` steps; early on, the decay is lower."""
        learned = self._learned()
        if not self._average:
            self._average = {name: value.clone() for name, value in learned.items()}
            return
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(list(self._average.values()), list(learned.values()), 1 - decay)

    def apply(self) -> None:
        """Load the average into the network."""
        self.network.load_state_dict(self._average, strict=False)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Load the average into the network inside the context."""
        learned = {name: value.clone() for name, value in self._learned().items()}
        self.apply()
        try:
            yield
        finally:
            self.network.load_state_dict(learned, strict=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return the average under the names of the network; empty before the first step."""
        return dict(self._average)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the average from what `tensors` returned.

        Raises:
            KeyError, ValueError: it is that of another network.
        """
        for name, value in self._learned().items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"average/{name} has the shape {list(tensors[name].shape)}")
            self._average[name] = value.detach().clone().copy_(tensors[name])

    def _learned(self) -> dict[str, Tensor]:
        """Return the state of the network without integer counters."""
        state = self.network.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}
