"""Which clips meet in a batch, and in which order batches come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def shuffled(indices: NDArray[np.int64], batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the batches of one epoch in random order; a ragged last batch is left out.

    The order is a function of the seed alone. With fewer clips than a batch holds, the one
    batch is all of them.
    """
    order = np.random.default_rng(seed).permutation(indices)
    size = min(batch_size, len(order))
    for start in range(0, len(order) - size + 1, size):
        yield torch.from_numpy(order[start : start + size])


def num_batches(num_clips: int, batch_size: int) -> int:
    """Count the batches that `shuffled` yields."""
    return num_clips // min(batch_size, num_clips)
