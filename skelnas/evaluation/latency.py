"""How long a forward pass takes."""

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

WARM_UP = 5
"""Passes before the clock counts: the first ones choose kernels and take memory."""


@dataclass(frozen=True)
class Latency:
    """Times of the forward pass of one batch that is on the device already.

    Attributes:
        batch_size, passes: clips a pass, and how many passes were timed.
        median_ms, p95_ms: median and 95th percentile of their times, in milliseconds.
        clips_per_second: at the median.
        device, threads: what it ran on, and PyTorch's threads on a CPU.
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
    """Time a network on batches of noise of shape (C, T, V), each pass to its end.

    The network is on the device and in evaluation mode.
    """
    generator = torch.Generator().manual_seed(random_seed(0))
    noise = torch.randn(batch_size, *shape, generator=generator)
    x = noise.to(device).contiguous(memory_format=torch.channels_last)
    times = []
    with devices.precision(precision):
        for _ in range(WARM_UP + passes):
            _synchronise(device)
            began = time.perf_counter()
            with devices.autocast(precision, device):
                network(x)
            _synchronise(device)
            times.append(time.perf_counter() - began)
    median, p95 = np.percentile(times[WARM_UP:], [50, 95])
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
    """Wait until the device has done what was queued for it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"
