"""Replays of searches in a table: what each method finds, for the same number of trainings.

A replayed search sees the held-out losses of one seed only. What it chooses is judged by the top-1
of the other seeds, so that luck in the trainings that it saw does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skelnas.derivation import Scores
from skelnas.errors import UsageError
from skelnas.genotype import Genotype
from skelnas.nas.bench.statistics import Estimate, judge
from skelnas.nas.bench.table import Array, Grid
from skelnas.nas.predictor import EdgeSpace
from skelnas.nas.proposals import Proposals, learn
from skelnas.primitives import PRIMITIVES
from skelnas.runtime.console import progress

SIZES = (4, 8, 16, 32, 64, 128, 256)
"""Genotypes that random search trains, up to half of the table."""

NUM_REPLAYS, MIN_REPLAYS = 500, 10
"""Of each search and number of trainings: by default, and at least."""

NUM_SAMPLES = 50
"""Tables made of genotypes of this one, drawn with replacement, for the intervals."""

EARLY = 0.25
"""Fraction of the epochs, rounded to whole ones, after which ``early`` stops."""

SEED = 0

Z = 1.96
"""Standard deviations on either side of a 95 % interval."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Replay:
    """What a method found, on average.

    Attributes:
        method: see `METHODS`.
        trainings: that it was allowed, each of one genotype on one protocol.
        gain: top-1 of its choice above the mean of all genotypes, in points.
        over_random: the same above that of random search with as many trainings.
    """

    method: str
    trainings: int
    gain: Estimate
    over_random: Estimate


@dataclass(frozen=True)
class View:
    """What a search sees of a table.

    Attributes:
        genotypes: all G.
        space: of their edges.
        pool: the indices of those that exist in this replay.
        losses: [G, P], held-out losses of a single seed.
        early: [G], sums of the training losses of the first epochs; or None.
        early_share: of all epochs that these are.
        generator: of all random numbers of the search.
    """

    genotypes: Sequence[Genotype]
    space: EdgeSpace
    pool: Indices
    losses: Array
    early: Array | None
    early_share: float
    generator: np.random.Generator

    def draw(self, count: int) -> Indices:
        """Draw different genotypes, as many as there are at most."""
        return self.generator.permutation(self.pool)[:count]


def _random(view: View, trainings: int) -> int:
    """Train random genotypes on all protocols; choose the smallest loss."""
    drawn = view.draw(trainings // view.losses.shape[1])
    return int(drawn[view.losses[drawn].mean(1).argmin()])


def _halving(view: View, trainings: int) -> int:
    """Train many genotypes on the first protocol, the better half of them on the second, ..."""
    num_protocols = view.losses.shape[1]
    fractions = 0.5 ** np.arange(num_protocols)
    drawn = view.draw(int(trainings / fractions.sum()))
    for number in range(1, num_protocols + 1):
        ranked = drawn[view.losses[drawn, :number].mean(1).argsort(kind="stable")]
        drawn = ranked[: max(len(ranked) // 2, 1)]
    return int(ranked[0])


def _early(view: View, trainings: int) -> int:
    """Stop trainings after a quarter of the epochs; choose the smallest sum of training losses."""
    assert view.early is not None
    drawn = view.draw(int(trainings / view.losses.shape[1] / view.early_share))
    return int(drawn[view.early[drawn].argmin()])


def _predict(view: View, trainings: int) -> int:
    """Search as `skelnas search --method predict` does, but among the genotypes of the table."""
    by_identity = {view.genotypes[index].identity: int(index) for index in view.pool}
    proposed: set[int] = set()

    def draw(seed: int) -> Genotype:
        return view.genotypes[int(np.random.default_rng(seed).choice(view.pool))]

    def maximise(scores: Mapping[str, Scores]) -> Genotype:
        left = [index for index in by_identity.values() if index not in proposed] or [*view.pool]
        best = max(left, key=lambda index: sum_edges(view.genotypes[index], scores))
        proposed.add(best)
        return view.genotypes[best]

    count = min(trainings // view.losses.shape[1], len(by_identity))
    if count < 2:  # nothing to learn from
        return int(view.pool[0])
    seed = int(view.generator.integers(1 << 31))
    proposals = Proposals(view.space, count, seed, draw, maximise)
    trained: list[int] = []
    while True:
        chosen = [view.genotypes[index] for index in trained]
        more = proposals.next_round(chosen, -view.losses[trained])
        if not more:
            break
        trained += [by_identity[genotype.identity] for genotype in more]
        proposed.update(trained)
    found = learn(view.space, chosen, -view.losses[trained])
    return trained[int(found.estimates.values.argmax())]


METHODS: dict[str, Callable[[View, int], int]] = {
    "random": _random,
    "halving": _halving,
    "early": _early,
    "predict": _predict,
}
"""The methods by name; each returns the index of the genotype that it chooses."""


def replay(grid: Grid, replays: int) -> list[Replay]:
    """Replay every method against random search with as many trainings.

    Args:
        grid: with two seeds or more.
        replays: of each method and number of trainings.

    Raises:
        UsageError: see `check_can_replay`; or there are too few replays for an interval.
    """
    check_can_replay(grid)
    if replays < MIN_REPLAYS:
        raise UsageError(f"--replays {replays}: expected {MIN_REPLAYS} or more, or 0 for none")
    sizes = [size for size in SIZES if size <= len(grid) // 2]
    unusable = {"early"} if not _early_epochs(grid) else set()
    if len(grid.protocols) < 2:
        unusable |= {"predict", "halving"}
    methods = [name for name in METHODS if name not in unusable]
    table = Replayer(grid, methods)
    whole = np.arange(len(grid))
    generator = np.random.default_rng(SEED)
    pools = [np.unique(generator.choice(whole, len(grid))) for _ in range(NUM_SAMPLES)]
    results = []
    with progress("replay", len(sizes) * (1 + NUM_SAMPLES)) as meter:
        for size in sizes:
            trainings = size * len(grid.protocols)
            gains = table.replay(whole, trainings, replays, stream=0)  # [replays, methods]
            meter.advance()
            samples = []
            for number, pool in enumerate(pools, start=1):
                count = max(2 * replays // NUM_SAMPLES, 2)
                samples.append(table.replay(pool, trainings, count, stream=number))
                meter.advance()
            again = np.stack(samples)  # [samples, count, methods]
            for column, method in enumerate(methods):
                gain = _estimate(gains[:, column], again[..., column])
                over_random = _estimate(
                    gains[:, column] - gains[:, 0], again[..., column] - again[..., 0]
                )
                results.append(Replay(method, trainings, gain, over_random))
    return results


def check_can_replay(grid: Grid) -> None:
    """Check that a table is large enough for replays.

    Raises:
        UsageError: there is a single seed, or too few genotypes to choose from.
    """
    if len(grid.seeds) < 2:
        raise UsageError(
            "a replay needs two seeds: one to choose by, and another to judge by",
            hint="`skelnas bench run --resume --seeds 2` adds one",
        )
    if len(grid) < 2 * SIZES[0]:
        raise UsageError(
            f"a replay needs {2 * SIZES[0]} random genotypes that were trained on everything, "
            f"and the table has {len(grid)}",
            hint="`skelnas bench run --resume --genotypes` adds some",
        )


@dataclass(frozen=True)
class Replayer:
    """Replays methods on a table.

    Attributes:
        grid: the table.
        methods: names in `METHODS`.
    """

    grid: Grid
    methods: Sequence[str]

    @cached_property
    def genotypes(self) -> list[Genotype]:
        """All genotypes."""
        return self.grid.genotypes()

    @cached_property
    def space(self) -> EdgeSpace:
        """Of their edges."""
        return _edge_space(self.genotypes)

    def replay(self, pool: Indices, trainings: int, count: int, stream: int) -> Array:
        """Replay each method several times; return the gain of each choice, [count, methods]."""
        gains = np.empty((count, len(self.methods)))
        for number in range(count):
            seed = number % len(self.grid.seeds)
            values = 100 * judge(self.grid.top1, seed)
            values = values - values[pool].mean()
            for column, method in enumerate(self.methods):
                generator = np.random.default_rng((SEED, stream, number))
                losses, early = self.grid.nll[:, :, seed], self._early(seed)
                share = self._early_share
                view = View(self.genotypes, self.space, pool, losses, early, share, generator)
                gains[number, column] = values[METHODS[method](view, trainings)]
        return gains

    def _early(self, seed: int) -> Array | None:
        if self.grid.train_loss is None:
            return None
        curve = self.grid.train_loss[:, :, seed].mean(1)  # [G, epochs]
        total: Array = curve[:, : _early_epochs(self.grid)].sum(1)
        return total

    @property
    def _early_share(self) -> float:
        curves = self.grid.train_loss
        return 1.0 if curves is None else _early_epochs(self.grid) / curves.shape[-1]


def _early_epochs(grid: Grid) -> int:
    """Return after how many epochs ``early`` stops; 0 without curves, or if they are too short."""
    return 0 if grid.train_loss is None else round(EARLY * grid.train_loss.shape[-1])


def _estimate(gains: Array, again: Array) -> Estimate:
    """Return the mean of [replays] gains, with its interval from those of [samples, count].

    The means of the samples differ also because each has few replays; that is subtracted, and the
    same of the many replays of the mean itself is added.
    """
    count = again.shape[1]
    between = again.mean(1).var(ddof=1) - again.var(1, ddof=1).mean() / count
    variance = max(between, 0.0) + gains.var(ddof=1) / len(gains)
    value, margin = float(gains.mean()), Z * float(np.sqrt(variance))
    return Estimate(value, value - margin, value + margin)


def _edge_space(genotypes: Sequence[Genotype]) -> EdgeSpace:
    """Return the features of all genotypes of a table."""
    ops = {op for genotype in genotypes for _, _, op in genotype.chosen_ops()}
    return EdgeSpace(
        tuple(op for op in PRIMITIVES if op in ops),
        max(len(cell) for one in genotypes for cell in (one.normal, one.reduction)),
    )


def sum_edges(genotype: Genotype, scores: Mapping[str, Scores]) -> float:
    """Return the sum of the scores of a genotype's edges."""
    return sum(scores[kind][index][op] for kind, index, op in genotype.chosen_ops())
