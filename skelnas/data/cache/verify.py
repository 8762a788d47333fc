"""Verification of every number in a cache; opening it checks only the tables.

Shapes: N clips, R rows of all clips, V joints, C channels of a joint.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache.reader import Cache
from skelnas.data.cache.storage import CHECKSUM, clip_checksum, table_checksum
from skelnas.errors import InputError


def verify(cache: Cache) -> Iterator[tuple[int, list[str]]]:
    """Verify the tables, then the clips, some hundred at a time in constant memory.

    Yields:
        The number of clips just verified and their problems, one line each. The tables come
        first, with 0 clips.
    """
    yield 0, _verify_tables(cache)
    checksums = _read_checksums(cache)
    for clips in cache.read_ranges():
        try:
            rows = cache.read_stored(clips)
        except InputError:  # read them one by one to find which it is
            lines = [line for index in clips for line in _verify_clip(cache, index, checksums)]
            yield len(clips), lines
        else:
            yield len(clips), _verify_rows(cache, clips, *rows, checksums)


def _verify_tables(cache: Cache) -> list[str]:
    """Verify every dataset that has a checksum attribute."""
    problems: list[str] = []

    def check(name: str, table: Any) -> None:
        expected = table.attrs.get(CHECKSUM) if isinstance(table, h5py.Dataset) else None
        if expected is None:
            return
        try:
            checksum = table_checksum(table)
        except (OSError, RuntimeError, ValueError) as error:
            problems.append(f"table {name}: cannot be read: {error}")
        else:
            if checksum != expected:
                problems.append(f"table {name}: the checksum is {checksum}, expected {expected}")

    cache.visit(check)
    if _read_checksums(cache) is None:
        problems.append("there are no checksums, so changed numbers cannot be detected")
    return problems


def _read_checksums(cache: Cache) -> NDArray[np.uint32] | None:
    checksums = cache.read_column(CHECKSUM)
    return None if checksums is None or checksums.shape != (len(cache),) else checksums


def _verify_clip(cache: Cache, index: int, checksums: NDArray[np.uint32] | None) -> list[str]:
    clips = range(index, index + 1)
    try:
        return _verify_rows(cache, clips, *cache.read_stored(clips), checksums)
    except InputError:
        return [f"clip {cache.clips.names[index]}: its part of the file cannot be read"]


def _verify_rows(
    cache: Cache,
    clips: range,
    poses: NDArray[Any],
    present: NDArray[np.bool_],
    checksums: NDArray[np.uint32] | None,
) -> list[str]:
    """Verify neighbouring clips, given their rows: poses [r, V, C] and present [r]."""
    finite = np.isfinite(poses).all(axis=(1, 2))  # [r]
    stray = ~present & poses.any(axis=(1, 2))  # [r], joints of absent persons
    problems = []
    end = 0
    for index in clips:
        start, end = end, end + int(cache.num_persons[index] * cache.num_frames[index])
        rows = slice(start, end)
        problem = ""
        if checksums is not None and checksums[index] != clip_checksum(poses[rows], present[rows]):
            problem = "its numbers have changed since they were written: the checksum differs"
        elif not finite[rows].all():
            problem = "some of its numbers are not finite"
        elif stray[rows].any():
            problem = "a person is absent in a frame in which their joints are not zero"
        elif not present[rows].any():
            problem = "nobody is present in any frame"
        if problem:
            problems.append(f"clip {cache.clips.names[index]}: {problem}")
    return problems
