"""Random seeds as a function of the run's seed and the position in the run."""

from __future__ import annotations

import numpy as np


def random_seed(*position: int) -> int:
    """Hash (seed, stream, epoch, step, ...) into the seed of this position."""
    return int(np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint32)[0])
