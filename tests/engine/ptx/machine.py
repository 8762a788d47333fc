"""Execute a kernel: all threads of some blocks at once, as the lanes of NumPy arrays.

The blocks advance together, one instruction after the other, so every branch must go the same way
in all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ptx.memory import Array, GlobalMemory, SharedMemory
from ptx.program import Instruction, Program
from ptx.registers import BITS, TYPES, WARP, Registers, parts_of
from ptx.tensor_cores import Descriptor, multiply, transpose_of

SHORT = {("ld", "shared"), ("st", "shared")}
"""The accesses that may be of two bytes."""

Block = tuple[int, int, int]


class Divergence(Exception):
    """Blocks, or threads of a block, would branch differently."""


class Machine(Registers):
    """Some blocks of a kernel.

    Args:
        program: the kernel.
        memory: the tensors.
        arguments: numbers and addresses, in the order of the parameters.
        grid: number of blocks along each axis.
        blocks: those to run.
        shared: bytes of shared memory of a block.
        counts: if given, gets wavefronts of shared and sectors of global memory, and instructions.
    """

    def __init__(
        self,
        program: Program,
        memory: GlobalMemory,
        arguments: Sequence[int],
        grid: Block,
        blocks: Sequence[Block],
        shared: int,
        counts: Counter[str] | None = None,
    ) -> None:
        threads, count = program.threads, len(blocks)
        self.program, self.memory, self.arguments = program, memory, arguments
        self.shared = SharedMemory(shared, count)
        self.counts = counts
        self.lanes = threads * count
        self.block = np.repeat(np.arange(count), threads)
        numbers = [1 + x + grid[0] * (y + grid[1] * z) for x, y, z in blocks]
        self.block_number = np.array(numbers, np.int32)[self.block]
        thread = np.tile(np.arange(threads, dtype=np.uint32), count)
        self.warp = 1 + (thread // WARP).astype(np.int16)
        self.registers: dict[str, Array] = {
            "%tid.x": thread,
            "%ntid.x": np.array([threads], np.uint32),
            "global_smem": np.zeros(1, np.uint32),
        }
        for axis, name in enumerate("xyz"):
            index = np.array([block[axis] for block in blocks], np.uint32)
            same = (index == index[0]).all()
            self.registers[f"%ctaid.{name}"] = index[:1] if same else index[self.block]
            self.registers[f"%nctaid.{name}"] = np.array([grid[axis]], np.uint32)
        self._in_flight: list[list[Callable[[], None]]] = []
        self._uncommitted: list[Callable[[], None]] = []

    def run(self) -> int:
        """Run to the end and return the number of instructions that a warp executed.

        Loads that ptxas joins count as one.
        """
        at = executed = 0
        instructions = self.program.instructions
        while at < len(instructions):
            each = instructions[at]
            executed += each.joint != 0
            at += 1
            enabled = self._enabled(each)
            if each.name == "bra":
                if enabled is None or _uniform(enabled):
                    at = self.program.labels[each.operands[0]]
            elif each.name == "brx":
                index = _uniform(self.registers[each.operands[0]])
                at = self.program.labels[self.program.tables[each.operands[1]][int(index)]]
            elif each.name == "ret":
                if enabled is None or _uniform(enabled):
                    break
            else:
                getattr(self, f"_{each.name}")(each, enabled)
        if self.counts is not None:
            self.counts["instructions"] += executed * self.lanes // WARP
        return executed

    # Warps and blocks

    def _shfl(self, each: Instruction, enabled: Array | None) -> None:
        to, source, which = each.operands[0].split("|")[0], *each.operands[1:3]
        value = self._spread(self._get(source, "b32")).reshape(-1, WARP)
        lane = self._spread(self._get(which, "u32")).reshape(-1, WARP).astype(int)
        if "bfly" in each.modifiers:
            lane = np.arange(WARP) ^ lane
        elif "idx" not in each.modifiers:
            raise NotImplementedError(each.text)
        self._set(to, np.take_along_axis(value, lane & WARP - 1, 1).ravel(), enabled)

    def _bar(self, each: Instruction, enabled: Array | None) -> None:
        self.shared.epoch += 1

    def _fence(self, each: Instruction, enabled: Array | None) -> None:
        pass  # memory is always up to date

    # Tensor cores

    def _mma(self, each: Instruction, enabled: Array | None) -> None:
        if (
            "m16n8k8" not in each.modifiers
            or each.modifiers.count("tf32") != 2
            or enabled is not None
        ):
            raise NotImplementedError(each.text)
        to, a, b, c = each.operands
        right = transpose_of(self._fragment(b, "b32"))
        product = multiply(self._fragment(a, "b32"), right, self._fragment(c, "f32"))
        self._set_fragment(each, to, product)

    def _wgmma(self, each: Instruction, enabled: Array | None) -> None:
        """Multiply at once; that a register is used before it is waited for is not found."""
        if "mma_async" not in each.modifiers:
            return  # a fence, the end of a group or a wait for one
        to, a, b, accumulate, *signs = each.operands
        if (
            each.modifiers.count("tf32") != 2
            or a[0] != "{"
            or signs != ["1", "1"]
            or enabled is not None
        ):
            raise NotImplementedError(each.text)
        bits = self._spread(self._get(b, "u64")).reshape(-1, 4 * WARP)  # [groups of warps, lanes]
        if (bits != bits[:, :1]).any():
            raise Divergence
        columns = 2 * len(parts_of(to))
        addresses = np.stack([Descriptor.decode(int(n)).addresses(columns) for n in bits[:, 0]])
        matrices = addresses.reshape(len(bits), -1, 8, 2, 4).swapaxes(2, 3)  # [g, N/8, 2, 8, 4]
        words = matrices.reshape(len(bits), -1, WARP)
        loaded = [self._load_matrix(each, words[:, n]) for n in range(words.shape[1])]
        right = np.stack(loaded, 1).reshape(-1, *matrices.shape[1:])  # [warps, N/8, 2, 8, 4]
        right = right.swapaxes(2, 3).reshape(-1, columns, 8)  # [warps, N, 8]
        if accumulate == "0" or not _uniform(self._get(accumulate, "pred")):
            sums = np.zeros((self.lanes // WARP, len(parts_of(to)), WARP), np.float32)
        else:
            sums = self._fragment(to, "f32")
        self._set_fragment(each, to, multiply(self._fragment(a, "b32"), right, sums))

    def _load_matrix(self, each: Instruction, address: Array) -> Array:
        """Load 32 words [groups, 32], the same in the four warps of a group, for one access."""
        self._count_banks("load", address.ravel(), 4, np.ones(address.size, bool))
        every = np.repeat(address, 4, 0).ravel()  # [groups, 32] -> [lanes]
        index = self.shared.index(every, 4, self.block)
        active = np.ones(self.lanes, bool)
        return self.shared.load(index, active, self.warp, each.text).reshape(-1, WARP)

    def _fragment(self, operand: str, kind: str) -> Array:
        """Return registers as [warps, registers, lanes]."""
        values = [self._spread(self._get(part, kind)) for part in parts_of(operand)]
        return np.stack([value.reshape(-1, WARP) for value in values], 1)

    def _set_fragment(self, each: Instruction, operand: str, fragment: Array) -> None:
        for part, value in zip(parts_of(operand), fragment.swapaxes(0, 1), strict=True):
            self._set(part, value.ravel())
        if self.counts is not None:  # products of [16, 8] by [8, 8]
            self.counts[each.name] += len(fragment) * fragment.shape[1] // 4

    # Memory

    def _ld(self, each: Instruction, enabled: Array | None) -> None:
        space, kind = each.modifiers[0], each.modifiers[-1]
        if space == "param":
            number, kind = self.program.params[each.operands[1].strip("[]")]
            bits = BITS[np.dtype(TYPES[kind]).itemsize]
            mask = (1 << 8 * np.dtype(bits).itemsize) - 1
            self._set(each.operands[0], np.array([self.arguments[number] & mask], bits), enabled)
            return
        active, size = self._active(enabled), self._size(each)
        address, parts = self._spread(self._address(each.operands[1])), parts_of(each.operands[0])
        if space == "shared":
            if each.joint is None:
                self._count_banks("load", address, size, active)
            elif each.joint:
                self._count_banks("load", address - address % each.joint, each.joint, active)
            index = self.shared.index(np.where(active, address, 0), size, self.block)
            if size < 4:
                word = self.shared.load(index, active, self.warp, each.text)
                self._set_bytes(each, word >> address % np.uint32(4) * np.uint32(8), enabled)
                return
            loaded = np.stack(
                [self.shared.load(index + word, active, self.warp, each.text)
                 for word in range(size // 4)], 1
            )  # fmt: skip
            if kind == "b64":
                loaded = loaded.view(np.uint64)
            for part, value in zip(parts, loaded.T, strict=True):
                self._set(part, value, enabled)
            return
        self._count_sectors(address, size, active)
        if kind == "b64":
            raise NotImplementedError(each.text)
        loaded = np.zeros((self.lanes, max(size // 4, 1)), np.uint32)
        loaded[active] = self.memory.load(address[active], size, self.block_number[active])
        for number, part in enumerate(parts):
            dtype = np.uint16 if part.startswith("%rs") else np.uint32
            self._set(part, loaded[:, number].astype(dtype), enabled)

    def _set_bytes(self, each: Instruction, word: Array, enabled: Array | None) -> None:
        """Set registers from the lowest bits of a word."""
        bits = 8 * np.dtype(TYPES[each.modifiers[-1]]).itemsize
        for number, part in enumerate(parts_of(each.operands[0])):
            value = word >> np.uint32(number * bits) & np.uint32((1 << bits) - 1)
            self._set(part, value.astype(np.uint16), enabled)

    def _st(self, each: Instruction, enabled: Array | None) -> None:
        active, size = self._active(enabled), self._size(each)
        address = self._spread(self._address(each.operands[0]))
        kind = {"b8": "b16", "b64": "b64"}.get(each.modifiers[-1], "b32")
        values = [self._spread(self._get(part, kind)) for part in parts_of(each.operands[1])]
        if kind == "b64":
            halves = np.ascontiguousarray(np.stack(values, 1)).view(np.uint32)
            values = list(halves.T)
        if each.modifiers[0] == "shared":
            self._count_banks("store", address, size, active)
            index = self.shared.index(np.where(active, address, 0), size, self.block)
            for number, value in enumerate(values):
                if size < 4:
                    byte, value = address % 4 + number, value.astype(np.uint8)
                    self.shared.store(index, value, active, self.warp, each.text, byte)
                    continue
                self.shared.store(index + number, value, active, self.warp, each.text)
            return
        self._count_sectors(address, size, active)
        chosen = [value[active] for value in values]
        self.memory.store(address[active], chosen, size, self.block_number[active])

    def _size(self, each: Instruction) -> int:
        size = np.dtype(TYPES[each.modifiers[-1]]).itemsize
        if size * each.width == 2 and (each.name, each.modifiers[0]) not in SHORT:
            raise NotImplementedError(each.text)
        return size * each.width

    def _cp(self, each: Instruction, enabled: Array | None) -> None:
        """Copy to shared memory; what is copied arrives when it is waited for, not earlier."""
        if "commit_group" in each.modifiers:
            self._in_flight.append(self._uncommitted)
            self._uncommitted = []
            return
        if "wait_group" in each.modifiers:
            while len(self._in_flight) > int(each.operands[0], 0):
                for arrive in self._in_flight.pop(0):
                    arrive()
            return
        to, source, size = *map(self._address, each.operands[:2]), int(each.operands[2], 0)
        active = self._active(enabled)
        real = self._get(each.operands[3], "u32") if len(each.operands) > 3 else np.array([size])
        read = active & (self._spread(real) > 0)
        to, source = self._spread(to), self._spread(source)
        index = self.shared.index(np.where(active, to, 0), size, self.block)
        self._count_sectors(source, size, read)
        self._count_banks("store", to, size, active)

        def arrive() -> None:
            values = np.zeros((self.lanes, size // 4), np.uint32)
            values[read] = self.memory.load(source[read], size, self.block_number[read])
            for word in range(size // 4):
                self.shared.data[(index + word)[active]] = values[active, word]

        self._uncommitted.append(arrive)

    def _ldmatrix(self, each: Instruction, enabled: Array | None) -> None:
        for part, index in self._matrix_words(each, "load", each.operands[0], each.operands[1]):
            active = np.ones(self.lanes, bool)
            self._set(part, self.shared.load(index, active, self.warp, each.text), enabled)

    def _stmatrix(self, each: Instruction, enabled: Array | None) -> None:
        for part, index in self._matrix_words(each, "store", each.operands[1], each.operands[0]):
            active, value = np.ones(self.lanes, bool), self._spread(self._get(part, "b32"))
            self.shared.store(index, value, active, self.warp, each.text)

    def _matrix_words(
        self, each: Instruction, kind: str, registers: str, address: str
    ) -> list[tuple[str, Array]]:
        """Return each register of 8 x 8 halves with the words that the lanes exchange for it."""
        if "trans" in each.modifiers:
            raise NotImplementedError(each.text)
        rows = self._spread(self._address(address)).astype(np.int64).reshape(-1, WARP)
        lane = np.arange(WARP)
        found = []
        for number, part in enumerate(parts_of(registers)):
            row = rows[:, 8 * number : 8 * number + 8]
            words = (row[:, lane // 4] + 4 * (lane % 4)).ravel()
            self._count_banks(kind, words, 4, np.ones(self.lanes, bool))
            found.append((part, self.shared.index(words, 4, self.block)))
        return found

    # Counts

    def _count_banks(self, kind: str, address: Array, size: int, active: Array) -> None:
        """Count the wavefronts of an access to the 32 banks, and the least possible."""
        if self.counts is None:
            return
        together = WARP if size <= 4 else WARP * 4 // size
        starts = address.astype(np.int64).reshape(-1, together) // 4
        for row, chosen in zip(starts, active.reshape(-1, together), strict=True):
            if chosen.any():
                words = np.unique(row[chosen][:, None] + np.arange(max(size // 4, 1)))
                self.counts[f"{kind} wavefronts"] += int(np.bincount(words % WARP).max())
                self.counts[f"{kind} least wavefronts"] += -(-len(words) // WARP)

    def _count_sectors(self, address: Array, size: int, active: Array) -> None:
        """Count the sectors of 32 bytes that the warps touch in global memory."""
        if self.counts is None:
            return
        starts = address.astype(np.int64).reshape(-1, WARP)
        for row, chosen in zip(starts, active.reshape(-1, WARP), strict=True):
            some = row[chosen]
            sectors = np.unique(np.concatenate([some // 32, (some + size - 1) // 32]))
            self.counts["sectors"] += len(sectors)


def _uniform(value: Array) -> bool | int:
    if (value != value[0]).any():
        raise Divergence
    first: bool | int = value[0].item()
    return first
