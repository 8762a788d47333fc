"""Limits for the network that is trained in the end."""

from __future__ import annotations

import re
from decimal import Decimal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.settings import Settings

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


class BudgetSettings(Settings):
    """How large the network may be that is trained in the end."""

    group = "Budget"
    as_text = added = frozenset({"max_params", "max_macs"})

    max_params: int | None = Field(
        None,  # ours
        gt=0,
        description="Maximum parameters, such as 200k or 1.2M.",
    )
    max_macs: int | None = Field(
        None,  # ours
        gt=0,
        description="Maximum MACs per clip, such as 50M.",
    )

    @property
    def has_budget(self) -> bool:
        """Whether there is a limit."""
        return self.max_params is not None or self.max_macs is not None

    @field_validator("max_params", "max_macs", mode="before")
    @classmethod
    def _parse_amount(cls, value: object) -> object:
        """Read ``200k`` and ``1.2M``."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)([kMG]?)", value)
        amount = Decimal(match[1]) * UNITS[match[2]] if match else Decimal("0.5")
        if amount % 1:
            raise PydanticCustomError("amount", "a whole number such as 200000, 200k or 1.2M")
        return int(amount)
