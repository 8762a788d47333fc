"""MSRC-12: twelve gestures before a Kinect v1, many in a recording; text with a file of tags.

    P1_1_10_p06.csv         a row per frame: time, then x, y, z, tracked of each joint
    P1_1_10_p06.tagstream   a row per gesture: its time in other units, then its name

A tag is at the action point, the moment at which a gesture is recognised. A clip is the 60 frames
before it, but none before the point before, and the 20 after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import find_time, is_file
from skelnas.data.readers.base import Catalogue, ClipTable, Poses, Recording, Test, Train
from skelnas.data.readers.files import as_joints, find_files, read_bytes
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.tables import parse_numbers, read_rows
from skelnas.errors import InputError, shown

ENDING, TAG_ENDING = ".csv", ".tagstream"
LAYOUT = replace(find_layout("kinect-v1"), frame_rate=30)
NUM_COLUMNS = 1 + 4 * len(LAYOUT.joints)
FRAMES_BEFORE, FRAMES_AFTER = 60, 20
TICKS = 49.875
"""Of the tags' clock, in a millisecond; the frames' clock counts microseconds."""
MAX_TAGS = 1000
MAX_TAG_BYTES = 1 << 20
GESTURES = (
    *("start system", "duck", "push right", "goggles", "wind it up", "shoot"),
    *("bow", "throw", "had enough", "change weapon", "beat both", "kick"),
)
_NAME = re.compile(r"P\d_\d_(\d{1,2})A?_p(\d\d)", re.ASCII)
_TAG = re.compile(r"(\d{1,18});\s*G(\d{1,2})\b.*", re.ASCII)


class Tag(NamedTuple):
    """An action point: when it is, in microseconds, and of which class."""

    time: float
    label: int


@dataclass(frozen=True)
class Msrc12:
    """A folder of `.csv` files, each with its `.tagstream`."""

    root: Path

    name = "msrc12"
    layout = LAYOUT
    max_persons = 1

    @property
    def rule(self) -> dict[str, Any]:
        """How clips were cut and coordinates changed; every clip has one person."""
        return {
            "coordinates": "metres, as recorded; a joint that is not tracked is (0, 0, 0)",
            "cut": [FRAMES_BEFORE, FRAMES_AFTER],
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the names of the twelve gestures."""
        return list(GESTURES)

    def catalogue(self) -> Catalogue:
        """List the action points of all recordings: ``P1_1_10_p06.csv/00`` and so on.

        Raises:
            InputError: the folder is missing or holds no tags.
        """
        items: list[Path] = []
        skipped: list[tuple[str, str]] = []
        side_files: list[Path] = []
        names: set[str] = set()
        for path in find_files(self.root, ENDING):
            if _NAME.fullmatch(path.stem) is None:
                skipped.append((path.name, "the name is not such as P1_1_10_p06"))
            elif path.stem in names:
                skipped.append((path.name, f"a second file of that name, {path}"))
            else:
                names.add(path.stem)
                try:
                    tags = _read_tags(tag_file := _find_tags(path))
                except InputError as error:
                    skipped.append((path.name, str(error)))
                    continue
                side_files.append(tag_file)
                items += [path / f"{number:02}" for number in range(len(tags))]
        if not items:
            reason = f": {skipped[0][1]}" if skipped else ""
            raise InputError(
                f"{self.root}: expected files such as P1_1_10_p06{ENDING}, each with its tags in "
                f"P1_1_10_p06{TAG_ENDING}{reason}"
            )
        return Catalogue(items, skipped, side_files)

    def read(self, item: Path) -> Recording:
        """Read the clip of one action point. Raises InputError if a file is malformed."""
        path, number = item.parent, int(item.name)
        match = _NAME.fullmatch(path.stem)
        assert match is not None
        tags = _read_tags(_find_tags(path))
        times, joints = _read_frames(path, find_time(path))
        points = [int(np.argmin(np.abs(times - tag.time))) for tag in tags[: number + 1]]
        first = max(points[-1] - FRAMES_BEFORE, points[-2] if number else 0)
        clip = joints[first : points[-1] + FRAMES_AFTER + 1]
        present: NDArray[np.bool_] = np.any(clip, axis=(1, 2))
        name = f"{path.stem}_{item.name}"
        return Recording(name, tags[number].label, clip[None], present[None], int(match[2]))

    def poses(self, item: Path) -> Poses:
        """Read a whole recording, with or without tags. Raises InputError if it is malformed."""
        _, joints = _read_frames(item, find_time(item))
        present: NDArray[np.bool_] = np.any(joints, axis=(1, 2))
        return joints[None], present[None]

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `xsub`, which trains on subjects with odd numbers, and `few`, on 1 to 5 (ours)."""
        is_training = {"xsub": clips.subjects % 2 == 1, "few": clips.subjects <= 5}
        return {
            name: np.where(subjects, Train, Test).astype(np.int8)
            for name, subjects in is_training.items()
        }


def _find_tags(path: Path) -> Path:
    """Return the file with the tags of a recording, whose ending may be in capitals."""
    tags, capitals = (path.with_suffix(end) for end in (TAG_ENDING, TAG_ENDING.upper()))
    return capitals if not is_file(tags) and is_file(capitals) else tags


def _read_tags(path: Path) -> list[Tag]:
    """Read the action points. Raises InputError that names the line."""
    lines = read_bytes(path, MAX_TAG_BYTES).decode("utf-8", "replace").splitlines()
    tags: list[Tag] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("XQPCTick")):
            continue
        match = _TAG.fullmatch(line.strip())
        if match is None or not 1 <= int(match[2]) <= len(GESTURES) or len(tags) == MAX_TAGS:
            raise InputError(
                f"{path}: line {number}: expected at most {MAX_TAGS} tags such as "
                f"124301238039;G12 Kick, found {shown(line)}"
            )
        tags.append(Tag((int(match[1]) * 1000 + TICKS * 500) / (TICKS * 1000), int(match[2]) - 1))
    return tags


@lru_cache(maxsize=1)
def _read_frames(path: Path, time: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Read the times [T] and joints [T, V, 3] of a recording; the next clip is likely of it, too.

    Raises:
        InputError: names the line and what was expected.
    """
    rows: list[list[float]] = []
    for row in read_rows(path, delimiter="blank"):
        numbers = parse_numbers(row.cells)
        if numbers is None or len(numbers) != NUM_COLUMNS:
            raise InputError(
                f"{path}: line {row.line}: expected {NUM_COLUMNS} numbers divided by blanks, a "
                f"time and 4 for each of {len(LAYOUT.joints)} joints, found {len(row.cells)} cells"
            )
        rows.append(numbers)
    table = np.array(rows).reshape(-1, NUM_COLUMNS)
    if not len(table) or not np.isfinite(table[:, 0]).all():
        raise InputError(f"{path}: expected frames, each with a time")
    joints = table[:, 1:].reshape(len(table), -1, 4)  # [T, V, 4]
    return table[:, 0], as_joints(joints, ("x", "y", "z", "score"))[..., :3]
