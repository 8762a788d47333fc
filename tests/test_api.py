"""The functions for programs are those that the commands call, and importing them is quick."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import write_tiny_cache

import skelnas
from skelnas import api
from skelnas.config import TrainSettings
from skelnas.genotype import random_genotype
from skelnas.model_folder import Model
from skelnas.train import train


def test_names_are_found_where_they_live() -> None:
    listed = [name for names in api.HOMES.values() for name in names]
    assert sorted(listed) == sorted(api.__all__)
    for module, names in api.HOMES.items():
        for name in names:
            assert getattr(api, name) is getattr(import_module(f"skelnas.{module}"), name)
    for place in (api, skelnas):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            place.nothing  # noqa: B018


def test_importing_takes_nothing_along() -> None:
    script = (
        "import sys, skelnas, skelnas.api\n"
        "print(*({'torch', 'numpy', 'pydantic', 'h5py'} & sys.modules.keys()))"
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
