"""`skelnas evaluate`: cache and model → metrics."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skelnas.config import EvaluateSettings
from skelnas.data.cache import Cache, Clips
from skelnas.data.dataset import Dataset
from skelnas.data.readers.base import Test, Train
from skelnas.data.splits import split_training_part
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.fit import Fit, check_unseen, fit_cache, fit_clips
from skelnas.evaluation.latency import Latency, time_passes
from skelnas.evaluation.scores import (
    Comparison,
    Scores,
    ScoresInfo,
    compare_scores,
    is_scores_file,
    note_degenerate,
    read_scores,
)
from skelnas.models.branches import AnyNetwork, parts
from skelnas.models.complexity import Complexity, measure
from skelnas.models.network import Network
from skelnas.models.onnx_network import OnnxNetwork
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import note, progress
from skelnas.training.card import ModelCard
from skelnas.training.inference import check_finite, choose_device, score
from skelnas.training.metrics import Metrics
from skelnas.training.saved_model import Model, load_model

DEFAULTS = EvaluateSettings()


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on clips that it was not trained on, and its cost.

    Attributes:
        scores: of these clips.
        complexity: parameters and multiply-adds at the input shape of the model.
        card: the description of the model.
        at_size: an input size, such as "224x224", and the complexity at that size; or None.
        comparison: with another model or file of scores, or None.
        latency: for a single clip and for a whole batch, or None.
        views: number of views of each clip that were scored, each at the cost of a clip.
        source: the data set of the cache.
    """

    scores: Scores
    complexity: Complexity
    card: ModelCard
    at_size: tuple[str, Complexity] | None = None
    comparison: Comparison | None = None
    latency: list[Latency] | None = None
    views: int = 1
    source: str = ""

    @property
    def metrics(self) -> Metrics:
        """Accuracy, confusion and calibration."""
        return self.scores.metrics

    @property
    def top1(self) -> float:
        """The fraction of the clips that were recognised."""
        return self.scores.top1

    def __repr__(self) -> str:
        return f"Evaluation({self.scores.summarise()}, {self.complexity.parameters:,} parameters)"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain containers, for JSON."""
        return {
            **self.scores.to_dict(),
            "views": self.views,
            "parameters": self.complexity.parameters,
            "macs": self.complexity.macs,
            "flops": self.complexity.flops,
            "at_input_size": self.at_size and _size_to_dict(*self.at_size),
            "comparison": self.comparison and self.comparison.to_dict(),
            "latency": self.latency and [asdict(latency) for latency in self.latency],
            "model": self.card.to_dict(),
        }


def evaluate(
    cache_path: Path | str,
    model_path: Path | str,
    settings: EvaluateSettings = DEFAULTS,
    other_path: Path | str | None = None,
) -> Evaluation:
    """Score a trained model on the test part of a protocol, or on the held-out clips.

    Args:
        cache_path: a skeleton cache with the joints and classes of the model.
        model_path: a model folder, a ``model.safetensors`` or an export.
        settings: see `EvaluateSettings`.
        other_path: another model, or a file of scores, to compare with on the same clips.

    Raises:
        InputError: cache, model or scores are broken or do not fit each other, or the scores of
            the model are not finite.
        UsageError: held-out clips are to be scored, but the model was trained without any; or the
            settings do not fit the model or the number of ranks.
        DeviceError: the device is missing, or does not support the precision.
    """
    cache_path, model_path = Path(cache_path), Path(model_path)
    other_path = None if other_path is None else Path(other_path)
    with distributed.joined(settings.rank_timeout):
        if settings.latency and distributed.world_size() > 1:
            raise UsageError("--latency times a single process, not several ranks")
        model = load_model(model_path)
        choose_device(model.network, settings)  # raises before any work
        with Cache.open(cache_path) as cache:
            fit = fit_cache(cache, model.card, model_path, allow=settings.allow_mismatch)
            complexity = measure(_network_to_measure(model), model.card.input_shape)
            at_size = _measure_at_size(settings.input_size, model)
            protocol = cache.choose_protocol(settings.protocol or model.card.protocol)
            other = None
            if other_path is not None:
                other = _score_other(other_path, cache, protocol, settings)
            scores = score_part(model, model_path, cache, fit, protocol, settings)
        comparison = None
        if other is not None and other_path is not None:
            comparison = compare_scores(scores, other, model_path, other_path)
        if copies := scores.info.copies:
            without = scores.top1_without_copies
            ending = "" if without is None else f"; without them top-1 is {without:.2%}"
            note(
                f"{len(copies):,} of the {len(scores):,} clips have the same numbers as training "
                f"clips{ending}"
            )
        note_degenerate(scores)
        if settings.part == "held-out" and model.card.epoch is not None:
            note("these clips chose the epoch of the weights, so their scores are optimistic")
        return Evaluation(
            scores=scores,
            complexity=complexity,
            card=model.card,
            at_size=at_size,
            comparison=comparison,
            latency=_time(model, settings) if settings.latency else None,
            views=settings.views,
            source=cache.source,
        )


def _network_to_measure(model: Model) -> AnyNetwork:
    """Return a network of the same costs, in PyTorch."""
    network = model.network
    return model.card.make_network() if isinstance(network, OnnxNetwork) else network


def _measure_at_size(size: str, model: Model) -> tuple[str, Complexity] | None:
    """Measure the complexity at another input size, such as "224x224"; None for an empty size."""
    if not size:
        return None
    frames, joints = map(int, size.split("x"))
    channels, _, model_joints = model.card.input_shape
    if joints != model_joints and (fixed := model.card.find_what_fixes_joints()):
        raise UsageError(
            f"--input-size {size}: {joints} joints, but {fixed} is made for the "
            f"{model_joints} that it was trained with",
            hint=f"the number of frames can be changed, as in 224x{model_joints}",
        )
    network = copy.deepcopy(_network_to_measure(model))
    for part in parts(network):
        if isinstance(part, Network):
            part.input_norm = nn.Identity()  # depends on the joints, and is not counted
    return size, measure(network, (channels, frames, joints))


def _score_other(path: Path, cache: Cache, protocol: str, settings: EvaluateSettings) -> Scores:
    """Score the model to compare with on the same part, or read its scores."""
    if is_scores_file(path):
        return read_scores(path)
    model = load_model(path)
    fit = fit_cache(cache, model.card, path, allow=settings.allow_mismatch)
    return score_part(model, path, cache, fit, protocol, settings)


def score_part(
    model: Model, path: Path, cache: Cache, fit: Fit, protocol: str, settings: EvaluateSettings
) -> Scores:
    """Score a model on the chosen part of a cache that it fits.

    Args:
        model: it is moved to the device.
        path: of the model, for messages.
        cache: open.
        fit: of `fit_cache`.
        protocol: one of the cache.
        settings: see `EvaluateSettings`.

    Raises:
        InputError: clips do not fit, or are not those that were held out.
        NotFinite: a score is not finite.
        UsageError: nothing was held out.
        DeviceError: as `choose_device` raises it.
    """
    device, settings = choose_device(model.network, settings)
    found = load_clips(cache, fit, model.card, path, protocol, settings)
    clips = found.clips
    dataset = make_dataset(clips, fit, model.card, device, settings)
    devices.move(model.network, device)
    with (
        devices.precision(settings.precision),
        progress("evaluate", len(dataset)) as meter,
    ):
        logits = score(
            model.network,
            dataset,
            settings.batch_size,
            meter.advance,
            settings.precision,
            settings.views,
        )
    check_finite(logits, clips.names, str(path))
    info = ScoresInfo(
        names=clips.names,
        classes=model.card.classes,
        protocol=protocol,
        part=settings.part,
        mismatches=found.mismatches,
        copies=[clips.names[index] for index in np.flatnonzero(found.is_copy)],
        model=model.checksum(),
    )
    return Scores(info, logits.numpy(), clips.labels)


class ScoredClips(NamedTuple):
    """The clips to score a model on.

    Attributes:
        clips: with joints and channels in the order of the model.
        mismatches: what does not fit it, if that is allowed.
        is_copy: [n], whether a clip has the numbers of one that it was trained on.
    """

    clips: Clips
    mismatches: list[str]
    is_copy: NDArray[np.bool_]


def load_clips(
    cache: Cache, fit: Fit, card: ModelCard, path: Path, protocol: str, settings: EvaluateSettings
) -> ScoredClips:
    """Load the chosen part of a cache that a model fits.

    Args:
        cache: open.
        fit: how its clips become those of the model.
        card: of the model.
        path: of the model, for messages.
        protocol, settings: which clips, and whether they may misfit.

    Raises:
        InputError: the part is empty or not the one that was held out, or clips do not fit.
        UsageError: nothing was held out when the model was trained.
    """
    if settings.part == "test":
        train, chosen = cache.indices(protocol, Train), cache.nonempty_indices(protocol, Test)
    else:
        train, chosen = _find_held_out(cache, protocol, card, path)
    allow = settings.allow_mismatch
    seen, is_copy = check_unseen(cache, chosen, train, card, path, protocol, allow=allow)
    clips = fit.match.reorder(cache.load(chosen))
    found = fit_clips(clips, fit, card, (cache.path, path), allow=allow)
    return ScoredClips(clips, [*fit.mismatches, *seen, *found], is_copy)


def make_dataset(
    clips: Clips, fit: Fit, card: ModelCard, device: torch.device, settings: EvaluateSettings
) -> Dataset:
    """Return what makes the input of a model from clips in its order."""
    layout, persons = fit.origin.layout, fit.origin.max_persons
    clip_settings = card.make_clip_settings()
    return Dataset(clips, layout, persons, clip_settings, device, settings.store)


def _find_held_out(
    cache: Cache, protocol: str, card: ModelCard, model_path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the clips a model was trained on, and of those held out then."""
    if card.hold_out is None:
        raise UsageError(
            f"{model_path}: was trained without --hold-out, so nothing was held out",
            hint="--part test scores it on the test part",
        )
    part = split_training_part(cache, protocol, card.hold_out.share)
    if part.hold_out != card.hold_out:
        raise InputError(
            f"{cache.path}: the {card.hold_out.clips} clips that were held out from {model_path} "
            f"are not the ones that {protocol} holds out here",
            hint="give the cache and the protocol that the model was trained on",
        )
    return part.train, part.held_out


def _time(model: Model, settings: EvaluateSettings) -> list[Latency]:
    """Time a forward pass of a single clip and of a whole batch."""
    device, settings = choose_device(model.network, settings)
    shape, passes, precision = model.card.input_shape, settings.passes, settings.precision
    return [
        time_passes(model.network, shape, device, batch_size, passes, precision)
        for batch_size in (1, settings.batch_size)
    ]


def _size_to_dict(size: str, complexity: Complexity) -> dict[str, Any]:
    counts = {**asdict(complexity), "flops": complexity.flops}
    return {"input_size": [int(number) for number in size.split("x")], **counts}
