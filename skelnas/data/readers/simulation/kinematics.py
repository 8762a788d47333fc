"""Forward kinematics of a standing body with the 25 joints of Kinect v2.

Shapes: T frames, V = 25 joints in NTU order. Body axes: x to the body's left, y up, z ahead;
metres. Angles are in degrees; all are zero when the body stands with its arms hanging down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Bone(NamedTuple):
    """The bone from a joint's parent to the joint: its offset [m] and its part of the body."""

    joint: int
    parent: int
    part: str
    offset: tuple[float, float, float]


def _arm(side: int, shoulder: int, tip: int) -> tuple[Bone, ...]:
    elbow, wrist, hand, thumb = shoulder + 1, shoulder + 2, shoulder + 3, tip + 1
    return (
        Bone(shoulder, 20, "shoulders", (side * 0.165, -0.03, 0.0)),
        Bone(elbow, shoulder, "arms", (0.0, -0.27, 0.0)),
        Bone(wrist, elbow, "arms", (0.0, -0.24, 0.0)),
        Bone(hand, wrist, "arms", (0.0, -0.07, 0.0)),
        Bone(tip, hand, "arms", (0.0, -0.07, 0.0)),
        Bone(thumb, hand, "arms", (-side * 0.02, -0.02, 0.04)),
    )


def _leg(side: int, hip: int) -> tuple[Bone, ...]:
    knee, ankle, foot = hip + 1, hip + 2, hip + 3
    return (
        Bone(hip, 0, "hips", (side * 0.08, -0.03, 0.0)),
        Bone(knee, hip, "legs", (side * 0.01, -0.39, 0.0)),
        Bone(ankle, knee, "legs", (0.0, -0.37, 0.0)),
        Bone(foot, ankle, "legs", (side * 0.02, -0.06, 0.12)),
    )


SKELETON: tuple[Bone, ...] = (
    Bone(1, 0, "trunk", (0.0, 0.28, 0.0)),
    Bone(20, 1, "trunk", (0.0, 0.20, 0.0)),
    Bone(2, 20, "trunk", (0.0, 0.07, 0.0)),
    Bone(3, 2, "head", (0.0, 0.13, 0.01)),
    *_arm(+1, shoulder=4, tip=21),
    *_arm(-1, shoulder=8, tip=23),
    *_leg(+1, hip=12),
    *_leg(-1, hip=16),
)
"""The bones of a body of average stature, parents before children."""

NUM_JOINTS = 1 + len(SKELETON)
_SWAPPED = (*range(8, 12), *range(4, 8), *range(16, 20), *range(12, 16))
MIRRORED = [0, 1, 2, 3, *_SWAPPED, 20, 23, 24, 21, 22]
"""For each joint, its counterpart on the other side."""

ANGLES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "turn": (0, (0, 1, 0)),
    "trunk bend": (1, (1, 0, 0)),
    "trunk twist": (1, (0, 1, 0)),
    "trunk lean": (1, (0, 0, -1)),
    "chest bend": (20, (1, 0, 0)),
    "chest twist": (20, (0, 1, 0)),
    "head nod": (2, (1, 0, 0)),
    "head tilt": (2, (0, 0, -1)),
    "left arm forward": (5, (-1, 0, 0)),
    "left arm spread": (5, (0, 0, 1)),
    "left elbow": (6, (-1, 0, 0)),
    "left wrist": (7, (-1, 0, 0)),
    "right arm forward": (9, (-1, 0, 0)),
    "right arm spread": (9, (0, 0, -1)),
    "right elbow": (10, (-1, 0, 0)),
    "right wrist": (11, (-1, 0, 0)),
    "left thigh": (13, (-1, 0, 0)),
    "left leg apart": (13, (0, 0, 1)),
    "left knee": (14, (1, 0, 0)),
    "left foot": (15, (1, 0, 0)),
    "right thigh": (17, (-1, 0, 0)),
    "right leg apart": (17, (0, 0, -1)),
    "right knee": (18, (1, 0, 0)),
    "right foot": (19, (1, 0, 0)),
}
"""Each angle: the joint whose bone it rotates relative to the parent's bone, and the axis.

Trunk lean, head tilt and twists are positive towards the body's left. Two more rows of a motion
are not angles: ``left/right arm inward`` rolls the upper arm, so that a bent forearm points across
the body, and ``jump`` lifts the body off the floor [m].
"""

_ELBOWS = {"left": (6, 1), "right": (10, -1)}
_FEET = ((14, 15), (18, 19))
_STANCE_M = 0.015


def scale_body(scales: Mapping[str, float]) -> Array:
    """Return the offsets of all joints from their parents, scaled by part, [V, 3] m."""
    offsets = np.zeros((NUM_JOINTS, 3))
    for bone in SKELETON:
        offsets[bone.joint] = np.multiply(bone.offset, scales[bone.part])
    return offsets


def pose(offsets: Array, angles: Mapping[str, Array]) -> Array:
    """Pose a body over time and move it across the floor.

    Args:
        offsets: [V, 3] m, from `scale_body`.
        angles: [T] degrees for any of `ANGLES` and ``arm inward``, [T] m for ``jump``.

    Returns:
        [T, V, 3] m. The floor is at y = 0; the body starts with its pelvis above the origin, and
        the standing foot does not slide.
    """
    (num_frames,) = np.broadcast_shapes(*(values.shape for values in angles.values()))
    turns = rotations(_rotation_vectors(angles, num_frames))  # [V, T, 3, 3]
    frames = {0: turns[0]}
    joints = np.zeros((num_frames, NUM_JOINTS, 3))
    for bone in SKELETON:
        frames[bone.joint] = frames[bone.parent] @ turns[bone.joint]
        joints[:, bone.joint] = joints[:, bone.parent] + frames[bone.joint] @ offsets[bone.joint]
    return joints + _pelvis_path(joints, angles.get("jump", np.zeros(num_frames)))[:, None]


def _rotation_vectors(angles: Mapping[str, Array], num_frames: int) -> Array:
    """Return the rotation vectors of all bones, [V, T, 3] rad."""
    turns = np.zeros((NUM_JOINTS, num_frames, 3))
    for name, (joint, axis) in ANGLES.items():
        if name in angles:
            turns[joint] += np.multiply.outer(np.radians(angles[name]), axis)
    for side, (joint, sign) in _ELBOWS.items():
        inward = np.radians(angles.get(f"{side} arm inward", np.zeros(num_frames)))
        flexion = turns[joint, :, 0].copy()
        turns[joint, :, 0] = flexion * np.cos(inward)
        turns[joint, :, 2] = flexion * np.sin(inward) * sign
    return turns


def rotations(vectors: Array) -> Array:
    """Return the rotation matrices [..., 3, 3] of rotation vectors [..., 3] rad (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(vectors / np.where(angle > 0, angle, 1), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    angle = angle[..., None]
    result: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return result


def _pelvis_path(joints: Array, jump: Array) -> Array:
    """Return the positions of the pelvis [T, 3], given joints relative to it and jump heights."""
    feet = np.stack([joints[:, foot].mean(1) for foot in _FEET], axis=1)  # [T, 2, 3]
    lowest = np.stack([joints[:, foot, 1].min(1) for foot in _FEET], axis=1)
    floor = lowest.min(axis=1)
    load = np.exp((floor[:, None] - lowest) / _STANCE_M)  # on each foot, [T, 2]
    load /= load.sum(axis=1, keepdims=True)
    steps = ((load[1:] + load[:-1]) / 2)[..., None] * np.diff(feet, axis=0)  # [T - 1, 2, 3]
    pelvis = np.zeros((len(joints), 3))
    pelvis[1:] = -np.cumsum(steps.sum(axis=1), axis=0)
    pelvis[:, 1] = jump - floor
    return pelvis


def mirror(joints: Array) -> Array:
    """Mirror joints [..., V, 3] across x = 0, swapping left and right."""
    return joints[..., MIRRORED, :] * (-1, 1, 1)
