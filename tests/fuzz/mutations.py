"""Make broken files from valid ones; a change is a pure function of the random generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

TOKENS = (
    *(b"0", b"1", b"-1", b"25", b"0.5", b"-0", b"1e999", b"-1E-3", b"nan", b"inf", b"1_0", b"."),
    *(b"9" * 25, b"9" * 400, b"4294967295", b"9223372036854775808", b"\xc2\xb2", b"true", b"null"),
    *(b" ", b"\n", b"\r\n", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b",", b";", b'"', b"'", b"\\"),
    *(b"[", b"]", b"{", b"}", b"[]", b"{}", b":", b"(", b")", b"_x", b"frame", b"person", b"path"),
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"<f8", b">i2", b"|O", b"shape"),
    *(b"c", b"R", b"b", b"\x93", b"\x94", b"]", b"}", b")", b"\x85", b"h\x00", b"q\x00", b"K\x01"),
    *(b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"),
)
"""Tokens with a meaning in some format, and values at its limits."""
MAX_CHANGES = 4


def mutate(seeds: Sequence[bytes], random: Random) -> bytes:
    """Make a broken file: one of the seeds with a few changes."""
    data = random.choice(seeds)
    for _ in range(random.randint(1, MAX_CHANGES)):
        data = random.choice(_CHANGES)(data, seeds, random)
    return data


def _span(data: bytes, random: Random) -> tuple[int, int]:
    """Draw a span, usually a short one."""
    begin = random.randint(0, len(data))
    max_length = random.choice((1, 4, 30, max(1, len(data))))
    return begin, min(len(data), begin + random.randint(0, max_length))


def _flip(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _replace_byte(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _delete(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    begin, end = _span(data, random)
    return data[:begin] + data[end:]


def _repeat(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    begin, end = _span(data, random)
    return data[:end] + data[begin:]


def _insert(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    begin, end = _span(data, random)
    end = random.choice((begin, end))
    return data[:begin] + random.choice(TOKENS) * random.choice((1, 1, 1, 2, 40)) + data[end:]


def _cut(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _swap_lines(data: bytes, _: Sequence[bytes], random: Random) -> bytes:
    lines = data.split(b"\n")
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def _splice(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(seeds)
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


_CHANGES: tuple[Callable[[bytes, Sequence[bytes], Random], bytes], ...] = (
    *(_flip, _replace_byte, _delete, _repeat, _insert, _insert, _cut, _swap_lines, _splice),
)
