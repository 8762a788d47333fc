"""The running average of a network's weights and statistics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from skelnas.genotype import random_genotype
from skelnas.models.network import Network
from skelnas.training.averaging import WeightAverage

STATISTIC = "stem.1.running_mean"
COUNTER = "stem.1.num_batches_tracked"


def make_network() -> Network:
    torch.manual_seed(0)
    shape = {"in_channels": 3, "num_classes": 2, "channels": 2, "num_layers": 3}
    return Network(random_genotype(0), **shape).double()


def walk(
    network: Network, average: WeightAverage, first: int, last: int
) -> list[dict[str, Tensor]]:
    """Change all values in steps; return the state after each."""
    states = []
    for step in range(first, last + 1):
        torch.manual_seed(step)
        for value in network.state_dict().values():
            value.add_(torch.randn(value.shape) if value.is_floating_point() else 1)
        average.update(step)
        states.append({name: value.clone() for name, value in network.state_dict().items()})
    return states


def test_the_average_is_a_weighted_sum_of_past_states() -> None:
    network = make_network()
    average = WeightAverage(network, decay=0.3)
    states = walk(network, average, 1, 4)
    for name in (STATISTIC, "classifier.weight"):
        expected = states[0][name]
        for decay, state in zip((3 / 12, 0.3, 0.3), states[1:], strict=True):
            expected = decay * expected + (1 - decay) * state[name]
        torch.testing.assert_close(average.tensors()[name], expected)

    tensors = average.tensors()
    average.apply()
    assert torch.equal(network.state_dict()[STATISTIC], tensors[STATISTIC])
    assert network.state_dict()[COUNTER] == 4  # a counter is not averaged
    assert COUNTER not in tensors


def test_a_restored_average_continues_with_the_same_bits() -> None:
    whole, parts = make_network(), make_network()
    through, before, after = (
        WeightAverage(whole, 0.9),
        WeightAverage(parts, 0.9),
        WeightAverage(parts, 0.9),
    )
    walk(whole, through, 1, 5)
    walk(parts, before, 1, 2)
    tensors = before.tensors()
    after.restore(tensors)
    walk(parts, after, 3, 5)
    for name, value in through.tensors().items():
        assert torch.equal(value, after.tensors()[name])

    with pytest.raises(KeyError, match="classifier"):
        after.restore({name: value for name, value in tensors.items() if "classifier" not in name})
    with pytest.raises(ValueError, match=r"average/classifier\.bias has the shape"):
        after.restore(tensors | {"classifier.bias": torch.zeros(9)})
