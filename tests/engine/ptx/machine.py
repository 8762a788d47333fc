"""Execute a kernel: all threads of some blocks at once, as the lanes of NumPy arrays.

The blocks advance together, one instruction after the other, so every branch must go the same way
in all of them. Registers are arrays with an element a lane, or with one element if all agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ptx.memory import Array, GlobalMemory, SharedMemory
from ptx.program import Instruction, Program

WARP = 32

TYPES = {
    "u8": np.uint8, "b8": np.uint8,
    "u16": np.uint16, "b16": np.uint16, "s16": np.int16,
    "u32": np.uint32, "b32": np.uint32, "s32": np.int32, "f32": np.float32,
    "u64": np.uint64, "b64": np.uint64, "s64": np.int64,
}  # fmt: skip
"""What each type of PTX is here; predicates are booleans."""

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
"""How registers are stored, by their size."""

COMPARISONS = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal, "neu": np.not_equal,
}  # fmt: skip

Block = tuple[int, int, int]


class Divergence(Exception):
    """Blocks, or threads of a block, would branch differently."""


class Machine:
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
        """Run to the end and return the number of instructions that a warp executed."""
        at = executed = 0
        instructions = self.program.instructions
        while at < len(instructions):
            each = instructions[at]
            executed += 1
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

    # Operands

    def _enabled(self, each: Instruction) -> Array | None:
        if each.predicate is None:
            return None
        predicate = self.registers[each.predicate]
        return ~predicate if each.negated else predicate

    def _active(self, enabled: Array | None) -> Array:
        return np.ones(self.lanes, bool) if enabled is None else self._spread(enabled)

    def _spread(self, value: Array) -> Array:
        return np.broadcast_to(value, (self.lanes,))

    def _get(self, operand: str, kind: str) -> Array:
        if kind == "pred":
            return self.registers[operand] if operand[0] == "%" else np.array([operand == "-1"])
        dtype = np.dtype(TYPES[kind])
        value = self.registers.get(operand)
        if value is None:
            if operand[0] == "%":
                raise KeyError(f"{operand} is read before it is written")
            number = (
                int(operand[2:], 16) if operand.startswith("0f") else int(operand.rstrip("U"), 0)
            )
            value = np.array([number & (1 << 8 * dtype.itemsize) - 1], BITS[dtype.itemsize])
        return value.astype(BITS[dtype.itemsize], copy=False).view(dtype)

    def _set(self, register: str, value: Array, enabled: Array | None = None) -> None:
        if value.dtype != bool:
            value = value.view(BITS[value.dtype.itemsize])
        if enabled is not None:
            value = np.where(enabled, value, self.registers.get(register, np.zeros(1, value.dtype)))
        self.registers[register] = value

    def _address(self, operand: str) -> Array:
        base, _, offset = operand.strip("[] ").replace(" ", "").partition("+")
        value = self.registers[base]
        moved: Array = value + np.array(int(offset or 0)).astype(value.dtype)
        return moved

    # Arithmetic

    def _mov(self, each: Instruction, enabled: Array | None) -> None:
        to, source = each.operands
        if to.startswith("%p"):
            self._set(to, self._get(source, "pred"), enabled)
        elif source.startswith("{"):  # join halves
            whole = "u32" if each.modifiers[-1] == "b32" else "u64"
            half = "b16" if whole == "u32" else "b32"
            low, high = (self._get(part, half).astype(TYPES[whole]) for part in _parts(source))
            self._set(to, low | high << TYPES[whole](8 * low.dtype.itemsize // 2), enabled)
        elif to.startswith("{"):  # split into halves
            value = self.registers[source]
            bits = 8 * value.dtype.itemsize // 2
            for number, part in enumerate(_parts(to)):
                if part != "_":
                    shifted = value >> value.dtype.type(number * bits)
                    self._set(part, shifted.astype(BITS[bits // 8]), enabled)
        else:
            self._set(to, self._get(source, each.modifiers[-1]), enabled)

    def _binary(
        self, each: Instruction, enabled: Array | None, function: Callable[[Array, Array], Array]
    ) -> None:
        kind = each.modifiers[-1]
        to, one, other = each.operands
        self._set(to, function(self._get(one, kind), self._get(other, kind)), enabled)

    def _add(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.add)

    def _sub(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.subtract)

    def _min(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.minimum)

    def _max(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.maximum)

    def _and(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.bitwise_and)

    def _or(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.bitwise_or)

    def _xor(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, np.bitwise_xor)

    def _not(self, each: Instruction, enabled: Array | None) -> None:
        self._set(each.operands[0], ~self._get(each.operands[1], each.modifiers[-1]), enabled)

    def _neg(self, each: Instruction, enabled: Array | None) -> None:
        self._set(each.operands[0], -self._get(each.operands[1], each.modifiers[-1]), enabled)

    def _mul(self, each: Instruction, enabled: Array | None) -> None:
        kind = each.modifiers[-1]
        if kind == "f32" or "lo" in each.modifiers:
            self._binary(each, enabled, np.multiply)
            return
        long = np.int64 if kind == "s32" else np.uint64
        one, other = (self._get(name, kind).astype(long) for name in each.operands[1:3])
        product = one * other
        if "hi" in each.modifiers:
            product = (product >> long(32)).astype(TYPES[kind])
        self._set(each.operands[0], product, enabled)

    def _mad(self, each: Instruction, enabled: Array | None) -> None:
        kind = each.modifiers[-1]
        one, other = (self._get(name, kind) for name in each.operands[1:3])
        if "wide" in each.modifiers:
            kind = "s64" if kind == "s32" else "u64"
            one, other = one.astype(TYPES[kind]), other.astype(TYPES[kind])
        self._set(each.operands[0], one * other + self._get(each.operands[3], kind), enabled)

    def _fma(self, each: Instruction, enabled: Array | None) -> None:
        one, other, third = (self._get(name, "f32") for name in each.operands[1:])
        exact = one.astype(np.float64) * other + third
        self._set(each.operands[0], exact.astype(np.float32), enabled)

    def _div(self, each: Instruction, enabled: Array | None) -> None:
        floats = each.modifiers[-1] == "f32"
        self._binary(each, enabled, np.divide if floats else _quotient)

    def _rem(self, each: Instruction, enabled: Array | None) -> None:
        self._binary(each, enabled, lambda one, other: one - _quotient(one, other) * other)

    def _shl(self, each: Instruction, enabled: Array | None) -> None:
        self._shift(each, enabled, np.left_shift)

    def _shr(self, each: Instruction, enabled: Array | None) -> None:
        self._shift(each, enabled, np.right_shift)

    def _shift(
        self, each: Instruction, enabled: Array | None, function: Callable[[Array, Array], Array]
    ) -> None:
        value = self._get(each.operands[1], each.modifiers[-1])
        amount = self._get(each.operands[2], "u32").astype(value.dtype)
        self._set(each.operands[0], function(value, amount), enabled)

    def _setp(self, each: Instruction, enabled: Array | None) -> None:
        comparison, kind = each.modifiers[0], each.modifiers[-1]
        one, other = (self._get(name, kind) for name in each.operands[1:3])
        nan = np.isnan(one) | np.isnan(other) if kind == "f32" else np.zeros(1, bool)
        found = nan if comparison == "nan" else COMPARISONS[comparison](one, other)
        self._set(each.operands[0], found & ~nan if comparison == "ne" else found, enabled)

    def _selp(self, each: Instruction, enabled: Array | None) -> None:
        to, one, other, predicate = each.operands
        kind = each.modifiers[-1]
        chosen = self.registers[predicate]
        self._set(to, np.where(chosen, self._get(one, kind), self._get(other, kind)), enabled)

    def _cvt(self, each: Instruction, enabled: Array | None) -> None:
        value = self._get(each.operands[1], each.modifiers[-1])
        self._set(each.operands[0], value.astype(TYPES[each.modifiers[-2]]), enabled)

    def _bfe(self, each: Instruction, enabled: Array | None) -> None:
        value, start, length = (self._get(name, "u32") for name in each.operands[1:])
        top = value << (np.uint32(WARP) - start - length)
        signed = each.modifiers[-1] == "s32"
        field = (top.view(np.int32) if signed else top) >> (np.uint32(WARP) - length).view(
            np.int32 if signed else np.uint32
        )
        self._set(each.operands[0], field, enabled)

    def _prmt(self, each: Instruction, enabled: Array | None) -> None:
        low, high, selector = (self._get(name, "u32") for name in each.operands[1:])
        both = high.astype(np.uint64) << np.uint64(32) | low
        result = np.zeros(1, np.uint64)
        for number in range(4):
            nibble = selector >> np.uint32(4 * number) & np.uint32(15)
            byte = both >> ((nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8)) & np.uint64(
                255
            )
            sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            byte = np.where(nibble & np.uint32(8), sign, byte)
            result = result | byte << np.uint64(8 * number)
        self._set(each.operands[0], result.astype(np.uint32), enabled)

    def _ex2(self, each: Instruction, enabled: Array | None) -> None:
        self._set(each.operands[0], np.exp2(self._get(each.operands[1], "f32")), enabled)

    def _sqrt(self, each: Instruction, enabled: Array | None) -> None:
        self._set(each.operands[0], np.sqrt(self._get(each.operands[1], "f32")), enabled)

    def _rcp(self, each: Instruction, enabled: Array | None) -> None:
        self._set(each.operands[0], np.float32(1) / self._get(each.operands[1], "f32"), enabled)

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
        address, parts = self._spread(self._address(each.operands[1])), _parts(each.operands[0])
        if space == "shared":
            self._count_banks("load", address, size, active)
            index = self.shared.index(np.where(active, address, 0), size, self.block)
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

    def _st(self, each: Instruction, enabled: Array | None) -> None:
        active, size = self._active(enabled), self._size(each)
        address = self._spread(self._address(each.operands[0]))
        kind = {"b8": "b16", "b64": "b64"}.get(each.modifiers[-1], "b32")
        values = [self._spread(self._get(part, kind)) for part in _parts(each.operands[1])]
        if kind == "b64":
            halves = np.ascontiguousarray(np.stack(values, 1)).view(np.uint32)
            values = list(halves.T)
        if each.modifiers[0] == "shared":
            self._count_banks("store", address, size, active)
            index = self.shared.index(np.where(active, address, 0), size, self.block)
            for number, value in enumerate(values):
                self.shared.store(index + number, value, active, self.warp, each.text)
            return
        self._count_sectors(address, size, active)
        chosen = [value[active] for value in values]
        self.memory.store(address[active], chosen, size, self.block_number[active])

    def _size(self, each: Instruction) -> int:
        size = np.dtype(TYPES[each.modifiers[-1]]).itemsize
        if size == 2 or (size == 1 and each.width > 1):
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
        for part, index in self._matrix_words(each, each.operands[0], each.operands[1]):
            active = np.ones(self.lanes, bool)
            self._set(part, self.shared.load(index, active, self.warp, each.text), enabled)

    def _stmatrix(self, each: Instruction, enabled: Array | None) -> None:
        for part, index in self._matrix_words(each, each.operands[1], each.operands[0]):
            active, value = np.ones(self.lanes, bool), self._spread(self._get(part, "b32"))
            self.shared.store(index, value, active, self.warp, each.text)

    def _matrix_words(
        self, each: Instruction, registers: str, address: str
    ) -> list[tuple[str, Array]]:
        """Return each register of 8 x 8 halves with the words that the lanes exchange for it."""
        if "trans" in each.modifiers:
            raise NotImplementedError(each.text)
        rows = self._spread(self._address(address)).astype(np.int64).reshape(-1, WARP)
        lane = np.arange(WARP)
        found = []
        for number, part in enumerate(_parts(registers)):
            row = rows[:, 8 * number : 8 * number + 8]
            words = (row[:, lane // 4] + 4 * (lane % 4)).ravel()
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


def _parts(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{} ").split(",")]


def _quotient(one: Array, other: Array) -> Array:
    """Divide integers towards zero."""
    a, b = one.astype(np.int64), np.where(other == 0, 1, other).astype(np.int64)
    quotient: Array = np.sign(a) * np.sign(b) * (abs(a) // abs(b))
    return quotient.astype(one.dtype)
