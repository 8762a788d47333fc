"""Settings that turn a recording into the input of a network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.settings import Settings

Interpolation = Literal["linear", "nearest"]

STREAMS = ("joint", "bone", "motion")
"""The input streams, in the order of their channels."""


class ClipSettings(Settings):
    """Sampling, placing and streams of a clip."""

    group = "Clips"

    frames: int = Field(
        112,  # paper
        ge=1,
        le=10_000,
        description="Frames sampled from each clip (T).",
    )
    interpolation: Interpolation = Field(
        "linear",  # ours; "nearest" is the strict reading of the paper
        description="Sample frames linearly in time, or take the nearest.",
    )
    center: bool = Field(
        True,  # ours
        description="Put the origin at the first person's centre joint.",
    )
    align: bool = Field(
        False,  # ours
        description="Rotate the first person's spine and hips onto the axes.",
    )
    streams: str = Field(
        "joint",  # paper
        description="Inputs, separated by commas: joint, bone, motion.",
    )

    @field_validator("streams")
    @classmethod
    def _order_streams(cls, value: str) -> str:
        chosen = {name.strip() for name in value.split(",")}
        if not chosen <= set(STREAMS):
            names = ", ".join(STREAMS)
            raise PydanticCustomError("streams", f"some of {names}, separated by commas")
        return ",".join(name for name in STREAMS if name in chosen)


class AugmentSettings(Settings):
    """Random changes to training clips. All are off by default, as in the paper."""

    group = "Augmentation"

    rotate: float = Field(
        0.0, ge=0, le=180, description="Rotate by up to this many degrees per axis."
    )
    scale: float = Field(
        0.0, ge=0, lt=1, description="Scale each axis by up to this fraction, such as 0.1."
    )
    crop: float = Field(
        1.0, gt=0, le=1, description="Smallest fraction of a clip to sample frames from."
    )
    shear: float = Field(
        0.0, ge=0, description="Add up to this fraction of each axis to the others."
    )
    flip: float = Field(0.0, ge=0, le=1, description="Probability of mirroring a clip.")
    jitter: float = Field(
        0.0, ge=0, description="Standard deviation of noise per coordinate, in the data's unit."
    )
