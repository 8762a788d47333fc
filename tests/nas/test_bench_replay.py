"""Replays: closed forms, planted problems, and luck that must not count."""

from __future__ import annotations

from math import comb
from unittest.mock import patch

import numpy as np
import pytest
from test_bench_statistics import make_table

from skelnas.errors import UsageError
from skelnas.genotype import random_genotype
from skelnas.nas.bench.replay import METHODS, Replay, Replayer, View, replay

NUM_GENOTYPES = 24


def find(results: list[Replay], method: str, trainings: int) -> Replay:
    (found,) = [r for r in results if (r.method, r.trainings) == (method, trainings)]
    return found


def count_convolutions(seed: int) -> int:
    genotype = random_genotype(seed)
    nodes = (*genotype.normal, *genotype.reduction)
    return sum("conv" in edge.op for node in nodes for edge in node)


@pytest.fixture(scope="module")
def additive() -> list[Replay]:
    """Replays of a table in which each convolution adds a point, and nothing else matters."""
    quality = np.array([count_convolutions(seed) for seed in range(NUM_GENOTYPES)]) / 100
    top1 = np.broadcast_to(quality[:, None, None] + 0.5, (NUM_GENOTYPES, 2, 2))
    generator = np.random.default_rng(0)
    return replay(make_table(top1, 1 - top1 + generator.normal(0, 1e-6, top1.shape)).grid(), 60)


def test_random_search_gains_what_the_best_of_n_does(additive: list[Replay]) -> None:
    values = sorted(count_convolutions(seed) for seed in range(NUM_GENOTYPES))
    for size in (4, 8):
        ways = [comb(rank, size - 1) for rank in range(NUM_GENOTYPES)]
        best = np.dot(values, ways) / comb(NUM_GENOTYPES, size)
        found = find(additive, "random", 2 * size)
        assert found.gain.value == pytest.approx(best - np.mean(values), abs=0.35)
        assert found.over_random.value == found.over_random.low == found.over_random.high == 0


def test_prediction_beats_random_search_where_operations_add_up() -> None:
    count = 100
    quality = np.array([count_convolutions(seed) for seed in range(count)]) / 100 + 0.5
    grid = make_table(np.broadcast_to(quality[:, None, None], (count, 2, 2))).grid()
    replayer = Replayer(grid, ["random", "predict"])
    gains = replayer.replay(np.arange(count), 32, 30, stream=0)  # [replays, methods]
    gain = gains[:, 1] - gains[:, 0]
    assert gain.mean() > 3 * gain.std() / np.sqrt(30) > 0


def test_every_method_is_replayed_for_every_cost(additive: list[Replay]) -> None:
    found = [(r.trainings, r.method) for r in additive]
    methods = [name for name in METHODS if name != "early"]  # no curves
    assert found == [(cost, method) for cost in (8, 16) for method in methods]


def test_luck_in_the_trainings_that_a_search_saw_does_not_count() -> None:
    generator = np.random.default_rng(1)
    top1 = generator.uniform(size=(NUM_GENOTYPES, 2, 2))
    curves = np.stack([1 - top1] * 4, axis=-1)  # a training knows its own luck from the start
    results = replay(make_table(top1, train_loss=curves).grid(), 40)
    assert {r.method for r in results} == set(METHODS)
    for result in results:
        assert result.gain.value < 10  # points; of what it saw, the best has 35 above the mean


def test_early_stopping_is_worth_it_where_the_first_epochs_tell_all() -> None:
    quality = np.linspace(0.2, 0.8, NUM_GENOTYPES)[:, None, None]
    top1 = np.broadcast_to(quality, (NUM_GENOTYPES, 2, 2))
    results = replay(make_table(top1, train_loss=np.stack([1 - top1] * 4, axis=-1)).grid(), 25)
    best = find(results, "early", 16)  # four times as many genotypes: all 24
    assert best.gain.value == pytest.approx(100 * (0.8 - 0.5))
    assert best.over_random.low > 0


@pytest.mark.parametrize(("epochs", "genotypes"), [(3, 12), (4, 16), (5, 20), (15, 15)])
def test_early_stopping_costs_no_more_than_random_search(epochs: int, genotypes: int) -> None:
    """A quarter of 3 epochs is 1, a third of the cost: of 15 it is 4."""
    seen = []

    def first(view: View, trainings: int) -> int:
        seen.append(int(trainings / view.losses.shape[1] / view.early_share))
        return 0

    top1 = np.full((NUM_GENOTYPES, 2, 2), 0.5)
    curves = np.stack([1 - top1] * epochs, axis=-1)
    table = Replayer(make_table(top1, train_loss=curves).grid(), ["early"])
    with patch.dict(METHODS, early=first):
        table.replay(np.arange(NUM_GENOTYPES), 8, 1, stream=0)
    assert seen == [genotypes]


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_too_short_to_stop_early_is_not_replayed(epochs: int) -> None:
    top1 = np.full((NUM_GENOTYPES, 2, 2), 0.5)
    curves = np.stack([1 - top1] * epochs, axis=-1)
    results = replay(make_table(top1, train_loss=curves).grid(), 10)
    assert {r.method for r in results} == set(METHODS) - {"early"}


def test_tables_that_are_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match="needs two seeds"):
        replay(make_table(np.full((9, 2, 1), 0.5)).grid(), 10)
    with pytest.raises(UsageError, match="needs 8 random genotypes"):
        replay(make_table(np.full((7, 2, 2), 0.5)).grid(), 10)
    with pytest.raises(UsageError, match="--replays 9: expected 10 or more"):
        replay(make_table(np.full((8, 2, 2), 0.5)).grid(), 9)


def test_one_protocol_has_neither_folds_to_halve_over_nor_noise_to_shrink_by() -> None:
    top1 = np.random.default_rng(2).uniform(size=(9, 1, 2))
    assert {r.method for r in replay(make_table(top1).grid(), 10)} == {"random"}
