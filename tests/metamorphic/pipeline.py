"""Prepare, train, evaluate and predict in temporary folders, in this process."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from recordings import COCO, KINETICS, NTU, NW_UCLA, OWN, Clip, Kind, make_clip
from writers import (
    write_joints,
    write_kinetics,
    write_npy,
    write_nw_ucla,
    write_pyskl,
    write_skeleton,
)

from skelnas.config import ClipSettings, EvaluateSettings, PredictSettings, TrainSettings
from skelnas.data.cache import Cache, Storage
from skelnas.data.dataset import Dataset
from skelnas.data.prepare import prepare
from skelnas.data.readers.base import Source
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.data.readers.pyskl import Pyskl
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.predict import predict, predict_stream
from skelnas.genotype import BUILT_IN
from skelnas.training.saved_model import Model, load_model
from skelnas.training.train import train

Logits = NDArray[np.float32]

GENOTYPE = BUILT_IN["ntu_cs112se30"]
TINY = TrainSettings(frames=8, layers=3, channels=2, epochs=1, batch_size=8, device="cpu")
CPU = torch.device("cpu")

ROUNDING = 1e-5
"""Largest difference between logits of the same clip, as a fraction of the largest logit."""

_root = Path(tempfile.mkdtemp(prefix="metamorphic-"))
atexit.register(shutil.rmtree, _root, ignore_errors=True)
_numbers = itertools.count()


def new_folder() -> Path:
    """Make a folder that no reader has seen, because readers remember files by their path."""
    folder = _root / str(next(_numbers))
    folder.mkdir()
    return folder


def write_table(folder: Path, files: Sequence[str], kind: Kind) -> Path:
    """List files as the test part of a manifest, after two other clips to train on."""
    lines = ["path,label,split"]
    for index, label in enumerate("ab"):
        write_npy(folder / f"train{index}.npy", make_clip(kind, index))
        lines.append(f"train{index}.npy,{label},train")
    lines += [f"{file},{'ab'[index % 2]},test" for index, file in enumerate(files)]
    path = folder / "clips.csv"
    path.write_text("\n".join(lines))
    return path


def prepare_own(folder: Path, files: Sequence[str], kind: Kind, joints: Path | None = None) -> Path:
    """Prepare files in a folder; without `joints`, by the description of the kind."""
    joints = joints or write_joints(folder / "joints.json", kind)
    table = write_table(folder, files, kind)
    return prepare_cache(Manifest(table, joints=joints, persons=kind.persons), folder)


def prepare_cache(source: Source, folder: Path, storage: Storage | None = None) -> Path:
    """Prepare a source; all of its files must be good."""
    out = folder / f"{next(_numbers)}.h5"
    prepare(source, out, strict=True, workers=1, storage=storage)
    return out


def read_clips(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Return poses and presence of all clips in a cache, by name."""
    with Cache.open(path) as opened:
        return {name: opened.read(index) for index, name in enumerate(opened.clips.names)}


def check_stored(path: Path, names: Iterable[str], clip: Clip) -> None:
    """Check that a cache holds a recording under each of the names."""
    stored = read_clips(path)
    for name in names:
        poses, present = stored[name]
        np.testing.assert_array_equal(present, clip.present, err_msg=name)
        np.testing.assert_array_equal(poses, clip.poses, err_msg=name)


@cache
def train_own(name: str) -> Path:
    """Train a small network on a kind of own recordings, once."""
    kind, folder = OWN[name], new_folder()
    files = [f"{index}.npy" for index in range(8)]
    for index, file in enumerate(files):
        write_npy(folder / file, make_clip(kind, 100 + index, 1 + index % 2, 9, 0.1))
    text = write_table(folder, files, kind).read_text().replace("test", "train", 6)
    (folder / "clips.csv").write_text(text)
    joints = write_joints(folder / "joints.json", kind)
    source = Manifest(folder / "clips.csv", joints=joints, persons=kind.persons)
    return _train(source, folder)


@cache
def train_ntu(body_rule: str) -> Path:
    """Train on `.skeleton` files, once."""
    folder = new_folder()
    for index in range(8):
        name = f"S001C001P{1 + index % 4:03}R{index:03}A{1 + index // 4:03}.skeleton"
        write_skeleton(folder / name, make_clip(NTU, index, 1 + index % 2, 20))
    return _train(Ntu(folder, body_rule=body_rule), folder, "xsub")


@cache
def train_nw_ucla() -> Path:
    """Train on files of NW-UCLA, once."""
    folder = new_folder()
    for index in range(8):
        path = folder / f"a{1 + index % 2:02}_s01_e{index:02}_v{1 + index // 3:02}.json"
        write_nw_ucla(path, make_clip(NW_UCLA, index), 1 + index % 2)
    return _train(NwUcla(folder), folder)


@cache
def train_kinetics() -> Path:
    """Train on files of Kinetics-Skeleton, once."""
    folder = new_folder()
    write_kinetics_folder(folder, {str(i): make_clip(KINETICS, i, 1 + i % 2) for i in range(4)})
    return _train(Kinetics(folder), folder)


@cache
def train_pyskl() -> Path:
    """Train on a pickle of 2-D poses, once."""
    folder = new_folder()
    clips = {str(index): make_clip(COCO, index, 1 + index % 2) for index in range(8)}
    labels = {name: int(name) % 2 for name in clips}
    names = list(clips)
    write_pyskl(folder / "all.pkl", clips, labels, {"train": names[:6], "val": names[6:]})
    return _train(Pyskl(folder / "all.pkl"), folder)


def write_kinetics_folder(folder: Path, clips: dict[str, Clip]) -> None:
    """Write clips as the validation part, and the same as `t` + name for training."""
    import json

    for part, prefix in (("train", "t"), ("val", "")):
        (folder / part).mkdir()
        for name, clip in clips.items():
            write_kinetics(folder / part / f"{prefix}{name}.json", clip)
        entry = {"has_skeleton": True, "label": "yoga", "label_index": 398}
        labels = {f"{prefix}{name}": entry for name in clips}
        (folder / f"kinetics_{part}_label.json").write_text(json.dumps(labels))


def _train(source: Source, folder: Path, protocol: str = "") -> Path:
    path = prepare_cache(source, folder)
    settings = TINY.model_copy(update={"protocol": protocol})
    train(path, GENOTYPE, folder / "model", settings)
    logits = list(score_cache(path, folder / "model").values())
    assert len(logits) > 1
    assert np.ptp(logits, axis=0).max() > 5e-3  # the network tells clips apart
    return folder / "model"


def score_cache(path: Path, model: Path, **settings: object) -> dict[str, Logits]:
    """Evaluate a model on a cache; return the logits of each test clip by name."""
    scores = evaluate(path, model, EvaluateSettings(device="cpu", **settings)).scores
    return dict(zip(scores.info.names, scores.logits, strict=True))


def score_files(model: Path, files: Iterable[Path], **settings: object) -> list[Logits]:
    """Predict recordings; return their logits."""
    settings_ = PredictSettings(device="cpu", **settings)
    return [prediction.logits for prediction in predict(load(model), files, settings_)]


def score_lines(model: Path, lines: Sequence[str], num_frames: int) -> Logits:
    """Predict a stream as one window; return its logits."""
    settings = PredictSettings(device="cpu", window=num_frames)
    (window,) = predict_stream(load(model), lines, settings)
    assert (window.first_frame, window.last_frame) == (1, num_frames)
    assert window.prediction is not None
    return window.prediction.logits


@cache
def load(model: Path) -> Model:
    """Load a model once."""
    return load_model(model)


def make_dataset(path: Path, settings: ClipSettings, **options: object) -> Dataset:
    """Make the dataset of all clips of a cache."""
    with Cache.open(path) as opened:
        clips = opened.load(np.arange(len(opened)))
        return Dataset(clips, opened.layout, opened.max_persons, settings, CPU, **options)


def assert_close(
    found: Sequence[Logits] | Logits, expected: Logits, rounding: float = ROUNDING
) -> None:
    """Check that logits agree to rounding."""
    largest = max(1.0, float(np.abs(expected).max()))
    for logits in np.atleast_2d(found):
        np.testing.assert_allclose(logits, expected, 0, rounding * largest)
