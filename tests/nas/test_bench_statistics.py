"""Statistics of a table: closed forms, simulations with known parts, and the table itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skelnas.errors import InputError
from skelnas.genotype import random_genotype
from skelnas.nas.bench.statistics import (
    analyse,
    judge,
    mean_of_pairs,
    measure_ranks,
    measure_spread,
)
from skelnas.nas.bench.table import (
    Array,
    BenchTable,
    GenotypeEntry,
    TrialEntry,
    read_table,
    write_table,
)


def make_table(
    top1: Array, nll: Array | None = None, train_loss: Array | None = None
) -> BenchTable:
    """Make a table of scores [genotypes, protocols, seeds]; by default losses are 1 - top-1."""
    nll = 1 - top1 if nll is None else nll
    genotypes = [
        GenotypeEntry(f"random:{g}", "random", random_genotype(g).to_dict(), 1000 * (g + 1), 5)
        for g in range(len(top1))
    ]
    trials = [
        TrialEntry(
            f"random:{g}",
            f"fold {p}",
            s,
            float(top1[g, p, s]),
            float(nll[g, p, s]),
            train_loss=None if train_loss is None else train_loss[g, p, s].tolist(),
        )
        for g, p, s in np.ndindex(top1.shape)
    ]
    return BenchTable("made up", 3, {"epochs": 2}, {"skelnas": "0"}, genotypes, trials)


def test_tau_by_hand() -> None:
    order = np.arange(4.0)
    scores = {"same": order**3, "opposite": -order}
    scores |= {"swapped": np.array([0.0, 2, 1, 3]), "tied": np.array([0.0, 1, 1, 3])}
    ranks = measure_ranks(make_table(order[:, None, None] / 4).grid(), scores)
    assert ranks["same"].value == pytest.approx(1)
    assert ranks["opposite"].value == pytest.approx(-1)
    assert ranks["swapped"].value == pytest.approx((5 - 1) / 6)
    assert ranks["tied"].value == pytest.approx(5 / 6)  # a tie is neither


def test_a_weighted_mean_of_pairs_is_that_of_the_pairs_drawn() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(5, 5))
    values = values + values.T
    np.fill_diagonal(values, 0)
    drawn = [0, 2, 2, 3, 4, 4, 4]
    pairs = [values[i, j] for i, j in itertools.combinations(drawn, 2) if i != j]
    found = mean_of_pairs(values, np.bincount(drawn, minlength=5).astype(float))
    assert found == pytest.approx(np.mean(pairs))


def test_the_spread_by_hand() -> None:
    # Two protocols, two seeds; the genotypes' effects are -1, 0 and 1, and seeds add +-0.1.
    effect = np.array([-1.0, 0, 1])[:, None, None]
    luck = 0.1 * np.array([[[1, -1], [-1, 1]], [[0, 0], [0, 0]], [[-1, 1], [1, -1]]])
    parts = analyse(effect + luck + [[[5, 6], [7, 8]]], np.array([1.0, 2, 4]))
    assert parts["sd_seeds"] == pytest.approx(np.sqrt((4 * 0.02 + 2 * 0) / 6))
    assert parts["sd_genotypes"] == pytest.approx(1)  # the seeds cancel in each fold
    assert parts["sd_equal_parameters"] == pytest.approx(0, abs=1e-7)
    assert parts["per_doubling"] == pytest.approx(1)


def test_the_spread_of_a_simulation_is_recovered() -> None:
    generator = np.random.default_rng(1)
    parameters = 2.0 ** generator.uniform(17, 19, 6000)
    scores = (
        generator.normal(0, 1.5, (6000, 1, 1))
        + 2 * np.log2(parameters)[:, None, None]
        + generator.normal(0, 0.8, (6000, 3, 1))  # a genotype is better in one fold
        + generator.normal(0, 2.5, (6000, 3, 2))
    )
    parts = analyse(scores, parameters)
    assert parts["sd_seeds"] == pytest.approx(2.5, rel=0.03)
    assert parts["sd_equal_parameters"] == pytest.approx(1.5, rel=0.05)
    assert parts["per_doubling"] == pytest.approx(2, rel=0.05)
    # A uniform variable of width 2 has the variance 1/3.
    assert parts["sd_genotypes"] == pytest.approx(np.sqrt(1.5**2 + 2**2 / 3), rel=0.05)


def test_samples_are_analysed_as_if_alone() -> None:
    generator = np.random.default_rng(2)
    scores, parameters = generator.normal(size=(4, 9, 2, 3)), generator.uniform(1, 9, (4, 9))
    together = analyse(scores, parameters)
    for index in range(4):
        for name, value in analyse(scores[index], parameters[index]).items():
            assert together[name][index] == pytest.approx(value)


def test_what_cannot_be_measured_is_left_out() -> None:
    generator = np.random.default_rng(3)
    assert set(analyse(generator.normal(size=(9, 1, 1)), np.arange(1.0, 10))) == {"per_doubling"}
    assert set(analyse(generator.normal(size=(2, 2, 2)), np.ones(2))) == {"sd_seeds"}
    sizes_alike = analyse(generator.normal(size=(9, 2, 2)), np.ones(9))
    assert sizes_alike["per_doubling"] == 0


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(20):
        top1 = 0.5 + 0.01 * generator.normal(size=(30, 2, 2))
        spread = measure_spread(make_table(np.clip(top1, 0, 1)).grid())["top1"]
        covered += spread["sd_seeds"].low <= 1.0 <= spread["sd_seeds"].high
    assert covered >= 15  # 19 expected; fewer than 15 once in three thousand


def test_a_training_is_not_compared_with_itself() -> None:
    generator = np.random.default_rng(5)
    top1 = generator.uniform(size=(40, 2, 2))
    # Seeds share nothing. The training losses of a seed follow its own top-1 exactly.
    train_loss = np.stack([1 - top1.mean(1, keepdims=True).repeat(2, 1)] * 4, axis=-1)
    ranks = measure_ranks(make_table(top1, train_loss=train_loss).grid(), {"luck": top1[:, 0, 0]})
    for name in ("seed", "train_loss_25", "train_loss_100"):
        assert ranks[name].low < 0 < ranks[name].high
        assert abs(ranks[name].value) < 0.35
    assert ranks["loss"].value == 1
    order = np.sign(np.subtract.outer(top1[:, 0, 0], top1[:, 0, 0]))
    mean = top1.mean((1, 2))
    agreement = (order * np.sign(np.subtract.outer(mean, mean))).sum() / (40 * 39)
    assert ranks["luck"].value == pytest.approx(agreement)
    np.testing.assert_allclose(judge(top1, 0), top1[:, :, 1].mean(1))


@pytest.mark.parametrize(("epochs", "parts"), [(1, [100]), (2, [50, 100]), (3, [25, 50, 100])])
def test_short_schedules_have_fewer_parts(epochs: int, parts: list[int]) -> None:
    top1 = np.random.default_rng(8).uniform(size=(8, 2, 2))
    table = make_table(top1, train_loss=np.stack([1 - top1] * epochs, axis=-1))
    ranks = measure_ranks(table.grid())
    assert [name for name in ranks if name.startswith("train_loss")] == [
        f"train_loss_{part}" for part in parts
    ]


def test_a_shared_order_is_found() -> None:
    quality = np.linspace(0.2, 0.8, 20)[:, None, None]
    top1 = np.broadcast_to(quality, (20, 2, 3)) + np.array([[0, 0.1, 0.05], [0.1, 0, 0.02]])
    ranks = measure_ranks(make_table(top1).grid())
    for name in ("seed", "fold", "loss", "loss_seed", "loss_fold", "parameters"):
        assert ranks[name].value == ranks[name].low == ranks[name].high == 1
    assert ranks["macs"].value == 0  # all the same
    assert "train_loss_25" not in ranks


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    scores = np.random.default_rng(6).uniform(size=(4, 2, 2))
    table = make_table(scores, train_loss=np.ones((4, 2, 2, 3)))
    write_table(tmp_path / "table.json", table)
    assert read_table(tmp_path / "table.json") == read_table(tmp_path) == table
    grid = table.grid()
    np.testing.assert_array_equal(grid.top1, scores)
    assert grid.train_loss is not None
    assert grid.train_loss.shape == (4, 2, 2, 3)
    assert grid.genotypes()[1] == random_genotype(1)


def test_incomplete_genotypes_are_left_out_of_the_grid() -> None:
    table = make_table(np.full((4, 2, 2), 0.5))
    given = [replace(entry, kind="given") for entry in table.genotypes[3:]]
    table = replace(table, genotypes=[*table.genotypes[:3], *given], trials=table.trials[1:])
    assert table.grid().names == ["random:1", "random:2", "random:3"]
    assert table.grid(["random"]).names == ["random:1", "random:2"]


def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    table = make_table(np.full((2, 1, 1), 0.5))
    with pytest.raises(ValueError, match="a trial of random:1, which is not among"):
        replace(table, genotypes=table.genotypes[:1])
    with pytest.raises(ValueError, match="there 2 times"):
        replace(table, trials=table.trials * 2)
    with pytest.raises(ValueError, match="there 2 times"):
        replace(table, genotypes=table.genotypes * 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.5", "0.6", "its checksum is wrong"),
        ('"version": 1', '"version": 2', "checksum is wrong"),
        ('"skelnas-bench"', '"other"', "checksum is wrong"),
        ("{", "", "not the table"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "table.json"
    write_table(path, make_table(np.full((2, 1, 1), 0.5)))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"top1": 0.5', '"top1": 1.5', "top1"),
        ('"top1": 0.5', '"top1": NaN', "top1"),
        ('"version": 1', '"version": 2', "version 2, expected 1"),
        ('"format": "skelnas-bench"', '"format": "other"', 'expected "format": "skelnas-bench"'),
        ('"top1": 0.5', '"top1": 1e400', "top1"),
        ('"nll": 0.5', '"nll": -1', "nll"),
        ('"parameters": 1000', '"parameters": 0', "parameters"),
        ('"parameters": 1000', f'"parameters": 1{"0" * 400}', "parameters"),
        ('"kind": "random"', '"kind": "found"', "kind"),
    ],
)
def test_a_table_by_others_is_checked(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "table.json"
    write_table(path, make_table(np.full((2, 1, 1), 0.5)))
    lines = [line for line in path.read_text().splitlines() if "checksum" not in line]
    lines[-2] = lines[-2].removesuffix(",")
    path.write_text("\n".join(lines))
    read_table(path)  # a checksum is not needed
    path.write_text("\n".join(lines).replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_table(path)
