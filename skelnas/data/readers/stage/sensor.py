"""A sensor like Kinect v2: where it stands, what it mistakes, and the text that it writes.

Shapes: T frames, V = 25 joints, D detections (one body in one frame). Camera axes: x to the
camera's left, y up, z away from it; metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from skelnas.data.readers.bodies import Detections
from skelnas.data.readers.stage.kinematics import NUM_JOINTS, Array, rotations

CAMERAS = {1: 0.0, 2: 45.0, 3: -45.0}
"""Where each camera stands: degrees around the stage, seen from above, counterclockwise."""

NOT_TRACKED, INFERRED, TRACKED = 0, 1, 2

_FIRST_BODY = 72057594037927936  # 2 ** 56: where the ids of a Kinect v2 begin
_HANDS = (7, 21, 22, 11, 23, 24)
_FEET = (14, 15, 18, 19)
_TRUNK_NOISE_M, _LIMB_NOISE_M = 0.002, 0.005
_WANDER_FRAMES = 8


@dataclass(frozen=True)
class Track:
    """What the sensor takes for one body: its id, and its joints in the frames that show it.

    Attributes:
        frames: [K] int64, rising.
        joints: [K, V, 3] float64 m; (0, 0, 0) where a joint is not tracked.
        states: [K, V] int64: `NOT_TRACKED`, `INFERRED` or `TRACKED`.
    """

    body: int
    frames: NDArray[np.int64]
    joints: Array
    states: NDArray[np.int64]

    def __getitem__(self, kept: NDArray[np.bool_]) -> Track:
        """Return the track in some of its frames."""
        return Track(self.body, self.frames[kept], self.joints[kept], self.states[kept])


@dataclass(frozen=True)
class Footage:
    """Everything that the sensor reports of a clip, with the state of each joint, [D, V]."""

    detections: Detections
    states: NDArray[np.int64]


def view(points: Array, camera: int, site: Generator) -> Array:
    """See points of the room, [..., 3] m, from a camera of `CAMERAS` at a recording site.

    The site decides how far from the stage the cameras stand, how high, and how they tilt.
    """
    distance, height, tilt = site.uniform((2.9, 0.75, -4.0), (3.5, 1.15, 4.0))
    around = np.radians([0.0, 180.0 - CAMERAS[camera] + site.normal(0, 2), 0.0])
    seen = points @ rotations(around).T + [0.0, -height, distance]
    result: Array = seen @ rotations(np.radians([tilt, 0.0, 0.0])).T
    return result


def film(people: list[Array], rng: Generator) -> Footage:
    """Track people, each [T, V, 3] m in camera axes, as well as such a sensor can.

    Joints jitter and wander; some are lost for a while, and so is now and then a whole body, which
    may come back under another id. Sometimes a piece of furniture is taken for a body that is wider
    than tall, and sometimes a body flashes up for a few frames.
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
        tracks.append(_flash(next(bodies), people[0], rng))
    return _footage(num_frames, [tracks[index] for index in rng.permutation(len(tracks))])


def _track(body: int, joints: Array, rng: Generator) -> Track:
    """Add the sensor's noise: jitter from frame to frame, and a slow wander about the truth."""
    noise = np.full((NUM_JOINTS, 1), _TRUNK_NOISE_M)
    noise[[*_HANDS, *_FEET, 6, 10]] = _LIMB_NOISE_M
    num_frames = len(joints)
    knots = rng.standard_normal((num_frames // _WANDER_FRAMES + 2, NUM_JOINTS, 3))
    whole, share = np.divmod(np.arange(num_frames) / _WANDER_FRAMES, 1)
    before = whole.astype(np.int64)
    share = share[:, None, None]
    wander = knots[before] * (1 - share) + knots[before + 1] * share
    jitter = 0.5 * rng.standard_normal(joints.shape)
    states = np.full(joints.shape[:2], TRACKED)
    return Track(body, np.arange(num_frames), joints + noise * (wander + jitter), states)


def _lose_joints(track: Track, rng: Generator) -> Track:
    """Lose a hand or a foot for a while: it stays where it was, or is gone altogether."""
    for _ in range(rng.poisson(0.8)):
        lost = list((_HANDS[:3], _HANDS[3:], _FEET[:2], _FEET[2:])[rng.integers(4)])
        start = int(rng.integers(len(track.frames)))
        span = slice(start, start + int(rng.integers(3, 12)))
        gone = rng.random() < 0.25
        track.joints[span, lost] = 0 if gone else track.joints[start, lost]
        track.states[span, lost] = NOT_TRACKED if gone else INFERRED
    return track


def _interrupt(track: Track, next_body: int, rng: Generator) -> list[Track]:
    """Lose a body for some frames, now and then; half of those come back under another id."""
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
    """Take a table or a chair for a body: wider than tall, and it stands still."""
    middle = [rng.choice([-1, 1]) * rng.uniform(1.2, 2.0), -0.3, rng.uniform(3.0, 4.0)]
    heap = rng.uniform(-1, 1, (NUM_JOINTS, 3)) * (0.35, 0.2, 0.15) + middle
    still = np.broadcast_to(heap, (num_frames, NUM_JOINTS, 3))
    track = _track(body, still, rng)
    return track[track.frames >= rng.integers(0, num_frames // 3)]


def _flash(body: int, joints: Array, rng: Generator) -> Track:
    """Take a reflection of a person for a body, for a few frames only."""
    aside = (rng.uniform(-0.6, 0.6), 0.0, 0.6)
    track = _track(body, joints + aside, rng)
    start = rng.integers(len(joints) - 8)
    return track[(track.frames >= start) & (track.frames < start + rng.integers(2, 9))]


def _footage(num_frames: int, tracks: list[Track]) -> Footage:
    """Sort tracks by frame, and round to the micrometre, so that text keeps every digit."""
    lengths = [len(track.frames) for track in tracks]
    frames = np.concatenate([track.frames for track in tracks])
    joints = np.concatenate([track.joints for track in tracks])
    bodies = np.repeat([track.body for track in tracks], lengths)
    order = np.argsort(frames, kind="stable")
    first = np.searchsorted(frames[order], frames[order])
    return Footage(
        Detections(
            num_frames=num_frames,
            frames=frames[order],
            slots=np.arange(len(order)) - first,
            bodies=bodies[order],
            joints=np.round(joints[order], 6).astype(np.float32),
        ),
        states=np.concatenate([track.states for track in tracks])[order],
    )


_DEPTH_CAMERA = (366.0, 256.0, 212.0)
_COLOR_CAMERA = (1060.0, 960.0, 540.0)
"""Focal length and middle of each picture, in pixels: about those of a Kinect v2."""

_BODY_TEXT = "%d 0 1 1 1 1 0 0 0 2\n25\n" + "%.7g %.7g %.7g %.7g %.7g %.7g %.7g 0 0 0 0 %d\n" * 25


def skeleton_text(footage: Footage) -> str:
    """Write footage as an NTU ``.skeleton`` file.

    Pixels are those of an ideal camera that sees both pictures from where the joints are measured;
    the orientations and the lean of the body are zero, the states of the hands unknown.
    """
    seen = footage.detections
    x, y, z = np.moveaxis(seen.joints.astype(np.float64), -1, 0)
    depth = np.where(z > 0, z, np.inf)
    pixels = [
        side
        for focal, column, row in (_DEPTH_CAMERA, _COLOR_CAMERA)
        for side in (column + focal * x / depth, row - focal * y / depth)
    ]
    numbers = np.stack([x, y, z, *pixels, footage.states], axis=-1).reshape(len(x), -1).tolist()
    bodies = [_BODY_TEXT % (body, *row) for body, row in zip(seen.bodies, numbers, strict=True)]
    bounds = np.searchsorted(seen.frames, np.arange(seen.num_frames + 1)).tolist()
    frames = [f"{stop - start}\n{''.join(bodies[start:stop])}" for start, stop in pairwise(bounds)]
    return f"{seen.num_frames}\n{''.join(frames)}"
