"""Verification of every clip in a cache; opening it has verified everything else."""

from __future__ import annotations

from collections.abc import Iterator

from skelnas.data.cache.reader import Cache


def verify(cache: Cache) -> Iterator[tuple[int, list[str]]]:
    """Verify the clips, some hundred at a time in constant memory.

    Yields:
        The number of clips just verified and their problems, one line each.
    """
    if not cache.has_checksums:
        yield 0, ["there are no checksums, so changed numbers cannot be detected"]
    for clips in cache.read_ranges():
        yield len(clips), cache.find_problems(clips)
