"""A search by short trainings: its folder, resuming, what it reads and refuses."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_tiny_cache
from interrupting import stop_after
from pydantic import ValidationError

from skelnas.config import EvaluateSettings, SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Train
from skelnas.errors import Diverged, InputError, Interrupted, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import Edge, Genotype, from_dict, load
from skelnas.nas import trials as trials_module
from skelnas.nas.derive import Perturbation, derive
from skelnas.nas.front import derive_front
from skelnas.nas.predictor_search import predictor_search
from skelnas.nas.rating import learn_from
from skelnas.nas.search import search
from skelnas.nas.target import find_target
from skelnas.nas.trial_rows import Row, Trial, write_row
from skelnas.primitives import candidates
from skelnas.reporting.report import report
from skelnas.training import run_dir
from skelnas.training.genotype_table import GenotypeTable, read_table
from skelnas.training.train import train

SETTINGS = SearchSettings(
    method="predict",
    genotypes=5,
    frames=4,
    layers=3,
    channels=2,
    nodes=1,
    epochs=1,
    batch_size=6,
    device="cpu",
    seed=3,
)
RESULTS = (run_dir.TABLE, run_dir.CHOSEN)


@pytest.fixture(scope="module")
def loaded() -> set[int]:
    """The clips that the search of `whole` loads from the cache."""
    return set()


@pytest.fixture(scope="module")
def whole(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory, loaded: set[int]) -> Path:
    """A search that trained its genotypes."""
    out = tmp_path_factory.mktemp("predict") / "whole"
    original = Cache.load

    def spy(self: Cache, indices: np.ndarray) -> object:
        loaded.update(int(index) for index in indices)
        return original(self, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cache, "load", spy)
        predictor_search(tiny_cache, out, SETTINGS)
    return out


@pytest.fixture
def table(whole: Path) -> GenotypeTable:
    return read_table(whole)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Make scores up instead of training; return the list of the trials so far."""
    trials: list[Trial] = []

    def score(cache: Path, settings: TrainSettings, folder: Path, trial: Trial) -> Row:
        with Cache.open(cache) as opened:
            fingerprint = opened.load(opened.indices(trial.protocol, Train)).fingerprint()
        loss = 1 + int(trial.key, 16) / 2**64
        costs = {"parameters": 1, "macs": 1, "clips": 1, "minutes": 1.0, "train_loss": [1.0]}
        row = Row(
            trial.name,
            trial.genotype.to_dict(),
            trial.protocol,
            trial.seed,
            top1=0.5,
            nll=loss,
            fingerprint=fingerprint,
            **costs,  # type: ignore[arg-type]
        )
        write_row(folder, trial, row)
        trials.append(trial)
        return row

    monkeypatch.setattr("skelnas.nas.trials._train_and_score", score)
    return trials


def parse(document: dict[str, Any]) -> Genotype:
    return from_dict(document, "the table")


def assert_same_results(out: Path, expected: Path) -> None:
    for name in RESULTS:
        assert (out / name).read_bytes() == (expected / name).read_bytes()


def test_a_search_trains_as_many_genotypes_on_each_fold(table: GenotypeTable) -> None:
    assert table.folds == ["xsub@subject:1/2", "xsub@subject:2/2"]
    assert [one.round for one in table.genotypes] == [0, 0, 0, 1, 2]
    genotypes = {parse(one.genotype).identity for one in table.genotypes}
    assert len(genotypes) == table.planned == 5
    for one in table.genotypes:
        assert len(one.losses) == len(one.top1) == 2
    assert table.estimates[table.chosen] == min(table.estimates)


def test_the_table_has_the_scores_and_costs_of_trainings(
    tiny_cache: Path, tmp_path: Path, table: GenotypeTable
) -> None:
    one = table.genotypes[1]
    settings = TrainSettings(
        **{**SETTINGS.of_trainings(), "threads": 1}, protocol=table.folds[1], seed=SETTINGS.seed
    )
    trained = train(tiny_cache, parse(one.genotype), tmp_path / "model", settings)
    found = evaluate(tiny_cache, trained.path, EvaluateSettings(device="cpu"))
    assert (one.losses[1], one.top1[1]) == (found.metrics.nll, found.metrics.top1)
    assert (one.parameters, one.macs) == (found.complexity.parameters, found.complexity.macs)


def test_the_genotype_can_be_derived_and_trained(whole: Path, table: GenotypeTable) -> None:
    chosen = load(str(whole / run_dir.CHOSEN))
    assert derive(whole) == chosen
    assert chosen.to_dict() == table.genotypes[table.chosen].genotype
    for how in ({"epoch": 1}, {"max_skip": 2}, {"keep": 3}, {"perturbation": Perturbation()}):
        with pytest.raises(UsageError, match="--method predict, so it has neither alphas"):
            derive(whole, training=TrainSettings(max_params=10**6), **how)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--layers needs --max-params"):
        derive(whole, training=TrainSettings(layers=4))


def test_the_front_falls_with_the_cost(table: GenotypeTable) -> None:
    costs = [one.parameters for one in table.front]
    losses = [one.loss for one in table.front]
    assert costs == sorted(set(costs))
    assert losses == sorted(set(losses), reverse=True)


def test_a_training_that_is_stopped_continues_to_the_same_bytes(
    tiny_cache: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stopped"
    shutil.copytree(whole, out)
    for left in (*(out / name for name in RESULTS), *list(out.glob("trials/*.trial.json"))[:2]):
        left.unlink()
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Interrupted, match="of 10 trainings"):
            predictor_search(tiny_cache, out, SETTINGS, resume=True)
    predictor_search(tiny_cache, out, SETTINGS, resume=True)
    assert_same_results(out, whole)


@pytest.mark.usefixtures("scored")
def test_a_search_that_is_stopped_anywhere_continues_to_the_same_bytes(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = trials_module._train_and_score
    predictor_search(tiny_cache, tmp_path / "whole", SETTINGS)
    for count in (0, 5, 6, 8):  # within rounds, and where the last two begin
        calls = iter(range(count))

        def score_or_stop(*arguments: Any, calls: Iterator[int] = calls) -> Row:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return score(*arguments)

        out = tmp_path / str(count)
        with monkeypatch.context() as patch:
            patch.setattr(trials_module, "_train_and_score", score_or_stop)
            with pytest.raises(Interrupted, match=f"stopped after {count} of 10 trainings"):
                predictor_search(tiny_cache, out, SETTINGS)
        predictor_search(tiny_cache, out, SETTINGS, resume=True)
        assert_same_results(out, tmp_path / "whole")


def test_a_finished_search_trains_nothing_more(
    tiny_cache: Path, tmp_path: Path, scored: list[Trial]
) -> None:
    out = tmp_path / "run"
    predictor_search(tiny_cache, out, SETTINGS)
    for name in RESULTS:  # a kill may come before they are written
        (out / name).rename(tmp_path / name)
    with pytest.raises(InputError, match="no genotypes yet"):
        derive(out)
    predictor_search(tiny_cache, out, SETTINGS, resume=True)
    assert len(scored) == 10
    assert_same_results(out, tmp_path)


@pytest.mark.usefixtures("whole")
def test_only_the_training_part_is_read(tiny_cache: Path, loaded: set[int]) -> None:
    with Cache.open(tiny_cache) as cache:
        assert loaded == set(cache.indices("xsub", Train).tolist())


@pytest.mark.usefixtures("scored")
def test_other_settings_are_not_resumed_and_force_starts_over(
    tiny_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    predictor_search(tiny_cache, out, SETTINGS)
    other = SETTINGS.model_copy(update={"seed": 4, "genotypes": 4})
    with pytest.raises(UsageError, match="is not empty"):
        predictor_search(tiny_cache, out, other)
    with pytest.raises(UsageError, match="was started with genotypes = 5, now it is 4"):
        predictor_search(tiny_cache, out, other, resume=True)
    table = predictor_search(tiny_cache, out, other, force=True)
    assert len(table.genotypes) == 4
    assert len(list(out.glob("trials/*.trial.json"))) == 8


@pytest.mark.usefixtures("scored")
def test_other_clips_are_noticed(tmp_path: Path) -> None:
    cache, out = tmp_path / "c.h5", tmp_path / "run"
    write_tiny_cache(cache)
    settings = SETTINGS.model_copy(update={"genotypes": 4})
    predictor_search(cache, out, settings)
    sorted(out.glob("trials/*.trial.json"))[0].unlink()
    write_tiny_cache(cache, seed=1)
    with pytest.raises(InputError, match="the cache changed"):
        predictor_search(cache, out, settings, resume=True)


def diverge_if(is_bad: Callable[[Genotype], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    score = trials_module._train_and_score

    def score_or_diverge(cache: Path, settings: TrainSettings, folder: Path, trial: Trial) -> Row:
        if is_bad(trial.genotype):
            raise Diverged("train diverged in epoch 1: train_loss nan")
        return score(cache, settings, folder, trial)

    monkeypatch.setattr(trials_module, "_train_and_score", score_or_diverge)


@pytest.mark.usefixtures("scored")
def test_a_genotype_that_diverges_is_the_worst(
    tiny_cache: Path, tmp_path: Path, table: GenotypeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = parse(table.genotypes[0].genotype)
    diverge_if(lambda genotype: genotype == bad, monkeypatch)
    found = predictor_search(tiny_cache, tmp_path / "run", SETTINGS)
    assert found.genotypes[0].losses == found.genotypes[0].top1 == [None, None]
    assert found.estimates[0] == max(found.estimates)
    assert read_table(tmp_path / "run") == found


@pytest.mark.usefixtures("scored")
def test_if_all_diverge_the_search_says_so(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge_if(lambda _: True, monkeypatch)
    with pytest.raises(Diverged, match="of 3 genotypes fewer than two did not diverge"):
        predictor_search(tiny_cache, tmp_path / "run", SETTINGS)


def test_a_damaged_table_is_named(tmp_path: Path, whole: Path) -> None:
    for damage in (lambda text: text[:-20], lambda text: text.replace('"round": 0', '"round": 1')):
        path = tmp_path / run_dir.TABLE
        shutil.copy(whole / run_dir.CONFIG, tmp_path)
        path.write_text(damage((whole / run_dir.TABLE).read_text()))
        with pytest.raises(InputError, match=r"genotypes\.json: is not the table of a search"):
            derive(tmp_path)


@pytest.mark.parametrize(
    ("method", "other"),
    [
        ("predict", {"order": "first"}),
        ("predict", {"alpha_lr": 0.1}),
        ("predict", {"hold_out": 0.2}),
        ("predict", {"stop_skips": 2}),
        ("gradient", {"genotypes": 30}),
        ("gradient", {"folds": 3}),
        ("gradient", {"folds_by": "clip"}),
        ("gradient", {"jobs": 2}),
    ],
)
def test_settings_of_the_other_method_are_refused(method: str, other: dict[str, Any]) -> None:
    expected = "gradient" if method == "predict" else "predict"
    with pytest.raises(ValidationError, match=f"--method {expected}, which alone"):
        SearchSettings(method=method, **other)  # type: ignore[arg-type]


def test_a_run_records_the_settings_of_its_method_only(whole: Path) -> None:
    recorded = run_dir.read_config(whole)["settings"]
    assert {"order", "alpha_lr", "jobs"}.isdisjoint(recorded)
    assert (recorded["folds"], recorded["epochs"]) == (2, 1)
    assert "method" not in SearchSettings().fixed()
    assert SearchSettings(method="predict").epochs == 30


def test_the_function_of_the_gradient_does_not_take_the_settings(
    tiny_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"skelnas\.predictor_search"):
        search(tiny_cache, tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()


def test_a_report_shows_every_genotype(whole: Path, table: GenotypeTable, tmp_path: Path) -> None:
    page = report(whole, tmp_path / "page.html").read_text()
    for one, estimate in zip(table.genotypes, table.estimates, strict=True):
        assert f"<td>{one.parameters}</td>" in page
        assert f"<td>{estimate:.4g}</td>" in page
    assert f"number {table.chosen + 1}, " in page
    assert "Learning curves" not in page
    assert derive(whole).to_json().replace('"', "&#34;") in page


def test_a_report_can_be_made_before_the_first_round_ends(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / run_dir.CONFIG, tmp_path)
    assert "none yet" in report(tmp_path).read_text()


def all_genotypes() -> Iterator[Genotype]:
    """Yield all genotypes of one node, whose edges are in order."""
    ops = [op for op in candidates("sar") if op != "none"]
    cells = [((Edge(a, 0), Edge(b, 1)),) for a, b in itertools.product(ops, repeat=2)]
    return itertools.starmap(Genotype, itertools.product(cells, repeat=2))


@pytest.mark.usefixtures("scored")
def test_the_best_within_another_budget_is_found_exactly(tiny_cache: Path, tmp_path: Path) -> None:
    limit = 500
    out, limited = tmp_path / "run", SETTINGS.model_copy(update={"genotypes": 12})
    table = predictor_search(tiny_cache, out, limited)
    config = run_dir.read_config(out)
    target = find_target(out, config, candidates("sar"), TrainSettings(), None)
    costs = target.costs
    within = [one for one in all_genotypes() if costs.total(one).parameters <= limit]
    assert 10 < len(within) < 2000
    predicted = learn_from(table, candidates("sar")).predictor.predict(within)
    estimates = {
        parse(one.genotype).identity: -estimate
        for one, estimate in zip(table.genotypes, table.estimates, strict=True)
        if one.parameters <= limit
    }
    best = within[int(predicted.argmax())].identity
    known = max(estimates, key=estimates.__getitem__, default=best)
    expected = known if best in estimates or estimates.get(known, -9) > predicted.max() else best
    assert derive(out, training=TrainSettings(max_params=limit)).identity == expected
    front = derive_front(out)
    assert front.costs == [one.parameters for one in table.front]
    assert costs.total(derive(out, training=TrainSettings(max_params=400))).parameters <= 400


def test_a_budget_holds_for_every_genotype(
    tiny_cache: Path, tmp_path: Path, scored: list[Trial]
) -> None:
    limited = SETTINGS.model_copy(update={"max_params": 450, "genotypes": 8})
    table = predictor_search(tiny_cache, tmp_path / "run", limited)
    assert len(table.genotypes) == 8
    assert all(one.parameters <= 450 for one in table.genotypes)
    del scored[:]
    impossible = limited.model_copy(update={"max_params": 10})
    with pytest.raises(UsageError, match="--max-params 10: expected 361 or more"):
        predictor_search(tiny_cache, tmp_path / "none", impossible)
    assert not scored
    assert not (tmp_path / "none").exists()


def test_two_layers_have_no_normal_cell(
    tiny_cache: Path, tmp_path: Path, scored: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    predictor_search(tiny_cache, tmp_path, SETTINGS.model_copy(update={"layers": 2}))
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines.count(
            "with fewer than 3 layers a network has no normal cell: that of a genotype is idle"
        )
        == 1
    )
