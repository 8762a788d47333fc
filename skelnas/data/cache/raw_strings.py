"""Reads the strings of an HDF5 file without the HDF5 library.

Strings of variable length are pointers into heaps. On a damaged heap the library never returns, or
allocates whatever length a pointer claims; here nothing is larger than the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

POINTER = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])

HEAP_SIGNATURE = b"GCOL"

CONTINUATION, ATTRIBUTE = 16, 12
"""Types of the messages in the header of a group."""


class RawStrings:
    """The strings of an HDF5 file with 8-byte addresses and version 1 of the group headers.

    Every method raises ValueError if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.num_bytes = self._unread = path.stat().st_size
        self._heap = cache(self._read_heap)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, offset: int, count: int) -> list[bytes]:
        """Read a table of strings at an offset in the file."""
        return self._follow(self._read(offset, count * POINTER.itemsize))

    def read_attribute(self, header: int, name: str) -> bytes:
        """Read a single string, an attribute of the group whose header is at an offset."""
        for kind, message in self._messages(header):
            if kind == ATTRIBUTE and len(message) > 8:
                version, *sizes = struct.unpack_from("<BxHHH", message)
                start = 9 if version == 3 else 8
                unit = 8 if version == 1 else 1  # parts are padded to this
                if message[start : start + sizes[0]].rstrip(b"\0") == name.encode():
                    start += sum(-(-size // unit) * unit for size in sizes)
                    (text,) = self._follow(message[start : start + POINTER.itemsize])
                    return text
        raise ValueError(f"attribute {name}: is not stored as expected")

    def _follow(self, data: bytes) -> list[bytes]:
        """Return the strings that pointers point to."""
        if len(data) % POINTER.itemsize:
            raise ValueError("a pointer to a string is cut short")
        pointers = np.frombuffer(data, POINTER)
        if pointers["length"].sum(dtype=np.uint64) > self.num_bytes:  # all may be the same string
            raise ValueError("its strings are longer than the file")
        texts: list[bytes] = []
        for length, heap, index in pointers.tolist():
            text = self._heap(heap).get(index) if length else b""
            if text is None or len(text) != length or b"\0" in text:
                raise ValueError(f"string {len(texts)} is damaged")
            texts.append(text)
        return texts

    def _messages(self, header: int) -> Iterator[tuple[int, bytes]]:
        """Yield the type and the content of each message of a group's header."""
        version, num_messages, size = struct.unpack("<BxHxxxxI", self._read(header, 12))
        if version != 1:
            raise ValueError(f"a group header of version {version}, expected 1")
        blocks = [self._read(header + 16, size)]
        while blocks and num_messages:
            block, start = blocks.pop(0), 0
            while start + 8 <= len(block) and num_messages:
                kind, size = struct.unpack_from("<HH", block, start)
                message = block[start + 8 : start + 8 + size]
                if kind == CONTINUATION and size >= 16:
                    blocks.append(self._read(*struct.unpack_from("<QQ", message)))
                yield kind, message
                start += 8 + size
                num_messages -= 1

    def _read_heap(self, address: int) -> dict[int, bytes]:
        """Read the objects of a heap: number to content."""
        signature, size = struct.unpack("<4s4xQ", self._read(address, 16))
        if signature != HEAP_SIGNATURE:
            raise ValueError("its strings are not where they should be")
        data = self._read(address, size)
        objects: dict[int, bytes] = {}
        start = 16
        while start + 16 <= size:
            index, length = struct.unpack_from("<H6xQ", data, start)
            if not index:  # free space until the end
                break
            objects[index] = data[start + 16 : start + 16 + length]
            start += 16 + -(-length // 8) * 8
        return objects

    def _read(self, offset: int, size: int) -> bytes:
        """Read bytes; no more, in all, than twice those of the file, whose parts may overlap."""
        self._unread -= size
        if offset + size > self.num_bytes or self._unread < -self.num_bytes:
            raise ValueError(f"{size:,} bytes at {offset:,}, too much for this file")
        self._file.seek(offset)
        return self._file.read(size)
