"""`skelnas evaluate`: cache and model → metrics."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from skelnas import devices
from skelnas.batches import ClipStore, clip_shape
from skelnas.cache import Cache
from skelnas.config import EvaluateSettings
from skelnas.console import progress
from skelnas.errors import InputError
from skelnas.model_folder import ModelCard, load_model
from skelnas.models.complexity import Complexity, measure
from skelnas.scoring import Metrics, score
from skelnas.scoring import measure as measure_scores
from skelnas.sources.base import Test

DEFAULTS = EvaluateSettings()


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the test part of a protocol, and what it costs.

    Attributes:
        protocol: the split.
        num_clips: of its test part.
        chance: top-1 of always naming the most frequent class of the test part.
        metrics: accuracy and confusion.
        complexity: parameters, MACs and FLOPs at the model's own input shape.
        card: what the model is.
    """

    protocol: str
    num_clips: int
    chance: float
    metrics: Metrics
    complexity: Complexity
    card: ModelCard

    def confusion_csv(self) -> str:
        """Return the confusion matrix as CSV: a row a true class, a column a predicted one."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["true class", *self.card.classes])
        for name, counts in zip(self.card.classes, self.metrics.confusion.tolist(), strict=True):
            rows.writerow([name, *counts])
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain containers, for JSON."""
        return {
            "protocol": self.protocol,
            "clips": self.num_clips,
            "top1": self.metrics.top1,
            "top5": self.metrics.top5,
            "mean_class_accuracy": self.metrics.mean_class,
            "chance": self.chance,
            "parameters": self.complexity.parameters,
            "macs": self.complexity.macs,
            "flops": self.complexity.flops,
            "classes": self.card.classes,
            "per_class": self.metrics.per_class,
            "confusion": self.metrics.confusion.tolist(),
            "model": asdict(self.card),
        }


def evaluate(
    cache_path: Path, model_path: Path, settings: EvaluateSettings = DEFAULTS
) -> Evaluation:
    """Score a trained model on the test part of a protocol.

    Args:
        cache_path: a skeleton cache with the joints and classes that the model knows.
        model_path: a model folder or a ``model.safetensors``.
        settings: see `EvaluateSettings`.

    Raises:
        InputError: cache or model are broken or do not fit each other.
    """
    device = devices.choose(settings)
    network, card = load_model(model_path)
    with Cache.open(cache_path) as cache:
        _check_fit(cache, card, cache_path, model_path)
        complexity = measure(network, card.input_shape)
        devices.place(network, device)
        protocol = cache.choose_protocol(settings.protocol or card.protocol)
        clips = cache.load_part(protocol, Test)
        layout, persons = cache.layout, cache.max_persons
        how = card.make_clip_settings()
        store = ClipStore(clips, layout, persons, how, device, settings.store)
    with progress("evaluate", len(store)) as meter:
        logits = score(network, store, settings.batch_size, meter.advance)
    metrics = measure_scores(logits, store.labels.cpu())
    frequency = torch.bincount(store.labels.cpu()).max().item()
    return Evaluation(protocol, len(store), frequency / len(store), metrics, complexity, card)


def _check_fit(cache: Cache, card: ModelCard, cache_path: Path, model_path: Path) -> None:
    channels, _, joints = clip_shape(cache.layout, cache.max_persons, card.make_clip_settings())
    known_channels, _, known_joints = card.input_shape
    if (channels, joints) != (known_channels, known_joints):
        raise InputError(
            f"{cache_path}: {joints} joints of {channels} numbers do not fit {model_path}, "
            f"which knows {known_joints} of {known_channels}",
            hint=f"the model was trained on {card.source}, the cache is of {cache.source}",
        )
    if cache.classes != card.classes:
        raise InputError(
            f"{cache_path}: its {len(cache.classes)} classes are not the {len(card.classes)} of "
            f"{model_path}",
            hint=f"the model was trained on {card.source}, the cache is of {cache.source}",
        )
