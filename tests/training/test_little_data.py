"""Training on little data: patience, class weights."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from interrupting import stop_after

from skelnas.config import TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Batch, Dataset
from skelnas.data.matching import origin_of
from skelnas.data.splits import split_training_part
from skelnas.errors import Interrupted, UsageError
from skelnas.genotype import random_genotype
from skelnas.models.norm import JointNorm
from skelnas.training import run_dir
from skelnas.training.best_epoch import Patience
from skelnas.training.saved_model import load_model
from skelnas.training.train import train
from skelnas.training.trainer import Trainer, balance_classes

GENOTYPE = random_genotype(0, "none,skip_connect,sep_conv_3x3", 1)
SETTINGS = TrainSettings(
    frames=4, layers=3, channels=2, epochs=12, batch_size=12, device="cpu", hold_out=0.3
)


def test_patience_counts_from_the_lowest_loss() -> None:
    patience = Patience(2)
    assert not patience.is_over(0)
    for epoch, (nll, is_over) in enumerate(
        [(1.0, False), (0.9, False), (0.9, False), (0.8, False), (math.nan, False), (0.81, True)],
        start=1,
    ):
        patience.update(epoch, nll)
        assert patience.is_over(epoch) == is_over
    restored = Patience(2)
    restored.restore(patience.tensors())
    assert restored.epoch == 4
    for broken in ({}, {"lowest": torch.zeros(3)}, {"lowest": torch.tensor([math.nan, 1.0])}):
        with pytest.raises((KeyError, ValueError)):
            restored.restore(broken)


def test_a_training_that_no_longer_improves_ends_and_resumes_to_the_same_bits(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So high a rate that the held-out loss soon rises.
    settings = SETTINGS.model_copy(update={"patience": 1, "lr": 0.4, "class_weights": "balanced"})
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(tiny_cache, GENOTYPE, whole, settings)
    epochs = run_dir.read_lines(whole / run_dir.METRICS)
    losses = [epoch["held_out_nll"] for epoch in epochs]
    assert len(losses) < settings.epochs
    assert losses.index(min(losses)) == len(losses) - 2
    with monkeypatch.context() as patch:
        stop_after(patch, 2 * len(losses) - 1)
        with pytest.raises(Interrupted):
            train(tiny_cache, GENOTYPE, resumed, settings)
    train(tiny_cache, GENOTYPE, resumed, settings, resume=True)
    for name in (run_dir.MODEL, run_dir.CHECKPOINT):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    train(tiny_cache, GENOTYPE, resumed, settings, resume=True)  # has ended
    assert len(run_dir.read_lines(resumed / run_dir.METRICS)) == len(losses)


def test_the_statistics_of_one_step_are_those_of_its_batch(
    tiny_cache: Path, tmp_path: Path
) -> None:
    """Joints move by centimetres: a variance that starts as 1 would drown theirs."""
    settings = SETTINGS.model_copy(
        update={"epochs": 1, "batch_size": 64, "hold_out": 0.0, "flip": 0.0, "ema": 0.0}
        | dict.fromkeys(("rotate", "scale", "shear", "jitter"), 0.0)
        | {"crop": 1.0, "input_norm": True}
    )
    train(tiny_cache, GENOTYPE, tmp_path / "model", settings)
    model = load_model(tmp_path / "model")
    with Cache.open(tiny_cache) as cache:
        part = split_training_part(cache, "xsub", 0.0)
        clips, origin = cache.load(part.train), origin_of(cache)
    data = Dataset(clips, origin.layout, origin.max_persons, settings, torch.device("cpu"))
    x = data.batch(torch.arange(len(data))).x  # [N, C, T, V]
    (norm,) = (m for m in model.network.modules() if isinstance(m, JointNorm))
    for running, expected in (
        (norm.running_mean, x.mean((0, 2))),
        (norm.running_var, x.transpose(0, 1).flatten(1, 2).var(1)),
    ):
        assert running is not None
        torch.testing.assert_close(running, expected.flatten())


def test_patience_needs_held_out_clips(tiny_cache: Path, tmp_path: Path) -> None:
    settings = TrainSettings(patience=3)
    with pytest.raises(UsageError, match="--patience watches the loss on held-out clips"):
        train(tiny_cache, GENOTYPE, tmp_path / "model", settings)


def test_balanced_classes_weigh_the_same() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = balance_classes(labels, 5)
    assert weights[labels].mean() == pytest.approx(1)
    sums = [float(weights[labels][labels == label].sum()) for label in (0, 1, 3)]
    assert sums == pytest.approx([10 / 3] * 3)
    assert weights[2] == weights[4] == 0
    logits = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    per_class = [F.cross_entropy(logits[labels == k], labels[labels == k]) for k in (0, 1, 3)]
    losses = F.cross_entropy(logits, labels, reduction="none")
    assert (losses * weights[labels]).mean() == pytest.approx(float(sum(per_class) / 3))


def test_slices_of_a_batch_have_its_weighted_loss_together() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2])
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    trainer = SimpleNamespace(settings=SETTINGS, class_weights=balance_classes(labels, 3))
    whole, *slices = (
        Trainer._loss(trainer, logits[clips], Batch(logits[clips], labels[clips], 5))
        for clips in (slice(0, 5), slice(0, 3), slice(3, 5))
    )
    assert float(sum(slices)) == pytest.approx(float(whole))
    trainer.class_weights = None
    assert float(Trainer._loss(trainer, logits, Batch(logits, labels, 5))) != float(whole)


def test_new_settings_are_recorded_only_where_used() -> None:
    assert not {"patience", "class_weights"} & SETTINGS.model_dump().keys()
    assert TrainSettings(class_weights="balanced").model_dump()["class_weights"] == "balanced"
