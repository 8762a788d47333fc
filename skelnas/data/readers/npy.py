"""Arrays of numbers in `.npy` format: whole files, and single rows of those in an `.npz`.

Unlike `np.load` this never unpickles, and never allocates more memory than the file fills.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from skelnas.data.readers.archives import BROKEN, Archive
from skelnas.errors import InputError, shown

MAX_HEADER_BYTES = 10_000
MAX_AXES = 32
_HEADER_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
    (3, 0): npy_format.read_array_header_2_0,  # differs only in the encoding of field names
}


def read_npy(data: bytes, where: str, *, allow_text: bool = False) -> NDArray[Any]:
    """Read a whole file, without copying its numbers.

    Args:
        data: the content of the file.
        where: its name, for error messages.
        allow_text: whether it may be an array of strings.

    Raises:
        InputError: it is no array of numbers, or its size does not fit its header.
    """
    header = _read_header(data, where, allow_text)
    if header.num_bytes != len(data) - header.size:
        raise InputError(
            f"{where}: expected {header.num_bytes:,} bytes for the shape {header.shape}, "
            f"found {len(data) - header.size:,}: it is truncated or damaged"
        )
    try:
        flat = np.frombuffer(data, header.dtype, offset=header.size)
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")
    except ValueError as error:  # an empty array with an axis too long for NumPy
        raise InputError(f"{where}: {error}") from None


def read_npz(path: Path, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Read all arrays of an archive, of numbers or strings.

    Args:
        path: the archive.
        max_bytes: maximum size of an array.

    Raises:
        InputError: the archive or an array is damaged, or larger than the file can hold.
    """
    archive = Archive(path)
    return {
        # a copy, since PyTorch takes no array that is read-only
        member.removesuffix(".npy"): read_npy(
            archive.read(member, max_bytes), f"{path}: {member}", allow_text=True
        ).copy()
        for member in archive.members
    }


class Rows:
    """An array in an archive, read row by row; fast if the rows are read in order.

    Args:
        path: the archive, for error messages.
        archive: the same, opened.
        name: name of the array.

    Raises:
        InputError: there is no such array, or it is damaged.
    """

    def __init__(self, path: Path, archive: Archive, name: str) -> None:
        self.where = f"{path}: {name}"
        self._archive = archive  # which closes its streams when it is collected
        self._stream = archive.open(f"{name}.npy")
        self._failure: tuple[int, str] | None = None
        try:
            self._header = _read_header(self._stream.read(MAX_HEADER_BYTES), self.where)
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
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return self._header.dtype

    def read(self, index: int) -> NDArray[Any]:
        """Read a row.

        Raises:
            InputError: the archive is damaged there or, if it is compressed, before.
        """
        row_bytes = self._header.num_bytes // self.shape[0]
        start = self._header.size + index * row_bytes
        if self._failure is None or start < self._failure[0]:
            try:
                self._stream.seek(start)
                data = self._stream.read(row_bytes)
                return np.frombuffer(data, self._header.dtype).reshape(self.shape[1:])
            except BROKEN as error:
                # Later rows fail too, each after decompressing the file from the beginning.
                self._failure = (start, str(error)[:200])
        raise InputError(f"{self.where}: row {index}: the array is damaged: {self._failure[1]}")


@dataclass(frozen=True)
class _Header:
    """The header of a file.

    Attributes:
        dtype: type of the numbers.
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
        """Bytes of numbers that must follow."""
        return prod(self.shape) * self.dtype.itemsize


def _read_header(data: bytes, where: str, allow_text: bool = False) -> _Header:
    """Read the header from the first `MAX_HEADER_BYTES` bytes, or fewer if the file is shorter."""
    file = io.BytesIO(data[:MAX_HEADER_BYTES])
    try:
        version = npy_format.read_magic(file)
    except ValueError:
        magic = npy_format.MAGIC_PREFIX
        raise InputError(f"{where}: expected an .npy array, which begins with {magic!r}") from None
    if version not in _HEADER_READERS:
        raise InputError(f"{where}: the .npy header is damaged: its version is {version}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers that Python 2 wrote
            shape, fortran_order, dtype = _HEADER_READERS[version](file)
    except Exception as error:  # a broken header makes NumPy raise nearly anything
        reason = str(error)[:200] if isinstance(error, ValueError) else "it cannot be parsed"
        raise InputError(f"{where}: the .npy header is damaged: {reason}") from None
    is_text = allow_text and dtype.kind == "U"
    if not is_text and (dtype.kind not in "fiub" or dtype.itemsize > 8):
        raise InputError(
            f"{where}: expected an array of numbers, found {shown(dtype)}",
            hint="save it with np.save(path, clip.astype(np.float32)); objects may run code",
        )
    if len(shape) > MAX_AXES or not all(0 <= length < 2**62 for length in shape):
        raise InputError(f"{where}: the .npy header is damaged: its shape is {shown(shape)}")
    return _Header(dtype, tuple(map(int, shape)), fortran_order, file.tell())
