"""What is refused before the first step of a search or a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import CacheWriter
from skelnas.data.readers.base import Layout, Recording, Test, Train
from skelnas.errors import UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import BUILT_IN
from skelnas.nas.search import search
from skelnas.training.train import train

GENOTYPE = BUILT_IN["ntu_cs112se30"]
CELLS: dict[str, Any] = {"layers": 3, "channels": 2}


def train_cells(cache: Path, out: Path, **settings: Any) -> None:
    train(cache, GENOTYPE, out, TrainSettings(**CELLS, epochs=1, device="cpu", **settings))


def train_baseline(name: str, cache: Path, out: Path, **settings: Any) -> None:
    train(cache, name, out, TrainSettings(epochs=1, device="cpu", **settings))


def search_cells(cache: Path, out: Path, **settings: Any) -> None:
    search(cache, out, SearchSettings(**CELLS, nodes=2, epochs=1, device="cpu", **settings))


RUNS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "cells": (train_cells, {"frames": 4, "recipe": "paper"}),
    "input norm": (train_cells, {"frames": 1}),
    "temporal-conv": (lambda *a, **s: train_baseline("temporal-conv", *a, **s), {"frames": 4}),
    "st-gcn": (lambda *a, **s: train_baseline("st-gcn", *a, **s), {"frames": 1}),
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Clips of two joints."""
    path = tmp_path / "cache.h5"
    layout = Layout(joints=("hand", "elbow"), bones=((0, 1),))
    with CacheWriter(path, source="watch", rule={}, layout=layout, max_persons=1) as writer:
        for index in range(8):
            poses = np.random.default_rng(index).normal(size=(1, 6, 2, 3)).astype(np.float32)
            writer.add(Recording(f"clip{index}", index % 2, poses, np.ones((1, 6), bool)))
        parts = np.array([Train] * 6 + [Test] * 2, np.int8)
        writer.finish(classes=["still", "wave"], splits={"xsub": parts}, skipped=[], failed=[])
    return path


@pytest.mark.parametrize("name", RUNS)
def test_a_single_value_for_batch_norm_is_refused_before_a_folder_is_made(
    cache: Path, tmp_path: Path, name: str
) -> None:
    run, settings = RUNS[name]
    with pytest.raises(UsageError, match="batches of one clip leave BatchNorm a single value"):
        run(cache, tmp_path / "run", **settings, batch_size=1)
    assert not (tmp_path / "run").exists()
    run(cache, tmp_path / "run", **settings, batch_size=2)


def test_batches_of_one_clip_are_noted(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "batches of one clip are normalised alone, unlike clips in use later"
    train_cells(cache, tmp_path / "two", frames=16, batch_size=2)
    train_baseline("hcn", cache, tmp_path / "hcn", frames=4, batch_size=1)  # without BatchNorm
    assert text not in " ".join(capsys.readouterr().err.split())
    train_cells(cache, tmp_path / "one", frames=16, batch_size=1)
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_search_needs_batches_of_two_clips(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batches of one clip teach a search nothing"):
        search_cells(cache, tmp_path / "run", frames=4, batch_size=1)
    assert not (tmp_path / "run").exists()
    search_cells(cache, tmp_path / "run", frames=1, batch_size=2)


def test_single_values_are_evaluated_and_trained_without_batch_norm(
    cache: Path, tmp_path: Path
) -> None:
    train_baseline("hcn", cache, tmp_path / "hcn", frames=1, batch_size=1)
    assert evaluate(cache, tmp_path / "hcn").scores.labels.tolist() == [0, 1]
