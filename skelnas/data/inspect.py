"""``skelnas inspect``: what is in a skeleton cache, and whether it is intact.

Shapes: N clips, M persons, T frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import SCHEMA_VERSION, Cache, verify
from skelnas.data.readers.base import Test, Train
from skelnas.data.splits import find_copies, find_missing_clips
from skelnas.errors import InputError
from skelnas.runtime import console

MAX_NAMES_COMPARED = 100_000
"""In a larger cache, a search for names similar to an unknown one would take too long."""


@dataclass(frozen=True)
class Inspection:
    """What is in a cache, printed as JSON under these field names.

    Attributes:
        path: the file.
        megabytes: file size.
        storage: `float32` or `float16`, and ` gzip` if compressed.
        source, rule: where the clips come from, and how persons were chosen.
        skelnas_version, schema_version: of the program and the format that wrote it.
        joints, channels: of one person.
        clips: number of clips.
        classes: names in order of the label.
        class_clips: clips of each class.
        subjects, cameras, setups: the numbers that occur, except unknown ones.
        protocols: protocol to the number of clips in `train`, `test` and neither (`unused`).
        frames: of all clips.
        shortest, median, longest: clip lengths in frames.
        two_person_share: fraction of the clips in which two persons or more are seen.
        empty_frame_share: fraction of the frames in which nobody is seen.
        skipped, failed: files left out, on purpose or because they are broken.
        duplicates: clips with the same numbers as an earlier one; None without checksums.
        test_clips_in_train: protocol to the test clips with the numbers of a training clip.
        missing_clips: what cannot be learned or scored for lack of clips, a line each.
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
    duplicates: int | None
    test_clips_in_train: dict[str, int]
    missing_clips: list[str]

    def __repr__(self) -> str:
        return (
            f"Inspection({self.path!r}, {self.clips:,} clips of {len(self.classes):,} classes, "
            f"protocols: {', '.join(self.protocols) or 'none'})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers."""
        return asdict(self)


def inspect(cache: Cache) -> Inspection:
    """Describe a cache. Reads its tables and who is present when, but no poses.

    Raises:
        InputError: the file is damaged.
    """
    lengths = cache.num_frames
    num_frames = int(lengths.sum())
    num_two_person_clips, num_empty_frames = _count_presence(cache)
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
        subjects=_unique_known(cache.clips.subjects),
        cameras=_unique_known(cache.clips.cameras),
        setups=_unique_known(cache.clips.setups),
        protocols={name: _part_sizes(parts) for name, parts in cache.splits.items()},
        frames=num_frames,
        shortest=int(lengths.min()),
        median=float(np.median(lengths)),
        longest=int(lengths.max()),
        two_person_share=num_two_person_clips / len(cache),
        empty_frame_share=num_empty_frames / num_frames,
        skipped=len(cache.skipped),
        failed=len(cache.failed),
        duplicates=None if cache.contents is None else len(cache) - len(np.unique(cache.contents)),
        test_clips_in_train={}
        if cache.contents is None
        else {
            name: int(
                find_copies(cache, cache.indices(name, Train), cache.indices(name, Test)).sum()
            )
            for name in cache.splits
        },
        missing_clips=[
            line
            for protocol in cache.splits
            for line in find_missing_clips(
                protocol,
                cache.classes,
                *(cache.clips.labels[cache.indices(protocol, part)] for part in (Train, Test)),
            )
        ],
    )


def _count_presence(cache: Cache) -> tuple[int, int]:
    """Count the clips in which two persons are seen, and the frames in which nobody is."""
    num_two_person_clips = num_empty_frames = 0
    for present in cache.read_presence():  # [M, T]
        num_two_person_clips += int(np.count_nonzero(present.any(axis=1)) >= 2)
        num_empty_frames += int(np.count_nonzero(~present.any(axis=0)))
    return num_two_person_clips, num_empty_frames


def _unique_known(numbers: NDArray[np.int32]) -> list[int]:
    return [int(number) for number in np.unique(numbers) if number >= 0]


def _part_sizes(parts: NDArray[np.int8]) -> dict[str, int]:
    train, test = (int(np.count_nonzero(parts == part)) for part in (Train, Test))
    return {"train": train, "test": test, "unused": len(parts) - train - test}


def find_damage(cache: Cache) -> list[str]:
    """Verify every number of a cache; return one line per problem."""
    problems: list[str] = []
    with console.progress("verify", len(cache)) as meter:
        for num_clips, found in verify(cache):
            problems += found
            meter.advance(num_clips, status=f"{len(problems)} damaged" if problems else "")
    return problems


def find_clip(cache: Cache, name: str) -> int:
    """Return the index of a clip.

    Raises:
        InputError: there is no clip of that name; the hint lists similar ones.
    """
    import difflib

    names = list(cache.clips.names)
    if name in names:
        return names.index(name)
    similar: list[str] = []
    if len(names) < MAX_NAMES_COMPARED:
        similar = difflib.get_close_matches(name, names, n=3, cutoff=0)
    raise InputError(
        f"{cache.path} has no clip {name!r}",
        hint=f"there are {', '.join(similar or names[:3])} and others",
    )
