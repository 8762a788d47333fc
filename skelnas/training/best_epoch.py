"""The best epoch of a training, by clips that it has not learned from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

FIGURES = "figures"
"""Stands beside the names of the network: epoch, top-1 and loss."""


class BestEpoch:
    """The network as it was after the best of the epochs so far.

    The best is that of the highest top-1; of equal ones that of the lowest negative
    log-likelihood, and then the first.

    Args:
        network: the one that learns.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._figures = torch.zeros(0, dtype=torch.float64)
        self._state: dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        """Which epoch it is, counted from 1."""
        return int(self._figures[0])

    def offer(self, epoch: int, top1: float, nll: float) -> None:
        """Keep the network as it is now, if it is better than what is kept."""
        if self._state:
            _, best_top1, best_nll = self._figures.tolist()
            if (top1, -nll) <= (best_top1, -best_nll):
                return
        self._figures = torch.tensor([epoch, top1, nll], dtype=torch.float64)
        self._state = {name: value.clone() for name, value in self.network.state_dict().items()}

    def give(self) -> None:
        """Let the network be the best one."""
        self.network.load_state_dict(self._state)

    def tensors(self) -> dict[str, Tensor]:
        """Return the best network and its figures; nothing before the end of an epoch."""
        return {FIGURES: self._figures, **self._state} if self._state else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be as `tensors` said.

        Raises:
            KeyError, ValueError: they are those of another network.
        """
        if not tensors:
            return
        self._figures = tensors[FIGURES]
        for name, value in self.network.state_dict().items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"best/{name} has the shape {list(tensors[name].shape)}")
            self._state[name] = value.detach().clone().copy_(tensors[name])
