"""What a table says of the differences between genotypes, and of what predicts them.

Shapes: G genotypes, P protocols (folds), S seeds, B bootstrap samples. Intervals are from samples
of the genotypes, drawn with replacement.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelnas.nas.bench.table import Array, Grid

NUM_BOOTSTRAPS = 2000
PERCENTILES = (2.5, 97.5)
BOOTSTRAP_SEED = 0

FRACTIONS = (0.25, 0.5, 1.0)
"""Of the epochs, whose training losses are added up (Ru et al. 2021, training speed)."""


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def measure_spread(grid: Grid) -> dict[str, dict[str, Estimate]]:
    """Split the spread of top-1 (in points) and loss into that of genotypes and of seeds.

    Returns:
        By measure and statistic, see `analyse`; what needs two seeds or protocols, or three
        genotypes, is left out without.
    """
    parameters = grid.parameters
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = generator.integers(0, len(grid), (NUM_BOOTSTRAPS, len(grid)))  # [B, G]
    spread = {}
    for measure, scores in (("top1", 100 * grid.top1), ("nll", grid.nll)):
        values = analyse(scores, parameters)
        samples = analyse(scores[drawn], parameters[drawn])
        spread[measure] = {name: _estimate(float(values[name]), samples[name]) for name in values}
    return spread


def analyse(scores: Array, parameters: Array) -> dict[str, Array]:
    """Split the variance of scores into its parts.

    A genotype's effect differs between protocols, by itself and by the luck of each training. A
    P-th of that variance is in the mean over P protocols, and is subtracted.

    Args:
        scores: [..., G, P, S].
        parameters: [..., G].

    Returns:
        Each [...]: ``sd_seeds``, the standard deviation between trainings that differ in the seed;
        ``sd_genotypes``, between genotypes without the luck of their trainings;
        ``sd_equal_parameters``, the same around a line through the logarithm of the parameters;
        ``per_doubling``, the slope of that line for twice the parameters.
    """
    num_genotypes, num_protocols, num_seeds = scores.shape[-3:]
    scores = scores - scores.mean(-3, keepdims=True)  # protocols and seeds differ as a whole
    means = scores.mean((-2, -1))  # [..., G]
    parts: dict[str, Array] = {}
    noise: Array | None = None  # the variance of a genotype's mean that is not its own
    if num_seeds > 1:
        between_seeds = scores.var(-1, ddof=1).mean((-2, -1))
        parts["sd_seeds"] = np.sqrt(between_seeds)
        noise = between_seeds / num_seeds / num_protocols
    if num_protocols > 1 and num_genotypes > 1:
        interaction = scores.mean(-1).var(-1, ddof=1).sum(-1) / (num_genotypes - 1)
        noise = interaction / num_protocols
    if num_genotypes < 3:
        return parts
    x = np.log2(parameters)
    x = x - x.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # all of the same size
        slope = (x * means).sum(-1) / (x * x).sum(-1)
    slope = np.where(np.isfinite(slope), slope, 0.0)
    around_line = ((means - slope[..., None] * x) ** 2).sum(-1) / (num_genotypes - 2)
    if noise is not None:
        parts["sd_genotypes"] = np.sqrt(np.maximum(means.var(-1, ddof=1) - noise, 0))
        parts["sd_equal_parameters"] = np.sqrt(np.maximum(around_line - noise, 0))
    parts["per_doubling"] = slope
    return parts


def measure_ranks(grid: Grid, scores: Mapping[str, Array] | None = None) -> dict[str, Estimate]:
    """Measure how well genotypes are ranked by what may predict their top-1: Kendall's tau.

    A training is never compared with itself: what is seen with one seed has to rank the top-1 of
    the other seeds. For a single seed there is nothing but its own top-1.

    Args:
        grid: of two genotypes or more.
        scores: [G] each, by name: other scores, higher for genotypes that should be better.

    Returns:
        Tau by what ranks: ``seed`` (top-1 with another seed), ``fold`` (top-1 on another protocol),
        ``loss`` (the held-out loss), ``loss_seed`` and ``loss_fold`` (losses among themselves),
        ``parameters``, ``macs``, ``train_loss_25`` (the sum of the training losses of the first
        quarter of the epochs) and so on, and the names in `scores`.
    """
    seeds, protocols = range(len(grid.seeds)), range(len(grid.protocols))
    top1, loss = grid.top1, -grid.nll
    pairs: dict[str, list[tuple[Array, Array]]] = {"loss": [(loss.mean((1, 2)), top1.mean((1, 2)))]}
    for name, values in (("", top1), ("loss_", loss)):
        pairs[f"{name}seed"] = [
            (values[:, :, a].mean(1), values[:, :, b].mean(1))
            for a, b in itertools.combinations(seeds, 2)
        ]
        pairs[f"{name}fold"] = [
            (values[:, a].mean(1), values[:, b].mean(1))
            for a, b in itertools.combinations(protocols, 2)
        ]
    constant = {"parameters": grid.parameters, "macs": grid.macs, **(scores or {})}
    for name, score in constant.items():
        pairs[name] = [(score, top1.mean((1, 2)))]
    for name, seen in _sums_of_train_loss(grid).items():
        pairs[name] = [(seen[:, seed], judge(top1, seed)) for seed in seeds]
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    weights = _count_draws(generator.integers(0, len(grid), (NUM_BOOTSTRAPS, len(grid))))
    ranks = {}
    for name, compared in pairs.items():
        if compared:
            agreement = np.mean([_agreement(x, y) for x, y in compared], axis=0)
            samples = mean_of_pairs(agreement, weights)
            value = float(mean_of_pairs(agreement, np.ones(len(grid))))
            ranks[name] = _estimate(value, samples)
    return ranks


def judge(scores: Array, seed: int) -> Array:
    """Return the mean of all but one of several seeds: the score that the one has to predict.

    Args:
        scores: [G, P, S].
        seed: index of the one.
    """
    others = [index for index in range(scores.shape[2]) if index != seed] or [seed]
    mean: Array = scores[:, :, others].mean((1, 2))
    return mean


def mean_of_pairs(values: Array, weights: Array) -> Array:
    """Return the mean over pairs of different genotypes, [...].

    Args:
        values: [G, G], symmetric, 0 on the diagonal.
        weights: [..., G], how often each genotype was drawn.
    """
    pairs = weights.sum(-1) ** 2 - (weights**2).sum(-1)
    sums = ((weights @ values) * weights).sum(-1)
    with np.errstate(invalid="ignore"):  # a sample of one genotype alone
        mean: Array = np.where(pairs > 0, sums / pairs, 0.0)
    return mean


def _agreement(x: Array, y: Array) -> Array:
    """Return 1 for each pair in the same order, -1 in opposite order, 0 for ties: [G, G]."""
    return np.sign(x[:, None] - x) * np.sign(y[:, None] - y)


def _count_draws(drawn: NDArray[np.int64]) -> Array:
    """Count how often each of G genotypes is in each sample, [B, G] -> [B, G]."""
    counts = np.zeros(drawn.shape)
    np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1)
    return counts


def _sums_of_train_loss(grid: Grid) -> dict[str, Array]:
    """Return minus the sum of the first training losses, by the part of the epochs: [G, S].

    Parts of short schedules that are less than half an epoch are left out.
    """
    if grid.train_loss is None:
        return {}
    epochs = grid.train_loss.shape[-1]
    return {
        f"train_loss_{round(100 * part)}": -grid.train_loss[..., :number].sum(-1).mean(1)
        for part in FRACTIONS
        if (number := round(part * epochs))
    }


def _estimate(value: float, samples: Array) -> Estimate:
    low, high = np.percentile(samples, PERCENTILES)
    return Estimate(value, float(low), float(high))
