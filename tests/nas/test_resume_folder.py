"""`skelnas.resume`: the folder knows; the result is that of the run with all its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skelnas import resume
from skelnas.config import SearchSettings, TrainSettings
from skelnas.errors import DeviceError, InputError, Interrupted, UsageError
from skelnas.evaluation.cross_validation import cross_validate
from skelnas.genotype import random_genotype
from skelnas.nas.predictor_search import predictor_search
from skelnas.nas.search import search
from skelnas.training import loop, run_dir
from skelnas.training.train import train

SIZES: dict[str, Any] = {
    "frames": 6, "layers": 3, "channels": 2, "epochs": 2, "batch_size": 6, "device": "cpu",
}  # fmt: skip
CONSTANT: dict[str, Any] = {"lr": 0.05, "lr_min": 0.05, "warmup": 0.0, "drop_path": 0.0}
MADE = ("model.safetensors", "checkpoint.safetensors", "alphas.jsonl", "config.json")


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that interrupts what it runs after a number of steps."""

    def run(steps: int, function: Any, *arguments: Any, **options: Any) -> None:
        left = iter(range(steps - 1, -1, -1))
        with monkeypatch.context() as patch:
            patch.setattr(loop.StopFlag, "requested", property(lambda _: not next(left)))
            with pytest.raises(Interrupted):
                function(*arguments, **options)

    return run


def assert_same(one: Path, other: Path, *except_for: str) -> None:
    compared = [name for name in MADE if (one / name).exists() and name not in except_for]
    assert len(compared) > 1
    for name in compared:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_training(tiny_cache: Path, tmp_path: Path, stop_after: Any) -> None:
    genotype = random_genotype(0)
    settings = TrainSettings(**SIZES, hold_out=0.3, select_epoch=True, seed=3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_cache, genotype, whole, settings)
    stop_after(2, train, tiny_cache, genotype, parts, settings)
    carded = []
    resume(parts, after_train=lambda folder, _: carded.append(folder))
    assert carded == [parts]
    assert_same(whole, parts)


@pytest.mark.parametrize("more", [{}, {"max_params": 3_000, "alpha_lr": "auto"}])
def test_a_search(more: Any, tiny_cache: Path, tmp_path: Path, stop_after: Any) -> None:
    settings = SearchSettings(**SIZES, **more, nodes=2, order="first")
    training = TrainSettings(frames=6, layers=3, channels=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    search(tiny_cache, whole, settings, training=training)
    stop_after(2, search, tiny_cache, parts, settings, training=training)
    assert resume(parts) is None
    assert_same(whole, parts)


def test_a_longer_run_at_a_constant_rate_is_the_one_that_was_longer_from_the_start(
    tiny_cache: Path, tmp_path: Path
) -> None:
    constant = {name: CONSTANT[name] for name in ("lr", "lr_min", "warmup")}
    for epochs, name in ((1, "short"), (2, "long")):
        settings = TrainSettings(frames=6, batch_size=18, device="cpu", epochs=epochs, **constant)
        train(tiny_cache, "temporal-conv", tmp_path / name, settings)
    resume(tmp_path / "short", epochs=2)
    assert_same(tmp_path / "short", tmp_path / "long")


def test_more_epochs_are_taken_back_if_the_run_is_refused(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    constant = {name: CONSTANT[name] for name in ("lr", "lr_min", "warmup")}
    settings = TrainSettings(frames=6, batch_size=18, device="cpu", epochs=1, **constant)
    train(tiny_cache, "temporal-conv", run, settings)
    before = (run / "config.json").read_bytes()

    def refuse(_: object) -> None:
        raise DeviceError("no device")

    with monkeypatch.context() as patched:
        patched.setattr("skelnas.runtime.devices.choose", refuse)
        with pytest.raises(DeviceError):
            resume(run, epochs=2)
    assert (run / "config.json").read_bytes() == before
    with run_dir.RunDir(run), pytest.raises(UsageError, match="another run is using it"):
        resume(run, epochs=2)
    assert (run / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "epochs", "reason"),
    [
        ({"lr_min": 0.0}, 9, "determines --lr-min"),
        ({"warmup": 0.1, "drop_path": 0.1}, 9, "determines --warmup, --drop-path"),
        ({}, 1, "has 2, and takes only more"),
    ],
)
def test_where_other_epochs_make_no_sense(
    changed: Any, epochs: int, reason: str, tiny_cache: Path, tmp_path: Path, stop_after: Any
) -> None:
    settings = TrainSettings(**{**SIZES, **CONSTANT, **changed})
    stop_after(1, train, tiny_cache, random_genotype(0), tmp_path / "run", settings)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(UsageError, match=reason):
        resume(tmp_path / "run", epochs=epochs)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_trainings_of_others(tiny_cache: Path, tmp_path: Path, stop_after: Any) -> None:
    settings = TrainSettings(**{**SIZES, "epochs": 1})
    folds = tmp_path / "folds"
    stop_after(1, cross_validate, tiny_cache, random_genotype(0), folds, settings, count=2)
    found = resume(folds)
    assert isinstance(found, dict)
    assert len(found["folds"]) == 2
    with pytest.raises(UsageError, match="several trainings"):
        resume(folds, epochs=9)


def test_a_search_by_trainings(tiny_cache: Path, tmp_path: Path, stop_after: Any) -> None:
    settings = SearchSettings(
        **{**SIZES, "epochs": 1}, method="predict", genotypes=4, nodes=2, folds_by="clip"
    )
    training = TrainSettings(**settings.of_trainings(), lr=0.05)
    run = tmp_path / "run"
    stop_after(1, predictor_search, tiny_cache, run, settings, training)
    table = resume(run)
    again = predictor_search(tiny_cache, run, settings, training, resume=True)
    assert table == again


def test_folders_that_do_not_say_enough(tiny_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run or model folder"):
        resume(tmp_path)
    good = {"verb": "train", "cache": str(tiny_cache), "settings": {}, "model": {"baseline": "hcn"}}
    for changed, error in (
        ({"verb": "trials"}, UsageError),
        ({"verb": "repeats"}, UsageError),
        ({"cache": None}, InputError),
        ({"cache": str(tmp_path / "gone.h5")}, InputError),
        ({"settings": None}, InputError),
        ({"settings": {"epoch": 3}}, InputError),
        ({"model": {}}, InputError),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**good, **changed}))
        with pytest.raises(error):
            resume(tmp_path)
