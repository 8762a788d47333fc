"""Global and shared memory that know who wrote what, and complain."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]

NOBODY, SEVERAL = 0, -1
"""Instead of the number of a block or warp, which count from 1. Zeros take no memory."""


class Fault(Exception):
    """An access outside of all tensors, or one that is not aligned."""


class Buffer:
    """The storage of a tensor.

    Attributes:
        name: of the tensor.
        address: of its first byte.
        data: its bytes.
        writer, reader: for each word the block that accesses it, NOBODY or SEVERAL.
    """

    def __init__(self, name: str, address: int, size: int) -> None:
        self.name = name
        self.address = address
        self.data = np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=np.uint8)
        self.writer, self.reader = (np.zeros(-(-size // 4), np.int32) for _ in range(2))


class GlobalMemory:
    """The storages of a kernel's tensors; addresses are those of this process."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.buffers: list[Buffer] = []
        self.races = Counter[str]()
        known = set[int]()
        for name, tensor in tensors.items():
            storage = tensor.untyped_storage()
            if storage.nbytes() and storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                self.buffers.append(Buffer(name, storage.data_ptr(), storage.nbytes()))
        self.buffers.sort(key=lambda buffer: buffer.address)
        self._starts = np.array([buffer.address for buffer in self.buffers], np.uint64)

    def load(self, addresses: Array, size: int, blocks: Array) -> Array:
        """Return [lanes, words] of memory, for the blocks that the lanes belong to."""
        words = max(size // 4, 1)
        out = np.zeros((len(addresses), words), np.uint32)
        for lanes, buffer, offset in self._locate(addresses, size):
            if size < 4:
                out[lanes, 0] = buffer.data[offset]
            for word in range(words):
                index = offset // 4 + word
                if size >= 4:
                    out[lanes, word] = _words(buffer)[index]
                before = buffer.reader[index]
                other = (before != NOBODY) & (before != blocks[lanes])
                buffer.reader[index] = np.where(other, SEVERAL, blocks[lanes])
        return out

    def store(self, addresses: Array, values: list[Array], size: int, blocks: Array) -> None:
        """Store one array a word (or one of bytes)."""
        for lanes, buffer, offset in self._locate(addresses, size):
            if size < 4:
                buffer.data[offset] = values[0][lanes].astype(np.uint8)
                continue
            for word, value in enumerate(values):
                index = offset // 4 + word
                before = buffer.writer[index]
                if ((before != NOBODY) & (before != blocks[lanes])).any():
                    self.races[f"several blocks write {buffer.name}"] += 1
                _words(buffer)[index] = value[lanes]
                buffer.writer[index] = blocks[lanes]

    def finish(self) -> Counter[str]:
        """Return all races, including reads of what another block writes."""
        for buffer in self.buffers:
            mixed = (buffer.writer > 0) & (buffer.reader != NOBODY)
            if (mixed & (buffer.reader != buffer.writer)).any():
                self.races[f"a block reads what another writes: {buffer.name}"] += 1
        return self.races

    def _locate(self, addresses: Array, size: int) -> Iterator[tuple[Array, Buffer, Array]]:
        if (addresses % np.uint64(size)).any():
            raise Fault(f"{size} bytes are not aligned")
        numbers = np.searchsorted(self._starts, addresses, side="right").astype(int) - 1
        for number in np.unique(numbers):
            if number < 0:
                raise Fault("an address before all tensors")
            lanes = numbers == number
            buffer = self.buffers[number]
            offset = (addresses[lanes] - np.uint64(buffer.address)).astype(np.int64)
            if (offset + size > len(buffer.data)).any():
                raise Fault(f"byte {offset.max()} of {buffer.name}, which has {len(buffer.data)}")
            yield lanes, buffer, offset


def _words(buffer: Buffer) -> Array:
    return buffer.data[: len(buffer.data) // 4 * 4].view(np.uint32)


class SharedMemory:
    """The shared memory of some blocks, one after the other; unwritten words are NaN.

    Between two barriers, a warp must not read or overwrite what another one writes. (The same
    value may be written twice.)
    """

    def __init__(self, size: int, num_blocks: int) -> None:
        self.words = -(-size // 4)
        self.data = np.full(self.words * num_blocks, 0x7FC00000, np.uint32)
        self.races = Counter[str]()
        self.epoch = 0  # barriers so far
        self._write_epoch = np.full(self.data.shape, -1, np.int32)
        self._read_epoch = self._write_epoch.copy()
        self._writer, self._reader = (np.zeros(self.data.shape, np.int16) for _ in range(2))
        self._byte_epoch = np.full(4 * self.data.size, -1, np.int32)
        self._byte_writer = np.zeros(4 * self.data.size, np.int16)

    def index(self, addresses: Array, size: int, blocks: Array) -> Array:
        """Return the index of the first word of each access."""
        if (addresses % min(size, 16)).any():
            raise Fault("a shared access is not aligned")
        words = addresses.astype(np.int64) // 4
        if (words + max(size // 4, 1) > self.words).any():
            raise Fault(f"byte {addresses.max()} of {4 * self.words} in shared memory")
        return words + blocks * self.words

    def load(self, index: Array, active: Array, warps: Array, text: str) -> Array:
        """Return a word for each lane."""
        i, warp = index[active], warps[active]
        if ((self._write_epoch[i] == self.epoch) & (self._writer[i] != warp)).any():
            self.races[f"read after write: {text}"] += 1
        other = (self._read_epoch[i] == self.epoch) & (self._reader[i] != warp)
        self._reader[i] = np.where(other, SEVERAL, warp)
        self._read_epoch[i] = self.epoch
        return self.data[index]

    def store(
        self,
        index: Array,
        values: Array,
        active: Array,
        warps: Array,
        text: str,
        byte: Array | None = None,
    ) -> None:
        """Store a word for each active lane, or the byte of it that `byte` counts."""
        i, warp, value = index[active], warps[active], values[active]
        data, at = self.data, i
        if byte is not None:
            data, at = self.data.view(np.uint8), 4 * i + byte[active]
        changed = data[at] != value
        written = (self._write_epoch[i] == self.epoch) & (self._writer[i] != warp)
        writer = warp
        if byte is not None:  # several warps may write the bytes of a word
            writer = np.where(written, SEVERAL, warp)
            written = (self._byte_epoch[at] == self.epoch) & (self._byte_writer[at] != warp)
            self._byte_epoch[at], self._byte_writer[at] = self.epoch, warp
        read = (self._read_epoch[i] == self.epoch) & (self._reader[i] != warp)
        if (changed & written).any():
            self.races[f"write after write: {text}"] += 1
        if (changed & read).any():
            self.races[f"write after read: {text}"] += 1
        self._write_epoch[i], self._writer[i] = self.epoch, writer
        data[at] = value
