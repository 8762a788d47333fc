"""Best epoch of a training, by the held-out clips."""

from __future__ import annotations

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
