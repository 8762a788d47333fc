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
        description="Sampling in time: linear or nearest.",
    )
    center: bool = Field(
        True,  # ours
        description="Put the first person's centre at the origin.",
    )
    align: bool = Field(
        False,  # ours
        description="Align the first person's body with the axes.",
    )
    streams: str = Field(
        "joint",  # paper
        description="Comma-separated: joint, bone, motion.",
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

    rotate: float = Field(0.0, ge=0, le=180, description="Rotate by up to X degrees per axis.")
    scale: float = Field(0.0, ge=0, lt=1, description="Scale each axis by 1 - X to 1 + X.")
    crop: float = Field(1.0, gt=0, le=1, description="Keep at least this fraction of the frames.")
    shear: float = Field(0.0, ge=0, description="Shear each axis by up to X of the others.")
    flip: float = Field(0.0, ge=0, le=1, description="Probability of mirroring a clip.")
    jitter: float = Field(0.0, ge=0, description="Standard deviation of noise per coordinate.")
