"""Branches: each is a separate network, and their logits are averaged."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from skelnas.genotype import random_genotype
from skelnas.models.branches import Branches, parts
from skelnas.models.network import Network

BRANCH_CHANNELS = [[0, 1, 4], [2, 3, 4], [0, 1, 2, 3, 4]]


def make_branches() -> Branches:
    torch.manual_seed(0)
    shape = {"num_classes": 4, "channels": 2, "num_layers": 3, "normalised_joints": 6}
    networks = [
        Network(random_genotype(0), in_channels=len(channels), **shape)
        for channels in BRANCH_CHANNELS
    ]
    return Branches(networks, BRANCH_CHANNELS).double()


def test_each_branch_sees_its_channels_and_the_logits_are_averaged() -> None:
    branches = make_branches().eval()
    x = torch.randn(2, 5, 12, 6, dtype=torch.float64)
    each = [
        network(x[:, channels])
        for network, channels in zip(parts(branches), BRANCH_CHANNELS, strict=True)
    ]
    assert torch.allclose(branches(x), sum(each) / 3, rtol=1e-12)
    assert branches.num_classes == 4


def test_each_branch_has_the_gradients_of_a_separate_network() -> None:
    branches = make_branches().train()
    x, labels = torch.randn(4, 5, 12, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    logits = branches(x)
    assert logits.shape == (4, 4, 3)
    sum(F.cross_entropy(of_one, labels) for of_one in logits.unbind(2)).backward()
    for network, channels in zip(parts(branches), BRANCH_CHANNELS, strict=True):
        together = [parameter.grad for parameter in network.parameters()]
        network.zero_grad()
        F.cross_entropy(network(x[:, channels]), labels).backward()
        for one, other in zip(together, network.parameters(), strict=True):
            assert torch.allclose(one, other.grad, rtol=1e-9, atol=1e-12)


def test_a_network_without_branches_is_its_only_part() -> None:
    network = Network(random_genotype(0), in_channels=3, num_classes=4, channels=2, num_layers=3)
    assert parts(network) == [network]
