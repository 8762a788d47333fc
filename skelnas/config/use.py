"""Settings of what is done with a trained model."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.machine import DeviceSettings, WorkSettings

ScoredPart = Literal["test", "held-out"]
ExportFormat = Literal["onnx", "torchscript", "safetensors-fused"]


class EvaluateSettings(WorkSettings):
    """Settings of `skelnas evaluate`."""

    group = "Evaluation"

    protocol: str = Field("", description="split to score; the one the model was trained on")
    part: ScoredPart = Field(
        "test",
        description="clips to score: the 'test' part, or what was 'held-out' of the training part",
    )
    batch_size: int = Field(
        64, ge=1, description="clips scored together; the result is the same, to rounding"
    )
    views: int = Field(
        1,
        ge=1,
        le=1_000,
        description="stretches of each clip that are scored and averaged; 1 is the whole clip "
        "(ours: 1)",
    )
    latency: bool = Field(
        False,
        description="also time the forward pass on this device, of one clip and of --batch-size",
    )
    passes: int = Field(
        30, ge=2, description="forward passes that --latency times after five to warm up (ours: 30)"
    )
    input_size: str = Field(
        "",
        description="frames x joints, such as 224x224: also count parameters and multiply-adds at "
        "this size of the input",
    )

    @field_validator("input_size")
    @classmethod
    def _check_size(cls, value: str) -> str:
        if value and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", value):
            raise PydanticCustomError("size", "TxV, two whole numbers such as 224x224")
        return value


class PredictSettings(DeviceSettings):
    """Settings of `skelnas predict`."""

    group = "Prediction"

    top: int = Field(5, ge=1, description="classes that are named, the likeliest first")
    batch_size: int = Field(
        64, ge=1, description="recordings scored together; the result is the same, to rounding"
    )
    window: int = Field(
        0,
        ge=0,
        le=100_000,
        description="of a stream: frames that are looked at together; 0 for as many as a clip of "
        "the model has",
    )
    stride: int = Field(
        8, ge=1, description="of a stream: frames from one prediction to the next (ours: 8)"
    )
