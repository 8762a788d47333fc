"""Arrays of NumPy as pickles describe them, made only when they are asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Buffer: TypeAlias = memoryview | bytes

MAX_AXES = 8
_CODE = re.compile(r"[fiub][1248]", re.ASCII)
_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}


class PickleError(ValueError):
    """The file is no pickle, a broken one, or asks for more than data."""


@dataclass(slots=True)
class LatinText:
    """Bytes that protocols up to 2 write as text, a character each."""

    text: memoryview | str

    def tobytes(self) -> bytes:
        """Return the bytes. Raises PickleError if there is a character that is none."""
        try:
            text = self.text if isinstance(self.text, str) else str(self.text, "utf-8")
            return text.encode("latin-1")
        except UnicodeError:
            raise PickleError("an array of characters that are no bytes") from None


def as_buffer(value: Any, encoding: str = "latin1") -> Buffer | LatinText:
    """Return bytes, however they were written: the only encoding is one byte a character."""
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return LatinText(value)
    if isinstance(value, memoryview | bytes | LatinText):
        return value
    raise PickleError("an array of objects, expected one of numbers")


class NumberType:
    """The type of the numbers of an array."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code.lstrip("<>|=")):
            kind = repr(code[:20]) if isinstance(code, str) else "that is no text"
            raise PickleError(f"an array of the type {kind}, expected numbers")
        self._code = code.lstrip("<>|=")
        self._order = _ORDERS.get(code[0], "=")

    def set_state(self, version: Any, order: Any, *rest: Any) -> None:
        """Take the order of bytes; the rest is for arrays of records, which are refused."""
        if order not in _ORDERS or any(part is not None for part in rest[:3]):
            raise PickleError("an array of records, expected one of numbers")
        self._order = _ORDERS[order]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The same in NumPy."""
        try:
            return np.dtype(self._order + self._code)
        except TypeError:  # such as a float of one byte
            raise PickleError(f"there is no type of number {self._code!r}") from None

    def scalar(self, data: Any) -> int | float | bool:
        """Make a single number."""
        number: int | float | bool = Array((), self, False, as_buffer(data)).read().item()
        return number


@dataclass(slots=True)
class Array:
    """An array that is still in the file.

    Attributes:
        shape: as the file says; only `read` compares it with the data.
        kind: type of the numbers.
        fortran_order: whether the first axis varies fastest.
        data: the numbers.
    """

    shape: tuple[int, ...] = ()
    kind: NumberType | None = None
    fortran_order: bool = False
    data: Buffer | LatinText | None = None

    @classmethod
    def from_buffer(cls, data: Any, kind: Any, shape: Any, order: Any) -> Array:
        """Make an array as protocol 5 writes it."""
        array = cls()
        array.set_state(1, shape, kind, order == "F", data)
        return array

    def set_state(self, version: Any, shape: Any, kind: Any, fortran: Any, data: Any) -> None:
        """Take what protocols up to 4 write behind an empty array."""
        if not isinstance(kind, NumberType):
            raise PickleError("an array without a type of numbers")
        if (
            not isinstance(shape, tuple)
            or len(shape) > MAX_AXES
            or any(type(length) is not int or not 0 <= length < 2**62 for length in shape)
        ):
            raise PickleError("an array with a shape that is none")
        self.shape, self.kind, self.fortran_order = shape, kind, bool(fortran)
        self.data = as_buffer(data)

    def read(self) -> NDArray[Any]:
        """Return the array. Raises PickleError if the file does not hold all its numbers."""
        if self.kind is None or self.data is None:
            raise PickleError("an array without content")
        data = self.data.tobytes() if isinstance(self.data, LatinText) else self.data
        dtype = self.kind.dtype
        if prod(self.shape) * dtype.itemsize != len(data):
            raise PickleError(f"{len(data):,} bytes for an array {self.shape} of {dtype}")
        try:
            flat = np.frombuffer(data, dtype)
            return flat.reshape(self.shape, order="F" if self.fortran_order else "C")
        except ValueError as error:  # the product of the axes is 0, and one of them too large
            raise PickleError(str(error)) from None
