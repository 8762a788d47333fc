"""Estimate the time and memory of a search from a few of its steps."""

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
from skelnas.nas.alpha_updates import resolve_alpha_lr
from skelnas.nas.bilevel import NUM_WARMUP_STEPS, Bilevel
from skelnas.nas.search import STREAM_SPLIT
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices
from skelnas.runtime.memory import free_bytes, peak_memory, usable_fraction
from skelnas.runtime.seed import random_seed

if TYPE_CHECKING:
    from skelnas.doctor import Workload

NUM_TIMED = 2
"""Steps timed at each batch size, after warming up."""

MAX_SECONDS = 20.0
"""Time limit for all steps; the smallest batch size is always measured."""


@dataclass(frozen=True)
class Size:
    """The size of a search.

    Attributes:
        clips: that train the weights.
        shape: their (C, T, V).
        classes: number of classes.
        joints: of one person.
    """

    clips: int
    shape: tuple[int, int, int]
    classes: int
    joints: int


@dataclass(frozen=True)
class Pace:
    """Estimated time and memory of a search. The field names are keys of ``--json``.

    Attributes:
        measured_clips: clips per batch in the timed steps.
        measured_seconds: median time of a timed step.
        measured_peak_bytes: peak memory of its tensors.
        batch_size: clips per batch in the search.
        step_seconds, step_peak_bytes: time and memory scaled to `batch_size`.
        steps: of the search, over all epochs.
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


def read_size(settings: SearchSettings, workload: Workload) -> Size:
    """Return the size of a search on a cache, or on data described by three numbers.

    Raises:
        InputError: the cache is broken, or its training part cannot be halved.
    """
    if workload.cache is None:
        num_streams = 1 + settings.streams.count(",")
        shape = (3 * num_streams, settings.frames, workload.joints)
        return Size(workload.clips, shape, workload.classes, workload.joints)
    with Cache.open(workload.cache) as cache:
        part = split_training_part(
            cache, cache.choose_protocol(settings.protocol), settings.hold_out
        )
        seed = random_seed(settings.seed, STREAM_SPLIT)
        subjects = cache.clips.subjects[part.train]
        half, _ = halve(subjects, seed, by_subject=settings.validation == "subject")
        shape = clip_shape(cache.layout, cache.max_persons, settings)
        return Size(len(half), shape, len(cache.classes), len(cache.layout.joints))


def measure_pace(settings: SearchSettings, size: Size, device: torch.device) -> Pace:
    """Time steps on noise with growing batches, and scale the largest to the whole search.

    The batch size doubles until it is that of the search or the next would take too long. Time
    and memory are scaled in proportion to the clips, which rather overestimates them, because
    part of a step does not depend on the clips. Data loading is not included.

    Raises:
        DeviceError: the memory does not suffice for the smallest batch.
    """
    torch.manual_seed(random_seed(settings.seed))
    steps = num_batches(size.clips, settings.batch_size)
    settings = resolve_alpha_lr(settings, steps)
    supernet = Supernet.of(settings, size.shape[0], size.classes, size.joints)
    devices.move(supernet, device)
    bilevel = Bilevel(supernet, settings)
    batch_size = min(settings.batch_size, size.clips)
    clips = min(2, batch_size)
    elapsed = 0.0
    while True:
        seconds, peak = _measure(bilevel, size, clips, device)
        elapsed += (NUM_TIMED + 1) * seconds
        next_clips = min(2 * clips, batch_size)
        expected = (NUM_TIMED + 1) * seconds * next_clips / clips
        if clips == next_clips or elapsed + expected > MAX_SECONDS:
            break
        clips = next_clips
    scale = batch_size / clips
    return Pace(
        measured_clips=clips,
        measured_seconds=seconds,
        measured_peak_bytes=peak,
        batch_size=batch_size,
        step_seconds=scale * seconds,
        step_peak_bytes=int(scale * peak),
        steps=settings.epochs * steps,
        epoch_seconds=steps * scale * seconds,
        search_seconds=settings.epochs * steps * scale * seconds,
    )


def check_memory(pace: Pace, device: torch.device) -> str:
    """Check that a step fits into free memory; return what it needs, in words.

    Raises:
        DeviceError: it does not fit.
    """
    free = free_bytes(device)
    need = f"a step of {pace.batch_size} clips takes about {_gib(pace.step_peak_bytes)}"
    if free is None:
        return need
    limit = usable_fraction(device) * free
    if pace.step_peak_bytes > limit:
        raise DeviceError(
            f"{need}, but only {_gib(limit)} of the {_gib(free)} free may be used",
            hint="use a smaller --batch-size, fewer --channels or --checkpoint-cells",
        )
    return f"{need} of {_gib(free)} free"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _measure(
    bilevel: Bilevel, size: Size, num_clips: int, device: torch.device
) -> tuple[float, int]:
    """Return the median seconds of a step with `num_clips` clips, and its peak bytes."""
    training, validation = (_noise(size, num_clips, device, part) for part in range(2))
    with devices.precision(bilevel.settings.precision):
        with peak_memory(device) as peak:
            bilevel.step(training, validation, bilevel.settings.lr)
        if device.type == "cuda":
            for _ in range(NUM_WARMUP_STEPS):  # the last one is recorded
                bilevel.step(training, validation, bilevel.settings.lr)
        times = []
        for _ in range(NUM_TIMED):
            start = time.perf_counter()
            # The result is on the device: reading it waits for the whole step.
            bilevel.step(training, validation, bilevel.settings.lr).tolist()
            times.append(time.perf_counter() - start)
    return statistics.median(times), peak.num_bytes


def _noise(size: Size, num_clips: int, device: torch.device, part: int) -> Batch:
    generator = torch.Generator().manual_seed(random_seed(part))
    x = torch.randn(num_clips, *size.shape, generator=generator)
    labels = torch.randint(size.classes, (num_clips,), generator=generator)
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    return Batch(x, labels.to(device), num_clips)
