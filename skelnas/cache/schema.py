"""What the writer and the reader of a cache agree on: names, versions, sizes, strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
from numpy.typing import ArrayLike

FORMAT = "skelnas-cache"
SCHEMA_VERSION = 1

INTEGERS = ("label", "subject", "camera", "setup", "start", "num_persons", "num_frames")
"""The integer columns of the table ``clips``; ``start`` is int64, the others are int32."""

POSES_CHUNK_BYTES = 256 * 1024
PRESENT_CHUNK_ROWS = 64 * 1024

CHECKSUM = "crc32"
"""The column with the checksum of each clip's rows, and the attribute with that of a table."""


def as_text(text: str) -> str:
    """Write what UTF-8 and HDF5 cannot hold (broken file names, NUL) with backslashes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def write_table(group: h5py.Group, name: str, table: ArrayLike | None, **options: Any) -> None:
    """Write an array as a dataset, to the disk at once.

    HDF5 would write it when it is closed, which is too late for an exception if the disk is full.
    """
    group.create_dataset(name, data=table, **options).flush()


def write_strings(group: h5py.Group, name: str, strings: Sequence[str]) -> None:
    """Write strings as a dataset of UTF-8 of any length."""
    texts = [as_text(string) for string in strings] or None
    write_table(group, name, texts, shape=(len(strings),), dtype=h5py.string_dtype("utf-8"))


def read_strings(dataset: h5py.Dataset) -> list[str]:
    """Read what `write_strings` wrote."""
    return [text.decode("utf-8") for text in dataset[()]]


def read_pairs(group: h5py.Group) -> list[tuple[str, str]]:
    """Read a group of (file, reason)."""
    return list(zip(read_strings(group["file"]), read_strings(group["reason"]), strict=True))
