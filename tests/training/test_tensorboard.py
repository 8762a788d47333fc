"""TensorBoard event files: each epoch once, also after stopping and resuming."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import TINY_SEARCH
from interrupting import stop_after

from skelnas.config import TrackerName, TrainSettings
from skelnas.derivation import softmax
from skelnas.errors import Interrupted, SkelnasError
from skelnas.genotype import random_genotype
from skelnas.nas.search import search
from skelnas.primitives import SPACES
from skelnas.training import run_dir
from skelnas.training.train import train

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = TrainSettings(frames=6, layers=3, channels=2, epochs=2, batch_size=6, device="cpu")


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / run_dir.TENSORBOARD))
    return found.Reload()


def scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars(tag)]


def stopped(tiny_cache: Path, out: Path, steps: int, track: TrackerName | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted):
            search(tiny_cache, out, TINY_SEARCH, track=track)


def check_whole(run: Path) -> None:
    """Check that the events have the values of the logs, each epoch once."""
    metrics = run_dir.read_lines(run / run_dir.METRICS)
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    for tag, name in {
        "loss/train": "train_loss",
        "loss/validation": "validation_loss",
        "top1/train": "train_top1",
        "entropy/normal": "normal_entropy",
        "lr": "lr",
    }.items():
        found = scalars(run, tag)
        assert [epoch for epoch, _ in found] == [1, 2, 3]
        assert [value for _, value in found] == pytest.approx([line[name] for line in metrics])
    alphas = run_dir.read_lines(run / run_dir.ALPHAS)
    found = scalars(run, "reduction_share/se_connect")
    index = SPACES["sar"].index("se_connect")
    for (epoch, value), line in zip(found, alphas, strict=True):
        weights = [softmax(edge)[index] for edge in line["reduction"]]
        assert epoch == line["epoch"]
        assert value == pytest.approx(sum(weights) / len(weights))
    (text,) = events(run).Tensors("genotype/text_summary")[-1].tensor_proto.string_val
    assert b"skelnas-genotype" in text
    (config,) = events(run).Tensors("config/text_summary")[-1].tensor_proto.string_val
    assert b'"alpha_lr": 0.05' in config
    assert b'"versions"' in config


def test_a_search_that_was_stopped_and_resumed(tiny_cache: Path, tmp_path: Path) -> None:
    stopped(tiny_cache, tmp_path, 3, "tensorboard")
    search(tiny_cache, tmp_path, TINY_SEARCH, resume=True, track="tensorboard")
    check_whole(tmp_path)


def test_epochs_after_the_checkpoint_do_not_double(tiny_cache: Path, tmp_path: Path) -> None:
    search(tiny_cache, tmp_path, TINY_SEARCH.model_copy(update={"epochs": 1}), track="tensorboard")
    checkpoint = (tmp_path / run_dir.CHECKPOINT).read_bytes()
    search(tiny_cache, tmp_path, TINY_SEARCH, force=True, track="tensorboard")
    first = scalars(tmp_path, "loss/train")
    (tmp_path / run_dir.CHECKPOINT).write_bytes(checkpoint)  # as if it had been killed in between
    search(tiny_cache, tmp_path, TINY_SEARCH, resume=True, track="tensorboard")
    check_whole(tmp_path)
    assert scalars(tmp_path, "loss/train")[0] == first[0]


def test_earlier_epochs_are_written_when_events_start_late(
    tiny_cache: Path, tmp_path: Path
) -> None:
    stopped(tiny_cache, tmp_path, 3, None)
    assert not (tmp_path / run_dir.TENSORBOARD).exists()
    search(tiny_cache, tmp_path, TINY_SEARCH, resume=True, track="tensorboard")
    check_whole(tmp_path)


def test_a_resumed_training_with_events_has_the_earlier_epochs(
    tiny_cache: Path, tmp_path: Path
) -> None:
    genotype = random_genotype(0)
    train(tiny_cache, genotype, tmp_path, TRAIN)
    train(tiny_cache, genotype, tmp_path, TRAIN, resume=True, track="tensorboard")
    assert [epoch for epoch, _ in scalars(tmp_path, "loss/train")] == [1, 2]


def test_force_deletes_the_events(tiny_cache: Path, tmp_path: Path) -> None:
    genotype = random_genotype(0)
    train(tiny_cache, genotype, tmp_path, TRAIN, track="tensorboard")
    assert [epoch for epoch, _ in scalars(tmp_path, "loss/train")] == [1, 2]
    train(tiny_cache, genotype, tmp_path, TRAIN, force=True)
    assert list((tmp_path / run_dir.TENSORBOARD).iterdir()) == []


def test_events_change_nothing_in_the_run(tiny_cache: Path, tmp_path: Path) -> None:
    search(tiny_cache, tmp_path / "with", TINY_SEARCH, track="tensorboard")
    search(tiny_cache, tmp_path / "without", TINY_SEARCH)
    for file in (run_dir.ALPHAS, run_dir.CHECKPOINT):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()


def test_without_tensorboard_the_error_names_the_extra(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "skelnas.training.tracking.tensorboard", raising=False)
    with pytest.raises(SkelnasError, match=r"^--track tensorboard needs the package") as caught:
        search(tiny_cache, tmp_path / "run", TINY_SEARCH, track="tensorboard")
    assert caught.value.hint == 'pip install "skelnas[tensorboard]"'
    assert not (tmp_path / "run").exists()
