"""Actors who differ in build, posture and manner, and how they perform an action.

Shapes: T frames, V = 25 joints. Room axes: y up, the floor at y = 0, the middle camera on +z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from skelnas.data.readers.simulation.kinematics import Array, mirror, pose, rotations, scale_body
from skelnas.data.readers.simulation.motions import Action, Part, sides

FRAME_RATE_HZ = 30

POSTURE: dict[str, tuple[float, float]] = {
    "trunk bend": (2, 3),
    "trunk lean": (0, 1.5),
    "chest bend": (3, 4),
    "head nod": (4, 6),
    "left arm forward": (2, 4),
    "left arm spread": (7, 3),
    "left arm inward": (10, 12),
    "left elbow": (16, 6),
    "right arm forward": (2, 4),
    "right arm spread": (7, 3),
    "right arm inward": (10, 12),
    "right elbow": (16, 6),
    "left leg apart": (3, 2),
    "right leg apart": (3, 2),
    "left knee": (3, 1),
    "right knee": (3, 1),
}
"""Angles of a body at rest: mean and standard deviation over actors, in degrees."""

SWAY_DEGREES = 1.2


@dataclass(frozen=True)
class Actor:
    """The build and manner of a person.

    Attributes:
        offsets: [V, 3] m, the bones.
        posture: angles at rest, in degrees.
        energy: factor on the amplitude of motions.
        tempo: factor on the duration of actions.
        left_handed: whether the actor usually acts with the left side.
    """

    offsets: Array
    posture: Mapping[str, float]
    energy: float
    tempo: float
    left_handed: bool


def draw_actor(rng: Generator) -> Actor:
    """Draw a person: stature, proportions, posture and manner."""
    stature = 1 + 0.06 * _spread(rng)
    parts = ("trunk", "head", "shoulders", "arms", "hips", "legs")
    return Actor(
        offsets=scale_body({part: stature * (1 + 0.035 * _spread(rng)) for part in parts}),
        posture={name: mean + std * _spread(rng) for name, (mean, std) in POSTURE.items()},
        energy=1 + 0.08 * _spread(rng),
        tempo=1 + 0.12 * _spread(rng),
        left_handed=bool(rng.random() < 0.15),
    )


def perform(action: Action, performer: Actor, facing: float, rng: Generator) -> list[Array]:
    """Perform an action once.

    Args:
        action: the action; its partner, if it has one, is a newly drawn actor.
        performer: the actor.
        facing: where the performer looks, in degrees to the left of the middle camera; two persons
            turn twice as far, so that neither hides the other.
        rng: for tempo, delays, amplitudes, position and the side that acts.

    Returns:
        For each person [T, V, 3] m in room axes; the performer comes first.
    """
    progress = _progress(action.seconds * performer.tempo, rng)
    people = [_act(performer, action.performer, progress, rng)]
    if action.partner is not None:
        delay = rng.normal(0, 0.02)
        people.append(_act(draw_actor(rng), action.partner, progress - delay, rng))
        people = _position_both(people, action, action.gap + rng.normal(0, 0.05))
        facing *= 2
    if rng.random() < (0.9 if performer.left_handed else 0.06):
        people = [mirror(person) for person in people]
    turn = rotations(np.radians([0.0, facing + rng.normal(0, 8), 0.0]))
    position = [rng.normal(0, 0.15), 0.0, rng.normal(0, 0.2)]
    return [person @ turn.T + position for person in people]


def _progress(seconds: float, rng: Generator) -> Array:
    """Draw the progress of an action in each frame, [T]: < 0 before it starts, > 1 after it."""
    seconds *= np.exp(0.1 * _spread(rng))
    before, after = rng.uniform(0.05, 0.5, 2)
    num_frames = round((before + seconds + after) * FRAME_RATE_HZ)
    linear = (np.arange(num_frames) / FRAME_RATE_HZ - before) / seconds
    inside = np.clip(linear, 0, 1)
    warp = float(np.exp(0.12 * _spread(rng)))
    result: Array = linear + inside**warp - inside
    return result


def _act(actor: Actor, part: Part, progress: Array, rng: Generator) -> Array:
    """Return the poses of an actor who starts at the origin and looks along +z, [T, V, 3] m."""
    angles = {name: angle + _sway(len(progress), rng) for name, angle in actor.posture.items()}
    pace = 1 + 0.12 * _spread(rng)
    energy = actor.energy * (1 + 0.06 * _spread(rng))
    for row, curve in part.items():
        values = curve(progress, pace) * energy * (1 + 0.06 * _spread(rng))
        for name in sides(row):
            angles[name] = angles.get(name, 0.0) + values
    return pose(actor.offsets, angles)


def _sway(num_frames: int, rng: Generator) -> Array:
    """Draw the small, slow motion of a standing body, [T] degrees."""
    seconds = np.arange(num_frames) / FRAME_RATE_HZ
    cycles, phase = rng.uniform(0.1, 0.5), rng.uniform(0, 1)
    result: Array = SWAY_DEGREES * rng.random() * np.sin(2 * np.pi * (cycles * seconds + phase))
    return result


def _position_both(people: list[Array], action: Action, gap: float) -> list[Array]:
    """Arrange two persons on the z axis, so that they are `gap` apart when nearest."""
    frame = 0 if action.nearest == "start" else -1
    sign = 1 if action.face == "together" else -1
    first, second = (person - [0, 0, person[frame, 0, 2] + sign * gap / 2] for person in people)
    return [first, second * (-1, 1, -1)]


def _spread(rng: Generator) -> float:
    """Draw from a standard normal distribution, clipped at two standard deviations."""
    return float(np.clip(rng.standard_normal(), -2, 2))
