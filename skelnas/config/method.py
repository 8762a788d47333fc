"""Settings of how a search finds its genotype, and of a search by trainings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.settings import Settings
from skelnas.primitives import SPACES, candidates

Method = Literal["gradient", "predict"]
FoldsBy = Literal["subject", "camera", "clip"]


def _order_space(value: str) -> str:
    """Return the name of a space, or operations in the order of the alphas."""
    try:
        return value if value in SPACES else ",".join(candidates(value))
    except ValueError as error:
        raise PydanticCustomError("space", "{expected}", {"expected": str(error)}) from None


Space = Annotated[str, AfterValidator(_order_space)]
SPACE_HELP = "sar, sar-joint, sar-no-se, darts, or op ids."

PREDICT = {"epochs": 30, "batch_size": 32}
"""Defaults of a search that ``--method predict`` overrides (ours)."""


class MethodSettings(Settings):
    """How a search finds its genotype; all fields but the first are for ``--method predict``."""

    group = "Method"
    changeable = frozenset({"jobs"})
    added = frozenset({"method", "genotypes", "folds", "folds_by", "jobs"})

    method: Method = Field(
        "gradient",  # paper
        description="gradient, or predict: by trainings.",
    )
    genotypes: int = Field(
        24,  # ours
        ge=4,
        le=10_000,
        description="With predict: genotypes to train.",
    )
    folds: int = Field(
        2,  # ours
        ge=2,
        le=100,
        description="With predict: trainings of each, one per fold.",
    )
    folds_by: FoldsBy | None = Field(
        None,  # ours: subjects if there are enough, else clips
        description="With predict: by subject, camera or clip.",
    )
    jobs: int = Field(1, ge=1, le=1024, description="With predict: trainings at a time.")

    @field_validator("genotypes", "folds", "folds_by", "jobs")
    @classmethod
    def _expect_predict(cls, value: object, info: ValidationInfo) -> object:
        return cls._expect_method("predict", value, info)

    @classmethod
    def _expect_method(cls, method: Method, value: object, info: ValidationInfo) -> object:
        """Refuse a setting of one method where the other was asked for."""
        name = info.field_name or ""
        if value != cls.model_fields[name].default and info.data.get("method", method) != method:
            expected = f"--method {method}, which alone has this setting"
            raise PydanticCustomError("method", "{expected}", {"expected": expected})
        return value
