"""Fine-tuning on other joints and channels: what is taken over, how, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_cache
from interrupting import stop_after
from ranks import finish, start

from skelnas.config import ClipSettings, TrainSettings
from skelnas.data.cache import Cache, CacheWriter
from skelnas.data.dataset import Dataset, clip_shape
from skelnas.data.matching import origin_of
from skelnas.data.readers.base import Layout, Recording
from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, Interrupted
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import Genotype, random_genotype
from skelnas.models.network import Network
from skelnas.models.norm import JointNorm
from skelnas.training import run_dir
from skelnas.training.card import ModelCard
from skelnas.training.saved_model import load_model
from skelnas.training.train import train
from skelnas.training.transfer import fit_weights, measure_inputs, order_like_model

GENOTYPE = random_genotype(0, "none,skip_connect,sep_conv_3x3", 1)
SETTINGS = TrainSettings(frames=4, layers=3, channels=2, epochs=2, batch_size=12, device="cpu")
FLAT = Layout(
    joints=("nose", "LHand", "Spine_Mid", "LHip", "RHip", "tail"),
    bones=((0, 2), (3, 2), (4, 2), (1, 2)),
    channels=("x", "y", "score"),
    center_joint=2,
)
"""Four joints of `conftest.LAYOUT` in other spellings and another order, and two others; in 2-D."""


def make_card(layout: Layout, genotype: Genotype = GENOTYPE, **fields: object) -> ModelCard:
    clips = ClipSettings(frames=8, streams="joint,bone,motion")
    return ModelCard(
        genotype=genotype.to_dict(),
        channels=2,
        layers=3,
        classes=["walk", "wave"],
        input_shape=clip_shape(layout, 1, clips),
        joints=list(layout.joints),
        clip_settings=clips.model_dump(),
        source="own",
        protocol="xsub",
        versions={},
        layout=layout,
        **fields,
    )


@pytest.fixture(scope="module")
def init(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("init") / "model"
    train(tiny_cache, GENOTYPE, out, SETTINGS)
    return out


@pytest.fixture(scope="module")
def flat(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cache as pixels of a camera, with `FLAT`'s joints."""
    path = tmp_path_factory.mktemp("flat") / "cache.h5"
    with (
        Cache.open(tiny_cache) as old,
        CacheWriter(path, source="camera", rule={}, layout=FLAT, max_persons=2) as new,
    ):
        for index, name in enumerate(old.clips.names):
            poses, present = old.read(index)  # [M, T, 5, 3]
            joints = poses[:, :, [1, 4, 1, 2, 3, 0]]
            joints[..., :2] *= [200, -200]
            joints[..., 2] = present[..., None]
            label, subject = int(old.clips.labels[index]), int(old.clips.subjects[index])
            new.add(Recording(name, label, joints, present, subject))
        new.finish(classes=["a", "b", "c"], splits=old.splits, skipped=[], failed=[])
    return path


@pytest.mark.parametrize("branches", [False, True])
def test_the_same_image_in_other_channels_has_the_same_logits(branches: bool) -> None:
    deep, flat = Layout(("a", "b"), ((1, 0),)), Layout(("a", "b"), ((1, 0),), ("x", "y", "score"))
    old, new = (make_card(layout, branches=branches) for layout in (deep, flat))
    torch.manual_seed(0)
    network, other = old.make_network().eval(), new.make_network().eval()
    weights, num_new = fit_weights(network.state_dict(), old, new)
    other.load_state_dict(other.state_dict() | weights)
    num_stems = 4 if branches else 1
    assert num_new == num_stems * 6 * 9  # the score's, of 6 channels and 3 x 3 points
    x = torch.randn(2, 9, 8, 2)  # x, y, z of joints, bones and motions
    x[:, 2::3] = 0  # no depth
    y = torch.randn(2, 7, 8, 2)  # x, y of the same, and a score, which counts for nothing yet
    y[:, 0:6:2], y[:, 1:6:2] = x[:, 0::3], -x[:, 1::3]  # downwards
    torch.testing.assert_close(other(y), network(x))


def test_known_joints_come_first_in_the_order_of_the_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    coco, kinect = find_layout("coco17"), find_layout("kinect-v2")
    order = order_like_model(coco, make_card(kinect), "--init m")
    names = [coco.joints[joint] for joint in order]
    assert sorted(order) == list(range(17))
    assert names[:4] == ["shoulder_left", "elbow_left", "wrist_left", "shoulder_right"]
    assert names[-5:] == ["nose", "eye_left", "eye_right", "ear_left", "ear_right"]
    assert capsys.readouterr().err == (
        "--init m: knows 12 of the 17 joints, not nose, eye_left, eye_right, ear_left, ear_right; "
        "13 of its 25 are not here\n"
    )


@pytest.mark.parametrize(
    ("data", "card", "expected"),
    [
        (find_layout("mediapipe-hands21"), make_card(find_layout("coco17")), "0 of the 21 joints"),
        (
            Layout(tuple(f"joint_{n}" for n in range(9))),
            make_card(Layout(tuple(f"joint_{n}" for n in range(8)), ((1, 0),))),
            "0 of the 9 joints are among its 8 by name, expected 4 or more",
        ),
        (
            find_layout("coco17"),
            make_card(find_layout("kinect-v2"), random_genotype(0, "joint_conv,skip_connect", 1)),
            "joint_conv has weights for each of its 25 joints",
        ),
    ],
)
def test_joints_that_say_too_little_are_refused(
    data: Layout, card: ModelCard, expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        order_like_model(data, card, "--init m")
    assert caught.value.hint


def test_a_model_in_3d_learns_joints_in_2d(
    init: Path, flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings(epochs=3, batch_size=12, device="cpu", init=str(init), ema=0)
    train(flat, GENOTYPE, tmp_path / "model", settings)
    text = capsys.readouterr().err
    assert (
        f"--init {init}: knows 4 of the 6 joints, not nose, tail; 1 of its 5 are not here" in text
    )
    assert "score has weights that start at 0; its weights for z are left out" in text
    assert "its weights for y are negated" in text
    model = load_model(tmp_path / "model")
    assert model.card.joints == ["Spine_Mid", "LHip", "RHip", "LHand", "nose", "tail"]
    assert model.card.layout is not None
    assert model.card.layout.center_joint == 0
    assert model.card.layout.bones == ((4, 0), (1, 0), (2, 0), (3, 0))
    assert len(evaluate(flat, tmp_path / "model").scores) == 12


def test_a_frozen_trunk_sees_the_new_clips_at_their_own_scale(
    init: Path, flat: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(
        epochs=2, batch_size=12, device="cpu", init=str(init), ema=0, freeze=True
    )
    train(flat, GENOTYPE, tmp_path / "model", settings)
    state, before = (load_model(path).network.state_dict() for path in (tmp_path / "model", init))
    same = {name for name in before if torch.equal(state[name], before[name])}
    assert {name.split(".")[0] for name in before.keys() - same} == {
        "input_norm",
        "stem",
        "classifier",
    }
    assert torch.equal(state["stem.0.weight"][:, 0], before["stem.0.weight"][:, 0])
    assert torch.equal(state["stem.0.weight"][:, 1], -before["stem.0.weight"][:, 1])
    assert not state["stem.0.weight"][:, 2].any()
    assert state["input_norm.running_var"].max() > 100 * before["input_norm.running_var"].max()
    out = tmp_path / "ranks"
    words = f"--epochs 1 --batch-size 12 --device cpu --ema 0 --freeze --init {init} --out {out}"
    file = tmp_path / "genotype.json"
    file.write_text(GENOTYPE.to_json())
    codes, _, messages = finish(
        start(["-m", "skelnas", "train", flat, "--genotype", file, *words.split()])
    )
    assert codes == [0, 0], messages
    of_ranks = load_model(out).network.state_dict()
    for name in ("input_norm.running_mean", "input_norm.running_var"):
        torch.testing.assert_close(of_ranks[name], state[name])


def test_other_joints_resume_to_the_same_bits(
    init: Path, flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(epochs=2, batch_size=12, device="cpu", init=str(init))
    train(flat, GENOTYPE, tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(flat, GENOTYPE, tmp_path / "out", settings)
    train(flat, GENOTYPE, tmp_path / "out", settings, resume=True)
    for name in (run_dir.MODEL, run_dir.CHECKPOINT):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_network_without_normalised_input_needs_the_same_units(
    tiny_cache: Path, flat: Path, tmp_path: Path
) -> None:
    plain = SETTINGS.model_copy(update={"input_norm": False, "epochs": 1})
    train(tiny_cache, GENOTYPE, tmp_path / "init", plain)
    settings = TrainSettings(epochs=1, batch_size=12, device="cpu", init=str(tmp_path / "init"))
    with pytest.raises(InputError, match="in other units"):
        train(flat, GENOTYPE, tmp_path / "model", settings)
    fewer = replace(FLAT, joints=FLAT.joints[:5], channels=("x", "y", "z"))
    write_tiny_cache(tmp_path / "fewer.h5", layout=fewer)
    train(tmp_path / "fewer.h5", GENOTYPE, tmp_path / "model", settings)


def test_the_input_is_measured_over_all_clips_in_any_order(
    tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of one class each, the last of them short: what differs between them counts, too."""
    with Cache.open(tiny_cache) as cache:
        by_class = np.argsort(cache.clips.labels, kind="stable")
        clips, origin = cache.load(by_class), origin_of(cache)
    settings = ClipSettings(frames=8)
    data = Dataset(clips, origin.layout, origin.max_persons, settings, torch.device("cpu"))
    x = data.batch(torch.arange(len(data))).x.double()  # [N, C, T, V]
    monkeypatch.setattr("skelnas.training.transfer.MEASURING_BATCH_SIZE", 7)
    assert len(data) % 7 == 6
    channels, _, joints = data.shape
    network = Network(
        GENOTYPE,
        in_channels=channels,
        num_classes=3,
        channels=4,
        num_layers=3,
        joints=joints,
        normalised_joints=joints,
    )
    measure_inputs(network, data)
    assert isinstance(network.input_norm, JointNorm)
    for measured, expected in (
        (network.input_norm.running_mean, x.mean((0, 2))),
        (network.input_norm.running_var, x.transpose(0, 1).flatten(1, 2).var(1)),
    ):
        assert measured is not None
        torch.testing.assert_close(measured, expected.flatten().float())
