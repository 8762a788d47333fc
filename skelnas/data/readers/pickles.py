"""Read pickles without running them: containers, numbers, text and NumPy arrays, nothing else.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program
names. This one can neither import nor call anything: a name is text, and the few names that NumPy
arrays are pickled with map to functions of this module. Anything else is an error.

Nothing is allocated that the file does not hold, and nesting takes no recursion. Arrays stay in the
file, which may be memory-mapped, until they are read.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Buffer: TypeAlias = memoryview | bytes
Step: TypeAlias = "Callable[[_Machine], object]"

MIN_STEPS = 100_000
BYTES_PER_STEP = 4
"""A longer program for the size of its file holds no poses; it would fill the memory."""
MAX_LONG_BYTES = 16
MAX_NAME_BYTES = 100
MAX_DECODED_BYTES = 1000
"""Longer text is treated as the content of an array, and not decoded."""
MAX_AXES = 8
_NUMBER_CODE = re.compile(r"[fiub][1248]", re.ASCII)
_BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}
_CORE = re.compile(r"numpy\.(_?)core\.")


class PickleError(ValueError):
    """The file is not a pickle, is damaged, or asks for more than data."""


def load(data: Buffer) -> Any:
    """Read a pickle of protocol 2 to 5.

    Args:
        data: the file; arrays in the result refer to it.

    Returns:
        None, bool, int, float, str, bytes, list, tuple, dict and `Array`, nested.

    Raises:
        PickleError: names the step that needs more than data, or where the file is damaged.
    """
    machine = _Machine(data)
    try:
        return machine.run()
    except PickleError as error:
        raise PickleError(f"byte {machine.position}: {error}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise PickleError(f"byte {machine.position}: the pickle is broken ({kind})") from None


@dataclass(slots=True, repr=False)
class Array:
    """An array whose numbers are still in the file.

    Attributes:
        shape: as the file declares it; only `read` compares it with the data.
        kind: type of the numbers.
        fortran_order: whether the first axis varies fastest.
        data: the numbers.
    """

    shape: tuple[int, ...] = ()
    kind: _NumberType | None = None
    fortran_order: bool = False
    data: Buffer | _LatinText | None = None

    def __repr__(self) -> str:
        return f"an array {self.shape}"

    @property
    def num_bytes(self) -> int:
        """Size of the numbers in the file; several arrays may have the same."""
        data = self.data.text if isinstance(self.data, _LatinText) else self.data
        return len(data or b"")

    def read(self) -> NDArray[Any]:
        """Return the array. Raises PickleError if the file does not hold all its numbers."""
        if self.kind is None or self.data is None:
            raise PickleError("an array without content")
        data = self.data.to_bytes() if isinstance(self.data, _LatinText) else self.data
        dtype = self.kind.dtype
        if prod(self.shape) * dtype.itemsize != len(data):
            raise PickleError(f"{len(data):,} bytes for an array {self.shape} of {dtype}")
        try:
            flat = np.frombuffer(data, dtype)
            return flat.reshape(self.shape, order="F" if self.fortran_order else "C")
        except ValueError as error:  # an empty array with an axis too long for NumPy
            raise PickleError(str(error)) from None

    @classmethod
    def from_buffer(cls, data: Any, kind: Any, shape: Any, order: Any) -> Array:
        """Create an array as protocol 5 does."""
        array = cls()
        array.set_state(1, shape, kind, order == "F", data)
        return array

    def set_state(self, version: Any, shape: Any, kind: Any, fortran: Any, data: Any) -> None:
        """Fill an empty array, as protocols up to 4 do."""
        if not isinstance(kind, _NumberType):
            raise PickleError("an array without a type of numbers")
        if (
            not isinstance(shape, tuple)
            or len(shape) > MAX_AXES
            or any(type(length) is not int or not 0 <= length < 2**62 for length in shape)
        ):
            raise PickleError("an array with an invalid shape")
        self.shape, self.kind, self.fortran_order = shape, kind, bool(fortran)
        self.data = _as_buffer(data)


class _NumberType:
    """The type of the numbers of an array, as pickled by `numpy.dtype`."""

    __slots__ = ("_byte_order", "_code")

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not _NUMBER_CODE.fullmatch(code.lstrip("<>|=")):
            kind = f"the type {code[:20]!r}" if isinstance(code, str) else "a type that is not text"
            raise PickleError(f"an array of {kind}, expected numbers")
        self._code = code.lstrip("<>|=")
        self._byte_order = _BYTE_ORDERS.get(code[0], "=")

    def set_state(self, version: Any, order: Any, *rest: Any) -> None:
        """Set the byte order; the rest describes records, which are refused."""
        if order not in _BYTE_ORDERS or any(part is not None for part in rest[:3]):
            raise PickleError("an array of records, expected one of numbers")
        self._byte_order = _BYTE_ORDERS[order]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type."""
        try:
            return np.dtype(self._byte_order + self._code)
        except TypeError:  # such as a float of one byte
            raise PickleError(f"there is no type of number {self._code!r}") from None

    def scalar(self, data: Any) -> int | float | bool:
        """Return the number that some bytes stand for."""
        number: int | float | bool = Array((), self, False, _as_buffer(data)).read().item()
        return number


@dataclass(slots=True)
class _LatinText:
    """Bytes that protocols up to 2 write as text, one character per byte."""

    text: memoryview | str

    def to_bytes(self) -> bytes:
        try:
            text = self.text if isinstance(self.text, str) else str(self.text, "utf-8")
            return text.encode("latin-1")
        except UnicodeError:
            raise PickleError("an array of characters that are not bytes") from None


def _as_buffer(value: Any, encoding: str = "latin1") -> Buffer | _LatinText:
    """Return the content of an array, whether written as bytes or as text."""
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return _LatinText(value)
    if isinstance(value, memoryview | bytes | _LatinText):
        return value
    raise PickleError("an array of objects, expected one of numbers")


class _Name(str):
    """What a program would import, as ``module:name``."""

    __slots__ = ()


class _Machine:
    """The stack machine: one method per kind of step."""

    def __init__(self, data: Buffer) -> None:
        self.data = memoryview(data)
        self.position = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack under each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, steps, stop = self.data, _STEPS, pickle.STOP[0]
        max_steps = MIN_STEPS + len(data) // BYTES_PER_STEP
        for _ in range(max_steps):
            code = data[self.position]
            self.position += 1
            if code == stop:
                (result,) = self.stack
                return result
            step = steps[code]
            if step is None:
                raise PickleError(f"the step {bytes([code])!r}, expected one that plain data needs")
            step(self)
        raise PickleError(f"more than {max_steps:,} steps in a file of {len(data):,} bytes")

    def take(self, count: int) -> memoryview:
        """Return the next bytes of the program, and advance."""
        piece = self.data[self.position : self.position + count]
        if len(piece) != count:
            raise PickleError(f"the file is truncated: expected {count:,} more bytes")
        self.position += count
        return piece

    def take_integer(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take_line(self) -> str:
        text, end, _ = bytes(self.data[self.position :][:MAX_NAME_BYTES]).partition(b"\n")
        if not end:
            raise PickleError("expected a short name")
        self.position += len(text) + 1
        return text.decode("ascii")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        top, self.stack = self.stack, self.below.pop()
        return top

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a name that is not text")
        full_name = _Name(f"{_CORE.sub('numpy.core.', module)}:{name}"[: 2 * MAX_NAME_BYTES])
        if full_name not in _CALLS and full_name != "numpy:ndarray":
            quoted = repr(str(full_name))[1:-1]
            raise PickleError(f"it names {quoted}, expected containers, numbers, text and arrays")
        self.push(full_name)

    def push_from_stack(self) -> None:
        name = self.pop()
        self.push_name(self.pop(), name)

    def call(self) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, _Name) or name not in _CALLS or not isinstance(arguments, tuple):
            raise PickleError("a call, expected data")
        self.push(_CALLS[name](*arguments))

    def build(self) -> None:
        state = self.pop()
        if not isinstance(self.stack[-1], Array | _NumberType) or not isinstance(state, tuple):
            raise PickleError("a change to an object, expected data")
        self.stack[-1].set_state(*state)

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleError("an item is appended to something other than a list")
        self.stack[-1].extend(values)

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise PickleError("an item is set in something other than a dictionary")
        for key in items[::2]:
            if type(key) not in (str, int, float, bool, NoneType):
                raise PickleError("a key that is neither text nor a number")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def push_text(self, size: int, encoding: str) -> None:
        text = self.take(self.take_integer(size))
        if len(text) <= MAX_DECODED_BYTES:
            self.push(str(text, encoding))
        else:
            self.push(_LatinText(text) if encoding == "utf-8" else text)

    def push_long(self, size: int) -> None:
        length = self.take_integer(size)
        if length > MAX_LONG_BYTES:
            raise PickleError(f"a whole number of {length:,} bytes")
        self.push(self.take_integer(length, signed=True))

    def push_tuple(self, size: int) -> None:
        values = self.stack[len(self.stack) - size :] if len(self.stack) >= size else None
        if values is None:
            raise PickleError("a tuple of more values than there are")
        del self.stack[len(self.stack) - size :]
        self.push(tuple(values))


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray:_reconstruct": lambda kind, shape, code: Array(),
    "numpy.core.multiarray:scalar": _NumberType.scalar,
    "numpy.core.numeric:_frombuffer": Array.from_buffer,
    "numpy:dtype": lambda code, align=False, copy=True: _NumberType(code),
    "_codecs:encode": _as_buffer,
    "__builtin__:bytes": lambda: b"",  # empty bytes in protocol 2
}

_STEP_OF_OPCODE: dict[bytes, Step] = {
    pickle.PROTO: lambda m: _check_protocol(m.take_integer(1)),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: _Machine.mark,
    pickle.POP: lambda m: m.pop(),
    pickle.POP_MARK: lambda m: m.pop_to_mark(),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.take_integer(4, signed=True)),
    pickle.BININT1: lambda m: m.push(m.take_integer(1)),
    pickle.BININT2: lambda m: m.push(m.take_integer(2)),
    pickle.LONG1: lambda m: m.push_long(1),
    pickle.LONG4: lambda m: m.push_long(4),
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.SHORT_BINUNICODE: lambda m: m.push_text(1, "utf-8"),
    pickle.BINUNICODE: lambda m: m.push_text(4, "utf-8"),
    pickle.BINUNICODE8: lambda m: m.push_text(8, "utf-8"),
    pickle.SHORT_BINSTRING: lambda m: m.push_text(1, "latin-1"),
    pickle.BINSTRING: lambda m: m.push_text(4, "latin-1"),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.take_integer(1))),
    pickle.BINBYTES: lambda m: m.push(m.take(m.take_integer(4))),
    pickle.BINBYTES8: lambda m: m.push(m.take(m.take_integer(8))),
    pickle.BYTEARRAY8: lambda m: m.push(m.take(m.take_integer(8))),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.pop_to_mark()),
    pickle.APPEND: lambda m: m.append([m.pop()]),
    pickle.APPENDS: lambda m: m.append(m.pop_to_mark()),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_to_mark())),
    pickle.TUPLE1: lambda m: m.push_tuple(1),
    pickle.TUPLE2: lambda m: m.push_tuple(2),
    pickle.TUPLE3: lambda m: m.push_tuple(3),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.SETITEM: lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    pickle.SETITEMS: lambda m: m.set_items(m.pop_to_mark()),
    pickle.BINGET: lambda m: m.push(m.memo[m.take_integer(1)]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.take_integer(4)]),
    pickle.BINPUT: lambda m: m.put(m.take_integer(1)),
    pickle.LONG_BINPUT: lambda m: m.put(m.take_integer(4)),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.GLOBAL: lambda m: m.push_name(m.take_line(), m.take_line()),
    pickle.STACK_GLOBAL: _Machine.push_from_stack,
    pickle.REDUCE: _Machine.call,
    pickle.BUILD: _Machine.build,
}
_STEPS: list[Step | None] = [_STEP_OF_OPCODE.get(bytes([code])) for code in range(256)]


def _check_protocol(number: int) -> None:
    if number > pickle.HIGHEST_PROTOCOL:
        raise PickleError(f"protocol {number}, expected at most {pickle.HIGHEST_PROTOCOL}")
