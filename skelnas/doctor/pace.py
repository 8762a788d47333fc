"""How long a search would take on this machine, from a few steps of it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from skelnas.config import SearchSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Batch, clip_shape, num_batches
from skelnas.data.splits import halve, split_training_part
from skelnas.errors import DeviceError
from skelnas.nas.bilevel import NUM_WARMUP_STEPS, Bilevel
from skelnas.nas.search import STREAM_SPLIT
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices
from skelnas.runtime.memory import free_bytes, largest_share, measured
from skelnas.runtime.seed import random_seed

if TYPE_CHECKING:
    from skelnas.doctor import Work

TIMED = 2
"""Steps that are timed at each size, after those that warm up."""

SECONDS = 20.0
"""That the steps may take in all; at least the smallest size is measured."""


@dataclass(frozen=True)
class Size:
    """The size of a search: clips that train w, (C, T, V) of each, classes."""

    clips: int
    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Pace:
    """What a few steps say of a search.

    Attributes:
        measured_clips: clips in a batch that was timed.
        measured_seconds: median time of such a step.
        measured_peak_bytes: the most that its tensors took.
        batch_size: clips in a batch of the search.
        step_seconds, step_peak_bytes: the same for that, in proportion to the clips.
        steps: of the search, in all epochs.
        epoch_seconds, search_seconds: steps times `step_seconds`.
    """

    measured_clips: int
    measured_seconds: float
    measured_peak_bytes: int
    batch_size: int
    step_seconds: float
    step_peak_bytes: int
    steps: int
    epoch_seconds: float
    search_seconds: float


def read_size(settings: SearchSettings, work: Work) -> Size:
    """Find the size of a search, of a cache or of the numbers that are given for one.

    Raises:
        InputError: the cache is broken, or its training part cannot be halved.
    """
    if work.cache is None:
        channels = 3 * (1 + settings.streams.count(","))
        return Size(work.clips, (channels, settings.frames, work.joints), work.classes)
    with Cache.open(work.cache) as cache:
        part = split_training_part(
            cache, cache.choose_protocol(settings.protocol), settings.hold_out
        )
        seed = random_seed(settings.seed, STREAM_SPLIT)
        subjects = cache.clips.subjects[part.train]
        half, _ = halve(subjects, seed, by_subject=settings.validation == "subject")
        shape = clip_shape(cache.layout, cache.max_persons, settings)
        return Size(len(half), shape, len(cache.classes))


def measure_pace(settings: SearchSettings, size: Size, device: torch.device) -> Pace:
    """Take steps on noise with growing batches, and scale the largest to the whole search.

    Batches double until they are whole or the next would take too long. Time and memory of a
    whole one are taken to be in proportion to its clips, which is rather too much than too
    little: part of a step does not depend on them. Reading and making batches is left out.

    Raises:
        DeviceError: the memory does not suffice for the smallest batch.
    """
    torch.manual_seed(random_seed(settings.seed))
    supernet = Supernet.of(settings, size.shape[0], size.classes)
    devices.place(supernet, device)
    bilevel = Bilevel(supernet, settings)
    whole = min(settings.batch_size, size.clips)
    clips = min(2, whole)
    spent = 0.0
    while True:
        seconds, peak = _measure(bilevel, size, clips, device)
        spent += (TIMED + 1) * seconds
        following = min(2 * clips, whole)
        expected = (TIMED + 1) * seconds * following / clips
        if clips == following or spent + expected > SECONDS:
            break
        clips = following
    scale = whole / clips
    steps = num_batches(size.clips, settings.batch_size)
    return Pace(
        measured_clips=clips,
        measured_seconds=seconds,
        measured_peak_bytes=peak,
        batch_size=whole,
        step_seconds=scale * seconds,
        step_peak_bytes=int(scale * peak),
        steps=settings.epochs * steps,
        epoch_seconds=steps * scale * seconds,
        search_seconds=settings.epochs * steps * scale * seconds,
    )


def fit(pace: Pace, device: torch.device) -> str:
    """Say how much memory a step takes of what is free.

    Raises:
        DeviceError: it is too much.
    """
    free = free_bytes(device)
    takes = f"a step of {pace.batch_size} clips takes about {_gib(pace.step_peak_bytes)}"
    if free is None:
        return takes
    room = largest_share(device) * free
    if pace.step_peak_bytes > room:
        raise DeviceError(
            f"{takes}, and of {_gib(free)} that are free {_gib(room)} may be taken",
            hint="a smaller --batch-size, fewer --channels or --checkpoint-cells take less",
        )
    return f"{takes} of {_gib(free)} that are free"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _measure(
    bilevel: Bilevel, size: Size, num_clips: int, device: torch.device
) -> tuple[float, int]:
    """Return the median seconds of a step with so many clips, and the bytes that it takes."""
    training, validation = (_noise(size, num_clips, device, part) for part in range(2))
    with devices.precision(bilevel.settings.precision):
        with measured(device) as footprint:
            bilevel.step(training, validation, bilevel.settings.lr)
        if device.type == "cuda":
            for _ in range(NUM_WARMUP_STEPS):  # the last of them is recorded
                bilevel.step(training, validation, bilevel.settings.lr)
        times = []
        for _ in range(TIMED):
            began = time.perf_counter()
            # What a step returns is on the device; to read it is to wait for the whole step.
            bilevel.step(training, validation, bilevel.settings.lr).tolist()
            times.append(time.perf_counter() - began)
    return statistics.median(times), footprint.peak


def _noise(size: Size, num_clips: int, device: torch.device, part: int) -> Batch:
    generator = torch.Generator().manual_seed(random_seed(part))
    x = torch.randn(num_clips, *size.shape, generator=generator)
    labels = torch.randint(size.classes, (num_clips,), generator=generator)
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    return Batch(x, labels.to(device), num_clips)
