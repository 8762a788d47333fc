"""The time that a forward pass takes."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skelnas.config import Precision
from skelnas.runtime import devices
from skelnas.runtime.seed import random_seed

NUM_WARM_UP_PASSES = 5
"""Passes that are not timed: the first ones choose kernels and allocate memory."""


@dataclass(frozen=True)
class Latency:
    """The time of a forward pass of a batch that is already on the device.

    Attributes:
        batch_size: clips per pass.
        passes: number of passes that were timed.
        median_ms, p95_ms: median and 95th percentile of their times.
        clips_per_second: at the median.
        device: where it ran.
        threads: of PyTorch on the CPU.
    """

    batch_size: int
    passes: int
    median_ms: float
    p95_ms: float
    clips_per_second: float
    device: str
    threads: int


@torch.no_grad()
def time_passes(
    network: nn.Module,
    shape: tuple[int, int, int],
    device: torch.device,
    batch_size: int,
    passes: int,
    precision: Precision = "fp32",
) -> Latency:
    """Time the forward pass of a network on a batch of noise.

    Args:
        network: on the device and in evaluation mode.
        shape: (C, T, V) of a clip.
        device: where to run it.
        batch_size: clips per pass.
        passes: number of passes to time.
        precision: of the forward pass.
    """
    generator = torch.Generator().manual_seed(random_seed(0))
    noise = torch.randn(batch_size, *shape, generator=generator)
    x = noise.to(device).contiguous(memory_format=torch.channels_last)
    times = []
    with devices.precision(precision):
        for _ in range(NUM_WARM_UP_PASSES + passes):
            _synchronise(device)
            start = time.perf_counter()
            with devices.autocast(precision, device):
                network(x)
            _synchronise(device)
            times.append(time.perf_counter() - start)
    median, p95 = np.percentile(times[NUM_WARM_UP_PASSES:], [50, 95])
    return Latency(
        batch_size=batch_size,
        passes=passes,
        median_ms=float(1000 * median),
        p95_ms=float(1000 * p95),
        clips_per_second=float(batch_size / median),
        device=_name(device),
        threads=torch.get_num_threads(),
    )


def _synchronise(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"
