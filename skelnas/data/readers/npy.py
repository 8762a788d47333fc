"""The `.npy` format, for arrays of numbers only.

Unlike NumPy's own reader this one evaluates nothing, and takes no memory for an array that the
file does not hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import BROKEN, Archive
from skelnas.errors import InputError

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
_LENGTH = rb"(?:0|[1-9]\d{0,17})L?"
_SHAPE = rb"\((|" + _LENGTH + rb",|" + _LENGTH + rb"(?:, ?" + _LENGTH + rb")+,?)\)"
_HEADER = re.compile(
    rb"\{'descr': *'([<>|=]?[fiub][1248])', *'fortran_order': *(True|False), *"
    rb"'shape': *" + _SHAPE + rb" *,? *\} *\n?"
)


@dataclass(frozen=True)
class Header:
    """What a file says of its array.

    Attributes:
        dtype: of one of its numbers.
        shape: of the array.
        fortran_order: whether the first axis varies fastest.
        size: bytes before the numbers.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    size: int

    @property
    def num_bytes(self) -> int:
        """How many bytes of numbers have to follow."""
        return prod(self.shape) * self.dtype.itemsize


def read_header(data: bytes, where: str) -> Header:
    """Read the beginning of a file.

    Args:
        data: the first `MAX_HEADER_BYTES` bytes or more, or the whole file.
        where: its name, for the error.

    Raises:
        InputError: it is no such file, or its array holds something else than numbers.
    """
    if data[:6] != MAGIC or len(data) < 12:
        raise InputError(f"{where}: expected an .npy array, which begins with {MAGIC!r}")
    start = 10 if data[6] == 1 else 12
    size = start + int.from_bytes(data[8:start], "little")
    if data[6:8] not in (b"\1\0", b"\2\0", b"\3\0") or size > min(len(data), MAX_HEADER_BYTES):
        raise InputError(f"{where}: expected an .npy header of version 1, 2 or 3; it is damaged")
    text = data[start:size]
    fields = _HEADER.fullmatch(text)
    if fields is None:
        raise InputError(
            f"{where}: expected an array of numbers, found the header {text[:80]!r}",
            hint="save it with np.save(path, clip.astype(np.float32)); objects may run code",
        )
    try:
        dtype = np.dtype(fields[1].decode("ascii"))
    except TypeError:  # such as a float of one byte
        raise InputError(f"{where}: there is no type of number {fields[1]!r}") from None
    numbers = fields[3].replace(b"L", b"").split(b",")
    shape = tuple(int(number) for number in numbers if number.strip())
    return Header(dtype, shape, fields[2] == b"True", size)


def read_npy(data: bytes, where: str) -> NDArray[Any]:
    """Read a whole file, without a copy of its numbers.

    Raises:
        InputError: it is no such file, or its size is not that of its array.
    """
    header = read_header(data, where)
    if header.num_bytes != len(data) - header.size:
        raise InputError(
            f"{where}: expected {header.num_bytes:,} bytes for the shape {header.shape}, "
            f"found {len(data) - header.size:,}: it is cut or damaged"
        )
    try:
        flat = np.frombuffer(data, header.dtype, offset=header.size)
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")
    except ValueError as error:  # more axes or larger ones than NumPy has
        raise InputError(f"{where}: {error}") from None


class Rows:
    """The array, without its content; fast if rows are read in order.

    Args:
        path: the `.npz`.
        archive: it, opened.
        name: of the array.

    Raises:
        InputError: there is no such array, or it is damaged.
    """

    def __init__(self, path: Path, archive: Archive, name: str) -> None:
        self.where = f"{path}: {name}"
        self._archive = archive
        self._stream = archive.open(f"{name}.npy")
        self._failure: tuple[int, str] | None = None
        try:
            self._header = read_header(self._stream.read(MAX_HEADER_BYTES), self.where)
        except BROKEN as error:
            raise InputError(f"{self.where}: the array is damaged: {str(error)[:200]}") from None
        found = archive.members[f"{name}.npy"].file_size - self._header.size
        if found != self._header.num_bytes or self._header.fortran_order or not self.shape:
            raise InputError(
                f"{self.where}: expected {self._header.num_bytes:,} bytes, row by row, for the "
                f"shape {self.shape}, found {found:,}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self._header.shape

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return self._header.num_bytes // max(1, self.shape[0])

    def read(self, index: int) -> NDArray[Any]:
        """Read a row.

        Raises:
            InputError: the archive is damaged there, or before if it is compressed.
        """
        start = self._header.size + index * self.row_bytes
        if self._failure is None or start < self._failure[0]:
            try:
                self._stream.seek(start)
                data = self._stream.read(self.row_bytes)
                return np.frombuffer(data, self._header.dtype).reshape(self.shape[1:])
            except BROKEN as error:
                # Rows behind it would be looked for from the beginning, each in vain.
                self._failure = (start, str(error)[:200])
        raise InputError(f"{self.where}: row {index}: the array is damaged: {self._failure[1]}")
