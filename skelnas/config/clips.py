"""How a recording becomes the tensor that a network sees."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.settings import Settings

Interpolation = Literal["linear", "nearest"]

STREAMS = ("joint", "bone", "motion")
"""What a network can see of a clip, in the order in which it sees them."""


class ClipSettings(Settings):
    """How a recording of any length becomes the tensor that a network sees."""

    group = "Clips"

    frames: int = Field(
        112, ge=1, le=10_000, description="T, frames a clip is sampled to (paper: 112)"
    )
    interpolation: Interpolation = Field(
        "linear",
        description="how frames are sampled: 'linear' in time, never across absence (ours), "
        "or 'nearest', the paper's strict reading",
    )
    center: bool = Field(
        True,
        description="put the origin at the first person's centre joint when first seen (ours)",
    )
    align: bool = Field(
        False,
        description="turn each clip so that the first person's spine and hips start along the "
        "axes; helps across views (ours: off)",
    )
    streams: str = Field(
        "joint",
        description="what the network sees, with commas between: 'joint' positions (paper), 'bone' "
        "vectors to them from their parents, 'motion' to the next frame",
    )

    @field_validator("streams")
    @classmethod
    def _order_streams(cls, value: str) -> str:
        chosen = {name.strip() for name in value.split(",")}
        if not chosen <= set(STREAMS):
            known = ", ".join(STREAMS)
            raise PydanticCustomError("streams", f"some of {known}, with commas between")
        return ",".join(name for name in STREAMS if name in chosen)


class AugmentSettings(Settings):
    """Random changes to training clips; all off by default, as in the paper."""

    group = "Augmentation"

    rotate: float = Field(
        0.0,
        ge=0,
        le=180,
        description="rotate each clip by up to this many degrees an axis (paper: none)",
    )
    scale: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="scale each axis by up to this share, 0.1 for 0.9 to 1.1 (paper: none)",
    )
    crop: float = Field(
        1.0,
        gt=0,
        le=1,
        description="cut out a stretch of at least this share of the frames (paper: none)",
    )
    shear: float = Field(
        0.0, ge=0, description="add up to this share of each axis to each other (paper: none)"
    )
    flip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance to mirror a clip: x is negated, left and right joints change places "
        "(paper: none)",
    )
    jitter: float = Field(
        0.0,
        ge=0,
        description="standard deviation of noise on every coordinate, in the unit of the data "
        "(paper: none)",
    )
