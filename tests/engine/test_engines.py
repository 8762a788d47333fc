"""A whole search with either engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupting import stop_after

from skelnas.config import SearchSettings
from skelnas.data.dataset import Batch, Dataset
from skelnas.errors import Interrupted, UsageError
from skelnas.nas.derive import derive
from skelnas.nas.search import search
from skelnas.runtime import devices
from skelnas.training import run_dir

SMALL = SearchSettings(
    frames=6, layers=3, channels=2, nodes=2, epochs=3, batch_size=6, device="cpu", alpha_lr=0.05
)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches count in float64."""
    batch = Dataset.batch
    move = devices.move

    def exact_batch(self: Dataset, *args: Any, **named: Any) -> Batch:
        coarse = batch(self, *args, **named)
        return replace(coarse, x=coarse.x.double())

    def move_exact(model: torch.nn.Module, device: torch.device) -> None:
        move(model.double(), device)

    monkeypatch.setattr(Dataset, "batch", exact_batch)
    monkeypatch.setattr(devices, "move", move_exact)


def alphas(run: Path) -> torch.Tensor:
    last = run_dir.read_lines(run / run_dir.ALPHAS)[-1]
    return torch.tensor([last["normal"], last["reduction"]], dtype=torch.float64)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", ["first", "second"])
def test_both_engines_find_the_same_alphas_and_genotype(
    tiny_cache: Path, tmp_path: Path, order: str
) -> None:
    found = {}
    for engine in ("reference", "fused"):
        settings = SMALL.model_copy(update={"engine": engine, "order": order})
        search(tiny_cache, tmp_path / engine, settings)
        found[engine] = alphas(tmp_path / engine), derive(tmp_path / engine)
        line = run_dir.read_lines(tmp_path / engine / run_dir.METRICS)[-1]
        assert line["engine"] == engine
    torch.testing.assert_close(found["fused"][0], found["reference"][0], rtol=0, atol=1e-6)
    assert found["fused"][1] == found["reference"][1]
    start = torch.tensor(
        [run_dir.read_lines(tmp_path / "fused" / run_dir.ALPHAS)[0][cell] for cell in ("normal",)]
    )
    assert (found["fused"][0][0] - start).abs().max() > 0.1, "alphas must move for this to say much"


@pytest.mark.usefixtures("float64")
def test_a_run_can_resume_with_another_engine(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, reference = (SMALL.model_copy(update={"engine": e}) for e in ("fused", "reference"))
    search(tiny_cache, tmp_path / "whole", fused)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            search(tiny_cache, tmp_path / "changed", fused)
    search(tiny_cache, tmp_path / "changed", reference, resume=True)
    torch.testing.assert_close(
        alphas(tmp_path / "changed"), alphas(tmp_path / "whole"), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "engine"),
    [({}, "fused"), ({"hessian": "exact"}, "reference"), ({"precision": "bf16"}, "reference")],
)
def test_auto_is_fused_unless_settings_need_the_reference(
    tiny_cache: Path, tmp_path: Path, changes: dict[str, str], engine: str
) -> None:
    once = {"epochs": 1, "layers": 1}
    search(tiny_cache, tmp_path / "run", SMALL.model_copy(update=once | changes))
    assert run_dir.read_lines(tmp_path / "run" / run_dir.METRICS)[0]["engine"] == engine


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hessian": "exact"}, "--engine fused cannot be differentiated twice"),
        ({"precision": "bf16"}, "--engine fused cannot compute in bfloat16"),
    ],
)
def test_the_fused_engine_refuses_unsupported_settings(
    tiny_cache: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    settings = SMALL.model_copy(update={"engine": "fused"} | changes)
    with pytest.raises(UsageError, match=message):
        search(tiny_cache, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
