"""What all settings have in common."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

LARGEST = 1e18
"""Numbers beyond it fit neither 64-bit integers nor, multiplied, float32."""


class Settings(BaseModel):
    """Settings are frozen once made, and know no names but their own."""

    group: ClassVar[str]
    """What the fields of this very class are about; a heading of the help."""

    changeable: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not change what comes out, so that a run can change them when it goes on."""

    @classmethod
    def initial(cls, name: str) -> Any:
        """Return what a field is where nothing is said, for the help."""
        return cls.model_fields[name].default

    def asked(self) -> dict[str, Any]:
        """Return the fields that a run is defined by, as plain containers."""
        return self.model_dump(exclude=set(self.changeable))

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_boolean(cls, value: object, info: ValidationInfo) -> object:
        """Take true and false for switches alone: they would pass for 1 and 0."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and kinds & {int, float}:
            raise PydanticCustomError("boolean", "a number")
        if not isinstance(value, bool) and bool in kinds:
            raise PydanticCustomError("boolean", "true or false")
        return value

    @field_validator("*")
    @classmethod
    def _check_number(cls, value: object) -> object:
        if isinstance(value, int | float) and abs(value) > LARGEST:
            raise PydanticCustomError("size", "a number up to {most}", {"most": f"{LARGEST:g}"})
        return value
