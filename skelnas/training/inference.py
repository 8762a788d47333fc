"""Scores of a network on clips."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from skelnas.config import Precision
from skelnas.data.dataset import Dataset
from skelnas.data.sampling import TemporalCrop
from skelnas.models.branches import AnyNetwork
from skelnas.runtime import devices, distributed

VIEW_LENGTH = 0.9
"""Length of each of several views of a clip, as a fraction of the clip."""


@torch.no_grad()
def score(
    network: AnyNetwork,
    dataset: Dataset,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
    precision: Precision = "fp32",
    views: int = 1,
) -> Tensor:
    """Return the logits [N, classes] of every clip of a dataset, in its order, on the CPU.

    Of several views, see `temporal_crops`, they are logarithms of the mean of the softmax shares.
    The ranks score whole batches in turn, so that each is what one process would have scored.
    The network is left in the mode that it came in. `advance` is told how many clips are done.
    """
    distributed.check_same([dataset.labels], "before they score")
    training = network.training
    network.eval()
    logits = torch.zeros(len(dataset), network.num_classes)
    batches = torch.split(torch.arange(len(dataset)), batch_size)
    ranks = distributed.world_size()
    try:
        for start in range(0, len(batches), ranks):
            turn = batches[start : start + ranks]
            for indices in turn[distributed.rank() :][:1]:
                seen = []
                for crop in temporal_crops(views):
                    x = dataset.batch(indices, crop=crop).x
                    with devices.autocast(precision, dataset.device):
                        seen.append(network(x).float())
                logits[indices] = _mean(seen).cpu()
            advance(sum(map(len, turn)))
    finally:
        network.train(training)
    return distributed.all_reduce([logits])[0]


def temporal_crops(views: int) -> list[TemporalCrop | None]:
    """Return the crops to score: with one view, the whole clip (None).

    Several views are crops of nine tenths of the clip, evenly spaced from start to end (ours).
    """
    if views == 1:
        return [None]
    return [TemporalCrop(VIEW_LENGTH, view / (views - 1)) for view in range(views)]


def _mean(logits: list[Tensor]) -> Tensor:
    """Return logarithms of the mean of the shares; a single view as it is."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack(logits).log_softmax(2).logsumexp(0) - math.log(len(logits))
