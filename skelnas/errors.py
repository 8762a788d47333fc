"""Exceptions for failures that a user can act on, each with its exit code."""

from __future__ import annotations

import reprlib
import sys
from typing import Any


class SkelnasError(Exception):
    """A known failure, reported in one line with a hint and without a traceback.

    Args:
        message: what is wrong: the file, the value and what was expected.
        hint: what the user can do about it, if known.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SkelnasError):
    """The options are invalid or contradict each other: exit code 2."""

    exit_code = 2


class InputError(SkelnasError):
    """An input is missing, broken or does not fit: exit code 3."""

    exit_code = 3


class NotFinite(InputError):
    """The scores of a model are not finite: exit code 3."""


class DeviceError(SkelnasError):
    """The device is missing or out of memory: exit code 4."""

    exit_code = 4


class Diverged(SkelnasError):
    """A run ended in values that are not finite: exit code 1."""


class Interrupted(SkelnasError):
    """The user or the system stopped the command: exit code 130."""

    exit_code = 130


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = sys.maxsize  # cut at the end, by `shown`


def shown(value: object, max_length: int = 60) -> str:
    """Return the repr of a value for an error message, truncated if it is long or deep."""
    text = _SHORT.repr(value)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "could not create a primitive",  # oneDNN on CPUs
    "MPS backend out of memory",
)
"""Messages of the plain RuntimeErrors that PyTorch raises when it runs out of memory."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that the machine or a device is out of memory."""
    torch: Any = sys.modules.get("torch")  # if it is not imported, it cannot have raised this
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or any(words in str(error) for words in OUT_OF_MEMORY)
    )
