"""Scores of a network on clips."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skelnas import devices, parallel
from skelnas.batches import ClipStore
from skelnas.config import Precision
from skelnas.models.baselines import Baseline
from skelnas.models.network import Network


@torch.no_grad()
def score(
    network: Network | Baseline,
    store: ClipStore,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
    precision: Precision = "fp32",
) -> Tensor:
    """Return the logits [N, classes] of every clip of a store, in its order, on the CPU.

    The ranks score whole batches in turn, so that each is what one process would have scored.
    The network is left in the mode that it came in. `advance` is told how many clips are done.
    """
    parallel.check_same([store.labels], "before they score")
    training = network.training
    network.eval()
    logits = torch.zeros(len(store), network.classifier.out_features)
    batches = torch.split(torch.arange(len(store)), batch_size)
    ranks = parallel.world_size()
    try:
        for start in range(0, len(batches), ranks):
            turn = batches[start : start + ranks]
            for indices in turn[parallel.rank() :][:1]:
                with devices.autocast(precision, store.device):
                    logits[indices] = network(store.batch(indices).x).float().cpu()
            advance(sum(map(len, turn)))
    finally:
        network.train(training)
    return parallel.all_reduce([logits])[0]
