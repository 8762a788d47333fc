"""The results of a trained model: cost, latency, scores and the hardest confusions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from skelnas.config import Device, EvaluateSettings
from skelnas.data.cache import Cache
from skelnas.errors import InputError, UsageError, shown
from skelnas.evaluation.fit import fit_cache
from skelnas.evaluation.latency import Latency, time_passes
from skelnas.evaluation.scores import Scores, read_scores, softmax
from skelnas.models.complexity import Complexity, measure
from skelnas.reporting.pose_layout import ClipPicture
from skelnas.runtime import devices
from skelnas.runtime.console import shell
from skelnas.training.run_dir import MODEL
from skelnas.training.saved_model import Model, load_model

MAX_CONFUSIONS = 6

TIMED_BATCH_SIZES = (1, EvaluateSettings().batch_size)


@dataclass(frozen=True)
class Example:
    """A scored clip.

    Attributes:
        clip: its name.
        confidence: the probability of its predicted class.
        picture: the clip as it is drawn, or None.
    """

    clip: str
    confidence: float
    picture: ClipPicture | None


@dataclass(frozen=True)
class Confusion:
    """A pair of classes of which the first is misclassified as the second.

    Attributes:
        true, predicted: the names of the classes.
        num_clips: the number of misclassified clips.
        num_true_clips: the number of clips of the true class.
        wrong: the most confidently misclassified clip.
        right: the most confidently recognised clip of the predicted class, or None.
    """

    true: str
    predicted: str
    num_clips: int
    num_true_clips: int
    wrong: Example
    right: Example | None


@dataclass(frozen=True)
class Results:
    """What is known about a trained model.

    Attributes:
        complexity: its size and cost; None if the folder has no model yet.
        latency: of a forward pass, for each of `TIMED_BATCH_SIZES`; empty if not timed.
        scores: of clips that it was not trained on, or None.
        confusions: the hardest confusions of these scores.
        epoch: of the weights, if held-out clips chose it.
    """

    complexity: Complexity | None = None
    latency: tuple[Latency, ...] = ()
    scores: Scores | None = None
    confusions: tuple[Confusion, ...] = ()
    epoch: int | None = None


def read_results(
    folder: Path,
    classes: object,
    scores_path: Path | None = None,
    cache_path: Path | None = None,
    time_on: Device | None = None,
) -> Results:
    """Read the results of a training, and time its model on request.

    Args:
        folder: the model folder, whether the training is finished or not.
        classes: the classes in its configuration.
        scores_path: a file of `skelnas evaluate --scores`.
        cache_path: the cache with the clips of the scores, to draw them.
        time_on: the device to time a forward pass on.

    Raises:
        InputError: a file is missing or broken, or does not belong to the model.
        UsageError: the model to be timed is not finished.
        DeviceError: the device is missing.
    """
    model: Model | None = None
    complexity: Complexity | None = None
    latency: tuple[Latency, ...] = ()
    if (folder / MODEL).exists():
        model = load_model(folder)
        network, shape = model.network, model.card.input_shape
        complexity = measure(network, shape)
        if time_on is not None:
            device = devices.choose(EvaluateSettings(device=time_on))
            devices.move(network, device)
            passes = EvaluateSettings().passes
            latency = tuple(
                time_passes(network, shape, device, size, passes) for size in TIMED_BATCH_SIZES
            )
    elif time_on is not None:
        raise UsageError(
            f"{folder}: has no finished model to time",
            hint="`skelnas train` with --resume finishes it; or leave out --latency",
        )
    found = Results(complexity, latency, epoch=model.card.epoch if model else None)
    if scores_path is None:
        return found
    scores = read_scores(scores_path)
    if scores.info.classes != classes:
        raise InputError(
            f"{scores_path}: its {len(scores.info.classes)} classes are not those of {folder}",
            hint=f"`{shell('evaluate', 'CACHE', folder, '--scores', scores_path)}` writes its own",
        )
    if model is not None and scores.info.model not in ("", model.checksum()):
        raise InputError(
            f"{scores_path}: was not scored by the model of {folder}",
            hint=f"`{shell('evaluate', 'CACHE', folder, '--scores', scores_path)}` writes its own",
        )
    if cache_path is None:
        return replace(found, scores=scores, confusions=find_confusions(scores))
    with Cache.open(cache_path) as cache:
        if model is not None and not scores.info.mismatches:
            fit_cache(cache, model.card, folder)
        confusions = find_confusions(scores, cache, scores_path)
        return replace(found, scores=scores, confusions=confusions)


def find_confusions(
    scores: Scores, cache: Cache | None = None, scores_path: Path | None = None
) -> tuple[Confusion, ...]:
    """Find the pairs of classes with the largest fraction of the first misclassified as the second.

    Of equal fractions, the one with more clips comes first.

    Args:
        scores: of a model.
        cache: the cache with the clips of the scores; None for no pictures.
        scores_path: the file of the scores, for messages.

    Raises:
        InputError: the cache does not have these clips.
    """
    counts = scores.metrics.confusion
    totals = counts.sum(axis=1)
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    pairs = sorted(
        ((int(true), int(predicted)) for true, predicted in np.argwhere(errors)),
        key=lambda pair: (-errors[pair] / totals[pair[0]], -errors[pair], pair),
    )
    find = _ExampleFinder(scores, cache, scores_path)
    names = scores.info.classes
    confusions = []
    for true, predicted in pairs[:MAX_CONFUSIONS]:
        wrong = find(true, predicted)
        assert wrong is not None
        confusions.append(
            Confusion(
                true=names[true],
                predicted=names[predicted],
                num_clips=int(errors[true, predicted]),
                num_true_clips=int(totals[true]),
                wrong=wrong,
                right=find(predicted, predicted),
            )
        )
    return tuple(confusions)


class _ExampleFinder:
    """Finds the most confidently predicted clip of a true and a predicted class."""

    def __init__(self, scores: Scores, cache: Cache | None, scores_path: Path | None) -> None:
        self._scores = scores
        self._cache = cache
        self._scores_path = scores_path
        self._predicted = scores.logits.argmax(axis=1)
        self._confidence = softmax(scores.logits).max(axis=1)
        self._cache_indices = (
            {} if cache is None else {name: i for i, name in enumerate(cache.clips.names)}
        )

    def __call__(self, true: int, predicted: int) -> Example | None:
        """Return the clip, or None if there is no such clip."""
        rows = np.flatnonzero((self._scores.labels == true) & (self._predicted == predicted))
        if not len(rows):
            return None
        row = int(rows[self._confidence[rows].argmax()])
        name = self._scores.info.names[row]
        return Example(name, float(self._confidence[row]), self._draw(name, true))

    def _draw(self, name: str, label: int) -> ClipPicture | None:
        cache = self._cache
        if cache is None:
            return None
        index = self._cache_indices.get(name)
        if index is None or cache.clips.labels[index] != label:
            problem = "has no clip" if index is None else "has another class for clip"
            raise InputError(
                f"{cache.path}: {problem} {shown(name)} of {self._scores_path}",
                hint="give the cache that the model was scored on",
            )
        if cache.layout.channels[:2] != ("x", "y"):
            return None
        picture = ClipPicture.of(name, *cache.read(index), cache.layout)
        return picture if len(picture.visible_frames) else None
