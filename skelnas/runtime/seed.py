"""Randomness as a function of the seed and of the place in a run."""

from __future__ import annotations

import numpy as np


def random_seed(*place: int) -> int:
    """Turn (seed, stream, epoch, step, ...) into a seed that no other place shares."""
    return int(np.random.SeedSequence((len(place), *place)).generate_state(1, np.uint32)[0])
