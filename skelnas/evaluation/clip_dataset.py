"""Clips for training loops and runtimes of one's own: as a PyTorch dataset, and in batches.

    data = load_dataset("clips.h5", "train", TrainSettings(frames=64))
    for clips, labels in data.loader(epoch=0):
        ...

Shapes: N clips, C channels, T frames, V joints of all persons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import data

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset, shuffled_batches
from skelnas.data.matching import origin_of
from skelnas.data.readers.base import Test
from skelnas.data.splits import split_training_part
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.evaluate import load_clips, make_dataset
from skelnas.evaluation.fit import fit_cache
from skelnas.genotype import Genotype
from skelnas.models.create import find_architecture
from skelnas.runtime import devices
from skelnas.runtime.seed import random_seed
from skelnas.training.flip import choose_flip
from skelnas.training.saved_model import Model
from skelnas.training.train import describe_data, describe_network, make_card
from skelnas.training.trainer import STREAM_AUGMENT, STREAM_INIT, STREAM_ORDER

Part = Literal["train", "held-out", "test"]

Pair = tuple[Tensor, Tensor]
"""Clips and their labels: [C, T, V] and [], or [N, C, T, V] and [N]."""

TRAIN_DEFAULTS, EVALUATE_DEFAULTS = TrainSettings(), EvaluateSettings()


@dataclass(frozen=True)
class _Training:
    """What a training model needs to know of its clips, see `ClipDataset.create_model`."""

    path: Path
    settings: TrainSettings
    card_fields: dict[str, Any]


class ClipDataset(data.Dataset[Pair]):
    """The clips of one part of a protocol, made into the input of a network on its device.

    An item is a float32 clip [C, T, V] and its int64 label. Training clips are augmented, by
    PyTorch's global random generator; `loader` gives exactly the batches of a training instead.

    Made by `load_dataset` and `load_dataset_for`.

    Attributes:
        names: [N], of the clips.
        labels: [N] int64, on the device.
        classes: names, in the order of the labels.
        layout: joints and channels of one person.
        max_persons: whose joints are side by side in a clip.
        shape: (C, T, V) of a clip.
    """

    def __init__(
        self,
        clips: Dataset,
        names: Sequence[str],
        classes: Sequence[str],
        batch_size: int,
        training: _Training | None = None,
    ) -> None:
        self._clips = clips
        self._batch_size = batch_size
        self._training = training
        self._settings = None if training is None else training.settings
        self.names, self.classes = list(names), list(classes)
        self.labels, self.shape = clips.labels, clips.shape
        self.layout, self.max_persons = clips.layout, clips.max_persons

    def __len__(self) -> int:
        """Count the clips."""
        return len(self._clips)

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        return f"ClipDataset({len(self)} clips [{shape}] of {len(self.classes)} classes)"

    def __getitem__(self, index: int) -> Pair:
        """Return a clip [C, T, V] and its label []."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Pair]:
        """Return several clips and their labels, made at once; `DataLoader` asks for batches so."""
        chosen = torch.tensor(indices)
        if not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise IndexError(f"clips are 0 to {len(self) - 1}, not {list(indices)}")
        batch = self._clips.batch(chosen % len(self), self._settings)
        return list(zip(batch.x, batch.labels, strict=True))

    def loader(self, epoch: int = 0) -> data.DataLoader[Pair]:
        """Return the batches of an epoch: clips [N, C, T, V] and labels [N].

        Those of a training are shuffled and augmented, the same bit for bit as in
        `skelnas.train` with the same settings in one process; a last batch that is not full is
        dropped. Other clips come in their order, all of them.

        Args:
            epoch: from 0, in a training.
        """
        batches = _Epoch(self._clips, self._batch_size, self._settings, epoch)
        return data.DataLoader(batches, batch_size=None)

    def create_model(self, architecture: Genotype | str) -> Model:
        """Create a model for training clips, with the weights that `skelnas.train` begins with.

        Once it has learned, `skelnas.save_pretrained` saves it for all commands. With
        `branches`, it returns logits [N, classes, branches] in training mode.

        Args:
            architecture: a genotype, its file, ``random:SEED`` or a name of `list_models`; width
                and number of cells are those of the settings.

        Raises:
            UsageError: the clips are not those of a training, or there is no such architecture.
            InputError: a baseline needs bones, and the cache has none.
        """
        if self._training is None:
            raise UsageError(
                "a model is made for training clips", hint='load_dataset(cache, "train") loads them'
            )
        settings = self._training.settings
        fields, _ = describe_network(find_architecture(architecture), settings)
        card = make_card(self._training.card_fields, fields, self._training.path)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random_seed(settings.seed, STREAM_INIT))
            return Model(card.make_network(), card)


class _Epoch(data.Dataset[Pair]):
    """The batches of an epoch."""

    def __init__(
        self, clips: Dataset, batch_size: int, settings: TrainSettings | None, epoch: int
    ) -> None:
        self._clips, self._epoch, self._settings = clips, epoch, settings
        indices = torch.arange(len(clips))
        self._batches = list(torch.split(indices, batch_size))
        if self._settings is not None:
            seed = random_seed(self._settings.seed, STREAM_ORDER, epoch)
            self._batches = list(shuffled_batches(indices.numpy(), batch_size, seed))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> Pair:
        generator = None
        if self._settings is not None:
            seed = random_seed(self._settings.seed, STREAM_AUGMENT, self._epoch, step)
            generator = torch.Generator().manual_seed(seed)
        batch = self._clips.batch(self._batches[step], self._settings, generator)
        return batch.x, batch.labels


def load_dataset(
    cache_path: Path | str, part: Part = "train", settings: TrainSettings = TRAIN_DEFAULTS
) -> ClipDataset:
    """Load the clips that `skelnas.train` learns from, or those that it does not see.

    Args:
        cache_path: a skeleton cache.
        part: the clips to learn from; those that `hold_out` keeps from them; or the test clips.
        settings: see `TrainSettings`: protocol, clips, augmentation, batch size, seed, device.

    Raises:
        InputError: the cache is broken or has no such clips.
        UsageError: the part is none, nothing is held out, or a training is to start from a model.
        DeviceError: the device is missing.
    """
    if part not in ("train", "held-out", "test"):
        raise UsageError(f'{part!r} is not a part: expected "train", "held-out" or "test"')
    if settings.init:
        raise UsageError(
            f"init={settings.init!r}: clips of a fine-tuning cannot be loaded",
            hint="load_dataset_for(model, cache) loads clips as a trained model takes them",
        )
    with Cache.open(cache_path) as cache:
        protocol = cache.choose_protocol(settings.protocol)
        settings = settings.model_copy(update={"protocol": protocol})
        if settings.flip:
            settings = choose_flip(settings, cache, None)
        divided = split_training_part(cache, protocol, settings.hold_out)
        if part == "held-out" and divided.hold_out is None:
            raise UsageError("nothing is held out", hint="TrainSettings(hold_out=0.2) does")
        indices = {
            "train": divided.train,
            "held-out": divided.held_out,
            "test": cache.indices(protocol, Test),
        }[part]
        if not len(indices):
            raise InputError(f"{cache.path}: the {part} part of {protocol} has no clips")
        clips = cache.load(indices)
        origin = origin_of(cache)
        layout, persons, device = origin.layout, origin.max_persons, devices.choose(settings)
        made = Dataset(clips, layout, persons, settings, device, settings.store)
        training = None
        if part == "train":
            fields = describe_data(cache, clips, layout, divided.hold_out, made.shape, settings)
            training = _Training(cache.path, settings, fields)
        return ClipDataset(made, clips.names, cache.classes, settings.batch_size, training)


def load_dataset_for(
    model: Model, cache_path: Path | str, settings: EvaluateSettings = EVALUATE_DEFAULTS
) -> ClipDataset:
    """Load the clips that `skelnas.evaluate` scores, as a trained model takes them.

    Joints are matched by name; what does not fit the model is refused, as by `evaluate`.

    Args:
        model: from `load_model`; also of its export to another runtime.
        cache_path: a skeleton cache.
        settings: see `EvaluateSettings`: protocol, part, batch size, device.

    Raises:
        InputError, UsageError, DeviceError: as for `skelnas.evaluate`.
    """
    card, path = model.card, Path("the model")
    with Cache.open(cache_path) as cache:
        fit = fit_cache(cache, card, path, allow=settings.allow_mismatch)
        protocol = cache.choose_protocol(settings.protocol or card.protocol)
        clips = load_clips(cache, fit, card, path, protocol, settings).clips
    made = make_dataset(clips, fit, card, devices.choose(settings), settings)
    return ClipDataset(made, clips.names, card.classes, settings.batch_size)
