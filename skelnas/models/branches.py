"""Several networks in one: each sees some of the streams, and all have a say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skelnas.models.baselines import Baseline
from skelnas.models.network import Network


class Branches(nn.Module):
    """Networks side by side whose logits are averaged: late fusion, in one file and one pass.

    The field trains a network for each stream and adds up their scores (2s-AGCN and those after
    it). Here they learn together, each by a loss of its own, so that none leans on another.

    Args:
        networks: the branches, for clips of the channels that each of them sees.
        channels: of the whole clip, those of each branch.
    """

    def __init__(
        self, networks: Sequence[Network | Baseline], channels: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.channels = [list(own) for own in channels]

    @property
    def num_classes(self) -> int:
        """Width of every branch's classifier."""
        return parts(self)[0].num_classes

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, V] to logits [N, classes]; while learning to [N, classes, B]."""
        each = [
            network(x[:, own].contiguous(memory_format=torch.channels_last))
            for network, own in zip(self.networks, self.channels, strict=True)
        ]
        logits = torch.stack(each, dim=2)
        return logits if self.training else logits.mean(2)


AnyNetwork = Network | Baseline | Branches


def parts(network: AnyNetwork) -> list[Network | Baseline]:
    """Return the branches of a network, which is the only one if it has none."""
    if not isinstance(network, Branches):
        return [network]
    return list(network.networks)  # type: ignore[arg-type]
