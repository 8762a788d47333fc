"""Compare two ranks with one process after an epoch of search and of training.

    python benchmarks/ranks.py CACHE

Prints the relative distance of weights and of alphas, in float64 and in float32. In float64 it is
due to the order of sums alone; in float32 training amplifies it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.dataset import Batch, Dataset
from skelnas.genotype import random_genotype
from skelnas.nas.search import search
from skelnas.runtime import devices
from skelnas.training.run_dir import CHECKPOINT
from skelnas.training.train import train

CLIPS: dict[str, Any] = {"frames": 16, "align": True, "epochs": 1, "threads": 1}
SEARCH = SearchSettings(**CLIPS, layers=3, channels=4, nodes=2, batch_size=32, engine="reference")
TRAIN = TrainSettings(
    **CLIPS, layers=3, channels=8, batch_size=31, lr=0.05, rotate=15, crop=0.5, drop_path=0.1
)


def work(cache: Path, out: Path, precision: str) -> None:
    if precision == "float64":
        compute_in_float64()
    search(cache, out / "run", SEARCH)
    train(cache, random_genotype(0), out / "model", TRAIN)


def compute_in_float64() -> None:
    make, move = Dataset.batch, devices.move

    def batch(self: Dataset, *args: Any, **kwargs: Any) -> Batch:
        original = make(self, *args, **kwargs)
        return replace(original, x=original.x.double())

    Dataset.batch = batch  # type: ignore[method-assign]
    devices.move = lambda model, device: move(model.double(), device)


def compare(cache: Path) -> None:
    one, two = [sys.executable], ["torchrun", "--nproc-per-node", "2"]
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float64", "float32"):
            for name, launcher in (("one", one), ("two", two)):
                out = Path(folder) / precision / name
                arguments = [__file__, str(cache), "--out", str(out), "--precision", precision]
                subprocess.run([*launcher, *arguments], check=True)
            for what, kind in (("run", "weights"), ("run", "alphas"), ("model", "weights")):
                ours, theirs = (
                    read_vector(Path(folder) / precision / name / what / CHECKPOINT, kind)
                    for name in ("one", "two")
                )
                distance = ((ours - theirs).norm() / ours.norm()).item()
                print(f"{precision}  {what:5}  {kind:7}  {distance:.1e}")


def read_vector(checkpoint: Path, kind: str) -> torch.Tensor:
    """Return all weights or all alphas of a checkpoint as one vector."""
    tensors = {name: t for name, t in load_file(checkpoint).items() if name.startswith("model/")}
    chosen = [t for name, t in tensors.items() if ("alphas" in name) == (kind == "alphas")]
    return torch.cat([tensor.double().flatten() for tensor in chosen])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--precision", choices=("float32", "float64"))
    options = parser.parse_args()
    if options.out is None:
        compare(options.cache)
    else:
        work(options.cache, options.out, options.precision)
