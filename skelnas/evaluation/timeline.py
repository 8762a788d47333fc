"""The classes of one recording over time: what `skelnas predict --plot` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.config import PredictSettings
from skelnas.data.readers.base import Layout, Recording
from skelnas.data.readers.unlabelled import read_unlabelled
from skelnas.evaluation.predict import DEFAULTS, Predictor, choose_window
from skelnas.evaluation.scores import softmax
from skelnas.training.saved_model import Model

MIN_WINDOWS = 1.5
"""A recording shorter than this many windows is one clip, as a whole."""


@dataclass(frozen=True)
class Timeline:
    """A recording, and the probabilities of the classes in W windows of it.

    Attributes:
        recording: with poses [M, T, V, C].
        layout: of its joints.
        classes: their names.
        spans: [W, 2], the first frame of each window, and the one after its last.
        probabilities: [W, classes]; NaN for a window in which nobody is seen.
    """

    recording: Recording
    layout: Layout
    classes: Sequence[str]
    spans: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def num_frames(self) -> int:
        """Frames of the recording."""
        return len(self.recording.present[0])

    @property
    def bounds(self) -> NDArray[np.float64]:
        """[W + 1] frames that divide the recording: each goes to the window with nearest middle."""
        middles = self.spans.mean(axis=1)
        return np.concatenate([[0], (middles[:-1] + middles[1:]) / 2, [self.num_frames]])


def predict_over_time(model: Model, path: Path, settings: PredictSettings = DEFAULTS) -> Timeline:
    """Predict the classes of a recording in windows, each ``stride`` frames after the last.

    Args:
        model: from `load_model`; it is moved to the device.
        path: of a recording, as for `predict`.
        settings: see `PredictSettings`; windows are those of `predict_stream`.

    Raises:
        InputError: the file cannot be read or has other joints.
        DeviceError: the device is missing, or does not support the precision.
    """
    predictor = Predictor(model, settings)
    recording = read_unlabelled(path, predictor.origin)
    num_frames = recording.present.shape[1]
    size = settings.window or choose_window(model.card)
    if num_frames < MIN_WINDOWS * size:
        size = num_frames
    starts = np.arange(0, num_frames - size + 1, settings.stride)
    spans = np.stack([starts, starts + size], axis=1)
    probabilities = np.full((len(spans), len(model.card.classes)), np.nan)
    seen = np.flatnonzero([recording.present[:, start:end].any() for start, end in spans])
    for first in range(0, len(seen), settings.batch_size):
        rows = seen[first : first + settings.batch_size]
        windows = [_cut(recording, *spans[row].tolist()) for row in rows]
        probabilities[rows] = softmax(predictor.score(windows))
    return Timeline(recording, predictor.origin.layout, model.card.classes, spans, probabilities)


def _cut(recording: Recording, start: int, end: int) -> Recording:
    """Return some frames of a recording."""
    poses, present = recording.poses[:, start:end], recording.present[:, start:end]
    return replace(recording, poses=poses, present=present)
