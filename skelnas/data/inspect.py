"""``skelnas inspect``: what is in a skeleton cache, and whether it is as it was written.

Shapes: N clips, R rows of all clips, M persons, T frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import SCHEMA_VERSION, Cache, verify
from skelnas.data.readers.base import Test, Train
from skelnas.errors import InputError
from skelnas.runtime import console


@dataclass(frozen=True)
class Inspection:
    """What is in a cache.

    Attributes:
        path: the file.
        megabytes: its size on the disk.
        storage: `float32` or `float16`, and ` gzip` where compressed.
        source, rule: where the clips come from, how persons were chosen.
        skelnas_version, schema_version: what wrote it.
        joints, channels: of one person.
        clips: how many.
        classes: names in order of the label.
        class_clips: clips of each class.
        subjects, cameras, setups: the numbers that occur, without those that are unknown.
        protocols: protocol to clips in `train`, `test` and neither (`unused`).
        frames: of all clips.
        shortest, median, longest: clip lengths in frames.
        two_person_share: share of the clips in which two persons or more are seen.
        empty_frame_share: share of the frames in which nobody is.
        skipped, failed: how many files were left out, on purpose or as broken.
    """

    path: str
    megabytes: float
    storage: str
    source: str
    rule: dict[str, Any]
    skelnas_version: str
    schema_version: int
    joints: int
    channels: list[str]
    clips: int
    classes: list[str]
    class_clips: list[int]
    subjects: list[int]
    cameras: list[int]
    setups: list[int]
    protocols: dict[str, dict[str, int]]
    frames: int
    shortest: int
    median: float
    longest: int
    two_person_share: float
    empty_frame_share: float
    skipped: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers."""
        return asdict(self)


def inspect(cache: Cache) -> Inspection:
    """Describe a cache. Reads its tables and who is present when, but no poses.

    Raises:
        InputError: the file is damaged.
    """
    lengths = cache.num_frames
    two_persons, empty_frames = _count_presence(cache)
    counts = np.bincount(cache.clips.labels, minlength=len(cache.classes)).tolist()
    return Inspection(
        path=str(cache.path),
        megabytes=round(cache.path.stat().st_size / 1e6, 1),
        storage=f"float{16 if cache.storage.float16 else 32}" + " gzip" * cache.storage.compress,
        source=cache.source,
        rule=cache.rule,
        skelnas_version=cache.skelnas_version,
        schema_version=SCHEMA_VERSION,
        joints=len(cache.layout.joints),
        channels=list(cache.layout.channels),
        clips=len(cache),
        classes=cache.classes,
        class_clips=counts,
        subjects=_known(cache.clips.subjects),
        cameras=_known(cache.clips.cameras),
        setups=_known(cache.clips.setups),
        protocols={name: _part_sizes(parts) for name, parts in cache.splits.items()},
        frames=int(lengths.sum()),
        shortest=int(lengths.min()),
        median=float(np.median(lengths)),
        longest=int(lengths.max()),
        two_person_share=two_persons / len(cache),
        empty_frame_share=empty_frames / int(lengths.sum()),
        skipped=len(cache.skipped),
        failed=len(cache.failed),
    )


def find_damage(cache: Cache) -> list[str]:
    """Check every number of a cache; return what is wrong, a line each."""
    problems: list[str] = []
    with console.progress("verify", len(cache)) as meter:
        for num_clips, found in verify(cache):
            problems += found
            meter.advance(num_clips, status=f"{len(problems)} damaged" if problems else "")
    return problems


def find_clip(cache: Cache, name: str) -> int:
    """Return the index of a clip.

    Raises:
        InputError: there is no clip of that name; the hint has similar ones.
    """
    import difflib

    names = list(cache.clips.names)
    if name in names:
        return names.index(name)
    similar = difflib.get_close_matches(name, names, n=3, cutoff=0) if len(names) < 10**5 else []
    raise InputError(
        f"{cache.path} has no clip {name!r}",
        hint=f"there are {', '.join(similar or names[:3])} and others",
    )


def _count_presence(cache: Cache) -> tuple[int, int]:
    """Count the clips in which two persons are seen, and the frames in which nobody is."""
    two_persons = empty_frames = 0
    for clips in cache.stretches():
        present = cache.present_rows(clips)
        sizes = (cache.num_persons * cache.num_frames)[clips.start : clips.stop]
        for index, rows in zip(clips, np.split(present, np.cumsum(sizes)[:-1]), strict=True):
            seen = rows.reshape(cache.num_persons[index], cache.num_frames[index])
            two_persons += int(np.count_nonzero(seen.any(axis=1)) >= 2)
            empty_frames += int(np.count_nonzero(~seen.any(axis=0)))
    return two_persons, empty_frames


def _known(numbers: NDArray[np.int32]) -> list[int]:
    return [int(number) for number in np.unique(numbers) if number >= 0]


def _part_sizes(parts: NDArray[np.int8]) -> dict[str, int]:
    train, test = (int(np.count_nonzero(parts == part)) for part in (Train, Test))
    return {"train": train, "test": test, "unused": len(parts) - train - test}
