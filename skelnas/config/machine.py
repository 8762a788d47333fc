"""Where a verb runs and how it computes there, alone or as one of several ranks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skelnas.config.settings import Settings

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "tf32", "bf16", "auto"]
Store = Literal["auto", "float32", "float16", "host"]
Statistics = Literal["sync", "rank"]


class DeviceSettings(Settings):
    """Where a verb runs, and how it computes there."""

    group = "Device"

    device: Device = Field("auto", description="'auto' takes CUDA, then MPS, then the CPU")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads; 0 leaves the choice to PyTorch"
    )
    precision: Precision = Field(
        "fp32",
        description="arithmetic: 'fp32', 'tf32' for products on CUDA, or 'bf16' in forward passes, "
        "with weights, alphas, statistics and loss in fp32; 'auto' takes bf16 on CUDA devices that "
        "have it and fp32 elsewhere; see docs/method.md (paper: not said)",
    )


class WorkSettings(DeviceSettings):
    """Where a verb keeps a whole cache, and how it gets on with other ranks."""

    group = "Device"

    store: Store = Field(
        "auto",
        description="how clips are kept: on the device as 'float32' or 'float16', or in the memory "
        "of the 'host'; 'auto' takes the first that leaves enough of the device (ours)",
    )
    rank_timeout: int = Field(
        300, ge=1, description="seconds that a rank waits for the others before it gives up (ours)"
    )


class BatchSettings(Settings):
    """How the batches of a search or a training are shared by several ranks."""

    group = "Several ranks"

    batch_norm: Statistics = Field(
        "sync",
        description="with several ranks, whose clips BatchNorm takes statistics of: 'sync', the "
        "whole batch, as one process does, or 'rank', each rank its own (ours: sync)",
    )
