"""The best epoch: by top-1, then by loss, then the first."""

from __future__ import annotations

import pytest
import torch

from skelnas.training.best_epoch import BestEpoch


def test_the_best_epoch_changes_only_for_a_better_one() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    best = BestEpoch(network)
    offers = [(0.5, 1.0), (0.4, 0.1), (0.5, 0.9), (0.5, 0.9), (0.6, 2.0), (0.6, 3.0)]
    chosen = []
    for epoch, offer in enumerate(offers, start=1):
        torch.nn.init.constant_(network.weight, epoch)
        best.update(epoch, *offer)
        chosen.append(best.epoch)
    assert chosen == [1, 1, 3, 3, 5, 5]
    best.apply()
    assert network.weight.item() == 5


def test_a_best_epoch_is_restored() -> None:
    network = torch.nn.Linear(2, 2)
    best, other = BestEpoch(network), BestEpoch(network)
    assert best.tensors() == {}
    best.update(3, 0.5, 1.0)
    other.restore(best.tensors())
    other.update(4, 0.5, 1.0)
    assert other.epoch == 3
    assert torch.equal(other.tensors()["weight"], network.weight)
    with pytest.raises(ValueError, match="best/weight has the shape"):
        other.restore(best.tensors() | {"weight": torch.zeros(3)})
