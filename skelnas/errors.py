"""Failures that a user can act on, each with the exit code that a shell sees."""

from __future__ import annotations

import sys
from typing import Any


class SkelnasError(Exception):
    """A known failure: one line that names what is wrong, and a hint what to do.

    Args:
        message: what is wrong; names the file, the value and what was expected.
        hint: what the user can do about it, if that is known.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SkelnasError):
    """The command was asked for something that cannot be: exit code 2."""

    exit_code = 2


class InputError(SkelnasError):
    """A file or a value that was handed in is broken: exit code 3."""

    exit_code = 3


class DeviceError(SkelnasError):
    """The device is missing or its memory is spent: exit code 4."""

    exit_code = 4


class Interrupted(SkelnasError):
    """The user or the system asked the command to stop: exit code 130."""

    exit_code = 130


def shown(value: object, longest: int = 60) -> str:
    """Quote what a file or a user gave in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "could not create a primitive",  # oneDNN, which works on a CPU
    "MPS backend out of memory",
)
"""What PyTorch says, in a mere RuntimeError, when memory is spent."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory is spent, of the machine or of its device."""
    torch: Any = sys.modules.get("torch")  # whoever has not imported it cannot meet its errors
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or any(words in str(error) for words in OUT_OF_MEMORY)
    )
