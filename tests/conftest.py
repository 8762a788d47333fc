"""Fixtures of many tests: the folder of real recordings, and a small cache to learn from."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skelnas.config import SearchSettings
from skelnas.data.cache import CacheWriter
from skelnas.data.readers.base import Layout, Recording, Test, Train

LAYOUT = Layout(
    joints=("spine_base", "spine_mid", "hip_left", "hip_right", "hand_left"),
    bones=((1, 0), (2, 0), (3, 0), (4, 1)),
    center_joint=1,
)
BODY = np.array(
    [[0, 0, 3], [0, 0.5, 3], [0.2, 0, 3], [-0.2, 0, 3], [0.5, 0.5, 3]], dtype=np.float32
)

TINY_SEARCH = SearchSettings(
    frames=4,
    layers=3,
    channels=1,
    nodes=1,
    epochs=3,
    batch_size=9,
    order="first",
    device="cpu",
    alpha_lr=0.05,
)
"""A search of the tiny cache that takes a moment."""

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
torch.set_num_threads(1)  # tensors are small: more threads only wait for each other


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips of 3 classes, 5 joints and up to 2 persons; a class is a frequency."""
    path = tmp_path_factory.mktemp("cache") / "tiny.h5"
    write_tiny_cache(path)
    return path


def overflow(classifier: nn.Linear) -> None:
    """Give a classifier weights that are finite, with logits that are not."""
    for numbers in (classifier.weight, classifier.bias):
        nn.init.constant_(numbers, torch.finfo(torch.float32).max)


def write_tiny_cache(
    path: Path,
    layout: Layout = LAYOUT,
    classes: Sequence[str] = ("still", "wave", "pair"),
    num_clips: int = 48,
    seed: int = 0,
    only: int | None = None,
    source: str = "tiny",
    offset: float = 0,
) -> None:
    """Write a cache of made-up clips; a layout of fewer joints drops the last ones.

    `only` puts all clips into one part, Train or Test; `offset` is added to all coordinates.
    """
    path.unlink(missing_ok=True)
    generator = np.random.default_rng(seed)
    joints = len(layout.joints)
    with CacheWriter(path, source=source, rule={"rule": "none"}, layout=layout, max_persons=2) as w:
        for index in range(num_clips):
            label = index % 3
            persons, frames = 1 + label // 2, int(generator.integers(5, 15))
            poses = np.tile(BODY, (persons, frames, 1, 1))
            wave = np.sin((label + 1) * np.arange(frames) / 2 + generator.uniform(0, 6))
            poses[:, :, 4, 1] += wave
            poses += generator.normal(0, 0.02, poses.shape)
            poses[1:] += 1
            poses += offset
            w.add(
                Recording(
                    name=f"clip{index:03}",
                    label=label,
                    poses=poses[:, :, :joints].astype(np.float32),
                    present=np.ones((persons, frames), dtype=bool),
                    subject=index // 3 % 4,
                )
            )
        parts = np.where(w.table().subjects < 3, Train, Test).astype(np.int8)
        if only is not None:
            parts[:] = only
        w.finish(
            classes=list(classes),
            splits={"xsub": parts},
            skipped=[],
            failed=[],
        )
