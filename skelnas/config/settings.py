"""The base class of all settings."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

MAX_NUMBER = 1e18
"""Larger numbers overflow 64-bit integers or, squared, float32."""


class Settings(BaseModel):
    """Immutable settings; unknown names are refused."""

    group: ClassVar[str]
    """Heading, in the help, of the fields that a class itself defines."""

    changeable: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not affect results, so that a resumed run may change them."""

    everyday: ClassVar[frozenset[str]] = frozenset()
    """Fields that ``--help`` lists, where ``--help-all`` lists all; if empty, there is no such."""

    added: ClassVar[frozenset[str]] = frozenset()
    """Fields of the class itself that 0.1.0 did not have. At their default they are not written, so
    that runs of 0.1.0 can be resumed and 0.1.0 can read files that do not use them."""

    as_text: ClassVar[frozenset[str]] = frozenset()
    """Numbers that can be written with a unit, so that the command line hands them over as text."""

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the default of a field, for the help."""
        return cls.model_fields[name].default

    def fixed(self) -> dict[str, Any]:
        """Return the fields that a resumed run may not change, as plain containers."""
        return self.model_dump(exclude=set(self.changeable))

    @model_serializer(mode="wrap")
    def _omit_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        added = {name for owner in type(self).__mro__ for name in vars(owner).get("added", ())}
        unused = {name for name in added if getattr(self, name) == self.default(name)}
        return {name: value for name, value in values.items() if name not in unused}

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_boolean(cls, value: object, info: ValidationInfo) -> object:
        """Accept true and false for switches only; pydantic would take them as 1 and 0."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        types = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and types & {int, float}:
            raise PydanticCustomError("boolean", "a number")
        if not isinstance(value, bool) and bool in types:
            raise PydanticCustomError("boolean", "true or false")
        return value

    @field_validator("*")
    @classmethod
    def _check_number(cls, value: object) -> object:
        if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
            raise PydanticCustomError(
                "size", "a number up to {limit}", {"limit": f"{MAX_NUMBER:g}"}
            )
        return value
