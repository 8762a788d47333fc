"""Settings of the commands that use a trained model."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.machine import DeviceSettings, WorkSettings
from skelnas.config.settings import Settings

ScoredPart = Literal["test", "held-out"]
Delimiter = Literal["", "comma", "semicolon", "tab", "blank"]
ExportFormat = Literal["onnx", "torchscript", "safetensors-fused"]


class EvaluateSettings(WorkSettings):
    """Settings of `skelnas evaluate`."""

    group = "Evaluation"

    protocol: str = Field("", description="Protocol to score on (the model's by default).")
    part: ScoredPart = Field("test", description="Which clips to score.")
    batch_size: int = Field(64, ge=1, description="Clips per batch; only affects rounding.")
    views: int = Field(
        1,  # ours
        ge=1,
        le=1_000,
        description="Stretches of a clip to average; 1: the whole.",
    )
    latency: bool = Field(False, description="Also time 1 and --batch-size clips.")
    passes: int = Field(
        30,  # ours
        ge=2,
        description="Passes timed by --latency, after 5 warm-ups.",
    )
    input_size: str = Field("", description="Also count costs at TxV, such as 224x224.")
    allow_mismatch: bool = Field(False, description="Score clips that do not fit; recorded.")

    @field_validator("input_size")
    @classmethod
    def _check_size(cls, value: str) -> str:
        if value and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", value):
            raise PydanticCustomError("size", "TxV, two whole numbers such as 224x224")
        return value


class PredictSettings(DeviceSettings):
    """Settings of `skelnas predict`."""

    group = "Prediction"

    channels: str = Field("", description="Numbers of a joint in arrays, such as x,y,score.")
    picture: str = Field("", description="Width x height to divide by; as trained.")
    delimiter: Delimiter = Field(
        "", description="comma, semicolon, tab or blank; found by default."
    )
    skip_columns: int | None = Field(
        None, ge=0, le=1_000, description="Columns before the joints in text; as trained."
    )
    top: int = Field(5, ge=1, description="Classes to print, most probable first.")
    batch_size: int = Field(64, ge=1, description="Recordings per batch; only affects rounding.")
    window: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Stream/--plot: frames per window; 0: trained.",
    )
    stride: int = Field(
        8,  # ours
        ge=1,
        description="Stream or --plot: frames between windows.",
    )


class QuantizeSettings(Settings):
    """Settings of `skelnas export --quantize`."""

    group = "Quantisation"

    calibration_clips: int = Field(
        128,  # ours
        ge=1,
        le=100_000,
        description="Training clips that choose the ranges.",
    )
    part: ScoredPart = Field("test", description="Which clips to score before and after.")
