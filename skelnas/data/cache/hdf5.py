"""Reads attributes and tables of an HDF5 file that may be damaged or hostile.

HDF5 follows links into other files, loads filters from plug-ins, and allocates whatever size a
file claims. Here an entry is checked before it is read: it is in this file, of the expected type,
and all tables together are no larger than the file. Entries that nobody asks for are not visited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import h5py
import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache.raw_strings import POINTER, RawStrings
from skelnas.data.cache.storage import CHECKSUM

SIGNATURE = b"\x89HDF\r\n\x1a\n"

MAX_LISTED = 1000
"""Entries of a group that is listed."""

FILTERS: tuple[list[int], ...] = ([], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE])
"""HDF5 would load others from plug-ins and run them."""

MAX_EXPANSION = 100
"""Size of gzipped data relative to the file. Gzip can do 1000, but not on the poses of people."""

FREE_BYTES = 64 << 20
"""Gzipped data may have this size in any file."""

_KINDS = {str: "O", int: "iu", float: "f", bool: "b"}
"""Type of an attribute to the kinds of NumPy's dtypes."""

Value = TypeVar("Value", str, int, float, bool)


class Hdf5Reader:
    """Reads an open HDF5 file and records what was read, for a checksum.

    Every method raises ValueError, with the name of the entry, if that is not as expected. On a
    damaged file HDF5 also raises OSError, RuntimeError, KeyError and TypeError.

    Args:
        path: the file.
        file: the same file, opened by h5py, with nothing left to flush.

    Attributes:
        contents: name to what was read: the value of an attribute, the checksum of a table.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.contents: dict[str, object] = {}
        self._root = h5py.h5g.open(file.id, b"/")
        self._strings = RawStrings(path)
        self._unread = self._strings.num_bytes

    def close(self) -> None:
        """Close the raw file; h5py's stays open."""
        self._strings.close()

    def checksum(self) -> int:
        """Return the CRC-32 of `contents` as JSON."""
        return crc32(json.dumps(self.contents, sort_keys=True, allow_nan=False).encode())

    def attribute(self, name: str, kind: type[Value]) -> Value:
        """Read an attribute; raises ValueError if there is none.

        Args:
            name: ``source`` is one of the file, ``layout/center_joint`` one of a group.
            kind: type of the value.
        """
        value = self.optional_attribute(name, kind)
        if value is None:
            raise ValueError(f"attribute {name}: is missing")
        return value

    def optional_attribute(self, name: str, kind: type[Value]) -> Value | None:
        """Read an attribute; None if there is none."""
        value = self._read_attribute(name, kind)
        if value is not None:
            self.contents[f"@{name}"] = value
        return value

    def stored_checksum(self, name: str = "") -> int | None:
        """Return the checksum that is stored with a dataset or with the file, if there is one."""
        return self._read_attribute(f"{name}/{CHECKSUM}".strip("/"), int)

    def names(self, group: str) -> list[str]:
        """List the entries of a group."""
        names: list[bytes] = []

        def add(name: bytes) -> bool | None:
            names.append(name)
            return True if len(names) > MAX_LISTED else None  # True ends the iteration

        opened = self._open(group)
        opened.links.iterate(add)
        if len(names) > MAX_LISTED:
            raise ValueError(f"{group}: more than {MAX_LISTED} entries")
        return [name.decode() for name in names]

    def has(self, name: str) -> bool:
        """Return whether a group has an entry."""
        group, _, key = name.rpartition("/")
        opened = self._open(group)
        return bool(opened.links.exists(key.encode()))

    def table(self, name: str, dtype: str, shape: Sequence[int | None]) -> NDArray[Any]:
        """Read numbers.

        Args:
            name: of the dataset.
            dtype: exactly that of the file, such as ``<i4``.
            shape: None for a dimension of any size.
        """
        dataset = self.dataset(name)
        expected = tuple(shape)
        if dataset.dtype.str != dtype or not _matches(dataset.shape, expected):
            found = f"{dataset.dtype.str} {list(dataset.shape)}"
            raise ValueError(f"{name}: found {found}, expected {dtype} {list(expected)}")
        self._locate(name, dataset, dataset.dtype.itemsize)
        table: NDArray[Any] = dataset[()]
        self._record(name, crc32(np.ascontiguousarray(table).data))
        return table

    def strings(self, name: str, max_count: int | None = None) -> list[str]:
        """Read a list of strings."""
        dataset = self.dataset(name)
        if not _is_string(dataset.dtype) or dataset.ndim != 1:
            raise ValueError(f"{name}: expected a list of strings, found {dataset.dtype}")
        if max_count is not None and dataset.size > max_count:
            raise ValueError(f"{name}: {dataset.size:,} strings, expected at most {max_count:,}")
        offset = self._locate(name, dataset, POINTER.itemsize)
        try:
            texts = self._strings.read(offset, dataset.size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        self._record(name, crc32(b"".join(text + b"\0" for text in texts)))
        return [text.decode() for text in texts]

    def rows(self, name: str, max_chunk_bytes: int) -> h5py.Dataset:
        """Open a dataset whose rows are to be read in parts.

        Args:
            name: of the dataset.
            max_chunk_bytes: size of a chunk of more than one row.
        """
        dataset = self.dataset(name)
        chunk = dataset.chunks
        if not chunk or chunk[1:] != dataset.shape[1:]:
            raise ValueError(f"{name}: expected chunks of whole rows, found {chunk}")
        if chunk[0] > 1 and math.prod(chunk) * dataset.dtype.itemsize > max_chunk_bytes:
            raise ValueError(f"{name}: chunks of {chunk[0]:,} rows, expected smaller ones")
        check_expansion(dataset, self._strings.num_bytes)
        if dataset.compression:
            _check_chunks(name, dataset)
        self.contents[name] = [
            dataset.dtype.str,
            dataset.shape,
            dataset.compression,
            self.stored_checksum(name),
        ]
        return dataset

    def dataset(self, name: str) -> h5py.Dataset:
        """Open a dataset whose numbers are in this file."""
        dataset = h5py.Dataset(self._open(name, h5py.h5d.DatasetID), readonly=True)
        plist = dataset.id.get_create_plist()  # before anything else, which would follow a view
        is_plain = plist.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
        if not is_plain or plist.get_external_count():
            raise ValueError(f"{name}: expected data in this file, found a view or another file")
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        if filters not in FILTERS:
            raise ValueError(f"{name}: filters {filters}, expected shuffled gzip or none")
        if dataset.shape is None:
            raise ValueError(f"{name}: has no shape")
        return dataset

    def _read_attribute(self, name: str, kind: type[Value]) -> Value | None:
        group, _, key = name.rpartition("/")
        owner = self._open(group, (h5py.h5g.GroupID, h5py.h5d.DatasetID))
        if not h5py.h5a.exists(owner, key.encode()):
            return None
        attribute = h5py.h5a.open(owner, key.encode())
        dtype = attribute.dtype
        fits = dtype.kind in _KINDS[kind] and (kind is not str or _is_string(dtype))
        if attribute.shape != () or not fits:
            raise ValueError(f"attribute {name}: expected one {kind.__name__}, found {dtype}")
        if kind is str:
            header = h5py.h5o.get_info(owner).addr
            return kind(self._strings.read_attribute(header, key).decode())
        value = _wrap(owner).attrs[key]
        if not np.isfinite(value):
            raise ValueError(f"attribute {name}: {value}, expected a finite number")
        return kind(value)

    def _open(self, name: str, kind: Any = h5py.h5g.GroupID) -> Any:
        """Open a group or dataset by hard links, which stay in the file."""
        opened = self._root
        for key in name.encode().split(b"/") if name else []:
            if not isinstance(opened, h5py.h5g.GroupID) or not opened.links.exists(key):
                raise ValueError(f"{name}: is missing")
            if opened.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{name}: expected data in this file, found a link")
            opened = h5py.h5o.open(opened, key)
        if not isinstance(opened, kind):
            raise ValueError(f"{name}: is a group where a dataset is expected, or the reverse")
        return opened

    def _locate(self, name: str, dataset: h5py.Dataset, item_bytes: int) -> int:
        """Return the offset of a table in the file, and count its bytes as read."""
        size = math.prod(dataset.shape) * item_bytes
        self._unread -= size
        if self._unread < 0:
            raise ValueError(f"{name}: {list(dataset.shape)} values, more than the file can hold")
        offset = dataset.id.get_offset()
        if size and (offset is None or dataset.id.get_storage_size() != size):
            raise ValueError(f"{name}: expected {size:,} bytes in one piece")
        return offset or 0

    def _record(self, name: str, checksum: int) -> None:
        """Record the checksum of a table and compare it with the stored one, if there is one."""
        self.contents[name] = checksum
        if self.stored_checksum(name) not in (None, checksum):
            raise ValueError(f"{name}: has changed since it was written: the checksum differs")


def check_expansion(dataset: h5py.Dataset, file_bytes: int) -> None:
    """Check that a dataset is not much larger than the file that holds it.

    Raises:
        ValueError: it is, so the file is damaged or made to fill the memory.
    """
    num_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    limit = max(FREE_BYTES, MAX_EXPANSION * file_bytes) if dataset.compression else file_bytes
    if num_bytes > limit:
        raise ValueError(
            f"{dataset.name.strip('/')}: {num_bytes:,} bytes, too much for a file of {file_bytes:,}"
        )


def _wrap(opened: Any) -> h5py.Group | h5py.Dataset:
    return (h5py.Group if isinstance(opened, h5py.h5g.GroupID) else h5py.Dataset)(opened)


def _check_chunks(name: str, dataset: h5py.Dataset) -> None:
    """Check that no gzipped chunk is larger than gzip makes one: HDF5 unpacks all of it."""
    num_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    limit = num_bytes + num_bytes // 100 + 64

    def is_too_large(chunk: Any) -> bool | None:
        return True if chunk.size > limit else None  # True ends the iteration

    if dataset.id.chunk_iter(is_too_large):
        raise ValueError(f"{name}: a gzipped chunk is too large")


def _is_string(dtype: np.dtype[Any]) -> bool:
    info = h5py.check_string_dtype(dtype)
    return info is not None and info.length is None


def _matches(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        size in (found, None) for found, size in zip(shape, expected, strict=True)
    )
