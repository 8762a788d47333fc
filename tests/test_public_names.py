"""The public names of the package, such as `skelnas.search`, imported on first use."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import write_tiny_cache

import skelnas
from skelnas.config import TrainSettings
from skelnas.data.cache import Cache
from skelnas.genotype import random_genotype
from skelnas.training.saved_model import Model
from skelnas.training.train import train


def test_every_public_name_is_found_in_its_module() -> None:
    assert sorted(dir(skelnas)) == sorted(skelnas.__all__)
    for module, names in skelnas._EXPORTS.items():
        for name in names:
            assert getattr(skelnas, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        skelnas.nothing  # noqa: B018


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(str(skelnas.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {n.names[0].name: n.module for n in block.body if isinstance(n, ast.ImportFrom)}
    assert seen == {name: module for module, names in skelnas._EXPORTS.items() for name in names}


def test_importing_skelnas_imports_nothing_heavy() -> None:
    script = (
        "import sys, skelnas\nprint(*({'torch', 'numpy', 'pydantic', 'h5py'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "\n"


def test_a_loaded_model_is_a_plain_module(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "c.h5")
    settings = TrainSettings(frames=6, layers=3, channels=2, epochs=1, device="cpu")
    train(tmp_path / "c.h5", random_genotype(0), tmp_path / "model", settings)
    model = skelnas.load_model(str(tmp_path / "model"))
    assert isinstance(model, Model)
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    clips = torch.randn(4, *model.card.input_shape)
    assert torch.equal(model(clips), model.network(clips))
    assert model(clips).shape == (4, len(model.card.classes))
    model.train()
    loss = model(clips).sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(model.double()(clips.double()).float().isfinite(), torch.ones(4, 3) == 1)


def test_results_are_short_where_they_are_shown(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "c.h5")
    settings = TrainSettings(frames=6, layers=3, channels=2, epochs=1, device="cpu")
    trained = train(tmp_path / "c.h5", random_genotype(0), tmp_path / "model", settings)
    assert repr(trained) == f"TrainedModel({str(trained.path)!r})"
    on_cpu = skelnas.EvaluateSettings(device="cpu")
    result = skelnas.evaluate(tmp_path / "c.h5", tmp_path / "model", on_cpu)
    accuracy = f"xsub test, 12 clips, top-1 {result.top1:.1%}"
    assert repr(result.scores) == f"Scores({accuracy})"
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    assert repr(result) == f"Evaluation({accuracy}, {parameters:,} parameters)"
    assert result.top1 == result.to_dict()["top1"]
    with Cache.open(tmp_path / "c.h5") as cache:
        expected = f"Inspection({str(cache.path)!r}, 48 clips of 3 classes, protocols: xsub)"
        assert repr(skelnas.inspect(cache)) == expected


def test_paths_may_be_text_and_architectures_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_cache(Path("c.h5"))
    small = {"frames": 6, "layers": 3, "channels": 2, "epochs": 1, "device": "cpu"}
    settings = TrainSettings(**small, batch_size=9)
    skelnas.search("c.h5", "run", skelnas.SearchSettings(**small, nodes=1))
    genotype = skelnas.derive("run")
    skelnas.train("c.h5", genotype, "model", settings)
    skelnas.train("c.h5", "random:0", "drawn", settings)
    assert skelnas.load_model("drawn").card.genotype == random_genotype(0).to_dict()
    assert skelnas.resume("model").path == Path("model/model.safetensors")
    on_cpu = skelnas.EvaluateSettings(device="cpu")
    comparison = skelnas.evaluate("c.h5", "model", on_cpu, "drawn").comparison
    assert comparison is not None
    assert comparison.other == "drawn"
    skelnas.cross_validate("c.h5", "random:1", "folds", settings, count=2)
    assert skelnas.export("model", "m.safetensors", "safetensors-fused").path == "m.safetensors"
    assert skelnas.report("run", "page.html") == Path("page.html")
    assert {"folds", "m.safetensors", "page.html"} <= {path.name for path in Path().iterdir()}
