"""Which genotypes a search by trainings trains next, and what it knows in the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skelnas.derivation import Scores
from skelnas.genotype import Genotype
from skelnas.nas.predictor import (
    Array,
    EdgeSpace,
    Estimates,
    Predictor,
    estimate,
    fit,
    noise_variance,
    tame,
)
from skelnas.runtime.seed import random_seed

NUM_ROUNDS = 2
"""Rounds of proposals after the random genotypes."""

MAX_MISSES = 50
"""Draws without a new genotype after which a space or budget counts as exhausted."""

STREAM_RANDOM, STREAM_BOOTSTRAP = range(2)
"""Random streams of a search; each has its own seed."""


@dataclass(frozen=True)
class Proposals:
    """The genotypes of a search, round by round: half at random, then what a predictor proposes.

    Everything follows from the seed and the scores, so that a search that is resumed with the same
    scores proposes the same genotypes.

    Attributes:
        space: of the genotypes.
        num_genotypes: to be trained in all.
        seed: of all random numbers.
        draw: returns a random genotype within the budget, given a seed.
        maximise: returns the genotype within the budget with the highest sum of edge scores, see
            `Predictor.edge_scores`.
    """

    space: EdgeSpace
    num_genotypes: int
    seed: int
    draw: Callable[[int], Genotype]
    maximise: Callable[[Mapping[str, Scores]], Genotype]

    def next_round(self, genotypes: Sequence[Genotype], scores: Array) -> list[Genotype]:
        """Return the genotypes to train next; none at the end.

        Args:
            genotypes: of all rounds so far.
            scores: [genotypes, folds].
        """
        wanted = next((end for end in self._ends() if end > len(genotypes)), 0) - len(genotypes)
        known = {genotype.identity for genotype in genotypes}
        sources = [self._random(len(genotypes))]
        if len(genotypes) > 1:
            sources.insert(0, self._proposed(genotypes, scores))
        chosen: list[Genotype] = []
        for source in sources:
            misses = 0
            while len(chosen) < wanted and misses < MAX_MISSES:
                genotype = next(source)
                misses += 1
                if (identity := genotype.identity) not in known:
                    known.add(identity)
                    chosen.append(genotype)
                    misses = 0
        return chosen

    def _ends(self) -> list[int]:
        """Return how many genotypes are trained after each round."""
        num_random = -(-self.num_genotypes // 2)
        rest = self.num_genotypes - num_random
        return [num_random + rest * done // NUM_ROUNDS for done in range(NUM_ROUNDS + 1)]

    def _random(self, num_trained: int) -> Iterator[Genotype]:
        """Yield genotypes at random."""
        for index in itertools.count():
            yield self.draw(random_seed(self.seed, STREAM_RANDOM, num_trained, index))

    def _proposed(self, genotypes: Sequence[Genotype], scores: Array) -> Iterator[Genotype]:
        """Yield the best genotype for each of many predictors, fitted to bootstrap samples."""
        means = tame(scores).mean(axis=1)
        features = self.space.features(genotypes)
        strength = fit(self.space, features, means).strength
        generator = np.random.default_rng(random_seed(self.seed, STREAM_BOOTSTRAP, len(genotypes)))
        while True:
            sample = generator.integers(0, len(genotypes), len(genotypes))
            predictor = fit(self.space, features[sample], means[sample], strength)
            yield self.maximise(predictor.edge_scores())


@dataclass(frozen=True)
class Findings:
    """What is known of genotypes after some were trained.

    Attributes:
        genotypes: those that were trained.
        predictor: fitted to all of them.
        estimates: of their scores.
        noise: the variance of the mean score of one.
    """

    genotypes: Sequence[Genotype]
    predictor: Predictor
    estimates: Estimates
    noise: float

    def best_trained(
        self, is_allowed: Callable[[Genotype], bool] = lambda _: True
    ) -> tuple[int, float] | None:
        """Return number and estimate of the best that is allowed; None if none is."""
        values = self.estimates.values.tolist()
        allowed = [n for n, genotype in enumerate(self.genotypes) if is_allowed(genotype)]
        number = max(allowed, key=values.__getitem__, default=None)
        return None if number is None else (number, values[number])


def learn(space: EdgeSpace, genotypes: Sequence[Genotype], scores: Array) -> Findings:
    """Learn from genotypes that were trained.

    Args:
        space: of the genotypes.
        genotypes: two or more.
        scores: [genotypes, folds].
    """
    scores = tame(scores)
    means, noise = scores.mean(axis=1), noise_variance(scores)
    predictor = fit(space, space.features(genotypes), means)
    return Findings(genotypes, predictor, estimate(means, predictor.left_out, noise), noise)
