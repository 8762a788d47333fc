"""Settings of devices, memory and ranks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skelnas.config.settings import Settings

# fmt: off
Device = Literal[
    "auto", "cpu", "cuda", "mps",
    "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7",
    "cuda:8", "cuda:9", "cuda:10", "cuda:11", "cuda:12", "cuda:13", "cuda:14", "cuda:15",
]
# fmt: on
DEVICES = "auto|cpu|cuda|cuda:N|mps"
"""The devices, as the help lists them."""

Precision = Literal["fp32", "tf32", "bf16", "auto"]
Store = Literal["auto", "float32", "float16", "host"]
Statistics = Literal["sync", "rank"]


class DeviceSettings(Settings):
    """Where a command runs, and with which arithmetic."""

    group = "Device"

    device: Device = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0 lets PyTorch choose.")
    precision: Precision = Field(
        "fp32",  # ours; the paper does not say
        description="fp32, tf32, bf16, auto (newer GPUs: bf16).",
    )


class WorkSettings(DeviceSettings):
    """How a command that works on a whole cache stores its clips and waits for other ranks."""

    group = "Device"

    store: Store = Field(
        "auto",  # ours
        description="Keep clips: auto, float32, float16 or host.",
    )
    rank_timeout: int = Field(
        300,  # ours
        ge=1,
        description="Seconds to wait for other ranks.",
    )


class BatchSettings(Settings):
    """How ranks share a batch."""

    group = "Several ranks"

    batch_norm: Statistics = Field(
        "sync",  # ours: the same result as one process
        description="BatchNorm statistics over all or each.",
    )
