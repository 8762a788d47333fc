"""`skelnas evaluate`: cache and model → metrics."""

from __future__ import annotations

import copy
import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelnas import devices, parallel
from skelnas.batches import ClipStore, clip_shape
from skelnas.cache import Cache
from skelnas.config import EvaluateSettings, ScoredPart
from skelnas.console import progress
from skelnas.errors import InputError, UsageError
from skelnas.model_folder import ModelCard, load_model
from skelnas.models.complexity import Complexity, measure
from skelnas.models.network import Network
from skelnas.scoring import Metrics, score
from skelnas.scoring import measure as measure_scores
from skelnas.sources.base import Test
from skelnas.splits import split_training_part

DEFAULTS = EvaluateSettings()


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a part of a protocol that it has not seen, and what it costs.

    Attributes:
        protocol: the split.
        part: its test part, or what was held out of its training part.
        num_clips: of that part.
        chance: top-1 of always naming the most frequent class of that part.
        metrics: accuracy and confusion.
        complexity: parameters, MACs and FLOPs at the model's own input shape.
        at_size: the same at the input size that was asked for, or None.
        card: what the model is.
    """

    protocol: str
    part: ScoredPart
    num_clips: int
    chance: float
    metrics: Metrics
    complexity: Complexity
    card: ModelCard
    at_size: tuple[str, Complexity] | None = None

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
            "part": self.part,
            "clips": self.num_clips,
            "top1": self.metrics.top1,
            "top5": self.metrics.top5,
            "mean_class_accuracy": self.metrics.mean_class,
            "nll": self.metrics.nll,
            "ece": self.metrics.ece,
            "chance": self.chance,
            "parameters": self.complexity.parameters,
            "macs": self.complexity.macs,
            "flops": self.complexity.flops,
            "at_input_size": self.at_size and _complexity(*self.at_size),
            "classes": self.card.classes,
            "per_class": self.metrics.per_class,
            "confusion": self.metrics.confusion.tolist(),
            "model": asdict(self.card),
        }


def evaluate(
    cache_path: Path, model_path: Path, settings: EvaluateSettings = DEFAULTS
) -> Evaluation:
    """Score a trained model on the test part of a protocol, or on what was held out.

    Args:
        cache_path: a skeleton cache with the joints and classes that the model knows.
        model_path: a model folder or a ``model.safetensors``.
        settings: see `EvaluateSettings`.

    Raises:
        InputError: cache or model are broken or do not fit each other.
        UsageError: the model was trained on all there is, and what was held out is asked for.
    """
    with parallel.joined(settings.rank_timeout):
        device = devices.choose(settings)
        network, card = load_model(model_path)
        with Cache.open(cache_path) as cache:
            _check_fit(cache, card, cache_path, model_path)
            complexity = measure(network, card.input_shape)
            at_size = _measure_at(settings.input_size, network, card)
            devices.place(network, device)
            protocol = cache.choose_protocol(settings.protocol or card.protocol)
            if settings.part == "test":
                clips = cache.load(cache.part_indices(protocol, Test))
            else:
                clips = cache.load(_held_out(cache, protocol, card, model_path))
            layout, persons = cache.layout, cache.max_persons
            how = card.make_clip_settings()
            store = ClipStore(clips, layout, persons, how, device, settings.store)
        exactly = devices.precision(settings.precision)
        with exactly, progress("evaluate", len(store)) as meter:
            logits = score(network, store, settings.batch_size, meter.advance, settings.precision)
        metrics = measure_scores(logits, store.labels.cpu())
        frequency = torch.bincount(store.labels.cpu()).max().item()
        chance = frequency / len(store)
        return Evaluation(
            protocol, settings.part, len(store), chance, metrics, complexity, card, at_size
        )


def _measure_at(size: str, network: Network, card: ModelCard) -> tuple[str, Complexity] | None:
    """Count a network at another input size, such as 224x224; None if there is none to count."""
    if not size:
        return None
    frames, joints = map(int, size.split("x"))
    shapes_only = copy.deepcopy(network).to("meta")
    try:
        return size, measure(shapes_only, (card.input_shape[0], frames, joints))
    except RuntimeError as error:
        raise UsageError(
            f"--input-size {size}: the model does not take it ({str(error).splitlines()[0]})",
            hint=f"it was trained with {card.input_shape[1]}x{card.input_shape[2]}",
        ) from None


def _complexity(size: str, complexity: Complexity) -> dict[str, Any]:
    counts = {**asdict(complexity), "flops": complexity.flops}
    return {"input_size": [int(number) for number in size.split("x")], **counts}


def _held_out(cache: Cache, protocol: str, card: ModelCard, model_path: Path) -> NDArray[np.int64]:
    """Find the clips that were held out when the model was trained."""
    if card.hold_out is None:
        raise UsageError(
            f"{model_path}: was trained without --hold-out, so nothing was held out",
            hint="--part test scores it on the test part",
        )
    part = split_training_part(cache, protocol, card.hold_out.share)
    if part.hold_out != card.hold_out:
        raise InputError(
            f"{cache.path}: the {card.hold_out.clips} clips that were held out from {model_path} "
            f"are not those that {protocol} would hold out here",
            hint="give the cache and the protocol that the model was trained on",
        )
    return part.held_out


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
