"""Estimate the time and memory of a search or a training from a few of its steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Batch, clip_shape, num_batches
from skelnas.data.readers.base import Layout
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

Step = Callable[[], Tensor]
"""Takes a step and returns a tensor on the device."""

NUM_TIMED = 2
"""Steps timed at each batch size, after warming up."""

MAX_SECONDS = 20.0
"""Time limit for the steps of each; the smallest batch size is always measured."""


SEARCH_HINT = "use a smaller --batch-size, fewer --channels or --checkpoint-cells"
"""If a step of a search needs too much memory."""


@dataclass(frozen=True)
class Size:
    """The size of a search or a training.

    Attributes:
        clips: that train the weights.
        shape: their (C, T, V).
        classes: number of classes.
        layout: joints of one person.
        persons: M, whose joints are side by side in V.
    """

    clips: int
    shape: tuple[int, int, int]
    classes: int
    layout: Layout
    persons: int = 1


@dataclass(frozen=True)
class Pace:
    """Estimated time and memory of a search or a training. The field names are keys of ``--json``.

    Attributes:
        measured_clips: clips per batch in the timed steps.
        measured_seconds: median time of a timed step.
        measured_peak_bytes: peak memory of its tensors.
        batch_size: clips per batch.
        step_seconds, step_peak_bytes: time and memory scaled to `batch_size`.
        steps: over all epochs.
        epoch_seconds, total_seconds: steps times `step_seconds`.
    """

    measured_clips: int
    measured_seconds: float
    measured_peak_bytes: int
    batch_size: int
    step_seconds: float
    step_peak_bytes: int
    steps: int
    epoch_seconds: float
    total_seconds: float


def read_size(settings: SearchSettings | TrainSettings, workload: Workload) -> Size:
    """Return the size of a search or a training on a cache, or on data of three numbers.

    A search trains its weights on one half of the clips that a training learns from.

    Raises:
        InputError: the cache is broken, or its training part cannot be halved.
    """
    if workload.cache is None:
        layout = Layout(tuple(f"joint {number}" for number in range(workload.joints)))
        shape = clip_shape(layout, 1, settings)
        num_clips = workload.clips * (1 if isinstance(settings, SearchSettings) else 2)
        return Size(num_clips, shape, workload.classes, layout)
    with Cache.open(workload.cache) as cache:
        protocol = cache.choose_protocol(settings.protocol)
        clips = split_training_part(cache, protocol, settings.hold_out).train
        if isinstance(settings, SearchSettings):
            seed = random_seed(settings.seed, STREAM_SPLIT)
            subjects = cache.clips.subjects[clips]
            clips, _ = halve(subjects, seed, by_subject=settings.validation == "subject")
        shape = clip_shape(cache.layout, cache.max_persons, settings)
        return Size(len(clips), shape, len(cache.classes), cache.layout, cache.max_persons)


def measure_pace(settings: SearchSettings, size: Size, device: torch.device) -> Pace:
    """Time steps of a search on noise, and estimate the whole search.

    Raises:
        DeviceError: the memory does not suffice for the smallest batch.
    """
    torch.manual_seed(random_seed(settings.seed))
    settings = devices.resolve_precision(settings, device)
    settings = resolve_alpha_lr(settings, num_batches(size.clips, settings.batch_size))
    joints = len(size.layout.joints)
    supernet = Supernet.of(settings, size.shape[0], size.classes, joints)
    devices.move(supernet, device)
    bilevel = Bilevel(supernet, settings)

    def prepare_step(num_clips: int) -> Step:
        training, validation = (make_noise(size, num_clips, device, part) for part in range(2))
        return lambda: bilevel.step(training, validation, settings.lr)

    return extrapolate(prepare_step, settings, size, device)


def extrapolate(
    prepare_step: Callable[[int], Step],
    settings: SearchSettings | TrainSettings,
    size: Size,
    device: torch.device,
) -> Pace:
    """Time steps with growing batches, and scale the largest to the whole run.

    The batch size doubles until it is that of the run or the next would take too long. Time
    and memory are scaled in proportion to the clips, which rather overestimates them, because
    part of a step does not depend on the clips. Data loading is not included.

    Args:
        prepare_step: makes a step with a number of clips, which returns a tensor on the device.
        settings: epochs, batch size and precision of the run.
        size: of its data.
        device: where it runs.
    """
    batch_size = min(settings.batch_size, size.clips)
    clips = min(2, batch_size)
    elapsed = 0.0
    while True:
        with devices.precision(settings.precision):
            seconds, peak = _measure(prepare_step(clips), device)
        elapsed += (NUM_TIMED + 1) * seconds
        next_clips = min(2 * clips, batch_size)
        expected = (NUM_TIMED + 1) * seconds * next_clips / clips
        if clips == next_clips or elapsed + expected > MAX_SECONDS:
            break
        clips = next_clips
    scale = batch_size / clips
    steps = num_batches(size.clips, settings.batch_size)
    return Pace(
        measured_clips=clips,
        measured_seconds=seconds,
        measured_peak_bytes=peak,
        batch_size=batch_size,
        step_seconds=scale * seconds,
        step_peak_bytes=int(scale * peak),
        steps=settings.epochs * steps,
        epoch_seconds=steps * scale * seconds,
        total_seconds=settings.epochs * steps * scale * seconds,
    )


def check_memory(pace: Pace, device: torch.device, hint: str = SEARCH_HINT) -> str:
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
            hint=hint,
        )
    return f"{need} of {_gib(free)} free"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _measure(step: Step, device: torch.device) -> tuple[float, int]:
    """Return the median seconds of a step, and its peak bytes."""
    with peak_memory(device) as peak:
        step()
    if device.type == "cuda":
        for _ in range(NUM_WARMUP_STEPS):  # the last one of a search is recorded
            step()
    times = []
    for _ in range(NUM_TIMED):
        start = time.perf_counter()
        step().tolist()  # reading the result waits for the whole step
        times.append(time.perf_counter() - start)
    return statistics.median(times), peak.num_bytes


def make_noise(size: Size, num_clips: int, device: torch.device, seed: int = 0) -> Batch:
    """Return clips of noise with random labels."""
    generator = torch.Generator().manual_seed(random_seed(seed))
    x = torch.randn(num_clips, *size.shape, generator=generator)
    labels = torch.randint(size.classes, (num_clips,), generator=generator)
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    return Batch(x, labels.to(device), num_clips)
