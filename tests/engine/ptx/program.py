"""Parse the PTX of a kernel."""

from __future__ import annotations

import re
from typing import NamedTuple

BRANCH_TARGETS = r"(\w+):\s*\.branchtargets\s*([^;]*);"


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        predicate: the register that enables it, if any.
        negated: whether it is enabled by the opposite of the predicate.
        name: up to the first dot.
        modifiers: the rest, split at the dots; the last one is usually a type.
        operands: registers, numbers, addresses in brackets or vectors in braces.
        text: the source.
        joint: bytes of the load that ptxas makes of this one and others of the same words; 0 for
            those others, None for what it leaves alone.
    """

    predicate: str | None
    negated: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    text: str
    joint: int | None = None

    @property
    def width(self) -> int:
        """Number of elements that a load or store moves."""
        return next((int(m[1:]) for m in self.modifiers if m in ("v2", "v4")), 1)


class Program(NamedTuple):
    """A kernel.

    Attributes:
        instructions: in order.
        labels: the index of the instruction that each label precedes.
        tables: the labels of indirect branches.
        params: for each parameter its index and type.
        threads: of a block.
    """

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    tables: dict[str, list[str]]
    params: dict[str, tuple[int, str]]
    threads: int


def parse(ptx: str) -> Program:
    """Parse the only kernel of a PTX module."""
    header = _find(r"\.entry \w+\((.*?)\)", ptx)
    params = {
        name: (index, kind)
        for index, (kind, name) in enumerate(
            re.findall(r"\.param \.(\w+).*?(\w+_param_\d+)", header)
        )
    }
    start = ptx.index("{", ptx.index(".reqntid"))
    body = ptx[start : ptx.index("$L__func_end0")]
    tables = {
        name: [label.strip() for label in labels.split(",")]
        for name, labels in re.findall(BRANCH_TARGETS, body)
    }
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for raw in re.sub(BRANCH_TARGETS, "", body).splitlines():
        line = re.sub(r"//.*", "", raw).strip()
        if line.startswith("."):
            continue
        if label := re.fullmatch(r"(\$\w+):", line):
            labels[label[1]] = len(instructions)
            continue
        statements = (part.strip(" \t") for part in line.split(";"))
        instructions += [
            _parse_statement(part) for part in statements if part not in ("", "{", "}")
        ]
    threads = int(_find(r"\.reqntid (\d+)", ptx))
    joined = _join_loads(instructions, set(labels.values()))
    return Program(joined, labels, tables, params, threads)


def _join_loads(instructions: list[Instruction], starts: set[int]) -> tuple[Instruction, ...]:
    """Mark loads of single words of shared memory that ptxas joins to loads of 8 or 16 bytes.

    It joins those of an aligned group that nothing separates which writes or waits; `starts` are
    the instructions that labels precede. (Seen in the SASS of these kernels, of Triton 3.9.)
    """
    joined = list(instructions)
    words: dict[tuple[str, int], int] = {}  # of a base and an offset, the number of its load

    def close() -> None:
        for size in (16, 8):
            for base, start in [key for key in words if key[1] % size == 0]:
                group = [(base, start + offset) for offset in range(0, size, 4)]
                if all(key in words for key in group):
                    first, *others = sorted(words.pop(key) for key in group)
                    joined[first] = joined[first]._replace(joint=size)
                    for other in others:
                        joined[other] = joined[other]._replace(joint=0)
        words.clear()

    for number, each in enumerate(instructions):
        ends = each.name in ("bra", "brx", "ret", "bar", "st", "stmatrix", "cp", "fence", "wgmma")
        if number in starts or ends:
            close()
        if each.name == "ld" and each.modifiers == ("shared", "b32") and not each.predicate:
            base, _, offset = each.operands[1].strip("[] ").partition("+")
            words[base, int(offset or 0)] = number
    close()
    return tuple(joined)


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    if not found:
        raise ValueError(f"no {pattern} in the PTX")
    return found[1]


def _parse_statement(text: str) -> Instruction:
    found = re.fullmatch(r"(?:@(!?)(%p\d+))?\s*([A-Za-z0-9_.:]+)\s*(.*)", text)
    if not found:
        raise ValueError(f"not PTX: {text}")
    negation, predicate, op, operands = found.groups()
    name, *modifiers = op.split(".")
    split = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", operands)
    stripped = tuple(operand.strip() for operand in split)
    return Instruction(predicate, bool(negation), name, tuple(modifiers), stripped, text)
