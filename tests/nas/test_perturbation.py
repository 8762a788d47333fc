"""The cost of removing an operation, checked by zeroing the weights instead."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import LAYOUT, write_tiny_cache
from safetensors.torch import load_file, save_file
from test_search import SMALL

from skelnas.data.cache import Cache
from skelnas.derivation import choose_cell, count_skips
from skelnas.errors import InputError, UsageError
from skelnas.nas.derive import Perturbation, derive
from skelnas.nas.perturbation import LossIncreases, measure_losses
from skelnas.nas.search import search
from skelnas.training import run_dir
from skelnas.training.checkpoint import load_checkpoint, save_checkpoint

SETTINGS = SMALL.model_copy(update={"space": "none,skip_connect,conv_3x3", "layers": 4})
EDGES = 5


@pytest.fixture(scope="module")
def run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("perturbation") / "run"
    search(tiny_cache, out, SETTINGS)
    return out


def measure(run: Path, num_clips: int = 0) -> dict[str, LossIncreases]:
    return measure_losses(run, run_dir.read_config(run), num_clips=num_clips)


@pytest.fixture(scope="module")
def losses(run: Path) -> dict[str, LossIncreases]:
    return measure(run)


def test_every_operation_and_edge_is_measured(losses: dict[str, LossIncreases]) -> None:
    assert list(losses) == ["normal", "reduction"]
    for cell in losses.values():
        assert [list(ops) for ops in cell.ops] == [["skip_connect", "conv_3x3"]] * EDGES
        assert len(cell.edges) == EDGES
        assert all(map(math.isfinite, cell.edges))
        assert len(set(cell.edges)) == EDGES


def copy_with(run: Path, copy: Path, *, zero: str) -> Path:
    """Copy a run, with weights of 0 where a name has `zero` in it."""
    copy.mkdir()
    for name in (run_dir.CONFIG, run_dir.ALPHAS):
        (copy / name).write_bytes((run / name).read_bytes())
    tensors = load_file(run / run_dir.CHECKPOINT)
    names = [name for name in tensors if name.startswith("model/") and zero in name]
    assert names
    for name in names:
        tensors[name].zero_()
    save_file(tensors, copy / run_dir.CHECKPOINT, {"place": '{"epoch": 2, "step": 0, "count": 0}'})
    return copy


@pytest.mark.parametrize("edge", [0, 3])
def test_removing_a_convolution_equals_zeroing_its_weights(
    run: Path, losses: dict[str, LossIncreases], tmp_path: Path, edge: int
) -> None:
    """Then its output, normalised, is 0 everywhere, as if its weight were."""
    normal_cells = (0, 3)
    without = run
    for cell in normal_cells:
        zero = f"cells.{cell}.edges.{edge}.conv_3x3"
        without = copy_with(without, tmp_path / f"without-{cell}", zero=zero)
    removed = measure(without)["normal"]
    assert removed.ops[edge]["conv_3x3"] == 0
    assert removed.edges[edge] == removed.ops[edge]["skip_connect"]
    # The total cost of two removals does not depend on their order.
    before, after = losses["normal"], removed
    both = before.ops[edge]["conv_3x3"] + after.ops[edge]["skip_connect"]
    assert before.edges[edge] == pytest.approx(both, abs=1e-6)


def test_cells_are_derived_from_the_cost_of_removals(
    run: Path, losses: dict[str, LossIncreases]
) -> None:
    genotype = derive(run, perturbation=Perturbation())
    for name, cell in (("normal", genotype.normal), ("reduction", genotype.reduction)):
        cell_losses = losses[name]
        assert cell == choose_cell(cell_losses.ops, 2, None, cell_losses.edges)
        for number, first in enumerate((0, 2)):
            for edge in cell[number]:
                scores = cell_losses.ops[first + edge.source]
                assert edge.op == max(scores, key=scores.__getitem__)
    limited = derive(run, keep=3, max_skip=0, perturbation=Perturbation())
    assert count_skips(limited) == 0
    assert [len(node) for node in limited.normal] == [2, 3]


def test_the_clips_measured_fill_whole_batches(
    run: Path, losses: dict[str, LossIncreases], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(run, num_clips=18) == losses
    for requested, used in ((1, 6), (11, 6), (12, 12)):
        assert measure(run, num_clips=requested) != losses
        assert f"on {used} clips" in capsys.readouterr().err


def test_only_the_validation_half_is_used(
    run: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    original = Cache.load

    def spy(self: Cache, indices: np.ndarray) -> object:
        loaded.extend(indices)
        return original(self, indices)

    monkeypatch.setattr(Cache, "load", spy)
    measure(run, num_clips=1)
    with Cache.open(tiny_cache) as cache:
        assert set(loaded) == set(cache.indices("xsub", 0).tolist())


def test_a_moved_cache_is_accepted_and_another_is_refused(
    run: Path, tiny_cache: Path, losses: dict[str, LossIncreases], tmp_path: Path
) -> None:
    config = run_dir.read_config(run) | {"cache": str(tmp_path / "gone.h5")}
    with pytest.raises(InputError, match=r"gone\.h5: the cache of the search is missing") as caught:
        measure_losses(run, config)
    assert "--cache" in str(caught.value.hint)
    assert measure_losses(run, config, cache=tiny_cache) == losses
    write_tiny_cache(tmp_path / "other.h5", seed=1)
    with pytest.raises(InputError, match=r"other\.h5: not the clips that"):
        measure_losses(run, config, cache=tmp_path / "other.h5")
    write_tiny_cache(tmp_path / "centred.h5", replace(LAYOUT, center_joint=2))
    with pytest.raises(InputError, match=r"centred\.h5: not the clips that"):
        measure_losses(run, config, cache=tmp_path / "centred.h5")
    old = {key: value for key, value in config.items() if key != "layout"}  # as 0.1.0 wrote it
    assert measure_losses(run, old, cache=tiny_cache) == losses


def test_runs_that_cannot_be_measured_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--epoch needs --select alphas"):
        derive(run, epoch=1, perturbation=Perturbation())
    config = run_dir.read_config(run)
    with pytest.raises(InputError, match="no checkpoint yet"):
        measure_losses(tmp_path, config)
    with pytest.raises(InputError, match="settings of another version of skelnas"):
        measure_losses(run, config | {"settings": {"epoch": 1}})
    wider = {**config, "settings": {**config["settings"], "channels": 3}}
    with pytest.raises(InputError, match="not a checkpoint of this search"):
        measure_losses(run, wider)
    with pytest.raises(InputError, match="None: the cache of the search is missing"):
        measure_losses(run, {**config, "cache": None})


def test_a_loss_of_nan_is_refused(run: Path, tmp_path: Path) -> None:
    tensors, position = load_checkpoint(run / run_dir.CHECKPOINT)
    broken = {**tensors, "model/classifier.bias": tensors["model/classifier.bias"] * math.nan}
    save_checkpoint(tmp_path / run_dir.CHECKPOINT, broken, position)
    with pytest.raises(InputError, match="the loss of its supernet is not finite"):
        measure_losses(tmp_path, run_dir.read_config(run))


def test_measuring_does_not_change_the_run(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    measure(run, num_clips=1)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
