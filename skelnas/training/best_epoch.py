"""Best epoch of a training, and when to stop waiting for a better one, by the held-out clips."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

SCORES = "figures"
"""Name of the tensor (epoch, top-1, loss) in checkpoints, part of the file format."""


class BestEpoch:
    """State of a network after the best epoch so far.

    The best epoch has the highest top-1; of equal ones, the lowest negative log-likelihood, and
    then it is the first.

    Args:
        network: the network in training.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._scores = torch.zeros(0, dtype=torch.float64)
        self._state: dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        """The best epoch, counted from 1."""
        return int(self._scores[0])

    def update(self, epoch: int, top1: float, nll: float) -> None:
        """Copy the network's state if it is better than the best so far."""
        if self._state:
            _, best_top1, best_nll = self._scores.tolist()
            if (top1, -nll) <= (best_top1, -best_nll):
                return
        self._scores = torch.tensor([epoch, top1, nll], dtype=torch.float64)
        self._state = {name: value.clone() for name, value in self.network.state_dict().items()}

    def apply(self) -> None:
        """Load the best state into the network."""
        self.network.load_state_dict(self._state)

    def tensors(self) -> dict[str, Tensor]:
        """Return the best state and its scores; empty before the end of the first epoch."""
        return {SCORES: self._scores, **self._state} if self._state else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore from what `tensors` returned.

        Raises:
            KeyError, ValueError: the tensors are of another network.
        """
        if not tensors:
            return
        self._scores = tensors[SCORES].to(torch.float64)
        if self._scores.shape != (3,) or not self._scores.isfinite().all() or self.epoch < 1:
            raise ValueError(f"best/{SCORES} are not an epoch, its top-1 and its loss")
        for name, value in self.network.state_dict().items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"best/{name} has the shape {list(tensors[name].shape)}")
            self._state[name] = value.detach().clone().copy_(tensors[name])


class Patience:
    """How long the held-out loss has not improved.

    Args:
        epochs: to wait for a lower loss.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._lowest = torch.tensor([0, math.inf], dtype=torch.float64)  # epoch, loss

    @property
    def epoch(self) -> int:
        """The epoch of the lowest loss, counted from 1; 0 before the first."""
        return int(self._lowest[0])

    def update(self, epoch: int, nll: float) -> None:
        """Take note of the loss after an epoch."""
        if nll < self._lowest[1]:
            self._lowest = torch.tensor([epoch, nll], dtype=torch.float64)

    def is_over(self, epoch: int) -> bool:
        """Return whether to stop after an epoch."""
        return epoch - self.epoch >= self.epochs

    def tensors(self) -> dict[str, Tensor]:
        """Return the epoch of the lowest loss, and that loss."""
        return {"lowest": self._lowest}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore from what `tensors` returned.

        Raises:
            KeyError, ValueError: it is something else.
        """
        lowest = tensors["lowest"].to(torch.float64)
        if lowest.shape != (2,) or lowest.isnan().any() or not 0 <= lowest[0] < math.inf:
            raise ValueError("patience/lowest is not an epoch and its loss")
        self._lowest = lowest
