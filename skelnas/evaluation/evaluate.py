"""`skelnas evaluate`: cache and model → metrics."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skelnas.config import EvaluateSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset, clip_shape
from skelnas.data.readers.base import Test
from skelnas.data.splits import split_training_part
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.latency import Latency, time_passes
from skelnas.evaluation.scores import Comparison, Labels, Scores, compare, holds_scores, read
from skelnas.models.branches import AnyNetwork, parts
from skelnas.models.complexity import Complexity, measure
from skelnas.models.network import Network
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import progress
from skelnas.training.inference import score
from skelnas.training.metrics import Metrics
from skelnas.training.saved_model import ModelCard, load_model

DEFAULTS = EvaluateSettings()


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a part of a protocol that it has not seen, and what it costs.

    Attributes:
        scores: of the clips of that part, and what they say.
        complexity: parameters, MACs and FLOPs at the model's own input shape.
        card: what the model is.
        at_size: parameters, MACs and FLOPs at the input size that was asked for, or None.
        comparison: with another model or file of scores, or None.
        latency: of a batch of one clip and of a whole batch, or None.
        views: how many stretches of each clip were scored, each at the cost of a clip.
    """

    scores: Scores
    complexity: Complexity
    card: ModelCard
    at_size: tuple[str, Complexity] | None = None
    comparison: Comparison | None = None
    latency: list[Latency] | None = None
    views: int = 1

    @property
    def metrics(self) -> Metrics:
        """Accuracy, confusion and calibration."""
        return self.scores.metrics

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain containers, for JSON."""
        return {
            **self.scores.to_dict(),
            "views": self.views,
            "parameters": self.complexity.parameters,
            "macs": self.complexity.macs,
            "flops": self.complexity.flops,
            "at_input_size": self.at_size and _complexity(*self.at_size),
            "comparison": self.comparison and self.comparison.to_dict(),
            "latency": self.latency and [asdict(latency) for latency in self.latency],
            "model": self.card.to_dict(),
        }


def evaluate(
    cache_path: Path,
    model_path: Path,
    settings: EvaluateSettings = DEFAULTS,
    other_path: Path | None = None,
) -> Evaluation:
    """Score a trained model on the test part of a protocol, or on what was held out.

    Args:
        cache_path: a skeleton cache with the joints and classes that the model knows.
        model_path: a model folder or a ``model.safetensors``.
        settings: see `EvaluateSettings`.
        other_path: another model, or a file of scores, to compare with on the same clips.

    Raises:
        InputError: cache, model or scores are broken or do not fit each other.
        UsageError: the model was trained on all there is, and what was held out is asked for.
    """
    with distributed.joined(settings.rank_timeout):
        device = devices.choose(settings)
        settings = devices.resolve_precision(settings, device)
        if settings.latency and distributed.world_size() > 1:
            raise UsageError("--latency times one process, not several ranks side by side")
        model = load_model(model_path)
        network, card = model.network, model.card
        with Cache.open(cache_path) as cache:
            _check_fit(cache, card, model_path)
            complexity = measure(network, card.input_shape)
            at_size = _measure_at(settings.input_size, network, card)
            protocol = cache.choose_protocol(settings.protocol or card.protocol)
            other = None
            if other_path is not None:
                other = _score_other(other_path, cache, protocol, settings, device)
            scores = _score(network, card, model_path, cache, protocol, settings, device)
        comparison = None
        if other is not None and other_path is not None:
            comparison = compare(scores, other, model_path, other_path)
        latency = None
        if settings.latency:
            latency = [
                time_passes(
                    network, card.input_shape, device, size, settings.passes, settings.precision
                )
                for size in (1, settings.batch_size)
            ]
        views = settings.views
        return Evaluation(scores, complexity, card, at_size, comparison, latency, views)


def _score(
    network: AnyNetwork,
    card: ModelCard,
    path: Path,
    cache: Cache,
    protocol: str,
    settings: EvaluateSettings,
    device: torch.device,
) -> Scores:
    """Score a model on clips of a cache that it fits."""
    if settings.part == "test":
        clips = cache.load(cache.nonempty_indices(protocol, Test))
    else:
        clips = cache.load(_held_out(cache, protocol, card, path))
    layout, persons = cache.layout, cache.max_persons
    dataset = Dataset(clips, layout, persons, card.make_clip_settings(), device, settings.store)
    devices.move(network, device)
    exactly = devices.precision(settings.precision)
    with exactly, progress("evaluate", len(dataset)) as meter:
        how = (settings.batch_size, meter.advance, settings.precision, settings.views)
        logits = score(network, dataset, *how)
    about = Labels(clips.names, card.classes, protocol, settings.part)
    return Scores(about, logits.numpy(), clips.labels)


def _score_other(
    path: Path, cache: Cache, protocol: str, settings: EvaluateSettings, device: torch.device
) -> Scores:
    """Score the model to compare with on the same part, or read its scores."""
    if holds_scores(path):
        return read(path)
    model = load_model(path)
    network, card = model.network, model.card
    if not settings.protocol and card.protocol != protocol:
        raise UsageError(
            f"{path}: was trained on {card.protocol}, and cannot be compared on {protocol}, "
            "whose test clips it may have learned from",
            hint=f"--protocol {protocol} compares them all the same",
        )
    _check_fit(cache, card, path)
    return _score(network, card, path, cache, protocol, settings, device)


def _measure_at(size: str, network: AnyNetwork, card: ModelCard) -> tuple[str, Complexity] | None:
    """Count a network at another input size, such as 224x224; None if there is none to count."""
    if not size:
        return None
    frames, joints = map(int, size.split("x"))
    channels, _, known_joints = card.input_shape
    if card.baseline is not None and joints != known_joints:
        raise UsageError(
            f"--input-size {size}: {joints} joints, but {card.baseline} is made for the "
            f"{known_joints} that it was trained with",
            hint=f"any number of frames will do, such as 224x{known_joints}",
        )
    resized = copy.deepcopy(network)
    for part in parts(resized):
        if isinstance(part, Network):
            part.input_norm = nn.Identity()  # knows its joints, and is not counted
    return size, measure(resized, (channels, frames, joints))


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


def _check_fit(cache: Cache, card: ModelCard, model_path: Path) -> None:
    channels, _, joints = clip_shape(cache.layout, cache.max_persons, card.make_clip_settings())
    known_channels, _, known_joints = card.input_shape
    if (channels, joints) != (known_channels, known_joints):
        raise InputError(
            f"{cache.path}: {joints} joints of {channels} numbers do not fit {model_path}, "
            f"which knows {known_joints} of {known_channels}",
            hint=f"the model was trained on {card.source}, the cache is of {cache.source}",
        )
    if cache.classes != card.classes:
        raise InputError(
            f"{cache.path}: its {len(cache.classes)} classes are not the {len(card.classes)} of "
            f"{model_path}",
            hint=f"the model was trained on {card.source}, the cache is of {cache.source}",
        )
