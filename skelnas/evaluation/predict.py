"""`skelnas predict`: model and recordings → classes, of whole files or of frames as they come.

A recording goes the way of a clip: read by the source that read the model's clips, then made
into a batch by the `Dataset` that made those it learned from, and scored by `scoring.score`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.config import PredictSettings
from skelnas.data.cache import Clips
from skelnas.data.dataset import Dataset
from skelnas.data.readers.base import Recording
from skelnas.data.readers.clip_files import parse_frame, to_poses
from skelnas.data.readers.unlabelled import NO_LABEL, Origin, read_unlabelled
from skelnas.errors import InputError
from skelnas.runtime import devices
from skelnas.runtime.console import note
from skelnas.training.inference import score
from skelnas.training.saved_model import Model

DEFAULTS = PredictSettings()

STDIN = "standard input"


@dataclass(frozen=True)
class Prediction:
    """What a model takes a recording for.

    Attributes:
        name: of the recording: its path, as given.
        num_frames, num_persons: of the recording.
        classes: class names in order of the logits.
        logits: [classes] float32.
    """

    name: str
    num_frames: int
    num_persons: int
    classes: Sequence[str]
    logits: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """[classes], the softmax of the logits."""
        powers = np.exp(self.logits.astype(np.float64) - self.logits.max())
        shares: NDArray[np.float64] = powers / powers.sum()
        return shares

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the likeliest classes and their probabilities; of equal ones the lower first."""
        shares = self.probabilities
        ranked = np.argsort(-shares, kind="stable")[:count]
        return [(self.classes[index], float(shares[index])) for index in ranked]


@dataclass(frozen=True)
class Window:
    """What a model takes some frames of a stream for.

    Attributes:
        first_frame, last_frame: which, counted from 1.
        prediction: None if nobody was seen in any of them.
        latency_ms: from when the last frame had been read to when the prediction was there.
    """

    first_frame: int
    last_frame: int
    prediction: Prediction | None
    latency_ms: float


def predict(
    model: Model,
    recordings: Iterable[Path],
    settings: PredictSettings = DEFAULTS,
    on_broken: Callable[[Path, InputError], None] | None = None,
) -> Iterator[Prediction]:
    """Say of recordings what a model takes them for, as many at a time as a batch has clips.

    Args:
        model: as `load_model` gives it; it is moved to the device.
        recordings: files of the format that the model's clips had, or arrays of joints.
        settings: see `PredictSettings`.
        on_broken: told of a file that cannot be read, which is left out then.

    Raises:
        InputError: a file cannot be read, or its joints are others, and `on_broken` is not given.
        DeviceError: the device is missing, or cannot compute as it is asked.
    """
    watcher = _Watcher(model, settings)
    readable = _read(recordings, watcher.origin, on_broken)
    while batch := list(islice(readable, settings.batch_size)):
        logits = watcher.score([recording for _, recording in batch])
        for (path, recording), row in zip(batch, logits, strict=True):
            yield watcher.prediction(str(path), recording, row)


def predict_stream(
    model: Model, lines: Iterable[str], settings: PredictSettings = DEFAULTS
) -> Iterator[Window]:
    """Say what a model takes the last frames of a stream for, again and again.

    The first window ends with frame ``window``, each other ``stride`` frames later. A stream
    that ends before the first one is full is one short window.

    Args:
        model: as `load_model` gives it; it is moved to the device.
        lines: a frame each, see `skelnas.data.readers.clip_files.parse_frame`.
        settings: see `PredictSettings`; a window of 0 has as many frames as a clip of the model.

    Raises:
        InputError: a line is no such frame.
        DeviceError: the device is missing, or cannot compute as it is asked.
    """
    watcher = _Watcher(model, settings)
    size = settings.window or model.card.make_clip_settings().frames
    watcher.warm_up(size)
    frames: deque[NDArray[np.float64]] = deque(maxlen=size)
    origin, number = watcher.origin, 0
    for number, line in enumerate(lines, start=1):
        where = f"{STDIN}, line {number}"
        frames.append(parse_frame(line, where, origin.layout, origin.max_persons))
        if number >= size and (number - size) % settings.stride == 0:
            yield watcher.look(frames, number)
    if not number:
        raise InputError(f"{STDIN}: no frames", hint="a line of JSON for each, see docs/deploy.md")
    if number < size:
        yield watcher.look(frames, number)


def _read(
    recordings: Iterable[Path],
    origin: Origin,
    on_broken: Callable[[Path, InputError], None] | None,
) -> Iterator[tuple[Path, Recording]]:
    for path in recordings:
        try:
            yield path, read_unlabelled(path, origin)
        except InputError as error:
            if on_broken is None:
                raise
            on_broken(path, error)


class _Watcher:
    """A model at work on a device."""

    def __init__(self, model: Model, settings: PredictSettings) -> None:
        self.origin = model.card.find_origin()
        self._model = model
        self._device = devices.choose(settings)
        self._settings = devices.resolve_precision(settings, self._device)
        devices.move(model, self._device)
        if model.card.rule is None and self.origin.source in ("ntu", "kinetics"):
            note("the model does not say how persons were chosen: the default rule is taken")

    def score(self, recordings: Sequence[Recording]) -> NDArray[np.float32]:
        """Return the logits [N, classes]."""
        origin, card, precision = self.origin, self._model.card, self._settings.precision
        clips, clip_settings = Clips.from_recordings(recordings), card.make_clip_settings()
        dataset = Dataset(clips, origin.layout, origin.max_persons, clip_settings, self._device)
        with devices.precision(precision):
            logits = score(self._model.network, dataset, len(recordings), precision=precision)
        numbers: NDArray[np.float32] = logits.numpy()
        return numbers

    def look(self, frames: Sequence[NDArray[np.float64]], last: int) -> Window:
        """Score the last frames of a stream, each [M, V, C]."""
        began = time.perf_counter()
        first = last - len(frames) + 1
        recording = _join(frames, self.origin)
        prediction = None
        if recording is not None:
            (logits,) = self.score([recording])
            prediction = self.prediction(f"frames {first} to {last}", recording, logits)
        return Window(first, last, prediction, 1000 * (time.perf_counter() - began))

    def warm_up(self, num_frames: int) -> None:
        """Score a made-up recording, since the first pass takes longer than those to come."""
        layout = self.origin.layout
        pose = np.ones((self.origin.max_persons, len(layout.joints), len(layout.channels)))
        self.look([pose] * num_frames, num_frames)

    def prediction(
        self, name: str, recording: Recording, logits: NDArray[np.float32]
    ) -> Prediction:
        """Say what the logits of a recording mean."""
        num_persons, num_frames = recording.present.shape
        return Prediction(name, num_frames, num_persons, self._model.card.classes, logits)


def _join(frames: Sequence[NDArray[np.float64]], origin: Origin) -> Recording | None:
    """Put frames [M, V, C] behind each other; None if nobody is in any of them."""
    clip = np.full((max(map(len, frames)), len(frames), *frames[0].shape[1:]), np.nan)
    for number, frame in enumerate(frames):
        clip[: len(frame), number] = frame
    poses, present = to_poses(clip, origin.picture)
    if not present.any():
        return None
    return Recording("window", NO_LABEL, poses, present)
