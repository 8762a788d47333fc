"""Checks every number of a cache against what was written; opening it checks the tables only.

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
    """Check the tables, then the clips, some hundreds at once.

    Yields:
        How many clips are done more, and what is wrong with them, a line each; of the tables
        first, with no clip done. Memory stays flat.
    """
    yield 0, _verify_tables(cache)
    expected = _checksums(cache)
    for clips in cache.stretches():
        try:
            rows = cache.stored_rows(clips)
        except InputError:  # which of them it is shows when each is read by itself
            yield len(clips), [line for i in clips for line in _verify_alone(cache, i, expected)]
        else:
            yield len(clips), _verify_rows(cache, clips, *rows, expected)


def _verify_tables(cache: Cache) -> list[str]:
    """Check every dataset that has a checksum of its own."""
    problems: list[str] = []

    def check(name: str, table: Any) -> None:
        expected = table.attrs.get(CHECKSUM) if isinstance(table, h5py.Dataset) else None
        if expected is None:
            return
        try:
            found = table_checksum(table)
        except (OSError, RuntimeError, ValueError) as error:
            problems.append(f"table {name}: cannot be read: {error}")
        else:
            if found != expected:
                problems.append(f"table {name}: the checksum is {found}, expected {expected}")

    cache.visit(check)
    if _checksums(cache) is None:
        problems.append("there are no checksums: it is not known whether all is as it was written")
    return problems


def _checksums(cache: Cache) -> NDArray[np.uint32] | None:
    checksums = cache.column(CHECKSUM)
    return None if checksums is None or checksums.shape != (len(cache),) else checksums


def _verify_alone(cache: Cache, index: int, expected: NDArray[np.uint32] | None) -> list[str]:
    clips = range(index, index + 1)
    try:
        return _verify_rows(cache, clips, *cache.stored_rows(clips), expected)
    except InputError:
        return [f"clip {cache.clips.names[index]}: its part of the file cannot be read"]


def _verify_rows(
    cache: Cache,
    clips: range,
    poses: NDArray[Any],
    present: NDArray[np.bool_],
    expected: NDArray[np.uint32] | None,
) -> list[str]:
    """Check neighbouring clips, given their rows: poses [r, V, C] and present [r]."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    stray = ~present & poses.any(axis=(1, 2))
    problems = []
    end = 0
    for index in clips:
        start = end
        end += int(cache.num_persons[index] * cache.num_frames[index])
        rows = slice(start, end)
        wrong = ""
        if expected is not None and expected[index] != clip_checksum(poses[rows], present[rows]):
            wrong = "its numbers are not those that were written: the checksum differs"
        elif not finite[rows].all():
            wrong = "expected finite numbers, found others"
        elif stray[rows].any():
            wrong = "a person is absent in a frame in which the joints are not zero"
        elif not present[rows].any():
            wrong = "nobody is present in any frame"
        if wrong:
            problems.append(f"clip {cache.clips.names[index]}: {wrong}")
    return problems
