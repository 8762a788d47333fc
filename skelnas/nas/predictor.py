"""What operations and connections are worth, learned from genotypes that were trained.

A genotype's score is modelled as a sum over its edges: an edge adds a weight of its operation in
this kind of cell, one of the operation at the node that it leads to, and one of the operation from
the node that it reads. A ridge regression finds the weights. Of a sum over edges, the maximum
within a budget can be found exactly.

Scores are higher for better genotypes, as the negative of a loss is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skelnas.derivation import Scores
from skelnas.genotype import CELLS, NUM_INPUT_NODES, Genotype, possible_edges

Array = NDArray[np.float64]

STRENGTHS = np.geomspace(0.03, 300.0, 25)
"""Candidate strengths of the ridge, in mean squares of a genotype's features (ours)."""

FENCE = 3.0
"""Scores further below the lower quartile, in interquartile ranges, are raised to there (Tukey)."""


@dataclass(frozen=True)
class EdgeSpace:
    """The features of all edges that a genotype can have.

    Attributes:
        ops: the candidate operations, without ``none``.
        num_nodes: intermediate nodes per cell.
    """

    ops: tuple[str, ...]
    num_nodes: int

    @property
    def _num_features_per_op(self) -> int:
        return 2 + 2 * self.num_nodes  # alone, with each target, with each source

    @property
    def num_features(self) -> int:
        """Features of a genotype."""
        return 2 * len(self.ops) * self._num_features_per_op

    @cached_property
    def edge_features(self) -> NDArray[np.int64]:
        """The indices of the features of each operation on each edge, [cells, edges, ops, 3]."""
        of_edge = [
            (0, 1 + target - NUM_INPUT_NODES, 1 + self.num_nodes + source)
            for target, source in possible_edges(self.num_nodes)
        ]
        first = np.arange(0, self.num_features, self._num_features_per_op)  # [cells * ops]
        features: NDArray[np.int64] = (
            first.reshape(len(CELLS), 1, len(self.ops), 1) + np.array(of_edge)[:, None]
        )  # [cells, 1, ops, 1] + [edges, 1, 3]
        return features

    def features(self, genotypes: Sequence[Genotype]) -> Array:
        """Count the edges with each feature, [genotypes, features]."""
        counts = np.zeros((len(genotypes), self.num_features))
        for row, genotype in zip(counts, genotypes, strict=True):
            for kind, edge, op in genotype.chosen_ops():
                row[self.edge_features[CELLS.index(kind), edge, self.ops.index(op)]] += 1
        return counts


@dataclass(frozen=True)
class Predictor:
    """Predicts scores of genotypes. Made by `fit`.

    Attributes:
        space: of the genotypes.
        strength: of the ridge, one of `STRENGTHS`.
        intercept, weights: the score of no edges, and of each feature, [features].
        left_out: [genotypes], the prediction for each genotype of a fit without it.
    """

    space: EdgeSpace
    strength: float
    intercept: float
    weights: Array
    left_out: Array

    def predict(self, genotypes: Sequence[Genotype]) -> Array:
        """Predict the scores of genotypes, [genotypes]."""
        predicted: Array = self.intercept + self.space.features(genotypes) @ self.weights
        return predicted

    def edge_scores(self) -> dict[str, Scores]:
        """Return what each operation adds to the score on each edge, by kind of cell."""
        scores = self.weights[self.space.edge_features].sum(-1)  # [cells, edges, ops]
        return {
            kind: [dict(zip(self.space.ops, edge, strict=True)) for edge in edges]
            for kind, edges in zip(CELLS, scores.tolist(), strict=True)
        }


def fit(
    space: EdgeSpace, features: Array, scores: Array, strength: float | None = None
) -> Predictor:
    """Fit a ridge regression to the scores of two genotypes or more.

    Args:
        space: of the genotypes.
        features: [genotypes, features], see `EdgeSpace.features`.
        scores: [genotypes].
        strength: of the ridge; None chooses the one of `STRENGTHS` with the smallest squared error
            for genotypes that are left out.
    """
    centre, mean = features.mean(axis=0), scores.mean()
    x, y = features - centre, scores - mean  # [n, features], [n]
    values, vectors = np.linalg.eigh(x @ x.T)  # [n], [n, n]
    values = np.maximum(values, 0.0)
    mean_square = values.sum() / len(y) or 1.0

    def solve(strength: float) -> Predictor:
        inverse = 1 / (values + strength * mean_square)
        weights = x.T @ (vectors @ (inverse * (vectors.T @ y)))
        leverage = vectors**2 @ (values * inverse) + 1 / len(y)  # the mean is fitted, too
        residuals = y - x @ weights
        return Predictor(
            space,
            strength,
            intercept=float(mean - centre @ weights),
            weights=weights,
            left_out=scores - residuals / (1 - leverage),
        )

    if strength is not None:
        return solve(strength)
    fits = [solve(float(strength)) for strength in STRENGTHS]
    return min(fits, key=lambda fitted: float(np.square(scores - fitted.left_out).sum()))


def tame(scores: Array) -> Array:
    """Raise the scores of failed trainings, NaN included, to a fence below those of the others.

    One loss of a thousand would otherwise decide all weights.

    Args:
        scores: [genotypes, folds].
    """
    tamed = scores.copy()
    for fold in tamed.T:
        valid = fold[np.isfinite(fold)]
        lower, upper = np.percentile(valid, (25, 75)) if len(valid) else (0.0, 0.0)
        fence = lower - FENCE * (upper - lower)
        fold[:] = np.maximum(np.where(np.isfinite(fold), fold, -np.inf), fence)
    return tamed


def noise_variance(scores: Array) -> float:
    """Estimate the variance of a genotype's mean score from how its folds differ.

    It includes the seeds of the trainings and the clips of the folds; by how much one fold is
    harder than another for all genotypes does not count.

    Args:
        scores: [genotypes, folds], two or more of each.
    """
    num_genotypes, num_folds = scores.shape
    rest = scores - scores.mean(axis=0)
    rest = rest - rest.mean(axis=1, keepdims=True)
    freedom = (num_genotypes - 1) * (num_folds - 1)
    return float(np.square(rest).sum() / freedom / num_folds)


@dataclass(frozen=True)
class Estimates:
    """The estimated scores of trained genotypes.

    Attributes:
        values: [genotypes].
        deviation: the standard deviation of each.
    """

    values: Array
    deviation: float


def estimate(scores: Array, left_out: Array, noise: float) -> Estimates:
    """Combine each genotype's own score with what the others predict for it (empirical Bayes).

    Both are weighted by the inverse of their variance. That of the prediction is what its errors
    have beyond the noise of the scores, and at least that of a mean of all scores.

    Args:
        scores: [genotypes], measured.
        left_out: [genotypes], predicted without the genotype itself.
        noise: the variance of a score.
    """
    errors = scores - left_out
    variance = max(float(np.square(errors).mean()) - noise, noise / len(scores))  # of a prediction
    trust = variance / (variance + noise) if noise else 1.0  # in the measured score
    return Estimates(left_out + trust * errors, float(np.sqrt(trust * noise)))
