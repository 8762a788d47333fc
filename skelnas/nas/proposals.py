"""Which genotypes a search by trainings trains next, and which one it chooses at the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skelnas.genotype import Genotype, Scores
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
        known = {identify(genotype) for genotype in genotypes}
        sources = [self._random(len(genotypes))]
        if len(genotypes) > 1:
            sources.insert(0, self._proposed(genotypes, scores))
        chosen: list[Genotype] = []
        for source in sources:
            misses = 0
            while len(chosen) < wanted and misses < MAX_MISSES:
                genotype = next(source)
                misses += 1
                if (identity := identify(genotype)) not in known:
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


def identify(genotype: Genotype) -> Hashable:
    """Return what two genotypes have in common that differ in the order of a node's edges only."""
    return tuple(frozenset(node) for node in genotype.normal), tuple(
        frozenset(node) for node in genotype.reduction
    )


@dataclass(frozen=True)
class Choice:
    """The genotype that a search chooses, and on what grounds.

    Attributes:
        genotype: with the highest estimated score.
        score: its estimated score.
        index: its number among the trained genotypes; None if it was not trained.
        predictor: fitted to all trained genotypes.
        estimates: of all trained genotypes.
    """

    genotype: Genotype
    score: float
    index: int | None
    predictor: Predictor
    estimates: Estimates


def choose(
    space: EdgeSpace,
    genotypes: Sequence[Genotype],
    scores: Array,
    maximise: Callable[[Mapping[str, Scores]], Genotype],
    is_allowed: Callable[[Genotype], bool] = lambda _: True,
) -> Choice:
    """Choose among the trained genotypes and the one that is predicted to be the best of all.

    Args:
        space: of the genotypes.
        genotypes: those that were trained, two or more.
        scores: [genotypes, folds].
        maximise: see `Proposals`.
        is_allowed: whether a genotype is within the budget.
    """
    scores = tame(scores)
    means = scores.mean(axis=1)
    predictor = fit(space, space.features(genotypes), means)
    estimates = estimate(means, predictor.left_out, noise_variance(scores))
    best = maximise(predictor.edge_scores())
    unknown: tuple[float, Genotype, int | None]
    unknown = (float(predictor.predict([best])[0]), best, None)
    measured = {
        identify(genotype): (float(value), genotype, index)
        for index, (genotype, value) in enumerate(zip(genotypes, estimates.values, strict=True))
        if is_allowed(genotype)
    }
    candidates = {identify(best): unknown, **measured}
    score, genotype, index = max(candidates.values(), key=lambda candidate: candidate[0])
    return Choice(genotype, score, index, predictor, estimates)
