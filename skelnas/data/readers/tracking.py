"""Follow persons from frame to frame, where a file lists them without saying who is who.

1. In every frame, persons continue the tracks that are nearest, nearest pair first. The distance
   of a person from a track is the mean distance of the joints found in both, or of their centres
   where there are none.
2. It must be within half the size of the larger of the two, the diagonal of the box around the
   joints, and the track must have been seen in the last 30 frames.
3. Who continues no track begins one.
4. The longest tracks, by frames in which they are seen, are the persons; of equally long ones, the
   larger.

Where no frame has more than one person, that is the person. Shapes: M persons, T frames, V joints,
C channels, D coordinates, K tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import num_coordinates
from skelnas.data.readers.files import are_found

MAX_DISTANCE = 0.5
"""Of the size of a person."""
MAX_LOST_FRAMES = 30


@dataclass
class _Track:
    """A person in some frames.

    Attributes:
        frames: in which it is seen.
        persons: its index among the persons of each of these frames.
        space, found: [V, D] and [V] of its last pose.
        sizes: the size in each of these frames.
    """

    frames: list[int] = field(default_factory=list)
    persons: list[int] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    space: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    found: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))


def track(
    frames: Sequence[NDArray[np.float64]], channels: Sequence[str], max_persons: int
) -> NDArray[np.float64]:
    """Choose persons and give each a place of its own.

    Args:
        frames: the persons [n, V, C] of each of the T frames, n >= 0; the same V >= 1 in all.
        channels: names of the C numbers: coordinates first.
        max_persons: M at most.

    Returns:
        [M, T, V, C], M >= 1, NaN where a person is not seen; who comes first was seen longest.
    """
    seen = [numbers[are_found(numbers, channels).any(axis=1)] for numbers in frames]
    tracks = _follow(seen, channels)
    tracks.sort(key=lambda one: (-len(one.frames), -float(np.median(one.sizes)), one.frames[0]))
    tracks = tracks[:max_persons]
    poses = np.full((max(1, len(tracks)), len(frames), *frames[0].shape[1:]), np.nan)
    for place, one in enumerate(tracks):
        for frame, person in zip(one.frames, one.persons, strict=True):
            poses[place, frame] = seen[frame][person]
    return poses


def _follow(seen: list[NDArray[np.float64]], channels: Sequence[str]) -> list[_Track]:
    is_single = max(map(len, seen)) <= 1
    tracks: list[_Track] = []
    open_tracks: list[_Track] = []
    for frame, numbers in enumerate(seen):
        space = numbers[..., : num_coordinates(channels)]  # [n, V, D]
        found = are_found(numbers, channels)  # [n, V]
        open_tracks = [
            one for one in open_tracks if is_single or frame - one.frames[-1] <= MAX_LOST_FRAMES
        ]
        matches = _match(open_tracks, space, found, np.inf if is_single else MAX_DISTANCE)
        for person in range(len(numbers)):
            if person in matches:
                one = open_tracks[matches[person]]
            else:
                one = _Track()
                tracks.append(one)
                open_tracks.append(one)
            one.frames.append(frame)
            one.persons.append(person)
            one.space, one.found = space[person], found[person]
            one.sizes.append(_size(one.space, one.found))
    return tracks


def _match(
    tracks: list[_Track],
    space: NDArray[np.float64],
    found: NDArray[np.bool_],
    max_distance: float,
) -> dict[int, int]:
    """Return the index of the track that each person [n, V, D] continues, if any."""
    if not tracks or not len(space):
        return {}
    if np.isinf(max_distance):
        return {0: 0}
    track_space = np.stack([one.space for one in tracks])  # [K, V, D]
    track_found = np.stack([one.found for one in tracks])  # [K, V]
    sizes = np.array([one.sizes[-1] for one in tracks])  # [K]
    pairs: list[tuple[float, int, int]] = []
    for person in range(len(space)):
        distances = _distances(track_space, track_found, space[person], found[person])
        limits = max_distance * np.maximum(sizes, _size(space[person], found[person]))
        near = np.flatnonzero(distances <= limits).tolist()
        pairs += [(float(distances[index]), index, person) for index in near]
    matches: dict[int, int] = {}
    taken: set[int] = set()
    for _, index, person in sorted(pairs):
        if person not in matches and index not in taken:
            matches[person] = index
            taken.add(index)
    return matches


def _distances(
    spaces: NDArray[np.float64],
    founds: NDArray[np.bool_],
    space: NDArray[np.float64],
    found: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the distance [K] of a pose [V, D] from the last ones of the tracks [K, V, D]."""
    both = founds & found  # [K, V]
    counts = both.sum(axis=1)  # [K]
    apart = np.where(both, np.linalg.norm(spaces - space, axis=2), 0)  # [K, V]
    means: NDArray[np.float64] = apart.sum(axis=1) / np.maximum(counts, 1)  # [K]
    lonely = np.flatnonzero(counts == 0)
    center = space[found].mean(axis=0)  # [D]
    for index in lonely.tolist():
        means[index] = np.linalg.norm(spaces[index][founds[index]].mean(axis=0) - center)
    return means


def _size(space: NDArray[np.float64], found: NDArray[np.bool_]) -> float:
    """Return the diagonal of the box around the joints that were found, at least one."""
    return float(np.linalg.norm(np.ptp(space[found], axis=0)))
