"""`skelnas predict`: model and recordings → classes, for whole files or for a stream of frames.

A recording is treated as the clips of the model were: it is read by the reader of their data
set, made into a batch by `Dataset`, and scored by `training.inference.score`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skelnas.config import PredictSettings
from skelnas.data.cache import Clips
from skelnas.data.dataset import Dataset
from skelnas.data.matching import compare_units
from skelnas.data.readers.base import Recording
from skelnas.data.readers.channels import check_channels, parse_option
from skelnas.data.readers.expected import parse_picture, to_poses
from skelnas.data.readers.files import find_extent_outside
from skelnas.data.readers.stream_frames import StreamFrame, parse_frame
from skelnas.data.readers.tracking import track
from skelnas.data.readers.unlabelled import NO_LABEL, Origin, as_unlabelled, read_unlabelled
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.scores import softmax
from skelnas.runtime import devices
from skelnas.runtime.console import note
from skelnas.training.card import ModelCard, note_unknown_facts
from skelnas.training.inference import check_finite, choose_device, score
from skelnas.training.saved_model import Model

DEFAULTS = PredictSettings()

STDIN = "standard input"
MAX_WINDOW = 100_000
"""Frames in a window, as in `PredictSettings`."""


Recorded = Path | str | NDArray[Any]
"""A recording: its file, or an array [T, V, C] or [M, T, V, C] of the numbers in one."""


@dataclass(frozen=True)
class Prediction:
    """The scores of a recording.

    Attributes:
        name: path of the recording, as given, or `recording 0` and so on for arrays.
        num_frames, num_persons: of the recording.
        classes: class names in the order of the logits.
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
        return softmax(self.logits)

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the most likely classes with their probabilities; on a tie, the lower class."""
        probabilities = self.probabilities
        ranked = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.classes[index], float(probabilities[index])) for index in ranked]

    @property
    def top1(self) -> str:
        """The most likely class."""
        return self.top(1)[0][0]

    def to_dict(self, count: int = 5) -> dict[str, Any]:
        """Return the most likely classes and the rest as plain containers, for JSON."""
        return {"recording": self.name, **self.describe(count)}

    def describe(self, count: int) -> dict[str, Any]:
        """Return `to_dict` without the name."""
        top = self.top(count)
        return {
            "frames": self.num_frames,
            "persons": self.num_persons,
            "classes": [{"class": name, "probability": value} for name, value in top],
        }

    def __repr__(self) -> str:
        ((name, probability),) = self.top(1)
        return f"Prediction({self.name!r}, {name!r}, {probability:.1%})"


@dataclass(frozen=True)
class Window:
    """The scores of consecutive frames of a stream.

    Attributes:
        first_frame, last_frame: numbers of the frames, from 1.
        prediction: None if nobody is in any of them.
        latency_ms: time from the arrival of the last frame to the prediction.
    """

    first_frame: int
    last_frame: int
    prediction: Prediction | None
    latency_ms: float

    def to_dict(self, count: int = 5) -> dict[str, Any]:
        """Return the most likely classes and the rest as plain containers, for JSON."""
        num_frames = self.last_frame - self.first_frame + 1
        nobody = {"frames": num_frames, "persons": 0, "classes": []}
        return {
            "first_frame": self.first_frame,
            "last_frame": self.last_frame,
            **(self.prediction.describe(count) if self.prediction else nobody),
            "latency_ms": round(self.latency_ms, 3),
        }


def predict(
    model: Model,
    recordings: Iterable[Recorded],
    settings: PredictSettings = DEFAULTS,
    on_broken: Callable[[str, InputError], None] | None = None,
) -> Iterator[Prediction]:
    """Predict the classes of recordings, in batches.

    Args:
        model: from `load_model`; it is moved to the device.
        recordings: files in the format of the model's data set, or of joints; or arrays of joints
            [T, V, C] or [M, T, V, C], in the order and units of the data set, NaN where unknown.
        settings: see `PredictSettings`.
        on_broken: called with the name of each that cannot be read, which is then skipped.

    Raises:
        InputError: one cannot be read or has other joints, and there is no `on_broken`; or the
            scores of the model are not finite.
        UsageError: `recordings` is a single one, rather than a list.
        DeviceError: the device is missing, or does not support the precision.
    """
    if isinstance(recordings, Path | str) or hasattr(recordings, "shape"):
        raise UsageError(
            "predict takes several recordings, not a single one",
            hint="put it into a list: predict(model, [recording])",
        )
    return _predict(Predictor(model, settings), recordings, settings.batch_size, on_broken)


def _predict(
    predictor: Predictor,
    recordings: Iterable[Recorded],
    batch_size: int,
    on_broken: Callable[[str, InputError], None] | None,
) -> Iterator[Prediction]:
    readable = _read(recordings, predictor.origin, on_broken)
    while batch := list(islice(readable, batch_size)):
        logits = predictor.score([recording for _, recording in batch])
        for (name, recording), row in zip(batch, logits, strict=True):
            yield predictor.make_prediction(name, recording, row)


def predict_stream(
    model: Model, lines: Iterable[str], settings: PredictSettings = DEFAULTS
) -> Iterator[Window]:
    """Predict the class of the last frames of a stream, over and over.

    The first window ends with frame ``window``, each following one ``stride`` frames later. A
    stream that ends before its first window is full gives one short window.

    Args:
        model: from `load_model`; it is moved to the device.
        lines: one frame each, see `skelnas.data.readers.stream_frames.parse_frame`; blank ones are
            skipped.
        settings: see `PredictSettings`; with ``window`` 0, a window is as long as the model's
            training clips typically were.

    Raises:
        InputError: a line is not a frame, or there is none; or the scores of the model are not
            finite.
        DeviceError: the device is missing, or does not support the precision.
    """
    predictor = Predictor(model, settings)
    size = settings.window or choose_window(model.card)
    predictor.warm_up(size)
    frames: deque[StreamFrame] = deque(maxlen=size)
    origin, number = predictor.origin, 0
    expected = origin.expected
    for line_number, line in enumerate(lines, start=1):
        if not line.strip("\ufeff \t\r\n"):
            continue
        where = f"{STDIN}, line {line_number}"
        frames.append(parse_frame(line, where, expected))
        number += 1
        if number >= size and (number - size) % settings.stride == 0:
            if number == size:
                _check_channels(frames, origin)
            yield predictor.score_window(frames, number)
    if not number:
        raise InputError(f"{STDIN}: no frames", hint="one line of JSON each, see docs/deploy.md")
    if number < size:
        _check_channels(frames, origin)
        yield predictor.score_window(frames, number)


def _check_channels(frames: Iterable[StreamFrame], origin: Origin) -> None:
    """Raise InputError if the first frames are unlike the model's channels."""
    if not origin.given_channels:
        persons = np.concatenate([frame.persons for frame in frames])  # [n, V, C]
        check_channels(persons, origin.layout.channels, STDIN)


def choose_window(card: ModelCard) -> int:
    """Return how many frames a window has by default, and print it."""
    if card.clip_length is None:
        size = card.make_clip_settings().frames
        note(
            f"windows of {size} frames, as the network takes: the model does not say how long its "
            "training clips were, and --window should be about that"
        )
        return size
    size = min(card.clip_length, MAX_WINDOW)
    rate = card.layout and card.layout.frame_rate
    seconds = f" ({size / rate:.1f} s at {rate:g} frames per second)" if rate else ""
    note(f"windows of {size} frames{seconds}, as the clips that the model was trained on")
    return size


def _read(
    recordings: Iterable[Recorded],
    origin: Origin,
    on_broken: Callable[[str, InputError], None] | None,
) -> Iterator[tuple[str, Recording]]:
    for number, item in enumerate(recordings):
        name = str(item) if isinstance(item, Path | str) else f"recording {number}"
        try:
            if isinstance(item, Path | str):
                yield name, read_unlabelled(Path(item), origin)
            else:
                yield name, as_unlabelled(np.asarray(item), name, origin)
        except InputError as error:
            if on_broken is None:
                raise
            on_broken(name, error)


class Predictor:
    """A model on a device, and the dataset that makes batches for it."""

    def __init__(self, model: Model, settings: PredictSettings) -> None:
        channels = parse_option(settings.channels)
        self.origin = replace(
            model.card.find_origin(),
            given_channels=channels,
            given_picture=parse_picture(settings.picture),
            given_delimiter=settings.delimiter,
            given_skip_columns=settings.skip_columns,
        )
        self._model = model
        self._device, settings = choose_device(model.network, settings)
        self._precision = settings.precision
        self._dataset: Dataset | None = None
        self._noted_misfits: set[str] = set()
        devices.move(model, self._device)
        if model.card.rule is None and self.origin.source in ("ntu", "kinetics"):
            note("the model does not say how persons were chosen: using the default rule")
        note_unknown_facts(model.card, "the model")

    def score(self, recordings: Sequence[Recording]) -> NDArray[np.float32]:
        """Return the logits [N, classes] of recordings.

        Raises:
            NotFinite: one is not finite.
        """
        self._note_misfits(recordings)
        logits = self._compute(recordings)
        check_finite(logits, [recording.name for recording in recordings])
        array: NDArray[np.float32] = logits.numpy()
        return array

    def _compute(self, recordings: Sequence[Recording]) -> Tensor:
        dataset = self._fill_dataset(Clips.from_recordings(recordings))
        with devices.precision(self._precision):
            return score(self._model.network, dataset, len(recordings), precision=self._precision)

    def _note_misfits(self, recordings: Sequence[Recording]) -> None:
        """Print, once of each kind, what seems to be in other units or outside its picture."""
        for recording in recordings:
            for kind, text in self._find_misfits(recording).items():
                if kind not in self._noted_misfits:
                    self._noted_misfits.add(kind)
                    note(f"{recording.name}: {text} (others of the kind are not named)")

    def _find_misfits(self, recording: Recording) -> dict[str, str]:
        card, clips = self._model.card, Clips.from_recordings([recording])
        units = compare_units(clips, self.origin.layout, card.person_size, card.score_size)
        misfits = {"units": "; ".join(text for texts in units for text in texts)}
        if self.origin.in_picture and (extent := find_extent_outside(recording.poses)):
            size = " x ".join(f"{side:g}" for side in self.origin.picture or ())
            misfits["picture"] = f"joints have {extent} of the picture{size and f', {size}'}"
        return {kind: text for kind, text in misfits.items() if text}

    def _fill_dataset(self, clips: Clips) -> Dataset:
        """Put clips into the dataset, which is made for the first of them."""
        if self._dataset is None:
            origin, clip_settings = self.origin, self._model.card.make_clip_settings()
            self._dataset = Dataset(
                clips, origin.layout, origin.max_persons, clip_settings, self._device
            )
        else:
            self._dataset.load(clips)
        return self._dataset

    def score_window(self, frames: Sequence[StreamFrame], last_frame: int) -> Window:
        """Score the last frames of a stream."""
        start = time.perf_counter()
        first_frame = last_frame - len(frames) + 1
        recording = _join(frames, self.origin)
        prediction = None
        if recording is not None:
            (logits,) = self.score([recording])
            name = f"frames {first_frame} to {last_frame}"
            prediction = self.make_prediction(name, recording, logits)
        return Window(first_frame, last_frame, prediction, 1000 * (time.perf_counter() - start))

    def warm_up(self, num_frames: int) -> None:
        """Score a made-up window, because the first pass takes longer than the others."""
        layout = self.origin.layout
        pose = np.ones((self.origin.max_persons, len(layout.joints), len(layout.channels)))
        recording = _join([StreamFrame(pose)] * num_frames, self.origin)
        assert recording is not None
        self._compute([recording])

    def make_prediction(
        self, name: str, recording: Recording, logits: NDArray[np.float32]
    ) -> Prediction:
        """Return the prediction for a recording with these logits [classes]."""
        num_persons, num_frames = recording.present.shape
        return Prediction(name, num_frames, num_persons, self._model.card.classes, logits)


def _join(frames: Sequence[StreamFrame], origin: Origin) -> Recording | None:
    """Make frames into a recording; None if nobody is in any of them."""
    persons = [frame.persons for frame in frames]  # T x [M, V, C]
    if all(frame.says_who for frame in frames):
        clip = np.full((max(map(len, persons)), len(frames), *persons[0].shape[1:]), np.nan)
        for number, numbers in enumerate(persons):
            clip[: len(numbers), number] = numbers
    else:
        clip = track(persons, origin.layout.channels, origin.max_persons)  # [M, T, V, C]
    poses, present = to_poses(clip, origin.layout.channels, origin.picture_of_files)
    if not present.any():
        return None
    return Recording(STDIN, NO_LABEL, poses, present)
