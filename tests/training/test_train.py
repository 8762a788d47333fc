"""Training and evaluation end to end: learning, resuming, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LAYOUT, write_tiny_cache
from interrupting import stop_after
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Layout, Test, Train
from skelnas.errors import InputError, Interrupted, SkelnasError, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.export import export
from skelnas.evaluation.scores import write_scores
from skelnas.genotype import BUILT_IN, Genotype
from skelnas.models.branches import parts
from skelnas.reporting.model_card import write_card
from skelnas.training import run_dir
from skelnas.training.saved_model import load_model, save_model
from skelnas.training.train import CELL_SETTINGS, train
from skelnas.training.trainer import Trainer

GENOTYPE = BUILT_IN["ntu_cs112se30"]
SMALL = TrainSettings(
    frames=12,
    layers=3,
    channels=4,
    epochs=16,
    batch_size=6,
    lr=0.1,
    device="cpu",
    rotate=5,
    crop=0.8,
    recipe="paper",
)


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "model"
    train(tiny_cache, GENOTYPE, out, SMALL)
    return out


def test_training_learns_a_learnable_task(tiny_cache: Path, model: Path) -> None:
    metrics = run_dir.read_lines(model / run_dir.METRICS)
    assert len(metrics) == SMALL.epochs
    assert metrics[-1]["train_loss"] < 0.5 * metrics[0]["train_loss"]
    result = evaluate(tiny_cache, model)
    assert len(result.scores) == 12
    assert result.metrics.top1 > 2 * result.scores.chance
    assert result.scores.chance == pytest.approx(1 / 3)


def test_a_model_file_describes_the_model(model: Path) -> None:
    with safe_open(model / run_dir.MODEL, framework="pt") as file:
        assert list(file.metadata()) == ["skelnas"]
        text = file.metadata()["skelnas"]
    described = json.loads(text)
    assert text == json.dumps(described, sort_keys=True)
    assert described["genotype"] == GENOTYPE.to_dict()
    assert described["classes"] == ["still", "wave", "pair"]
    assert described["input_shape"] == [3, 12, 10]
    assert described["clip_settings"]["frames"] == 12
    assert described["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_a_model_file_works_without_its_folder(
    tiny_cache: Path, model: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((model / run_dir.MODEL).read_bytes())
    one, other = evaluate(tiny_cache, model).to_dict(), evaluate(tiny_cache, alone).to_dict()
    assert one == other


@pytest.mark.parametrize("steps", [1, 6, 7])
def test_a_resumed_training_ends_with_the_same_bits(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    short = SMALL.model_copy(update={"epochs": 3})
    train(tiny_cache, GENOTYPE, tmp_path / "whole", short)
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted):
            train(tiny_cache, GENOTYPE, tmp_path / "parts", short)
    train(tiny_cache, GENOTYPE, tmp_path / "parts", short, resume=True)
    for name in (run_dir.MODEL, run_dir.CHECKPOINT):
        whole, parts = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    losses = [
        [line["train_loss"] for line in run_dir.read_lines(tmp_path / run / run_dir.METRICS)]
        for run in ("whole", "parts")
    ]
    assert losses[0] == losses[1]


def test_held_out_clips_are_not_trained_on_and_can_be_scored(
    tiny_cache: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[set[int]] = []
    learned: list[int] = []
    original = Cache.load

    def spy(self: Cache, indices: np.ndarray) -> object:
        loaded.append(set(indices.tolist()))
        return original(self, indices)

    def learn(self: Trainer, item: tuple[torch.Tensor, ...]) -> object:
        learned.append(len(self.dataset))
        return take_step(self, item)

    take_step = Trainer.take_step
    held_out = EvaluateSettings(part="held-out")
    settings = SMALL.model_copy(update={"hold_out": 0.3, "epochs": 8})
    with monkeypatch.context() as patch:
        patch.setattr(Cache, "load", spy)
        patch.setattr(Trainer, "take_step", learn)
        train(tiny_cache, GENOTYPE, tmp_path / "model", settings)
        result = evaluate(tiny_cache, tmp_path / "model", held_out)
    with Cache.open(tiny_cache) as cache:
        training = set(cache.indices("xsub", Train).tolist())
    for_training, for_epochs, for_evaluation = loaded
    assert set(learned) == {len(for_training)}
    assert for_training | for_evaluation == training
    assert for_training.isdisjoint(for_evaluation)
    assert for_epochs == for_evaluation
    assert (result.scores.info.part, len(result.scores)) == ("held-out", 12)
    assert result.metrics.top1 > 1.5 * result.scores.chance
    assert result.to_dict()["model"]["hold_out"]["clips"] == 12

    with pytest.raises(UsageError, match="trained without --hold-out"):
        evaluate(tiny_cache, model, held_out)
    write_tiny_cache(tmp_path / "fewer.h5", num_clips=42)
    with pytest.raises(InputError, match="the 12 clips that were held out"):
        evaluate(tmp_path / "fewer.h5", tmp_path / "model", held_out)


def test_the_batch_size_of_evaluation_does_not_matter(tiny_cache: Path, model: Path) -> None:
    results = [
        evaluate(tiny_cache, model, EvaluateSettings(batch_size=size)).to_dict()
        for size in (1, 5, 64)
    ]
    for name in ("nll", "ece"):  # sums are rounded differently in other batches
        one, five, many = (result.pop(name) for result in results)
        assert one == pytest.approx(many, rel=1e-5)
        assert five == pytest.approx(many, rel=1e-5)
    assert results[0] == results[1] == results[2]


def test_streams_and_augmentation_from_training_to_evaluation(
    tiny_cache: Path, tmp_path: Path
) -> None:
    more = {"streams": "motion,joint,bone", "shear": 0.1, "flip": 0.5, "jitter": 0.01, "epochs": 1}
    sides = (*LAYOUT.joints[:4], "head")
    write_tiny_cache(tmp_path / "sides.h5", layout=replace(LAYOUT, joints=sides))
    settings = TrainSettings(**SMALL.model_dump() | more)
    train(tmp_path / "sides.h5", GENOTYPE, tmp_path / "model", settings)
    card = load_model(tmp_path / "model").card
    assert list(card.input_shape) == [9, 12, 10]
    assert card.clip_settings["streams"] == "joint,bone,motion"
    assert len(evaluate(tmp_path / "sides.h5", tmp_path / "model").scores) == 12

    with pytest.raises(InputError, match="hand_left has no counterpart"):
        train(tiny_cache, GENOTYPE, tmp_path / "never", settings)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("architecture", [GENOTYPE, "temporal-conv"])
def test_branches_from_training_to_evaluation(
    tiny_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: Genotype | str,
) -> None:
    more = {"streams": "joint,motion", "branches": True, "epochs": 2, "ema": 0.5, "drop_path": 0.3}
    if isinstance(architecture, str):  # which has none of the settings of cells
        more |= {name: TrainSettings(recipe="paper").recipe_value(name) for name in CELL_SETTINGS}
    settings = SMALL.model_copy(update=more)
    train(tiny_cache, architecture, tmp_path / "model", settings)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(tiny_cache, architecture, tmp_path / "parts", settings)
    train(tiny_cache, architecture, tmp_path / "parts", settings, resume=True)
    whole, stopped = (load_file(tmp_path / name / run_dir.MODEL) for name in ("model", "parts"))
    assert [key for key in whole if not torch.equal(whole[key], stopped[key])] == []

    model = load_model(tmp_path / "model")
    assert model.card.branches
    write_card(tmp_path / "model", model)
    assert "| branches | 3: one for each stream" in (tmp_path / "model" / "README.md").read_text()
    assert len(parts(model.network)) == 3
    result = evaluate(tiny_cache, tmp_path / "model", EvaluateSettings(input_size="24x10"))
    alone = [sum(p.numel() for p in part.parameters()) for part in parts(model.network)]
    assert result.complexity.parameters == sum(alone)
    assert result.at_size is not None
    assert result.at_size[1].macs > result.complexity.macs

    fused = tmp_path / "fused.safetensors"
    assert export(tmp_path / "model", fused, "safetensors-fused").largest_difference < 1e-3
    logits = evaluate(tiny_cache, fused).scores.logits
    assert logits == pytest.approx(result.scores.logits, abs=1e-3)


def test_branches_need_several_streams(tiny_cache: Path, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"branches": True})
    with pytest.raises(UsageError, match="--branches is for several streams, and there is one"):
        train(tiny_cache, GENOTYPE, tmp_path / "never", settings)
    assert not (tmp_path / "never").exists()


def test_the_store_does_not_change_the_result(
    tiny_cache: Path, model: Path, tmp_path: Path
) -> None:
    short = {"epochs": 1, "jitter": 0.01, "shear": 0.1}
    models = []
    for store in ("float32", "host"):
        settings = SMALL.model_copy(update=short | {"store": store})
        models.append(load_file(train(tiny_cache, GENOTYPE, tmp_path / store, settings).path))
    assert [name for name in models[0] if not torch.equal(models[0][name], models[1][name])] == []

    exact = evaluate(tiny_cache, model).to_dict()
    hosted = evaluate(tiny_cache, model, EvaluateSettings(store="host")).to_dict()
    rounded = evaluate(tiny_cache, model, EvaluateSettings(store="float16")).to_dict()
    assert hosted == exact
    assert rounded["top1"] == pytest.approx(exact["top1"], abs=0.1)


def test_a_model_without_streams_uses_joints(tiny_cache: Path, model: Path, tmp_path: Path) -> None:
    with safe_open(model / run_dir.MODEL, framework="pt") as file:
        description = json.loads(file.metadata()["skelnas"])
    del description["checksum"]
    del description["clip_settings"]["streams"]
    path = tmp_path / "m.safetensors"
    save_file(load_file(model / run_dir.MODEL), path, {"skelnas": json.dumps(description)})
    assert evaluate(tiny_cache, path).metrics.top1 == evaluate(tiny_cache, model).metrics.top1


def test_a_cache_that_does_not_fit_the_model(model: Path, tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "wide.h5", layout=Layout(joints=tuple("abcd"), center_joint=1))
    with pytest.raises(InputError, match="its 4 joints include a, b, c, d, the model"):
        evaluate(tmp_path / "wide.h5", model)
    write_tiny_cache(tmp_path / "other.h5", classes=("a", "b", "c"))
    with pytest.raises(InputError, match="3 classes are not the 3"):
        evaluate(tmp_path / "other.h5", model)


def test_unknown_protocol(tiny_cache: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no protocol 'xview', only: xsub"):
        evaluate(tiny_cache, model, EvaluateSettings(protocol="xview"))


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no trained model"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="nothing: there is no such file or folder"):
        load_model(tmp_path / "nothing")


def test_broken_models(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((model / run_dir.MODEL).read_bytes()[:1000])
    with pytest.raises(InputError, match="not a skelnas model"):
        load_model(path)

    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a skelnas model"):
        load_model(path)

    tensors = load_file(model / run_dir.MODEL)
    with safe_open(model / run_dir.MODEL, framework="pt") as file:
        description = json.loads(file.metadata()["skelnas"])
    del description["checksum"]
    for change, message in (
        ({"version": 2}, "not a model of version 1"),
        ({"channels": 8}, "weights and description disagree"),
        ({"surprise": 1}, "weights and description disagree"),
        ({"genotype": {}}, "not a genotype"),
        ({"channels": 10**9}, "weights and description disagree"),
        ({"layers": 10**9}, "weights and description disagree"),
        ({"input_shape": [3, 10**9, 10]}, "weights and description disagree"),
        ({"layout": None, "input_shape": [10**7, 12, 10]}, "an input of 1,200,000,000 numbers"),
        ({"input_shape": [3]}, "weights and description disagree"),
        ({"channels": "many"}, "weights and description disagree"),
        ({"clip_settings": {"frames": -1}}, "weights and description disagree"),
        ({"branches": True}, "branches without several streams"),
    ):
        save_file(tensors, path, metadata={"skelnas": json.dumps(description | change)})
        with pytest.raises(InputError, match=message):
            load_model(path)
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, path, metadata={"skelnas": json.dumps(description)})
    with pytest.raises(InputError, match=r"is torch\.float16, expected torch\.float32"):
        load_model(path)


def test_resume_refuses_other_clips_under_the_same_name(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "c.h5")
    short = SMALL.model_copy(update={"epochs": 1})
    train(tmp_path / "c.h5", GENOTYPE, tmp_path / "model", short)
    write_tiny_cache(tmp_path / "c.h5", seed=1)
    with pytest.raises(UsageError, match="started with other clips than the cache has now"):
        train(tmp_path / "c.h5", GENOTYPE, tmp_path / "model", short, resume=True)


def test_resume_refuses_another_layout_of_the_same_clips(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "c.h5", LAYOUT)
    short = SMALL.model_copy(update={"epochs": 1})
    train(tmp_path / "c.h5", GENOTYPE, tmp_path / "model", short)
    for change, name in (
        ({"center_joint": 2}, "center joint"),
        ({"center_joint": None}, "center joint"),
        ({"bones": ((1, 0),)}, "bones"),
        ({"y_down": True}, "y down"),
    ):
        write_tiny_cache(tmp_path / "c.h5", replace(LAYOUT, **change))
        with pytest.raises(UsageError, match=f"another layout than the cache has now: {name}"):
            train(tmp_path / "c.h5", GENOTYPE, tmp_path / "model", short, resume=True)
    write_tiny_cache(tmp_path / "c.h5", LAYOUT)
    train(tmp_path / "c.h5", GENOTYPE, tmp_path / "model", short, resume=True)


def test_a_diverging_training_keeps_the_last_good_checkpoint(
    tiny_cache: Path, tmp_path: Path
) -> None:
    wild = SMALL.model_copy(update={"lr": 1e30, "epochs": 3})
    with pytest.raises(SkelnasError, match="train diverged in epoch 1: train_loss nan"):
        train(tiny_cache, GENOTYPE, tmp_path / "model", wild)
    assert not (tmp_path / "model" / run_dir.MODEL).exists()
    assert not (tmp_path / "model" / run_dir.METRICS).exists()


def test_a_diverged_state_is_not_saved_within_an_epoch(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skelnas.training.loop.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with pytest.raises(SkelnasError, match="diverged"):
        train(tiny_cache, GENOTYPE, tmp_path / "model", SMALL.model_copy(update={"lr": 1e30}))
    saved = load_file(tmp_path / "model" / run_dir.CHECKPOINT)
    assert saved["sums"].isfinite().all()


def test_weights_that_the_last_step_spoiled_are_not_saved(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = Trainer.take_step

    def spoil(self: Trainer, item: Any) -> Any:
        result = take_step(self, item)
        next(iter(self.model.parameters())).data.fill_(float("inf"))
        return result

    monkeypatch.setattr(Trainer, "take_step", spoil)
    one_step = SMALL.model_copy(update={"epochs": 1, "batch_size": 1000})
    with pytest.raises(SkelnasError, match="diverged in epoch 1: weights that are not finite"):
        train(tiny_cache, GENOTYPE, tmp_path / "model", one_step)
    assert not (tmp_path / "model" / run_dir.MODEL).exists()
    assert not (tmp_path / "model" / run_dir.CHECKPOINT).exists()


def test_a_run_resumes_with_more_patience_for_other_ranks(tiny_cache: Path, tmp_path: Path) -> None:
    train(tiny_cache, GENOTYPE, tmp_path / "model", SMALL)
    patient = SMALL.model_copy(update={"rank_timeout": 600})
    train(tiny_cache, GENOTYPE, tmp_path / "model", patient, resume=True)


@pytest.mark.parametrize(("part", "value"), [("training", Test), ("test", Train)])
def test_an_empty_part(tmp_path: Path, model: Path, part: str, value: int) -> None:
    write_tiny_cache(tmp_path / "c.h5", only=value)
    verb = partial(train, out=tmp_path / "new", settings=SMALL, architecture=GENOTYPE)
    if part == "test":
        verb = partial(evaluate, model_path=model)
    with pytest.raises(InputError, match=f"the {part} part of xsub has no clips"):
        verb(tmp_path / "c.h5")


def test_a_model_records_its_input_norm(tiny_cache: Path, model: Path, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"input_norm": True, "epochs": 2})
    train(tiny_cache, GENOTYPE, tmp_path / "model", settings)
    assert load_model(tmp_path / "model").card.input_norm
    assert "input_norm" not in load_model(model).card.to_dict()
    other = EvaluateSettings(input_size="24x9")
    one, two = (
        evaluate(tiny_cache, folder, other).to_dict() for folder in (model, tmp_path / "model")
    )
    for cost in ("parameters", "macs", "at_input_size"):
        assert one[cost] == two[cost]
    fused = tmp_path / "fused.safetensors"
    assert export(tmp_path / "model", fused, "safetensors-fused").largest_difference < 1e-3
    assert load_model(fused).card.input_norm


def test_complexity_at_another_input_size(tiny_cache: Path, model: Path) -> None:
    results = {}
    for size in ("12x10", "24x20"):
        document = evaluate(tiny_cache, model, EvaluateSettings(input_size=size)).to_dict()
        results[size] = document["at_input_size"]
        assert results[size]["parameters"] == document["parameters"]
    assert results["12x10"]["input_size"] == [12, 10]
    assert results["12x10"]["macs"] == document["macs"]  # the size it was trained with
    network = load_model(model).network
    gates = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    once = sum(gate.weight.numel() for gate in gates)  # independent of the size
    # Sizes 12 x 10, 6 x 5, 3 x 3 become 24 x 20, 12 x 10, 6 x 5: four times as many, rounded.
    assert 3 < (results["24x20"]["macs"] - once) / (results["12x10"]["macs"] - once) <= 4
    assert document["at_input_size"]["flops"] == 2 * document["at_input_size"]["macs"]


def test_two_models_are_compared_on_the_same_clips(
    tiny_cache: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    train(tiny_cache, GENOTYPE, other, SMALL.model_copy(update={"epochs": 1}))
    ours, theirs = evaluate(tiny_cache, model), evaluate(tiny_cache, other)
    comparison = evaluate(tiny_cache, model, other_path=other).to_dict()["comparison"]
    write_scores(tmp_path / "other.npz", theirs.scores)
    from_file = evaluate(tiny_cache, model, other_path=tmp_path / "other.npz").to_dict()
    assert from_file["comparison"] | {"with": str(other)} == comparison
    assert comparison["top1"] == theirs.metrics.top1
    accuracies = zip(ours.metrics.per_class, theirs.metrics.per_class, strict=True)
    assert {row["class"]: (row["a"], row["b"]) for row in comparison["classes"]} == dict(
        zip(ours.card.classes, accuracies, strict=True)
    )
    differences = [row["difference"] for row in comparison["classes"]]
    assert differences == sorted(differences, reverse=True)


def test_a_model_is_not_compared_on_clips_that_it_was_trained_on(
    tiny_cache: Path, model: Path, tmp_path: Path
) -> None:
    loaded = load_model(model)
    fold = "xsub@clip:1/2"
    save_model(tmp_path, loaded.network, replace(loaded.card, protocol=fold))
    with pytest.raises(UsageError, match=r"was trained on \d+ of the \d+ clips of xsub@clip"):
        evaluate(tiny_cache, tmp_path, other_path=model)
    settings = EvaluateSettings(allow_mismatch=True)
    same = evaluate(tiny_cache, tmp_path, settings, model).to_dict()["comparison"]
    assert {row["difference"] for row in same["classes"]} == {0}


def test_clips_that_may_have_been_trained_on_are_noted(
    tiny_cache: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(model)
    save_model(tmp_path, loaded.network, replace(loaded.card, protocol="xview", trained_clips=""))
    result = evaluate(tiny_cache, tmp_path, EvaluateSettings(protocol="xsub"))
    line = "the model was trained on xview, which tiny.h5 does not have, so it may have been"
    assert line in capsys.readouterr().err
    assert any(line in mismatch for mismatch in result.to_dict()["mismatches"])


def test_latency_records_what_was_timed(tiny_cache: Path, model: Path) -> None:
    assert evaluate(tiny_cache, model).to_dict()["latency"] is None
    settings = EvaluateSettings(latency=True, passes=3, batch_size=4, device="cpu")
    timed = evaluate(tiny_cache, model, settings).to_dict()
    assert [(one["batch_size"], one["passes"]) for one in timed["latency"]] == [(1, 3), (4, 3)]
    for one in timed["latency"]:
        assert 0 < one["median_ms"] <= one["p95_ms"]
        rate = 1000 * one["batch_size"] / one["median_ms"]
        assert one["clips_per_second"] == pytest.approx(rate)
        assert one["device"].startswith("cpu (")
        assert one["threads"] == torch.get_num_threads()


def test_a_model_that_could_not_be_scored_is_not_trained(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "train-only.h5", only=Train)
    settings = SMALL.model_copy(update={"epochs": 1})
    with pytest.raises(InputError, match="xsub has no test clips") as caught:
        train(tmp_path / "train-only.h5", GENOTYPE, tmp_path / "model", settings)
    assert "--hold-out 0.2" in (caught.value.hint or "")
    assert not (tmp_path / "model").exists()
    settings = settings.model_copy(update={"hold_out": 0.3})
    train(tmp_path / "train-only.h5", GENOTYPE, tmp_path / "model", settings)
