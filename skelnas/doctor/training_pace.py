"""Estimate the time and memory of a training from a few of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from skelnas.config import ClipSettings, TrainSettings
from skelnas.data.dataset import Batch, Dataset
from skelnas.doctor.pace import Pace, Size, Step, extrapolate, make_noise
from skelnas.genotype import Genotype
from skelnas.runtime import console, devices
from skelnas.training.run_dir import RunDir
from skelnas.training.saved_model import ModelCard
from skelnas.training.trainer import Trainer

TRAINING_HINT = "use a smaller --batch-size or fewer --channels, in the file of --train-config"
"""If a step of a training needs too much memory."""


class _Noise:
    """What a `Trainer` asks of its dataset, with clips of noise that are made only once."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size = size
        self.shape = size.shape
        self.device = device
        self.labels = torch.arange(size.clips, device=device) % size.classes
        self._batches: dict[int, Batch] = {}

    def __len__(self) -> int:
        return self.size.clips

    def batch(self, indices: Tensor, *_: object) -> Batch:
        """Return the batch of so many clips."""
        count = len(indices)
        if count not in self._batches:
            self._batches = {count: make_noise(self.size, count, self.device)}
        return self._batches[count]


def measure_training(
    settings: TrainSettings, genotype: Genotype, size: Size, device: torch.device
) -> Pace:
    """Time steps of a training on noise, and estimate the whole training.

    Making batches, and scoring held-out clips, is not included.

    Raises:
        InputError: the genotype cannot be trained on such clips.
        DeviceError: the device cannot compute with the requested precision.
    """
    settings = devices.resolve_precision(settings, device)
    card = ModelCard(
        genotype=genotype.to_dict(),
        channels=settings.channels,
        layers=settings.layers,
        input_norm=settings.input_norm,
        branches=settings.branches,
        classes=[str(number) for number in range(size.classes)],
        input_shape=size.shape,
        joints=list(size.layout.joints),
        layout=size.layout,
        clip_settings=settings.model_dump(include=set(ClipSettings.model_fields)),
        source="noise",
        protocol="",
        versions={},
    )
    with console.muted():
        noise = cast("Dataset", _Noise(size, device))
        trainer = Trainer(RunDir(Path(), writes=False), settings, noise, card)

    def prepare_step(num_clips: int) -> Step:
        item = (torch.arange(num_clips),)
        return lambda: trainer.take_step(item)[0]

    return extrapolate(prepare_step, settings, size, device)
