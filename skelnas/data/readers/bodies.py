"""Which of the bodies that a depth camera reports are the persons of a clip: three rules.

A Kinect reports chairs and reflections as bodies, loses a person and finds them again under a new
id, and gives no order. All rules take the same detections and return a recording's two arrays.

Shapes: D detections (one body in one frame), M persons, T frames, V joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError

BodyRule = Literal["denoise", "energy", "first"]
Indices: TypeAlias = NDArray[np.intp]

MAX_PERSONS = 2
SHORTEST_TRACK = 12
"""A body that is seen in fewer frames is noise, if there is another."""
WIDEST = 0.8
"""A standing person is at most this wide, in heights; a frame in which a body is wider is doubtful.
"""
MOST_DOUBTFUL = 0.69754
"""A body with at least this share of doubtful frames is no person, if there is another."""
ENERGY_SLOTS = 4
"""The rule `energy` looks at the first four bodies of a frame."""


@dataclass(frozen=True)
class Detections:
    """Every body of a clip, by frame and, in a frame, in the order of the file.

    Attributes:
        num_frames: T, with the frames that hold no body.
        frames: [D] int64, the frame of each detection, from 0.
        slots: [D] int64, its place among the bodies of that frame, from 0.
        bodies: [D] int64, the id that the tracker gave.
        joints: [D, V, 3] float32, finite; a joint that is not known is (0, 0, 0).
    """

    num_frames: int
    frames: NDArray[np.int64]
    slots: NDArray[np.int64]
    bodies: NDArray[np.int64]
    joints: NDArray[np.float32]

    def __getitem__(self, chosen: Indices) -> Detections:
        """Return some of the detections of the same clip."""
        return Detections(
            self.num_frames,
            self.frames[chosen],
            self.slots[chosen],
            self.bodies[chosen],
            self.joints[chosen],
        )


def choose_persons(
    detections: Detections, rule: BodyRule, where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pick at most two persons.

    A body with all joints at (0, 0, 0) says nothing and counts as not seen.

    Args:
        detections: all bodies of one clip.
        rule: `denoise` (the rule of SGN, CTR-GCN and PYSKL; drops frames in which neither person
            is seen), `energy` (2s-AGCN, MMAction2) or `first` (ST-GCN); both keep every frame.
        where: the name of the file, for the error.

    Returns:
        Poses [M, T, V, 3], zero where a person is absent, and present [M, T]; M is 1 or 2.

    Raises:
        InputError: if no frame holds a body.
    """
    seen = detections[np.flatnonzero(detections.joints.any(axis=(1, 2)))]
    if not len(seen.frames):
        raise InputError(f"{where}: no body in any frame")
    if rule == "denoise":
        persons = _denoised(seen)
    elif rule == "energy":
        persons = _most_energetic(seen)
    else:
        persons = [np.flatnonzero(seen.slots == slot) for slot in range(MAX_PERSONS)]

    persons = [person for person in persons if len(person)]
    present = np.zeros((len(persons), seen.num_frames), np.bool_)
    poses = np.zeros((*present.shape, *seen.joints.shape[1:]), np.float32)
    for slot, person in enumerate(persons):
        present[slot, seen.frames[person]] = True
        poses[slot, seen.frames[person]] = seen.joints[person]
    if rule == "denoise":
        shown = present.any(axis=0)
        present, poses = present[:, shown], poses[:, shown]
    return poses, present


def _denoised(seen: Detections) -> list[Indices]:
    """Follow the tracker's ids, drop what is no person, join what one person left in pieces.

    The track that moves most is the first person's. Then, from more to less motion, each track
    goes to the first person whose time, from the first to the last frame of each of its tracks,
    it does not overlap; one that overlaps both persons is dropped.
    """
    tracks = [_track(seen, body) for body in dict.fromkeys(seen.bodies.tolist())]
    if len(tracks) == 1:
        return tracks
    tracks = [track for track in tracks if len(track) >= SHORTEST_TRACK] or tracks

    by_joint = seen.joints.transpose(1, 2, 0).copy()  # [V, 3, D]: D last is 20 times as fast
    width, height, _ = np.ptp(by_joint, axis=0)
    plausible = width <= WIDEST * height
    tracks = [track for track in tracks if np.mean(~plausible[track]) < MOST_DOUBTFUL] or tracks
    tracks.sort(key=lambda track: _motion(seen.joints, track, plausible), reverse=True)

    persons: list[list[Indices]] = [[] for _ in range(MAX_PERSONS)]
    for track in tracks:
        for person in persons:
            if not any(_overlap(seen.frames, track, other) for other in person):
                person.append(track)
                break
    return [np.concatenate(person) for person in persons if person]


def _track(seen: Detections, body: int) -> Indices:
    """Detections of one body in order of time; of two with one id in a frame, the first."""
    track = np.flatnonzero(seen.bodies == body)
    return track[np.unique(seen.frames[track], return_index=True)[1]]


def _motion(joints: NDArray[np.float32], track: Indices, plausible: NDArray[np.bool_]) -> float:
    """Sum of the variances of x, y and z over the plausible frames, or all if none is, in m²."""
    trusted = track[plausible[track]]
    return float(_by_axis(joints[trusted if len(trusted) else track]).var(axis=1).sum())


def _by_axis(joints: NDArray[np.float32]) -> NDArray[np.float64]:
    """[D, V, 3] to [3, D * V], contiguous, so that sums along an axis are fast and exact enough."""
    return joints.reshape(-1, 3).T.astype(np.float64, order="C")


def _overlap(frames: NDArray[np.int64], one: Indices, other: Indices) -> bool:
    """Whether the times of two tracks, each from its first to its last frame, meet."""
    return bool(frames[one[0]] <= frames[other[-1]] and frames[other[0]] <= frames[one[-1]])


def _most_energetic(seen: Detections) -> list[Indices]:
    """Take each slot of the frames for a person, and the two that vary most, the most first."""
    slots = [np.flatnonzero(seen.slots == slot) for slot in range(ENERGY_SLOTS)]
    energy = [
        _by_axis(seen.joints[slot]).std(axis=1).sum() if len(slot) else -1.0 for slot in slots
    ]
    ranked = sorted(range(ENERGY_SLOTS), key=lambda slot: energy[slot], reverse=True)
    return [slots[slot] for slot in ranked[:MAX_PERSONS]]
