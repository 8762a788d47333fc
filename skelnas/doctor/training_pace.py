"""Estimate the time and memory of a training from a few of its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from skelnas.config import ClipSettings, SearchSettings, TrainSettings
from skelnas.data.dataset import Batch, Dataset
from skelnas.doctor.pace import Pace, Size, Step, extrapolate, make_noise
from skelnas.genotype import Genotype
from skelnas.models.cost import NetworkShape, make_cost_table
from skelnas.nas.budget import Budget
from skelnas.nas.draw import draw_genotype
from skelnas.primitives import candidates
from skelnas.runtime import console, devices
from skelnas.training.card import ModelCard
from skelnas.training.run_dir import RunDir
from skelnas.training.trainer import Trainer

TRAINING_HINT = "use a smaller --batch-size or fewer --channels, in the file of --train-config"
"""If a step of a training needs too much memory."""


@dataclass(frozen=True)
class TrainingsPace:
    """Estimated time of a search by short trainings. The field names are keys of ``--json``.

    Attributes:
        trainings: of all genotypes, on all folds.
        jobs: trainings at a time.
        training: one of them, of a random genotype within the budget.
        total_seconds: of all, if those at the same time do not slow each other down.
    """

    trainings: int
    jobs: int
    training: Pace
    total_seconds: float


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


def measure_trainings(
    settings: SearchSettings, training: TrainSettings, size: Size, device: torch.device
) -> TrainingsPace:
    """Time steps of a training of a search by short trainings, and estimate the whole search.

    Args:
        settings: of the search.
        training: of its trainings.
        size: of all training clips, of which each fold leaves some out.
        device: where it runs.

    Raises:
        UsageError: no genotype is within the budget.
        DeviceError: as for `measure_training`.
    """
    shape = NetworkShape.of(training, size.layout, size.persons, size.classes, settings.nodes)
    costs = make_cost_table(shape, candidates(settings.space))
    genotype = draw_genotype(settings.seed, costs, Budget(settings.max_params, settings.max_macs))
    of_fold = replace(size, clips=size.clips - size.clips // settings.folds)
    torch.set_num_threads(training.threads or 1)
    pace = measure_training(training, genotype, of_fold, device)
    trainings = settings.genotypes * settings.folds
    rounds = -(-trainings // settings.jobs)
    return TrainingsPace(trainings, settings.jobs, pace, rounds * pace.total_seconds)
