"""Registers of all lanes, and the instructions that need nothing else.

A register is an array with an element a lane, or with one element if all agree.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partialmethod

import numpy as np

from ptx.memory import Array
from ptx.program import Instruction
from ptx.tensor_cores import WARP, round_to_tf32

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


class Registers:
    """Registers by name.

    Attributes:
        lanes: threads.
        registers: the bits of each.
    """

    lanes: int
    registers: dict[str, Array]

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
            low, high = (self._get(part, half).astype(TYPES[whole]) for part in parts_of(source))
            self._set(to, low | high << TYPES[whole](8 * low.dtype.itemsize // 2), enabled)
        elif to.startswith("{"):  # split into halves
            value = self.registers[source]
            bits = 8 * value.dtype.itemsize // 2
            for number, part in enumerate(parts_of(to)):
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

    _add = partialmethod(_binary, function=np.add)
    _sub = partialmethod(_binary, function=np.subtract)
    _min = partialmethod(_binary, function=np.minimum)
    _and = partialmethod(_binary, function=np.bitwise_and)
    _or = partialmethod(_binary, function=np.bitwise_or)
    _xor = partialmethod(_binary, function=np.bitwise_xor)

    def _max(self, each: Instruction, enabled: Array | None) -> None:
        passes_nan = "NaN" in each.modifiers or each.modifiers[-1] != "f32"
        self._binary(each, enabled, np.maximum if passes_nan else np.fmax)

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

    def _shift(
        self, each: Instruction, enabled: Array | None, function: Callable[[Array, Array], Array]
    ) -> None:
        value = self._get(each.operands[1], each.modifiers[-1])
        amount = self._get(each.operands[2], "u32").astype(value.dtype)
        self._set(each.operands[0], function(value, amount), enabled)

    _shl = partialmethod(_shift, function=np.left_shift)
    _shr = partialmethod(_shift, function=np.right_shift)

    def _setp(self, each: Instruction, enabled: Array | None) -> None:
        comparison, kind = each.modifiers[0], each.modifiers[-1]
        one, other = (self._get(name, kind) for name in each.operands[1:3])
        nan = np.isnan(one) | np.isnan(other) if kind == "f32" else np.zeros(1, bool)
        if comparison in ("nan", "num"):
            self._set(each.operands[0], nan if comparison == "nan" else ~nan, enabled)
            return
        found = COMPARISONS[comparison](one, other)
        self._set(each.operands[0], found & ~nan if comparison == "ne" else found, enabled)

    def _selp(self, each: Instruction, enabled: Array | None) -> None:
        to, one, other, predicate = each.operands
        kind = each.modifiers[-1]
        chosen = self.registers[predicate]
        self._set(to, np.where(chosen, self._get(one, kind), self._get(other, kind)), enabled)

    def _cvt(self, each: Instruction, enabled: Array | None) -> None:
        value = self._get(each.operands[1], each.modifiers[-1])
        if "tf32" in each.modifiers:
            if "rna" not in each.modifiers:
                raise NotImplementedError(each.text)
            self._set(each.operands[0], round_to_tf32(value), enabled)
            return
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


def parts_of(operand: str) -> list[str]:
    """Return the registers of a vector in braces."""
    return [part.strip() for part in operand.strip("{} ").split(",")]


def _quotient(one: Array, other: Array) -> Array:
    """Divide integers towards zero."""
    a, b = one.astype(np.int64), np.where(other == 0, 1, other).astype(np.int64)
    quotient: Array = np.sign(a) * np.sign(b) * (abs(a) // abs(b))
    return quotient.astype(one.dtype)
