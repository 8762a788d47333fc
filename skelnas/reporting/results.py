"""What a report tells of a trained model: its size, its scores, and what it takes for what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skelnas.config import Device, EvaluateSettings
from skelnas.data.cache import Cache
from skelnas.errors import InputError, UsageError, shown
from skelnas.evaluation.latency import Latency, time_passes
from skelnas.evaluation.scores import Scores, read
from skelnas.models.complexity import Complexity, measure
from skelnas.reporting.plot_skeleton import Portrait, portrait
from skelnas.runtime import devices
from skelnas.training.run_dir import MODEL
from skelnas.training.saved_model import load_model

MOST_CONFUSIONS = 6

TIMED_BATCHES = (1, EvaluateSettings().batch_size)


@dataclass(frozen=True)
class Example:
    """A clip with its name, the share that its predicted class has, and how it looks if known."""

    clip: str
    share: float
    picture: Portrait | None


@dataclass(frozen=True)
class Confusion:
    """A class that is taken for another one.

    Attributes:
        true, taken_for: names of the two classes.
        clips, of: how many clips of the true class are, and of how many.
        mistaken: the clip that is mistaken with the largest share.
        recognised: the clip of the other class that is recognised with the largest share, or None.
    """

    true: str
    taken_for: str
    clips: int
    of: int
    mistaken: Example
    recognised: Example | None


@dataclass(frozen=True)
class Results:
    """What is known of a trained model.

    Attributes:
        complexity: its size and cost, if it is in the folder.
        latency: of a forward pass, if that was asked for.
        scores: of clips that it has not learned from, if they are given.
        confusions: the hardest ones of the scores.
    """

    complexity: Complexity | None = None
    latency: tuple[Latency, ...] = ()
    scores: Scores | None = None
    confusions: tuple[Confusion, ...] = ()


def read_results(
    folder: Path,
    classes: object,
    scores_path: Path | None = None,
    cache_path: Path | None = None,
    time_on: Device | None = None,
) -> Results:
    """Read what there is of a model folder, and time the model if that is asked.

    Args:
        folder: of `skelnas train`, finished or not.
        classes: what its configuration names.
        scores_path: file of `skelnas evaluate --scores`.
        cache_path: where the clips of the scores lie, to be drawn.
        time_on: the device to time a forward pass on.

    Raises:
        InputError: a file is missing or broken, or they do not belong together.
        UsageError: an unfinished training is to be timed.
        DeviceError: the device is missing.
    """
    complexity: Complexity | None = None
    latency: tuple[Latency, ...] = ()
    if (folder / MODEL).exists():
        model = load_model(folder)
        network, shape = model.network, model.card.input_shape
        complexity = measure(network, shape)
        if time_on is not None:
            device = devices.choose(EvaluateSettings(device=time_on))
            devices.place(network, device)
            passes = EvaluateSettings().passes
            latency = tuple(
                time_passes(network, shape, device, size, passes) for size in TIMED_BATCHES
            )
    elif time_on is not None:
        raise UsageError(
            f"{folder}: holds no finished model that could be timed",
            hint="the same `skelnas train` with --resume finishes it; or leave out --latency",
        )
    if scores_path is None:
        return Results(complexity, latency)
    scores = read(scores_path)
    if scores.about.classes != classes:
        raise InputError(
            f"{scores_path}: its {len(scores.about.classes)} classes are not those of {folder}",
            hint=f"`skelnas evaluate CACHE {folder} --scores {scores_path}` writes its own",
        )
    if cache_path is None:
        return Results(complexity, latency, scores, find_confusions(scores))
    with Cache.open(cache_path) as cache:
        return Results(complexity, latency, scores, find_confusions(scores, cache, scores_path))


def find_confusions(
    scores: Scores, cache: Cache | None = None, scores_path: Path | None = None
) -> tuple[Confusion, ...]:
    """Find the pairs of classes of which the first is taken for the second most often.

    Ordered by the share of its clips, then by their number.

    Raises:
        InputError: the cache does not have these clips.
    """
    counts = scores.metrics.confusion
    totals = counts.sum(axis=1)
    mistaken = counts.copy()
    np.fill_diagonal(mistaken, 0)
    pairs = sorted(
        ((int(true), int(other)) for true, other in np.argwhere(mistaken)),
        key=lambda pair: (-mistaken[pair] / totals[pair[0]], -mistaken[pair], pair),
    )
    find = _Examples(scores, cache, scores_path)
    names = scores.about.classes
    found = []
    for true, other in pairs[:MOST_CONFUSIONS]:
        example = find(true, other)
        assert example is not None
        amount = int(mistaken[true, other]), int(totals[true])
        found.append(Confusion(names[true], names[other], *amount, example, find(other, other)))
    return tuple(found)


class _Examples:
    """Finds the clips of a class that are taken for a class, with the largest share first."""

    def __init__(self, scores: Scores, cache: Cache | None, scores_path: Path | None) -> None:
        self._scores = scores
        self._cache = cache
        self._path = scores_path
        logits = scores.logits.astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        self._predicted = logits.argmax(axis=1)
        self._share = powers.max(axis=1) / powers.sum(axis=1)
        self._places = (
            {} if cache is None else {name: i for i, name in enumerate(cache.clips.names)}
        )

    def __call__(self, true: int, predicted: int) -> Example | None:
        """Return the surest such clip, or None."""
        rows = np.flatnonzero((self._scores.labels == true) & (self._predicted == predicted))
        if not len(rows):
            return None
        row = int(rows[self._share[rows].argmax()])
        name = self._scores.about.names[row]
        return Example(name, float(self._share[row]), self._draw(name, true))

    def _draw(self, name: str, label: int) -> Portrait | None:
        if self._cache is None:
            return None
        index = self._places.get(name)
        if index is None or self._cache.clips.labels[index] != label:
            what = "has no clip" if index is None else "has another class for clip"
            raise InputError(
                f"{self._cache.path}: {what} {shown(name)} of {self._path}",
                hint="give the cache that the model was scored on",
            )
        if self._cache.layout.channels[:2] != ("x", "y"):
            return None
        picture = portrait(name, *self._cache.read(index), self._cache.layout)
        return picture if len(picture.shown) else None
