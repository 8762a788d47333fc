"""Several networks in one, each for some of the streams, with averaged logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skelnas.models.baselines import Baseline
from skelnas.models.network import Network


class Branches(nn.Module):
    """Parallel networks whose logits are averaged: late fusion in one model.

    Usually a network is trained for each stream and their scores are added (since 2s-AGCN). Here
    they are trained together, each with its own loss, so that none relies on another.

    Args:
        networks: the branches.
        channels: for each branch, the indices of the clip's channels that it reads.
    """

    def __init__(
        self, networks: Sequence[Network | Baseline], channels: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.channels = [list(indices) for indices in channels]

    @property
    def num_classes(self) -> int:
        """Width of every branch's classifier."""
        return parts(self)[0].num_classes

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, V] to logits [N, classes], in training to [N, classes, branches]."""
        logits_of_each = [
            network(x[:, indices].contiguous(memory_format=torch.channels_last))
            for network, indices in zip(self.networks, self.channels, strict=True)
        ]
        logits = torch.stack(logits_of_each, dim=2)  # B x [N, classes] -> [N, classes, B]
        return logits if self.training else logits.mean(2)


AnyNetwork = Network | Baseline | Branches


def parts(network: AnyNetwork) -> list[Network | Baseline]:
    """Return the branches of a network, or the network itself if it has none."""
    if not isinstance(network, Branches):
        return [network]
    return list(network.networks)  # type: ignore[arg-type]
