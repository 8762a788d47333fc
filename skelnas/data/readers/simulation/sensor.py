"""A sensor like Kinect v2: its position, its faults and its file format.

Shapes: T frames, V = 25 joints, D detections (one body in one frame). Camera axes: x to the
camera's left, y up, z away from it; metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from skelnas.data.readers.bodies import Detections
from skelnas.data.readers.simulation.kinematics import NUM_JOINTS, Array, rotations

CAMERAS = {1: 0.0, 2: 45.0, 3: -45.0}
"""Position of each camera: degrees around the room, counterclockwise seen from above."""

NOT_TRACKED, INFERRED, TRACKED = 0, 1, 2

_FIRST_BODY = 2**56
"""The ids of a Kinect v2 start here."""
_HANDS = (7, 21, 22, 11, 23, 24)
_FEET = (14, 15, 18, 19)
_TRUNK_NOISE_M, _LIMB_NOISE_M = 0.002, 0.005
_DRIFT_FRAMES = 8


@dataclass(frozen=True)
class Track:
    """What the sensor considers one body: its id, and its joints in the K frames that show it.

    Attributes:
        body: the id.
        frames: [K] int64, increasing.
        joints: [K, V, 3] float64 m; (0, 0, 0) where a joint is not tracked.
        states: [K, V] int64: `NOT_TRACKED`, `INFERRED` or `TRACKED`.
    """

    body: int
    frames: NDArray[np.int64]
    joints: Array
    states: NDArray[np.int64]

    def __getitem__(self, mask: NDArray[np.bool_]) -> Track:
        """Return the track in a subset of its frames."""
        return Track(self.body, self.frames[mask], self.joints[mask], self.states[mask])


@dataclass(frozen=True)
class SensorData:
    """What the sensor reports of a clip: detections, and the state of each joint [D, V]."""

    detections: Detections
    states: NDArray[np.int64]


def to_camera(points: Array, camera: int, site: Generator) -> Array:
    """Transform points [..., 3] m from room axes to the axes of one of the `CAMERAS`.

    The recording site determines the distance, height and tilt of the cameras.
    """
    distance, height, tilt = site.uniform((2.9, 0.75, -4.0), (3.5, 1.15, 4.0))
    around = np.radians([0.0, 180.0 - CAMERAS[camera] + site.normal(0, 2), 0.0])
    seen = points @ rotations(around).T + [0.0, -height, distance]
    result: Array = seen @ rotations(np.radians([tilt, 0.0, 0.0])).T
    return result


def record(people: list[Array], rng: Generator) -> SensorData:
    """Track people, each [T, V, 3] m in camera axes, with the faults of a real sensor.

    Joints jitter and drift, and some are lost temporarily. Occasionally a whole body is lost, and
    may return under another id. Sometimes furniture is detected as a body wider than tall, and
    sometimes a ghost body appears for a few frames.
    """
    num_frames = len(people[0])
    bodies = iter(range(_FIRST_BODY + int(rng.integers(2000, 30000)), 2**62, 7))
    tracks = []
    for joints in people:
        track = _lose_joints(_track(next(bodies), joints, rng), rng)
        tracks += _interrupt(track, next(bodies), rng)
    if rng.random() < 0.12:
        tracks.append(_furniture(next(bodies), num_frames, rng))
    if rng.random() < 0.06:
        tracks.append(_ghost(next(bodies), people[0], rng))
    return _merge(num_frames, [tracks[index] for index in rng.permutation(len(tracks))])


def _track(body: int, joints: Array, rng: Generator) -> Track:
    """Add the sensor's noise: jitter from frame to frame, and a slow drift."""
    noise = np.full((NUM_JOINTS, 1), _TRUNK_NOISE_M)
    noise[[*_HANDS, *_FEET, 6, 10]] = _LIMB_NOISE_M
    num_frames = len(joints)
    knots = rng.standard_normal((num_frames // _DRIFT_FRAMES + 2, NUM_JOINTS, 3))
    whole, fraction = np.divmod(np.arange(num_frames) / _DRIFT_FRAMES, 1)
    before = whole.astype(np.int64)
    fraction = fraction[:, None, None]
    drift = knots[before] * (1 - fraction) + knots[before + 1] * fraction
    jitter = 0.5 * rng.standard_normal(joints.shape)
    states = np.full(joints.shape[:2], TRACKED)
    return Track(body, np.arange(num_frames), joints + noise * (drift + jitter), states)


def _lose_joints(track: Track, rng: Generator) -> Track:
    """Lose a hand or a foot temporarily: it freezes in position, or is not reported at all."""
    for _ in range(rng.poisson(0.8)):
        lost = list((_HANDS[:3], _HANDS[3:], _FEET[:2], _FEET[2:])[rng.integers(4)])
        start = int(rng.integers(len(track.frames)))
        span = slice(start, start + int(rng.integers(3, 12)))
        gone = rng.random() < 0.25
        track.joints[span, lost] = 0 if gone else track.joints[start, lost]
        track.states[span, lost] = NOT_TRACKED if gone else INFERRED
    return track


def _interrupt(track: Track, next_body: int, rng: Generator) -> list[Track]:
    """Occasionally lose a body for some frames; half of those return under another id."""
    num_frames = len(track.frames)
    if rng.random() > 0.15 or num_frames < 40:
        return [track]
    gap = int(rng.integers(2, 7))
    start = int(rng.integers(14, num_frames - gap - 14))
    before, after = track[track.frames < start], track[track.frames >= start + gap]
    if rng.random() < 0.5:
        return [before, Track(next_body, after.frames, after.joints, after.states)]
    return [track[(track.frames < start) | (track.frames >= start + gap)]]


def _furniture(body: int, num_frames: int, rng: Generator) -> Track:
    """Detect a table or a chair as a body: wider than tall, and motionless."""
    middle = [rng.choice([-1, 1]) * rng.uniform(1.2, 2.0), -0.3, rng.uniform(3.0, 4.0)]
    heap = rng.uniform(-1, 1, (NUM_JOINTS, 3)) * (0.35, 0.2, 0.15) + middle
    still = np.broadcast_to(heap, (num_frames, NUM_JOINTS, 3))
    track = _track(body, still, rng)
    return track[track.frames >= rng.integers(0, num_frames // 3)]


def _ghost(body: int, joints: Array, rng: Generator) -> Track:
    """Detect the reflection of a person as a body, for a few frames."""
    aside = (rng.uniform(-0.6, 0.6), 0.0, 0.6)
    track = _track(body, joints + aside, rng)
    start = rng.integers(len(joints) - 8)
    return track[(track.frames >= start) & (track.frames < start + rng.integers(2, 9))]


def _merge(num_frames: int, tracks: list[Track]) -> SensorData:
    """Sort tracks by frame, and round to micrometres, which the text format keeps exactly."""
    lengths = [len(track.frames) for track in tracks]
    frames = np.concatenate([track.frames for track in tracks])
    joints = np.concatenate([track.joints for track in tracks])
    bodies = np.repeat([track.body for track in tracks], lengths)
    order = np.argsort(frames, kind="stable")
    first = np.searchsorted(frames[order], frames[order])
    return SensorData(
        Detections(
            num_frames=num_frames,
            frames=frames[order],
            slots=np.arange(len(order)) - first,
            bodies=bodies[order],
            joints=np.round(joints[order], 6).astype(np.float32),
        ),
        states=np.concatenate([track.states for track in tracks])[order],
    )


def join(recordings: Sequence[SensorData]) -> SensorData:
    """Make one recording of several, in their order; each track keeps its id."""
    seen = [data.detections for data in recordings]
    starts = np.cumsum([0, *(one.num_frames for one in seen)])
    return SensorData(
        Detections(
            num_frames=int(starts[-1]),
            frames=np.concatenate([s.frames + t for s, t in zip(seen, starts, strict=False)]),
            slots=np.concatenate([one.slots for one in seen]),
            bodies=np.concatenate([one.bodies for one in seen]),
            joints=np.concatenate([one.joints for one in seen]),
        ),
        np.concatenate([data.states for data in recordings]),
    )


_DEPTH_CAMERA = (366.0, 256.0, 212.0)
_COLOR_CAMERA = (1060.0, 960.0, 540.0)
"""Focal length and image center (x, y) in pixels, approximately those of a Kinect v2."""

_BODY_TEXT = "%d 0 1 1 1 1 0 0 0 2\n25\n" + "%.7g %.7g %.7g %.7g %.7g %.7g %.7g 0 0 0 0 %d\n" * 25


def format_skeleton(data: SensorData) -> str:
    """Return the text of an NTU ``.skeleton`` file.

    Pixel coordinates are those of ideal cameras at the position of the sensor; orientations and
    lean are zero, the states of the hands unknown.
    """
    seen = data.detections
    x, y, z = np.moveaxis(seen.joints.astype(np.float64), -1, 0)
    depth = np.where(z > 0, z, np.inf)
    pixels = [
        side
        for focal, column, row in (_DEPTH_CAMERA, _COLOR_CAMERA)
        for side in (column + focal * x / depth, row - focal * y / depth)
    ]
    numbers = np.stack([x, y, z, *pixels, data.states], axis=-1).reshape(len(x), -1).tolist()
    bodies = [_BODY_TEXT % (body, *row) for body, row in zip(seen.bodies, numbers, strict=True)]
    bounds = np.searchsorted(seen.frames, np.arange(seen.num_frames + 1)).tolist()
    frames = [f"{stop - start}\n{''.join(bodies[start:stop])}" for start, stop in pairwise(bounds)]
    return f"{seen.num_frames}\n{''.join(frames)}"
