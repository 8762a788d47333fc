"""JSON from files that may be damaged or hostile: one kind of error, in one line."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from typing import Any

from skelnas.errors import shown

MAX_ITEMS = 1 << 22
"""Lists and objects, and keys; empty ones take twenty times as much memory as text."""

MAX_LEVELS = 100
"""Nested lists and objects; with more, even what prints a value runs out of stack."""


def parse(text: str | bytes, *, is_strict: bool = True) -> Any:
    """Parse JSON.

    Args:
        text: in UTF-8, if it is bytes.
        is_strict: refuse a key that an object has twice, of which the last would count, and more
            than `MAX_LEVELS` levels. It takes half as long again.

    Raises:
        ValueError: says where it is not JSON, or what there is too much of.
    """
    num_containers = _count_items(text)
    try:
        value = json.loads(text, object_pairs_hook=_to_object if is_strict else None)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ValueError(f"line {line}: not UTF-8, found the byte {byte:#04x}") from None
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None
    if is_strict and num_containers > MAX_LEVELS and _is_deeper(value, MAX_LEVELS):
        raise ValueError("brackets nested too deeply")
    return value


def parse_lines(text: bytes) -> dict[int, Any]:
    """Parse a JSON value a line; blank lines have none. Not strict, see `parse`.

    Returns:
        Number of the line, from 1, to its value.

    Raises:
        ValueError: as of `parse`.
    """
    _count_items(text)
    values = {}
    for number, line in enumerate(text.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values[number] = parse(line, is_strict=False)
        except ValueError:
            parse(b"\n" * (number - 1) + line, is_strict=False)  # which names the line
            raise
    return values


def _count_items(text: str | bytes) -> int:
    """Return the number of lists and objects. Raises ValueError if they or keys are too many."""
    num_containers, num_keys = _count(text, "[") + _count(text, "{"), _count(text, ":")
    if max(num_containers, num_keys) > MAX_ITEMS:
        raise ValueError(
            f"{num_containers:,} lists and objects with {num_keys:,} keys, expected at most "
            f"{MAX_ITEMS:,}"
        )
    return num_containers


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(key)} occurs twice in an object")
    return value


def _count(text: str | bytes, mark: str) -> int:
    return text.count(mark.encode()) if isinstance(text, bytes) else text.count(mark)


def _is_deeper(value: Any, num_levels: int) -> bool:
    level = [value]
    for _ in range(num_levels):
        containers = (item for item in level if isinstance(item, list | dict))
        level = [
            inner
            for item in containers
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, list | dict)
        ]
    return bool(level)
