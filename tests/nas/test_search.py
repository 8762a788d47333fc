"""Whole searches: reproducible, resumable at any step, and without the test part."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LAYOUT, write_tiny_cache
from interrupting import stop_after
from safetensors.torch import load_file

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.splits import split_training_part
from skelnas.derivation import count_skips, count_stable
from skelnas.errors import InputError, Interrupted, SkelnasError, UsageError
from skelnas.genotype import random_genotype
from skelnas.nas import architect
from skelnas.nas.architect import Loss
from skelnas.nas.bilevel import Bilevel
from skelnas.nas.derive import derive
from skelnas.nas.flat_weights import FlatWeights
from skelnas.nas.search import load_search_clips, search
from skelnas.training import run_dir
from skelnas.training.checkpoint import load_checkpoint, save_checkpoint
from skelnas.training.loop import cosine, descend
from skelnas.training.train import train

SMALL = SearchSettings(
    frames=6, layers=3, channels=2, nodes=2, epochs=2, batch_size=6, device="cpu", alpha_lr=0.05
)


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, object]], str]:
    """Return everything that a run writes, except timings."""
    metrics = run_dir.read_lines(folder / run_dir.METRICS)
    for line in metrics:
        del line["seconds"]
    return load_file(folder / run_dir.CHECKPOINT), metrics, (folder / run_dir.ALPHAS).read_text()


def assert_same(one: Path, other: Path) -> None:
    (tensors1, metrics1, alphas1), (tensors2, metrics2, alphas2) = outcome(one), outcome(other)
    assert tensors1.keys() == tensors2.keys()
    assert [name for name in tensors1 if not torch.equal(tensors1[name], tensors2[name])] == []
    assert metrics1 == metrics2
    assert alphas1 == alphas2


@pytest.fixture(scope="module")
def whole_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "run"
    search(tiny_cache, out, SMALL)
    return out


def test_a_run_stores_its_settings_and_results(whole_run: Path) -> None:
    config = json.loads((whole_run / run_dir.CONFIG).read_text())
    assert config["settings"]["protocol"] == "xsub"
    assert config["clips"] == {"weights": 18, "alphas": 18}
    assert [line["epoch"] for line in run_dir.read_lines(whole_run / run_dir.METRICS)] == [1, 2]
    assert [line["epoch"] for line in run_dir.read_lines(whole_run / run_dir.ALPHAS)] == [0, 1, 2]


def test_each_epoch_logs_learning_rate_and_entropy(whole_run: Path) -> None:
    metrics = run_dir.read_lines(whole_run / run_dir.METRICS)
    assert [line["lr"] for line in metrics] == [cosine(k / 6, 0.015, 0.001) for k in (2, 5)]
    for line in run_dir.read_lines(whole_run / run_dir.ALPHAS)[1:]:
        for cell in ("normal", "reduction"):
            op_weights = torch.tensor(line[cell], dtype=torch.float64).softmax(1)
            expected = torch.special.entr(op_weights).sum(1).mean() / np.log(8)
            found = metrics[line["epoch"] - 1][f"{cell}_entropy"]
            assert found == pytest.approx(expected.item())
            assert 0.9 < found < 1


def test_the_same_seed_gives_the_same_bits(
    tiny_cache: Path, whole_run: Path, tmp_path: Path
) -> None:
    search(tiny_cache, tmp_path / "again", SMALL)
    assert_same(whole_run, tmp_path / "again")


def test_clips_in_host_memory_give_the_same_run(
    tiny_cache: Path, whole_run: Path, tmp_path: Path
) -> None:
    search(tiny_cache, tmp_path / "host", SMALL.model_copy(update={"store": "host"}))
    assert_same(whole_run, tmp_path / "host")


@pytest.mark.parametrize("order", ["first", "second"])
def test_checkpointed_cells_give_the_same_run(tiny_cache: Path, tmp_path: Path, order: str) -> None:
    for name, checkpointed in {"stored": False, "checkpointed": True}.items():
        changes = {"order": order, "epochs": 1, "checkpoint_cells": checkpointed}
        search(tiny_cache, tmp_path / name, SMALL.model_copy(update=changes))
    assert_same(tmp_path / "stored", tmp_path / "checkpointed")


def test_the_virtual_step_equals_the_next_step(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fixed alphas and no clipping, rate, momentum and weight decay must agree."""
    second_order, step = architect.second_order, Bilevel.step
    moved: list[torch.Tensor] = []

    def look(*, validation_loss: Loss, weights: FlatWeights, **others: Any) -> object:
        def validate_and_look() -> torch.Tensor:
            moved.append(weights.values.clone())
            return validation_loss()

        return second_order(validation_loss=validate_and_look, weights=weights, **others)

    def step_and_compare(self: Bilevel, *batches: Any) -> torch.Tensor:
        before = self.weights.values.clone()
        sums = step(self, *batches)
        torch.testing.assert_close(self.weights.values - before, moved[-1] - before)
        return sums

    monkeypatch.setattr(architect, "second_order", look)
    monkeypatch.setattr(Bilevel, "step", step_and_compare)
    still = {"alpha_lr": 1e-9, "grad_clip": 1e9, "weight_decay": 0.1, "engine": "reference"}
    search(tiny_cache, tmp_path / "run", SMALL.model_copy(update=still))
    assert len(moved) == 6


def test_both_hessians_take_the_same_virtual_steps(tiny_cache: Path, tmp_path: Path) -> None:
    """With fixed alphas, the loss at w' must be the same, including the effect of momentum."""
    still = SMALL.model_copy(update={"alpha_lr": 1e-9, "epochs": 1})
    losses = {}
    for name, changes in {
        "difference": {},
        "exact": {"hessian": "exact"},
        "exact, checkpointed": {"hessian": "exact", "checkpoint_cells": True},
        "at w": {"order": "first"},
    }.items():
        search(tiny_cache, tmp_path / name, still.model_copy(update=changes))
        lines = run_dir.read_lines(tmp_path / name / run_dir.METRICS)
        losses[name] = [line["validation_loss"] for line in lines]
    assert losses["exact"] == pytest.approx(losses["difference"], rel=1e-5)
    assert losses["at w"] != pytest.approx(losses["difference"], rel=1e-3)
    assert_same(tmp_path / "exact", tmp_path / "exact, checkpointed")


def test_a_search_uses_its_streams(tiny_cache: Path, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"epochs": 1, "streams": "joint,bone,motion"})
    search(tiny_cache, tmp_path / "run", settings)
    stem = load_file(tmp_path / "run" / run_dir.CHECKPOINT)["model/stem.0.weight"]
    assert stem.shape[1] == 9


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_small_shapes_and_custom_spaces_are_searched_and_derived(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], layers: int
) -> None:
    shape = {"layers": layers, "channels": 1, "nodes": 1, "epochs": 1}
    settings = SMALL.model_copy(update=shape | {"space": "skip_connect,conv_7x1_1x7"})
    search(tiny_cache, tmp_path / "run", settings)
    assert ("no normal cell" in capsys.readouterr().err) == (layers < 3)
    assert run_dir.read_config(tmp_path / "run")["primitives"] == ["skip_connect", "conv_7x1_1x7"]
    genotype = derive(tmp_path / "run", keep=5)
    assert [len(node) for node in (*genotype.normal, *genotype.reduction)] == [2, 2]
    small = TrainSettings(frames=6, layers=layers, channels=1, epochs=1, batch_size=6, device="cpu")
    assert train(tiny_cache, genotype, tmp_path / "model", small).path.exists()


def test_another_seed_gives_another_run(tiny_cache: Path, whole_run: Path, tmp_path: Path) -> None:
    search(tiny_cache, tmp_path / "run", SMALL.model_copy(update={"seed": 1, "epochs": 1}))
    ours = run_dir.read_lines(tmp_path / "run" / run_dir.ALPHAS)[0]
    theirs = run_dir.read_lines(whole_run / run_dir.ALPHAS)[0]
    assert ours["normal"] != theirs["normal"]


def examine_resume(
    cache: Path, whole_run: Path, out: Path, monkeypatch: pytest.MonkeyPatch, steps: int = 1
) -> None:
    """Stop a search after some steps, resume it, and fail unless it equals the whole run."""
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted, match="stopped in epoch"):
            search(cache, out, SMALL)
    search(cache, out, SMALL, resume=True)
    assert_same(whole_run, out)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_resumed_training_ends_with_the_same_bits(
    tiny_cache: Path,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    examine_resume(tiny_cache, whole_run, tmp_path / "run", monkeypatch, steps)


def test_resume_after_a_kill_between_metrics_and_checkpoint(
    tiny_cache: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            search(tiny_cache, out, SMALL)
    with (out / run_dir.METRICS).open("a") as lines:
        lines.write('{"epoch": 1, "train_loss": 0}\n{"epoch": 2, "tr')
    search(tiny_cache, out, SMALL, resume=True)
    assert_same(whole_run, out)


@pytest.mark.parametrize(
    ("writes", "file"), [(6, run_dir.ALPHAS), (7, run_dir.METRICS), (8, run_dir.CHECKPOINT)]
)
def test_a_full_disk_leaves_the_last_good_checkpoint(
    tiny_cache: Path,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
    file: str,
) -> None:
    """The start writes the settings and one line, each epoch two lines and a checkpoint."""
    out, left = tmp_path / "run", itertools.count(1)

    def full(descriptor: int) -> None:
        if next(left) >= writes:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SkelnasError, match=f"{file}: cannot be written .No space left"):
            search(tiny_cache, out, SMALL)
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]
    search(tiny_cache, out, SMALL, resume=True)
    assert_same(whole_run, out)


def test_resume_of_a_finished_run_changes_nothing(
    tiny_cache: Path, whole_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = outcome(whole_run)
    search(tiny_cache, whole_run, SMALL, resume=True)
    assert "search has already ended after epoch 2" in capsys.readouterr().err
    assert outcome(whole_run)[1:] == before[1:]


@pytest.fixture(scope="module")
def long_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search in which a skip appears, and whose genotype then stays the same for some epochs."""
    out = tmp_path_factory.mktemp("search") / "long"
    search(tiny_cache, out, SMALL.model_copy(update={"epochs": 8}))
    return out


def test_each_epoch_logs_skips_and_stable_epochs(long_run: Path) -> None:
    genotypes = [derive(long_run, epoch=epoch) for epoch in range(9)]
    metrics = run_dir.read_lines(long_run / run_dir.METRICS)
    assert [line["skips"] for line in metrics] == [count_skips(g) for g in genotypes[1:]]
    for line in metrics:
        epoch, stable = line["epoch"], line["stable"]
        assert count_stable(genotypes[: epoch + 1]) == stable
        assert count_stable(genotypes[epoch - stable : epoch + 1]) == stable
    assert {line["stable"] for line in metrics} >= {0, 2}


@pytest.mark.parametrize("rule", ["stop_skips", "stop_stable"])
def test_a_search_ends_early(
    tiny_cache: Path,
    long_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rule: str,
) -> None:
    out, limit = tmp_path / "run", {"stop_skips": 0, "stop_stable": 2}[rule]
    settings = SMALL.model_copy(update={"epochs": 8, rule: limit})
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Interrupted):
            search(tiny_cache, out, settings)
    search(tiny_cache, out, settings, resume=True)

    def ends(line: dict[str, float]) -> bool:
        return line["skips"] > limit if rule == "stop_skips" else line["stable"] >= limit

    tensors, metrics, alphas = outcome(out)
    _, whole, whole_alphas = outcome(long_run)
    (last,) = [line["epoch"] for line in metrics if ends(line)]
    assert 1 < last < 8
    assert metrics == whole[:last]
    assert alphas.splitlines() == whole_alphas.splitlines()[: last + 1]
    text = capsys.readouterr().err
    assert f"search ended after epoch {last}: the " in text
    assert f"--{rule.replace('_', '-')} {limit}" in text

    search(tiny_cache, out, settings, resume=True)
    assert f"search has already ended after epoch {last}: the " in capsys.readouterr().err
    again = outcome(out)
    assert again[1:] == (metrics, alphas)
    assert [name for name in tensors if not torch.equal(tensors[name], again[0][name])] == []

    derived = last - 1 if rule == "stop_skips" else last
    assert derive(out) == derive(out, epoch=derived)
    assert (f"using epoch {derived}, the last" in capsys.readouterr().err) == (derived < last)
    assert derive(out, epoch=last) == derive(long_run, epoch=last)


def test_the_initial_alphas_are_never_derived_for_their_few_skips(
    tiny_cache: Path, tmp_path: Path
) -> None:
    settings = SMALL.model_copy(update={"space": "none,skip_connect", "stop_skips": 2})
    search(tiny_cache, tmp_path / "run", settings)
    assert [line["skips"] for line in run_dir.read_lines(tmp_path / "run" / run_dir.METRICS)] == [4]
    assert derive(tmp_path / "run") == derive(tmp_path / "run", epoch=1)


def test_skips_can_be_limited_afterwards(long_run: Path) -> None:
    assert count_skips(derive(long_run)) == 1
    limited = derive(long_run, max_skip=0)
    assert count_skips(limited) == 0
    assert limited.reduction == derive(long_run).reduction


def test_resume_with_other_settings_is_refused(tiny_cache: Path, whole_run: Path) -> None:
    with pytest.raises(UsageError, match="started with lr"):
        search(tiny_cache, whole_run, SMALL.model_copy(update={"lr": 0.5}), resume=True)


def test_resume_with_another_centre_is_refused(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "c.h5", LAYOUT)
    short = SMALL.model_copy(update={"epochs": 1})
    search(tmp_path / "c.h5", tmp_path / "run", short)
    write_tiny_cache(tmp_path / "c.h5", replace(LAYOUT, center_joint=2))
    with pytest.raises(UsageError, match="another layout than the cache has now: center joint"):
        search(tmp_path / "c.h5", tmp_path / "run", short, resume=True)


def test_a_broken_checkpoint_is_refused(tiny_cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    search(tiny_cache, out, SMALL.model_copy(update={"epochs": 1}))
    (out / run_dir.CHECKPOINT).write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="not a checkpoint"):
        search(tiny_cache, out, SMALL.model_copy(update={"epochs": 1}), resume=True)


def rewrite(checkpoint: Path, *, drop: str = "", **position: object) -> None:
    """Drop tensors from a checkpoint by name, or change its position."""
    tensors, before = load_checkpoint(checkpoint)
    remaining = {name: value for name, value in tensors.items() if not drop or drop not in name}
    save_checkpoint(checkpoint, remaining, {**before, **position})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": 9}, "epoch 9, step 0 is after the end"),
        ({"epoch": -1}, "epoch of its position in the run is -1"),
        ({"epoch": "1"}, "epoch of its position in the run is '1'"),
        ({"drop": "sums"}, "does not belong to this run"),
        ({"drop": "model/stem"}, "does not belong to this run"),
    ],
)
def test_a_mismatched_checkpoint_is_refused(
    tiny_cache: Path, whole_run: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    rewrite(tmp_path / "run" / run_dir.CHECKPOINT, **change)
    with pytest.raises(InputError, match=words):
        search(tiny_cache, tmp_path / "run", SMALL, resume=True)


def test_a_checkpoint_of_another_network_is_refused(
    tiny_cache: Path, whole_run: Path, tmp_path: Path
) -> None:
    other = SMALL.model_copy(update={"channels": 3, "epochs": 1})
    search(tiny_cache, tmp_path / "other", other)
    shutil.copytree(whole_run, tmp_path / "run")
    shutil.copy(tmp_path / "other" / run_dir.CHECKPOINT, tmp_path / "run")
    with pytest.raises(InputError, match="does not belong to this run"):
        search(tiny_cache, tmp_path / "run", SMALL, resume=True)


def test_resume_without_a_checkpoint_does_not_discard_the_run(
    tiny_cache: Path, whole_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    (tmp_path / "run" / run_dir.CHECKPOINT).unlink()
    with pytest.raises(InputError, match="is missing, though 2 epochs were done"):
        search(tiny_cache, tmp_path / "run", SMALL, resume=True)
    for name in (run_dir.METRICS, run_dir.ALPHAS):
        assert (tmp_path / "run" / name).read_bytes() == (whole_run / name).read_bytes()


@pytest.mark.parametrize("line", ["", '{"epoch": 2}', '{"epoch": 2, "normal": 1, "reduction": 1}'])
def test_incomplete_alphas_are_refused(
    tiny_cache: Path, whole_run: Path, tmp_path: Path, line: str
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    path = tmp_path / "run" / run_dir.ALPHAS
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], line]))
    words = (
        "unexpected content"
        if line
        else "expected one line of alphas for each of the epochs 0 to 2"
    )
    with pytest.raises(InputError, match=words):
        search(tiny_cache, tmp_path / "run", SMALL, resume=True)


def test_first_order_differs_from_second(tiny_cache: Path, whole_run: Path, tmp_path: Path) -> None:
    search(tiny_cache, tmp_path / "run", SMALL.model_copy(update={"order": "first", "epochs": 1}))
    first = run_dir.read_lines(tmp_path / "run" / run_dir.ALPHAS)
    second = run_dir.read_lines(whole_run / run_dir.ALPHAS)
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_a_search_changes_alphas_and_lowers_the_loss(whole_run: Path) -> None:
    metrics = run_dir.read_lines(whole_run / run_dir.METRICS)
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    alphas = run_dir.read_lines(whole_run / run_dir.ALPHAS)
    assert np.abs(np.subtract(alphas[-1]["normal"], alphas[0]["normal"])).max() > 0.05


def test_the_test_part_is_never_loaded(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    original = Cache.load

    def spy(self: Cache, indices: np.ndarray) -> object:
        loaded.extend(indices)
        return original(self, indices)

    monkeypatch.setattr(Cache, "load", spy)
    search(tiny_cache, tmp_path / "run", SMALL.model_copy(update={"epochs": 1}))
    with Cache.open(tiny_cache) as cache:
        test = set(cache.indices("xsub", 1).tolist())
    assert len(loaded) == 36
    assert test.isdisjoint(loaded)


def test_held_out_clips_are_in_neither_half(tiny_cache: Path, tmp_path: Path) -> None:
    changes = {"epochs": 1, "hold_out": 0.3, "validation": "subject", "protocol": "xsub"}
    settings = SMALL.model_copy(update=changes)
    search(tiny_cache, tmp_path / "run", settings)
    config = run_dir.read_config(tmp_path / "run")
    assert config["clips"] == {"weights": 12, "alphas": 12}
    (subject,) = config["hold_out"]["subjects"]

    device = torch.device("cpu")
    with Cache.open(tiny_cache) as cache:
        clips = load_search_clips(cache, settings, device)
        part = split_training_part(cache, "xsub", 0.3)
        subjects = cache.clips.subjects
        halves = [subjects[part.train[half]] for half in (clips.weight_half, clips.alpha_half)]
        assert set(subjects[part.held_out]) == {subject}
    assert len({*halves[0], *halves[1], subject}) == 3
    assert set(halves[0]).isdisjoint(halves[1])


def test_derive_reads_any_epoch(whole_run: Path) -> None:
    last = derive(whole_run)
    assert last == derive(whole_run, epoch=2)
    assert len(last.normal) == 2
    assert all(len(node) == 1 for node in derive(whole_run, keep=1).normal)
    with pytest.raises(UsageError, match="no alphas of epoch 3") as caught:
        derive(whole_run, epoch=3)
    assert caught.value.hint == "it has epochs 0 to 2"


def test_derive_refuses_a_folder_without_a_search(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        derive(tmp_path)
    (tmp_path / run_dir.CONFIG).write_text('{"verb": "train"}')
    with pytest.raises(InputError, match="not a search"):
        derive(tmp_path)


def test_the_rate_follows_a_cosine_from_first_to_last() -> None:
    assert cosine(0, 0.015, 0.001) == pytest.approx(0.015)
    assert cosine(0.5, 0.015, 0.001) == pytest.approx(0.008)
    assert cosine(1, 0.015, 0.001) == pytest.approx(0.001)


def test_descend_clips_the_gradient_and_ignores_other_parameters() -> None:
    w = torch.nn.Parameter(torch.zeros(2))
    other = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([w], lr=1)
    descend(optimizer, 30 * w[0] + 40 * w[1] + other.sum(), lr=0.5, grad_clip=5)
    torch.testing.assert_close(w.detach(), torch.tensor([-1.5, -2.0]))
    assert other.grad is None


def test_random_genotypes_differ() -> None:
    assert random_genotype(1) == random_genotype(1)
    assert random_genotype(1) != random_genotype(2)
