"""Repeated searches against random genotypes: fair, without the test part, resumable."""

from __future__ import annotations

import json
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LAYOUT, write_tiny_cache

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Test
from skelnas.data.splits import split_training_part
from skelnas.errors import InputError, Interrupted, UsageError
from skelnas.genotype import Genotype, from_dict, random_genotype
from skelnas.nas import repeats
from skelnas.nas.derive import derive
from skelnas.nas.repeats import repeat
from skelnas.training import run_dir

SEARCH = SearchSettings(
    frames=4,
    layers=3,
    channels=1,
    nodes=1,
    epochs=1,
    batch_size=6,
    order="first",
    space="none,skip_connect,sep_conv_3x3",
    device="cpu",
    seed=3,
)
TRAIN = TrainSettings(
    frames=4, layers=3, channels=2, epochs=2, batch_size=6, device="cpu", lr=0.1, seed=99
)
NAMES = ["searched-3", "random-3", "searched-4", "random-4"]


def go(cache: Path, out: Path, count: int = 2, **how: bool) -> dict[str, Any]:
    return repeat(cache, out, SEARCH, TRAIN, count=count, **how)


def genotype_of(model: Path) -> Genotype:
    return from_dict(run_dir.read_config(model)["model"]["genotype"], "the model")


@pytest.fixture(scope="module")
def whole(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds; ``loaded.json`` next to the folder lists the clips loaded from the cache."""
    out = tmp_path_factory.mktemp("repeats") / "whole"
    loaded: list[list[int]] = []
    original = Cache.load

    def spy(self: Cache, indices: np.ndarray) -> object:
        loaded.append([int(index) for index in indices])
        return original(self, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cache, "load", spy)
        go(tiny_cache, out)
    (out.parent / "loaded.json").write_text(json.dumps(loaded))
    return out


def test_searched_and_random_networks_are_scored_and_compared(whole: Path) -> None:
    document = json.loads((whole / run_dir.REPEATS).read_text())
    assert [network["name"] for network in document["networks"]] == NAMES
    scores = {network["name"]: network["top1"] for network in document["networks"]}
    summary = document["summary"]
    assert summary["seeds"] == [3, 4]
    for kind in ("searched", "random"):
        pair = [scores[f"{kind}-3"], scores[f"{kind}-4"]]
        assert summary[kind]["mean"] == pytest.approx(sum(pair) / 2)
        assert summary[kind]["deviation"] == pytest.approx(statistics.stdev(pair))
        assert summary[kind]["best"] == max(pair)
    assert scores[summary["picked"]] == summary["searched"]["best"]
    for network in document["networks"]:
        assert (network["clips"], network["protocol"]) == (12, "xsub")
        assert network["chance"] == pytest.approx(1 / 3)


def test_genotypes_come_from_the_searches_and_the_random_seeds(whole: Path) -> None:
    for seed in (3, 4):
        assert genotype_of(whole / f"searched-{seed}") == derive(whole / f"seed-{seed}")
        assert genotype_of(whole / f"random-{seed}") == random_genotype(seed, SEARCH.space, 1)
        for name in (f"seed-{seed}", f"searched-{seed}", f"random-{seed}"):
            assert run_dir.read_config(whole / name)["settings"]["seed"] == seed


def test_searched_and_random_genotypes_are_trained_alike(whole: Path) -> None:
    for seed in (3, 4):
        one, other = (
            run_dir.read_config(whole / f"{kind}-{seed}") for kind in ("searched", "random")
        )
        for key in ("settings", "clips", "fingerprint"):
            assert one[key] == other[key]
        assert one["settings"]["epochs"] == 2


def test_searches_and_trainings_load_held_out_clips_apart_and_never_test_clips(
    tiny_cache: Path, whole: Path
) -> None:
    loaded = json.loads((whole.parent / "loaded.json").read_text())
    with Cache.open(tiny_cache) as cache:
        part = split_training_part(cache, "xsub", 0.2)
        test = cache.indices("xsub", Test)
    counts = Counter(tuple(sorted(indices)) for indices in loaded)
    assert counts == {tuple(part.train): 2 + 4, tuple(part.held_out): 4 + 4}
    assert not {index for indices in loaded for index in indices} & set(test.tolist())


def test_the_picked_genotype_is_derived(whole: Path, tmp_path: Path) -> None:
    picked = json.loads((whole / run_dir.REPEATS).read_text())["summary"]["picked"]
    assert derive(whole) == genotype_of(whole / picked)
    with pytest.raises(UsageError, match="holds several searches") as caught:
        derive(whole, keep=1)
    assert "seed-" in str(caught.value.hint)


@pytest.mark.parametrize(("stage", "call"), [("train", 1), ("search", 2), ("score_model", 2)])
def test_resume_at_any_stage_repeats_nothing(
    tiny_cache: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    call: int,
) -> None:
    out = tmp_path / "out"
    calls: Counter[str] = Counter()
    stop_at: dict[str, int] = {stage: call}

    def counted(verb: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls[verb] += 1
        if calls[verb] == stop_at.get(verb):
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    for verb in ("search", "train", "score_model"):
        monkeypatch.setattr(repeats, verb, partial(counted, verb, getattr(repeats, verb)))
    with pytest.raises(Interrupted) as caught:
        go(tiny_cache, out)
    assert "--resume" in str(caught.value.hint)
    with pytest.raises(InputError, match="no genotype has been picked yet"):
        derive(out)
    done = calls["score_model"] - (stage == "score_model")
    stop_at.clear()
    calls.clear()
    go(tiny_cache, out, resume=True)
    assert calls["score_model"] == 4 - done
    assert calls["search"] == 2 - (done + 1) // 2
    assert (out / run_dir.REPEATS).read_bytes() == (whole / run_dir.REPEATS).read_bytes()


def test_resume_of_finished_repeats_changes_nothing(
    tiny_cache: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in ("search", "train", "score_model"):
        monkeypatch.delattr(repeats, verb)
    before = (whole / run_dir.REPEATS).read_bytes()
    assert go(tiny_cache, whole, resume=True) == json.loads(before)
    assert (whole / run_dir.REPEATS).read_bytes() == before


def test_seeds_can_be_added_later(tiny_cache: Path, whole: Path, tmp_path: Path) -> None:
    first = go(tiny_cache, tmp_path / "out", count=1)
    assert first["summary"]["searched"]["deviation"] is None
    assert first["summary"]["picked"] == "searched-3"
    go(tiny_cache, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / run_dir.REPEATS).read_bytes() == (
        whole / run_dir.REPEATS
    ).read_bytes()
    again = go(tiny_cache, tmp_path / "out", count=1, resume=True)
    assert again["summary"] == first["summary"]
    assert len(again["networks"]) == 4


def test_mismatched_input_is_refused(tiny_cache: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        go(tiny_cache, whole)
    other = TRAIN.model_copy(update={"lr": 0.2})
    with pytest.raises(UsageError, match=r"started with lr = 0\.1"):
        repeat(tiny_cache, whole, SEARCH, other, count=2, resume=True)
    write_tiny_cache(tmp_path / "c.h5")
    go(tmp_path / "c.h5", tmp_path / "out", count=1)
    write_tiny_cache(tmp_path / "c.h5", seed=1)
    with pytest.raises(InputError, match="the cache changed: the networks so far"):
        go(tmp_path / "c.h5", tmp_path / "out", resume=True)
    write_tiny_cache(tmp_path / "c.h5", replace(LAYOUT, center_joint=2))
    with pytest.raises(UsageError, match="another layout than the cache has now"):
        go(tmp_path / "c.h5", tmp_path / "out", resume=True)
    go(tmp_path / "c.h5", tmp_path / "out", count=1, force=True)


def test_force_deletes_the_runs_of_all_seeds(tiny_cache: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    notes = tmp_path / "out" / "searched-4" / "notes.txt"
    notes.write_text("stays")
    longer = TRAIN.model_copy(update={"epochs": 3})
    repeat(tiny_cache, tmp_path / "out", SEARCH, longer, count=1, force=True)
    repeat(tiny_cache, tmp_path / "out", SEARCH, longer, count=2, resume=True)
    for name in NAMES:
        metrics = run_dir.read_lines(tmp_path / "out" / name / run_dir.METRICS)
        assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert notes.read_text() == "stays"


@pytest.mark.parametrize("lost", ["fingerprint", "top1"])
def test_an_entry_with_a_missing_key_is_refused(
    whole: Path, tiny_cache: Path, tmp_path: Path, lost: str
) -> None:
    (tmp_path / run_dir.CONFIG).write_bytes((whole / run_dir.CONFIG).read_bytes())
    document = json.loads((whole / run_dir.REPEATS).read_text())
    del document["networks"][0][lost]
    (tmp_path / run_dir.REPEATS).write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"repeats\.json: unexpected content .*{lost}"):
        go(tiny_cache, tmp_path, resume=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"networks": 3}', '{"networks": [{}]}'])
def test_a_broken_file_is_refused(whole: Path, tiny_cache: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / run_dir.CONFIG).write_bytes((whole / run_dir.CONFIG).read_bytes())
    (tmp_path / run_dir.REPEATS).write_text(text)
    with pytest.raises(InputError, match=r"repeats\.json: unexpected content|no genotype"):
        derive(tmp_path)
    with pytest.raises(InputError, match=r"repeats\.json: unexpected content"):
        go(tiny_cache, tmp_path, resume=True)
