"""Three rules to choose the persons of a clip among the bodies that a depth camera reports.

A Kinect reports chairs and reflections as bodies, loses a person and finds them again under a new
id, and lists bodies in no particular order.

Shapes: D detections (one body in one frame), M persons, T frames, V joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Poses
from skelnas.errors import InputError

BodyRule = Literal["denoise", "energy", "first"]
Indices: TypeAlias = NDArray[np.intp]

MAX_PERSONS = 2
MIN_TRACK_FRAMES = 12
"""A body seen in fewer frames is noise, unless all are."""
MAX_WIDTH_TO_HEIGHT = 0.8
"""A standing person is no wider; a frame in which a body is wider is implausible."""
MAX_IMPLAUSIBLE_FRACTION = 0.69754
"""A body with at least this fraction of implausible frames is no person, unless all have it."""
ENERGY_SLOTS = 4
"""Number of bodies per frame that the rule `energy` considers."""


@dataclass(frozen=True)
class Detections:
    """All bodies of a clip, by frame and then in the order of the file.

    Attributes:
        num_frames: T, including frames without bodies.
        frames: [D] int64, the frame of each detection, from 0.
        slots: [D] int64, its position among the bodies of the frame, from 0.
        bodies: [D] int64, the id from the tracker.
        joints: [D, V, 3] float32, finite; a joint that is not found is (0, 0, 0).
    """

    num_frames: int
    frames: NDArray[np.int64]
    slots: NDArray[np.int64]
    bodies: NDArray[np.int64]
    joints: NDArray[np.float32]

    def __getitem__(self, chosen: Indices) -> Detections:
        """Return a subset of the detections."""
        return Detections(
            self.num_frames,
            self.frames[chosen],
            self.slots[chosen],
            self.bodies[chosen],
            self.joints[chosen],
        )


def choose_persons(detections: Detections, rule: BodyRule, where: str) -> Poses:
    """Choose at most two persons.

    A body with all joints at (0, 0, 0) counts as not seen; other bodies are measured by the joints
    that are found.

    Args:
        detections: all bodies of one clip.
        rule: `denoise` (SGN, CTR-GCN and PYSKL) drops the frames in which neither person is seen;
            `energy` (2s-AGCN, MMAction2) and `first` (ST-GCN) keep every frame.
        where: name of the file, for the error.

    Returns:
        Poses [M, T, V, 3], zero where a person is absent, and present [M, T]; M is 1 or 2.

    Raises:
        InputError: no frame holds a body.
    """
    seen = detections[np.flatnonzero(detections.joints.any(axis=(1, 2)))]
    if not len(seen.frames):
        raise InputError(f"{where}: no body in any frame")
    if rule == "denoise":
        persons = _denoise(seen)
    elif rule == "energy":
        persons = _choose_most_energetic(seen)
    else:
        persons = [np.flatnonzero(seen.slots == slot) for slot in range(MAX_PERSONS)]

    persons = [person for person in persons if len(person)]
    present = np.zeros((len(persons), seen.num_frames), np.bool_)
    poses = np.zeros((*present.shape, *seen.joints.shape[1:]), np.float32)
    for slot, person in enumerate(persons):
        present[slot, seen.frames[person]] = True
        poses[slot, seen.frames[person]] = seen.joints[person]
    if rule == "denoise":
        is_occupied = present.any(axis=0)
        present, poses = present[:, is_occupied], poses[:, is_occupied]
    return poses, present


def _denoise(seen: Detections) -> list[Indices]:
    """Group detections by tracker id, drop tracks of non-persons, and join broken tracks.

    The track with the most motion belongs to the first person. In order of decreasing motion, each
    further track goes to the first person with whose tracks it does not overlap in time (from
    first to last frame); a track that overlaps both persons is dropped.
    """
    tracks = [_track(seen, body) for body in dict.fromkeys(seen.bodies.tolist())]
    if len(tracks) == 1:
        return tracks
    tracks = [track for track in tracks if len(track) >= MIN_TRACK_FRAMES] or tracks

    width, height = _extent(seen.joints)
    plausible = width <= MAX_WIDTH_TO_HEIGHT * height
    tracks = [
        track for track in tracks if np.mean(~plausible[track]) < MAX_IMPLAUSIBLE_FRACTION
    ] or tracks
    tracks.sort(key=lambda track: _motion(seen.joints, track, plausible), reverse=True)

    persons: list[list[Indices]] = [[] for _ in range(MAX_PERSONS)]
    for track in tracks:
        for person in persons:
            if not any(_overlap(seen.frames, track, other) for other in person):
                person.append(track)
                break
    return [np.concatenate(person) for person in persons if person]


def _track(seen: Detections, body: int) -> Indices:
    """Return the detections of one body in order of time; of two in a frame, the first."""
    track = np.flatnonzero(seen.bodies == body)
    return track[np.unique(seen.frames[track], return_index=True)[1]]


def _extent(joints: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how wide (x) and how tall (y) the found joints of each detection are [m], [D] each."""
    by_joint = joints.transpose(1, 2, 0).copy()  # [D, V, 3] -> [V, 3, D], 20 times as fast
    found = by_joint.any(axis=1, keepdims=True)  # [V, 1, D]
    highest = by_joint.max(axis=0, where=found, initial=-np.inf)
    width, height, _ = highest - by_joint.min(axis=0, where=found, initial=np.inf)
    return width, height


def _motion(joints: NDArray[np.float32], track: Indices, plausible: NDArray[np.bool_]) -> float:
    """Sum the variances of x, y and z over the plausible frames, or all if none is [m²]."""
    plausible_track = track[plausible[track]]
    frames = plausible_track if len(plausible_track) else track
    return float(_found_by_axis(joints[frames]).var(axis=1).sum())


def _found_by_axis(joints: NDArray[np.float32]) -> NDArray[np.float64]:
    """Lay out the found joints for fast and accurate sums over each axis."""
    axes = joints.reshape(-1, 3).T.astype(np.float64, order="C")  # [D, V, 3] -> [3, D * V]
    found = axes.any(axis=0)
    return axes if found.all() else axes[:, found]


def _overlap(frames: NDArray[np.int64], one: Indices, other: Indices) -> bool:
    """Whether two tracks overlap in time, each from its first to its last frame."""
    return bool(frames[one[0]] <= frames[other[-1]] and frames[other[0]] <= frames[one[-1]])


def _choose_most_energetic(seen: Detections) -> list[Indices]:
    """Treat each slot as a person; return the two with the most variation, in that order."""
    slots = [np.flatnonzero(seen.slots == slot) for slot in range(ENERGY_SLOTS)]
    energy = [
        _found_by_axis(seen.joints[slot]).std(axis=1).sum() if len(slot) else -1.0 for slot in slots
    ]
    ranked = sorted(range(ENERGY_SLOTS), key=lambda slot: energy[slot], reverse=True)
    return [slots[slot] for slot in ranked[:MAX_PERSONS]]
