"""Rows of an array in an `.npz`, read one at a time, so that its size does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError
from skelnas.sources.archives import BROKEN, Archive
from skelnas.sources.npy import MAX_HEADER_BYTES, read_header


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
