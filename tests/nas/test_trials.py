"""Trials: scored on folds, the same in any number of processes, resumable, discarded by force."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import overflow, write_tiny_cache
from interrupting import stop_after

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.errors import Diverged, InputError, Interrupted, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import Genotype, random_genotype
from skelnas.models.network import Network
from skelnas.nas.trial_rows import Row, Trial
from skelnas.nas.trials import open_trials, run_trials
from skelnas.training.saved_model import save_model
from skelnas.training.train import train

SETTINGS = TrainSettings(
    frames=4, layers=3, channels=2, epochs=2, batch_size=6, device="cpu", lr=0.1
)
FOLDS = ("xsub@subject:1/3", "xsub@subject:2/3")


def make_trial(genotype: int, protocol: str = FOLDS[0], seed: int = 0) -> Trial:
    return Trial(f"random:{genotype}", random_genotype(genotype, num_nodes=1), protocol, seed)


TRIALS = [make_trial(0), make_trial(1), make_trial(0, FOLDS[1]), make_trial(0, seed=1)]


def without_minutes(rows: list[Row]) -> list[Row]:
    return [replace(row, minutes=0.0) for row in rows]


@pytest.fixture(scope="module")
def whole(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    folder = tmp_path_factory.mktemp("trials") / "whole"
    return folder, run_trials(tiny_cache, TRIALS, SETTINGS, folder)


def test_a_row_is_what_train_and_evaluate_find(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, list[Row]]
) -> None:
    trial, row = TRIALS[2], whole[1][2]
    settings = SETTINGS.model_copy(update={"protocol": trial.protocol, "threads": 1})
    train(tiny_cache, trial.genotype, tmp_path / "model", settings)
    found = evaluate(tiny_cache, tmp_path / "model", EvaluateSettings(device="cpu"))
    assert (row.top1, row.nll) == (found.metrics.top1, found.metrics.nll)
    assert (row.parameters, row.macs) == (found.complexity.parameters, found.complexity.macs)
    assert row.clips == len(found.scores) == 12  # the clips of one of three training subjects
    lines = (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()
    assert row.train_loss == [json.loads(line)["train_loss"] for line in lines]
    assert row.genotype == trial.genotype.to_dict()


def test_rows_are_those_of_the_trials(whole: tuple[Path, list[Row]]) -> None:
    folder, rows = whole
    found = [(row.name, row.protocol, row.seed) for row in rows]
    assert found == [(trial.name, trial.protocol, trial.seed) for trial in TRIALS]
    assert len({row.nll for row in rows}) == len(TRIALS)
    left = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    assert left == sorted(["config.json", *(f"{trial.key}.trial.json" for trial in TRIALS)])


def test_several_processes_make_the_same_rows(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, list[Row]]
) -> None:
    rows = run_trials(tiny_cache, TRIALS[1:3], SETTINGS, tmp_path / "two", jobs=2)
    assert without_minutes(rows) == without_minutes(whole[1][1:3])


def test_the_same_training_under_two_names_is_run_once(tiny_cache: Path, tmp_path: Path) -> None:
    twice = [TRIALS[0], replace(TRIALS[0], name="again")]
    one, other = run_trials(tiny_cache, twice, SETTINGS, tmp_path, jobs=2)
    assert (one.name, other.name) == ("random:0", "again")
    assert replace(other, name=one.name) == one


def test_a_stopped_training_continues_to_the_same_row(
    tiny_cache: Path,
    tmp_path: Path,
    whole: tuple[Path, list[Row]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted, match="after 0 of 1"):
            run_trials(tiny_cache, TRIALS[:1], SETTINGS, tmp_path / "run")
    rows = run_trials(tiny_cache, TRIALS[:1], SETTINGS, tmp_path / "run", resume=True)
    assert without_minutes(rows) == without_minutes(whole[1][:1])


def test_finished_trials_are_not_repeated_and_others_may_follow(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, list[Row]]
) -> None:
    folder = tmp_path / "run"
    first = run_trials(tiny_cache, TRIALS[1:2], SETTINGS, folder)
    rows = run_trials(tiny_cache, TRIALS[:2], SETTINGS, folder, resume=True)
    assert rows[1] == first[0]  # to the minute
    assert without_minutes(rows) == without_minutes(whole[1][:2])


def test_other_settings_and_other_clips_are_refused(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, list[Row]]
) -> None:
    other = SETTINGS.model_copy(update={"epochs": 3})
    with pytest.raises(UsageError, match="started with epochs = 2, now it is 3"):
        run_trials(tiny_cache, TRIALS, other, whole[0], resume=True)

    cache, folder = tmp_path / "cache.h5", tmp_path / "run"
    write_tiny_cache(cache)
    run_trials(cache, TRIALS[:1], SETTINGS, folder)
    write_tiny_cache(cache, seed=1)
    with pytest.raises(InputError, match="the cache changed"):
        run_trials(cache, TRIALS[:2], SETTINGS, folder, resume=True)
    rows = run_trials(cache, TRIALS[:2], SETTINGS, folder, force=True)
    assert rows[0].fingerprint == rows[1].fingerprint


def test_a_kill_while_old_rows_are_discarded_leaves_none_of_other_settings(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trials(tiny_cache, TRIALS[:1], SETTINGS, tmp_path)
    longer = SETTINGS.model_copy(update={"epochs": 3})

    def be_killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("skelnas.training.run_dir._discard", be_killed)
        with pytest.raises(KeyboardInterrupt):
            run_trials(tiny_cache, TRIALS[:1], longer, tmp_path, force=True)
    with pytest.raises(UsageError, match="started with epochs = 2, now it is 3"):
        run_trials(tiny_cache, TRIALS[:1], longer, tmp_path, resume=True)
    (row,) = run_trials(tiny_cache, TRIALS[:1], longer, tmp_path, force=True)
    assert len(row.train_loss) == 3


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace("1", "2")])
def test_a_damaged_row_is_named(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, list[Row]], damage: object
) -> None:
    folder = tmp_path / "run"
    run_trials(tiny_cache, TRIALS[:1], SETTINGS, folder)
    (row,) = folder.glob("*.trial.json")
    row.write_text(damage(row.read_text()))  # type: ignore[operator]
    with pytest.raises(InputError, match=f"{row.name}: is not a finished training"):
        run_trials(tiny_cache, TRIALS[:1], SETTINGS, folder, resume=True)


def test_the_test_part_of_the_protocol_is_never_read(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: set[int] = set()
    original = Cache.load

    def spy(self: Cache, indices: list[int]) -> object:
        loaded.update(int(index) for index in indices)
        return original(self, indices)

    monkeypatch.setattr(Cache, "load", spy)
    run_trials(tiny_cache, TRIALS[:1], SETTINGS, tmp_path / "run")
    with Cache.open(tiny_cache) as cache:
        assert loaded == set(cache.indices("xsub", 0).tolist())


def test_a_training_that_diverges_ends_all_unless_the_others_are_to_go_on(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_or_diverge(cache: Path, genotype: Genotype, *others: Any, **how: Any) -> object:
        if genotype == TRIALS[1].genotype:
            raise Diverged("train diverged in epoch 1: train_loss nan")
        return train(cache, genotype, *others, **how)

    monkeypatch.setattr("skelnas.nas.trials.train", train_or_diverge)
    with pytest.raises(Diverged, match="epoch 1"):
        run_trials(tiny_cache, TRIALS[:2], SETTINGS, tmp_path / "ending")
    opening = open_trials(tiny_cache, FOLDS, SETTINGS, tmp_path / "all", planned=3, keep_going=True)
    with opening as trials:
        rows = [*trials.run(TRIALS[:2]), *trials.run(TRIALS[2:3])]
    assert rows[1] is None
    found = without_minutes([row for row in rows if row is not None])
    assert found == without_minutes([whole[1][0], whole[1][2]])


def test_scores_that_are_not_finite_mean_that_the_training_has_diverged(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_and_overflow(cache: Path, genotype: Genotype, out: Path, *others: Any, **how: Any):
        trained = train(cache, genotype, out, *others, **how)
        assert isinstance(trained.model.network, Network)
        overflow(trained.model.network.classifier)
        save_model(out, trained.model.network, trained.model.card)

    monkeypatch.setattr("skelnas.nas.trials.train", train_and_overflow)
    with pytest.raises(Diverged, match=r"^random:0, xsub@subject:1/3, seed 0: scores are not fin"):
        run_trials(tiny_cache, TRIALS[:1], SETTINGS, tmp_path / "ending")
    opening = open_trials(tiny_cache, FOLDS, SETTINGS, tmp_path / "all", planned=1, keep_going=True)
    with opening as trials:
        assert list(trials.run(TRIALS[:1])) == [None]
