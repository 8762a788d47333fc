"""Datasets and loaders for own loops: their batches are those of training and evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LAYOUT, write_tiny_cache
from torch.utils.data import DataLoader

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.dataset import Batch, Dataset
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.clip_dataset import load_dataset, load_dataset_for
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import random_genotype
from skelnas.training.saved_model import Model, save_model
from skelnas.training.train import train
from skelnas.training.trainer import Trainer

CLIPS = {"frames": 6, "epochs": 2, "batch_size": 8, "device": "cpu"}
SMALL = {**CLIPS, "layers": 3, "channels": 2}
PAPER = TrainSettings(**SMALL, recipe="paper")


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("clip dataset") / "model"
    return train(tiny_cache, random_genotype(0), folder, PAPER).model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recipe": "paper"},
        {"seed": 3, "hold_out": 0.4, "streams": "joint,bone,motion", "align": True},
        {"flip": 0.5, "jitter": 0.1, "crop": 0.6, "store": "float16", "interpolation": "nearest"},
    ],
    ids=["strong", "paper", "held out", "all changes"],
)
def test_batches_are_those_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    settings = TrainSettings(**SMALL, **changes)
    joints = (*LAYOUT.joints[:-1], "hand")  # they can be mirrored
    write_tiny_cache(tmp_path / "clips.h5", replace(LAYOUT, joints=joints))
    seen: list[Batch] = []
    make = Dataset.batch

    def record(
        self: Dataset, indices: torch.Tensor, augment: Any = None, *args: Any, **options: Any
    ) -> Batch:
        batch = make(self, indices, augment, *args, **options)
        if isinstance(augment, TrainSettings):  # for a step, not to score or compare clips
            seen.append(batch)
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "batch", record)
        train(tmp_path / "clips.h5", random_genotype(0), tmp_path / "model", settings)
    clips = load_dataset(tmp_path / "clips.h5", "train", settings)
    found = [batch for epoch in range(2) for batch in clips.loader(epoch)]
    assert len(found) == len(seen) == 2 * (len(clips) // 8) > 4
    for (x, labels), expected in zip(found, seen, strict=True):
        assert torch.equal(x, expected.x)
        assert torch.equal(labels, expected.labels)
    assert not torch.equal(found[0][0], found[len(found) // 2][0])


def test_a_new_model_is_the_one_that_a_training_begins_with(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = PAPER.model_copy(update={"seed": 4})
    baseline = TrainSettings(**CLIPS, seed=4, recipe="paper")
    monkeypatch.setattr(Trainer, "run", lambda self: None)
    for name, architecture, settings in (
        ("random:5", random_genotype(5), cells),
        ("st-gcn", "st-gcn", baseline),
    ):
        clips = load_dataset(tiny_cache, "train", settings)
        state = torch.get_rng_state()
        found = clips.create_model(name)
        assert torch.equal(torch.get_rng_state(), state)
        expected = train(tiny_cache, architecture, tmp_path / name[:2], settings).model
        assert expected.card.trained_clips
        assert found.card == replace(expected.card, trained_clips="")
        weights = found.state_dict()
        assert weights.keys() == expected.state_dict().keys()
        assert all(torch.equal(weights[k], value) for k, value in expected.state_dict().items())


def test_a_model_of_an_own_loop_is_one_for_all_commands(tiny_cache: Path, tmp_path: Path) -> None:
    clips = load_dataset(tiny_cache, "train", TrainSettings(**CLIPS))
    model = clips.create_model("temporal-conv")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for epoch in range(4):
        for x, labels in clips.loader(epoch):
            loss = torch.nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_model(tmp_path, model.network, model.card)
    result = evaluate(tiny_cache, tmp_path, EvaluateSettings(device="cpu"))
    assert result.top1 > 0.5


@pytest.mark.parametrize("part", ["test", "held-out"])
def test_other_parts_come_whole_and_in_order(tiny_cache: Path, part: str) -> None:
    settings = TrainSettings(**SMALL, hold_out=0.4)
    clips = load_dataset(tiny_cache, part, settings)
    assert set(clips.names).isdisjoint(load_dataset(tiny_cache, "train", settings).names)
    labels = torch.cat([labels for _, labels in clips.loader()])
    assert torch.equal(labels, clips.labels)
    batches = torch.cat([x for x, _ in clips.loader(1)])
    assert batches.shape == (12, *clips.shape)
    assert all(torch.equal(batches[i], x) for i, (x, _) in enumerate(clips))
    with pytest.raises(UsageError, match="made for training clips"):
        clips.create_model("hcn")


def test_a_plain_data_loader_takes_it(tiny_cache: Path) -> None:
    clips = load_dataset(tiny_cache, "train", TrainSettings(**SMALL))
    assert repr(clips) == "ClipDataset(36 clips [3, 6, 10] of 3 classes)"
    assert clips.classes == ["still", "wave", "pair"]
    assert (clips.layout, clips.max_persons) == (LAYOUT, 2)
    torch.manual_seed(0)
    loader = DataLoader(clips, batch_size=5, shuffle=True)
    first, again = (torch.cat([x for x, _ in loader]) for _ in range(2))
    assert first.shape == again.shape == (36, *clips.shape)
    torch.manual_seed(0)
    assert torch.equal(torch.cat([x for x, _ in loader]), first)
    one, other = clips[3][0], clips[3][0]
    assert not torch.equal(one, other)  # augmented
    plain = load_dataset(tiny_cache, "train", PAPER)
    assert torch.equal(plain[3][0], plain[3 - 36][0])
    for index in (36, -37):
        with pytest.raises(IndexError, match="clips are 0 to 35"):
            clips[index]


@pytest.mark.parametrize("is_reordered", [False, True])
def test_clips_for_a_model_are_those_that_evaluate_scores(
    tiny_cache: Path, tmp_path: Path, model: Model, is_reordered: bool
) -> None:
    path = tmp_path / "clips.h5"
    write_tiny_cache(path)
    save_model(tmp_path, model.network, model.card)
    if is_reordered:
        order = [3, 0, 4, 1, 2]
        joints = tuple(LAYOUT.joints[joint] for joint in order)
        write_tiny_cache(path, replace(LAYOUT, joints=joints, bones=(), center_joint=3))
    settings = EvaluateSettings(device="cpu", batch_size=5)
    clips = load_dataset_for(model, path, settings)
    with torch.no_grad():
        logits = torch.cat([model(x) for x, _ in clips.loader()]).numpy()
    scores = evaluate(path, tmp_path, settings).scores
    assert clips.names == scores.info.names
    assert np.array_equal(logits, scores.logits)


def test_what_cannot_be_loaded_is_refused(tiny_cache: Path, tmp_path: Path, model: Model) -> None:
    settings = TrainSettings(**SMALL)
    with pytest.raises(UsageError, match='\'val\' is not a part: expected "train", "held-out"'):
        load_dataset(tiny_cache, "val", settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing is held out"):
        load_dataset(tiny_cache, "held-out", settings)
    with pytest.raises(UsageError, match="clips of a fine-tuning cannot be loaded"):
        load_dataset(tiny_cache, "train", settings.model_copy(update={"init": "m"}))
    write_tiny_cache(tmp_path / "train.h5", only=0)
    with pytest.raises(InputError, match="the test part of xsub has no clips"):
        load_dataset(tmp_path / "train.h5", "test", settings)
    joints = ("hips", *LAYOUT.joints[1:])
    write_tiny_cache(tmp_path / "other.h5", replace(LAYOUT, joints=joints))
    with pytest.raises(InputError, match=r"does not fit the model: .*hips"):
        load_dataset_for(model, tmp_path / "other.h5")
    baseline = TrainSettings(**CLIPS)
    unconnected = replace(LAYOUT, bones=())
    write_tiny_cache(tmp_path / "points.h5", unconnected)
    with pytest.raises(InputError, match="st-gcn needs bones"):
        load_dataset(tmp_path / "points.h5", "train", baseline).create_model("st-gcn")
