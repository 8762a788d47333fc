"""Fine-tuning: what is taken over, what learns, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import LAYOUT, write_tiny_cache
from interrupting import stop_after

from skelnas.config import TrainSettings
from skelnas.data.cache import Cache, CacheWriter
from skelnas.data.readers.base import Layout, Recording
from skelnas.errors import InputError, Interrupted, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import random_genotype
from skelnas.models.fold import fold
from skelnas.training import run_dir
from skelnas.training.fine_tune import architecture_of
from skelnas.training.saved_model import load_model, save_model
from skelnas.training.train import train

GENOTYPE = random_genotype(0, "none,skip_connect,sep_conv_3x3", 1)
SETTINGS = TrainSettings(frames=4, layers=3, channels=2, epochs=2, batch_size=12, device="cpu")
ORDER = [4, 2, 0, 1, 3]


def fine_tune(cache: Path, init: Path, out: Path, resume: bool = False, **settings: object) -> Path:
    chosen = TrainSettings(epochs=2, batch_size=12, device="cpu", init=str(init), **settings)
    train(cache, GENOTYPE, out, chosen, resume=resume)
    return out


def write_reordered(old_path: Path, path: Path) -> None:
    """Write a cache again with its joints in another order."""
    with Cache.open(old_path) as old:
        place = {joint: index for index, joint in enumerate(ORDER)}
        layout = replace(
            old.layout,
            joints=tuple(old.layout.joints[joint] for joint in ORDER),
            bones=tuple((place[child], place[parent]) for child, parent in old.layout.bones),
            center_joint=place[old.layout.center_joint or 0],
        )
        with CacheWriter(
            path, source=old.source, rule=old.rule, layout=layout, max_persons=old.max_persons
        ) as new:
            for index, name in enumerate(old.clips.names):
                poses, present = old.read(index)
                label, subject = int(old.clips.labels[index]), int(old.clips.subjects[index])
                new.add(Recording(name, label, poses[:, :, ORDER], present, subject))
            new.finish(classes=old.classes, splits=old.splits, skipped=[], failed=[])


@pytest.fixture(scope="module")
def init(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("init") / "model"
    train(tiny_cache, GENOTYPE, out, SETTINGS)
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of other classes and another source."""
    path = tmp_path_factory.mktemp("other") / "cache.h5"
    write_tiny_cache(path, classes=("a", "b", "c"), seed=1, source="other")
    return path


def test_a_frozen_trunk_stays_to_the_bit(
    init: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(fine_tune(other, init, tmp_path / "model", freeze=True, ema=0))
    state, before = model.network.state_dict(), load_model(init).network.state_dict()
    assert state.keys() == before.keys()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert "parameters are from" in (text := capsys.readouterr().err)
    assert "the classifier of 3 classes is new" in text
    assert model.card.initial is not None
    assert (model.card.initial.source, model.card.initial.protocol) == ("tiny", "xsub")
    assert model.card.classes == ["a", "b", "c"]
    assert model.card.input_shape == load_model(init).card.input_shape
    assert len(evaluate(other, tmp_path / "model").scores) == 12


def test_all_weights_learn_from_those_of_the_model(
    init: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    before = load_model(init).network.state_dict()
    slow = load_model(fine_tune(tiny_cache, init, tmp_path / "slow", lr=1e-9, ema=0))
    for name, value in slow.network.named_parameters():  # the classifier, too: the same classes
        torch.testing.assert_close(value, before[name], rtol=1e-4, atol=1e-5)
    fast = load_model(fine_tune(tiny_cache, init, tmp_path / "fast", ema=0))
    assert not torch.equal(fast.network.state_dict()["stem.0.weight"], before["stem.0.weight"])


def test_joints_in_another_order_are_reordered_by_name(
    init: Path, other: Path, tmp_path: Path
) -> None:
    write_reordered(other, tmp_path / "reordered.h5")
    one = load_model(fine_tune(other, init, tmp_path / "one"))
    two = load_model(fine_tune(tmp_path / "reordered.h5", init, tmp_path / "two"))
    assert one.card.joints == two.card.joints == list(LAYOUT.joints)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name]), name
    scores = [
        evaluate(cache, tmp_path / name).scores.logits
        for cache, name in ((other, "one"), (tmp_path / "reordered.h5", "two"))
    ]
    assert (scores[0] == scores[1]).all()


@pytest.mark.parametrize("freeze", [False, True])
def test_resuming_ends_with_the_same_bits(
    init: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: bool
) -> None:
    whole = fine_tune(other, init, tmp_path / "whole", freeze=freeze)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            fine_tune(other, init, tmp_path / "out", freeze=freeze)
    fine_tune(other, init, tmp_path / "out", freeze=freeze, resume=True)
    for name in (run_dir.MODEL, run_dir.CHECKPOINT):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_other_joints_networks_and_exports_are_refused(
    init: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    foreign = Layout(("a", "b", "c", "hand_left"), LAYOUT.bones[:3])
    write_tiny_cache(tmp_path / "foreign.h5", layout=foreign)
    with pytest.raises(InputError, match="1 of the 4 joints are among its 5 by name, expected 2"):
        fine_tune(tmp_path / "foreign.h5", init, out)
    for settings, expected in (
        ({"channels": 3}, "has --channels 2, not 3"),
        ({"streams": "bone"}, "has --streams joint, not bone"),
    ):
        with pytest.raises(UsageError, match=expected):
            fine_tune(other, init, out, **settings)
    with pytest.raises(UsageError, match="has another architecture"):
        train(other, "hcn", out, TrainSettings(init=str(init)))
    model = load_model(init)
    (tmp_path / "folded").mkdir()
    save_model(tmp_path / "folded", fold(model.network), replace(model.card, folded=True))
    with pytest.raises(InputError, match="an export"):
        fine_tune(other, tmp_path / "folded", out)
    with pytest.raises(UsageError, match="--freeze keeps") as caught:
        train(other, GENOTYPE, out, TrainSettings(freeze=True))
    assert caught.value.hint == "--init MODEL names it"
    assert not out.exists()


def test_a_baseline_is_fine_tuned(other: Path, tiny_cache: Path, tmp_path: Path) -> None:
    short = TrainSettings(frames=8, epochs=1, batch_size=24, device="cpu")
    train(tiny_cache, "temporal-conv", tmp_path / "init", short)
    settings = TrainSettings(
        epochs=1, batch_size=24, device="cpu", init=str(tmp_path / "init"), freeze=True
    )
    assert architecture_of(load_model(tmp_path / "init").card) == "temporal-conv"
    train(other, "temporal-conv", tmp_path / "model", settings)
    assert load_model(tmp_path / "model").card.input_shape[1] == 8
