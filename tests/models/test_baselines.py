"""The paper's baselines: published sizes, hand-made graphs, persons, and use as models."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from conftest import LAYOUT, write_tiny_cache
from interrupting import stop_after
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import BaselineName, EvaluateSettings, TrainSettings
from skelnas.data.readers import kinetics, ntu_facts, nw_ucla
from skelnas.data.readers.base import Layout
from skelnas.errors import InputError, Interrupted, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.models.baselines import BASELINES, Baseline, Shape, find_baseline
from skelnas.models.baselines.base import Dropout
from skelnas.models.baselines.graph import GraphSum, partition
from skelnas.models.baselines.hcn import motions
from skelnas.models.complexity import measure
from skelnas.reporting.history import read_history
from skelnas.training import run_dir
from skelnas.training.saved_model import load_model
from skelnas.training.train import train

TINY = TrainSettings(frames=9, epochs=2, batch_size=9, device="cpu", lr=0.02, recipe="paper")
STAR = ((1, 0), (2, 1), (3, 1), (4, 3))
"""0 - 1 - 2, and 1 - 3 - 4: the centre is 1."""


def make(name: str, layout: Layout, persons: int = 2, classes: int = 60) -> Baseline:
    shape = Shape(len(layout.channels), len(layout.joints), persons, classes, layout.bones)
    return find_baseline(name)(shape)


def small(name: str, persons: int = 2) -> Baseline:
    torch.manual_seed(0)
    return find_baseline(name)(Shape(3, 5, persons, 4, STAR))


def test_baseline_names_equal_those_of_the_command() -> None:
    assert get_args(BaselineName) == tuple(BASELINES)
    with pytest.raises(UsageError, match="unknown model 'resnet'"):
        find_baseline("resnet")


@pytest.mark.parametrize(("name", "published"), [("hcn", 2.64e6), ("st-gcn", 3.1e6)])
@pytest.mark.parametrize("frames", [64, 112])
def test_parameter_counts_equal_the_published_ones(
    name: str, published: float, frames: int
) -> None:
    found = measure(make(name, ntu_facts.LAYOUT), (3, frames, 50)).parameters
    assert found == pytest.approx(published, rel=0.03)


def test_parameter_counts_equal_those_in_the_docs() -> None:
    counts = {name: measure(make(name, ntu_facts.LAYOUT), (3, 64, 50)) for name in BASELINES}
    assert {name: count.parameters for name, count in counts.items()} == {
        "hcn": 2_647_868,
        "st-gcn": 3_098_832,
        "temporal-conv": 1_874_492,
    }


def test_macs_of_a_graph() -> None:
    frames, joints, channels = 7, 5, 4
    taken = measure(torch.nn.Sequential(GraphSum(joints, STAR)), (3 * channels, frames, joints))
    assert taken.macs == 3 * channels * frames * joints * joints


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("layout", [ntu_facts.LAYOUT, kinetics.LAYOUT, nw_ucla.LAYOUT])
def test_every_weight_has_a_gradient_on_every_skeleton(name: str, layout: Layout) -> None:
    network = make(name, layout, classes=7)
    logits = network(torch.randn(2, len(layout.channels), 20, 2 * len(layout.joints)))
    assert logits.shape == (2, 7)
    loss = logits.square().mean()
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(("frames", "persons"), [(1, 1), (5, 3), (33, 2)])
def test_any_number_of_frames_and_persons(name: str, frames: int, persons: int) -> None:
    network = small(name, persons).eval()
    assert network(torch.randn(2, 3, frames, 5 * persons)).shape == (2, 4)


@pytest.mark.parametrize("name", ["hcn", "st-gcn"])
def test_swapping_persons_does_not_change_the_logits(name: str) -> None:
    network = small(name).eval()
    x = torch.randn(3, 3, 16, 10)
    changed = torch.cat([x[..., 5:], x[..., :5]], dim=3)
    torch.testing.assert_close(network(x), network(changed))
    assert not torch.allclose(network(x), network(x.flip(3)))


def test_temporal_conv_distinguishes_persons() -> None:
    network = small("temporal-conv").eval()
    x = torch.randn(3, 3, 16, 10)
    assert not torch.allclose(network(x), network(x.roll(5, dims=3)))


def test_partition_by_hand() -> None:
    half, third, quarter = 1 / 2, 1 / 3, 1 / 4
    same, nearer, farther = torch.from_numpy(partition(5, STAR))
    assert torch.equal(same, torch.diag(torch.tensor([half, quarter, half, third, half])))
    expected = torch.zeros(2, 5, 5)  # [source, target]
    expected[0, 1, 0] = expected[0, 1, 2] = expected[0, 3, 4] = half
    expected[0, 1, 3] = third
    expected[1, 0, 1] = expected[1, 2, 1] = expected[1, 3, 1] = quarter
    expected[1, 4, 3] = third
    assert torch.equal(torch.stack([nearer, farther]), expected)


def test_partition_of_a_ring_has_equidistant_neighbours() -> None:
    ring = ((0, 1), (1, 2), (2, 0))  # the centre is 0; 1 and 2 are equally far from it
    same = partition(3, ring)[0]
    assert same[1, 2] == same[2, 1] == pytest.approx(1 / 3)
    assert same[0, 1] == same[1, 0] == 0


@pytest.mark.parametrize(
    ("layout", "centre"),
    [(ntu_facts.LAYOUT, "spine_shoulder"), (kinetics.LAYOUT, "neck"), (nw_ucla.LAYOUT, None)],
)
def test_partition_of_the_data_sets(layout: Layout, centre: str | None) -> None:
    subsets = partition(len(layout.joints), layout.bones)
    assert subsets.sum(axis=(0, 1)) == pytest.approx(1)
    assert (subsets > 0).sum() == len(layout.joints) + 2 * len(layout.bones)
    (middle,) = (subsets[1].sum(axis=0) == 0).nonzero()[0]
    assert layout.joints[middle] == (centre or layout.joints[layout.center_joint or 0])


def test_partition_of_disconnected_joints() -> None:
    subsets = partition(4, ((0, 1), (2, 3)))
    assert subsets.sum(axis=(0, 1)) == pytest.approx(1)
    with pytest.raises(ValueError, match="ends at none of the 4 joints"):
        partition(4, ((0, 4),))


def test_a_graph_convolution_sums_over_neighbours() -> None:
    graph = GraphSum(5, STAR)
    x = torch.zeros(1, 3, 1, 5)
    x[0, 2] = torch.tensor([1.0, 10, 100, 1000, 10000])  # the subset of those farther away
    assert graph(x).flatten().tolist() == pytest.approx([0, 1101 / 4, 0, 10000 / 3, 0])


def test_motion_is_zero_where_a_person_appears_or_disappears() -> None:
    x = torch.tensor([0.0, 1, 3, 0, 2]).reshape(1, 1, 5, 1).repeat(1, 2, 1, 3)
    assert motions(x)[0, 1, :, 2].tolist() == [0, 2, 0, 0, 0]


def test_motion_is_zero_where_a_joint_is_lost() -> None:
    places = torch.arange(4) + torch.arange(6)[:, None] / 100 + 1  # [T, V]
    x = places.repeat(2, 3, 1, 1)  # [N x M, C, T, V]
    whole = motions(x)
    assert (whole[:, :, :-1] > 0).all()
    x[0, :, 2:4, 1] = 0  # lost in two frames
    x[1, :, 0, 1:3] = 0  # two joints in the first
    lost = motions(x)
    for person, joint, frames in ((0, 1, slice(1, 4)), (1, 1, slice(1)), (1, 2, slice(1))):
        assert (lost[person, :, frames, joint] == 0).all()
        whole[person, :, frames, joint] = 0
    assert torch.equal(lost, whole)


def test_the_centre_moves_away_from_the_origin() -> None:
    places = torch.arange(4) + torch.arange(6)[:, None] / 100  # [T, V]
    x = places.repeat(2, 3, 1, 1)  # [N x M, C, T, V]
    assert (x[:, :, 0, 0] == 0).all()
    assert (motions(x)[:, :, 0, 0] > 0).all()  # a small step
    x[1, :, 1:, 0] += 1
    assert (motions(x)[:, :, 0, 0] > 0).tolist() == [[True] * 3, [False] * 3]
    assert motions(x[:, :, :1]).shape == (2, 3, 1, 4)


def test_dropout_of_a_clip_does_not_depend_on_the_others() -> None:
    drawn = []
    for rank_slice in (slice(None), slice(2, 6)):
        network = small("hcn").train()
        network.draw_dropout(6, torch.Generator().manual_seed(3), rank_slice)
        dropout = next(module for module in network.modules() if isinstance(module, Dropout))
        drawn.append(dropout(torch.ones(2 * len(range(6)[rank_slice]), 50, 3)))
        assert torch.equal(dropout.eval()(drawn[-1]), drawn[-1])
    whole, part = drawn
    assert torch.equal(whole[4:], part)
    assert whole.unique().tolist() == [0, 2]
    assert whole.mean().item() == pytest.approx(1, abs=0.15)
    assert not torch.equal(whole[0], whole[1])


@pytest.fixture(scope="module")
def models(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baselines")
    for name in BASELINES:
        train(tiny_cache, name, folder / name, TINY)
    return folder


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_scored_and_resumed(
    tiny_cache: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    result = evaluate(tiny_cache, models / name)
    card = result.to_dict()["model"]
    assert card["baseline"] == name
    assert "genotype" not in card
    assert "layers" not in run_dir.read_config(models / name)["settings"]
    assert [list(bone) for bone in card["bones"]] == (
        [list(bone) for bone in LAYOUT.bones] if name == "st-gcn" else []
    )
    assert read_history(models / name).genotypes == {}

    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(tiny_cache, name, tmp_path / "parts", TINY)
    train(tiny_cache, name, tmp_path / "parts", TINY, resume=True)
    whole = load_file(models / name / run_dir.CHECKPOINT)
    parts = load_file(tmp_path / "parts" / run_dir.CHECKPOINT)
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_a_loaded_network_has_the_trained_weights(models: Path) -> None:
    loaded = load_model(models / "st-gcn")
    network, card = loaded.network, loaded.card
    fresh = card.make_network()
    fresh.load_state_dict(load_file(models / "st-gcn" / run_dir.MODEL))
    x = torch.randn(2, *card.input_shape)
    assert torch.equal(network(x), fresh.eval()(x))


@pytest.mark.parametrize("name", BASELINES)
def test_complexity_accepts_other_frames_but_not_other_joints(
    tiny_cache: Path, models: Path, name: str
) -> None:
    longer = evaluate(tiny_cache, models / name, EvaluateSettings(input_size="40x10"))
    assert longer.at_size is not None
    assert longer.at_size[1].parameters == longer.complexity.parameters
    assert longer.at_size[1].macs > longer.complexity.macs
    with pytest.raises(UsageError) as refusal:
        evaluate(tiny_cache, models / name, EvaluateSettings(input_size="40x25"))
    assert str(refusal.value) == (
        f"--input-size 40x25: 25 joints, but {name} is made for the 10 that it was trained with"
    )


def test_broken_model_files_are_refused(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = load_file(models / "st-gcn" / run_dir.MODEL)
    with safe_open(models / "st-gcn" / run_dir.MODEL, framework="pt") as file:
        description = json.loads(file.metadata()["skelnas"])
    del description["checksum"]
    for change in (
        {"baseline": "hcn"},
        {"baseline": None},
        {"channels": 4},
        {"joints": ["a", "b", "c", "d"]},
        {"joints": []},
        {"joints": ["a"] * 10_000, "input_shape": [3, 9, 10_000]},
        {"bones": [[0, 99]]},
        {"bones": [[0]]},
        {"baseline": "resnet"},
        {"bones": []},
    ):
        save_file(tensors, path, metadata={"skelnas": json.dumps(description | change)})
        with pytest.raises(InputError, match="weights and description disagree"):
            load_model(path)


def test_invalid_settings_are_refused(tiny_cache: Path, tmp_path: Path) -> None:
    for change in ({"channels": 4}, {"layers": 3}, {"drop_path": 0.1}):
        with pytest.raises(UsageError, match="is a setting of cells, and hcn has none"):
            train(tiny_cache, "hcn", tmp_path / "m", TINY.model_copy(update=change))
    with pytest.raises(UsageError, match="unknown model"):
        train(tiny_cache, "resnet", tmp_path / "m", TINY)
    write_tiny_cache(tmp_path / "c.h5", layout=Layout(joints=tuple("abcd"), center_joint=1))
    verb = partial(train, tmp_path / "c.h5", settings=TINY, out=tmp_path / "m")
    with pytest.raises(InputError, match="does not say which joints are joined, and st-gcn"):
        verb("st-gcn")
    assert verb("temporal-conv").path.exists()


@pytest.mark.parametrize("words", [[], ["--genotype", "random:0", "--model", "hcn"]])
def test_the_command_needs_exactly_one_of_genotype_and_model(
    tiny_cache: Path, words: list[str]
) -> None:
    result = CliRunner().invoke(app, ["train", str(tiny_cache), "--out", "x", *words])
    assert isinstance(result.exception, UsageError)
    assert "one of --genotype and --model" in str(result.exception)
