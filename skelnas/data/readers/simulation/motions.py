"""The actions of the synthetic source, as curves of body angles over time.

A curve is a function of progress u [T], from 0 (the start of the action) to 1 (its end), and of
pace, a factor on its number of cycles. It returns degrees [T], or metres for ``jump``; the angles
are those of `kinematics.ANGLES`. A plural stands for both sides: ``arms spread`` is ``left arm
spread`` and ``right arm spread``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = Callable[[Array, float], Array]
Part = Mapping[str, Curve]


@dataclass(frozen=True)
class Action:
    """An action.

    Attributes:
        number: as in NTU's file names; the label is one less.
        meaning: NTU's name of the class.
        seconds: duration at average tempo.
        performer: curves of the performer.
        partner: curves of the second person, if there is one.
        gap: distance between the two pelvises when nearest, in metres.
        nearest: when the two are nearest.
        face: whether the two look towards each other or away from each other.
    """

    number: int
    meaning: str
    seconds: float
    performer: Part
    partner: Part | None = None
    gap: float = 0.0
    nearest: Literal["start", "end"] = "start"
    face: Literal["together", "apart"] = "together"


def path(*points: tuple[float, float]) -> Curve:
    """Pass smoothly through (progress, value) points, resting at each of them."""
    times, values = np.array(points).T

    def curve(u: Array, pace: float) -> Array:
        after = np.clip(np.searchsorted(times, u), 1, len(times) - 1)
        fraction = np.clip((u - times[after - 1]) / (times[after] - times[after - 1]), 0, 1)
        eased = fraction * fraction * (3 - 2 * fraction)
        result: Array = values[after - 1] + (values[after] - values[after - 1]) * eased
        return result

    return curve


def hold(value: float, rise: float = 0.25, fall: float = 0.75) -> Curve:
    """Rise to a value until `rise`, hold it until `fall`, and return to rest."""
    return path((0, 0), (rise, value), (fall, value), (1, 0))


def peak(value: float, moment: float, width: float = 0.3) -> Curve:
    """Reach a value at one moment, rising and falling within `width` of progress."""
    return path((moment - width, 0), (moment, value), (moment + width, 0))


def reach(value: float, start: float, stop: float) -> Curve:
    """Go from rest to a value, and stay there."""
    return path((start, 0), (stop, value))


def leave(value: float, start: float, stop: float) -> Curve:
    """Hold a value until `start`, and return to rest."""
    return path((start, value), (stop, 0))


def swing(value: float, cycles: float, around: float = 0.0, phase: float = 0.0) -> Curve:
    """Swing by +-value around another; `phase` is in cycles."""
    envelope = hold(1, rise=0.2, fall=0.8)

    def curve(u: Array, pace: float) -> Array:
        wave = np.sin(2 * np.pi * (cycles * pace * u + phase))
        result: Array = envelope(u, pace) * (around + value * wave)
        return result

    return curve


def beat(value: float, cycles: float, phase: float = 0.0, sharp: int = 1) -> Curve:
    """Go from rest to a value and back repeatedly; a sharp beat is short."""
    envelope = hold(1, rise=0.2, fall=0.8)

    def curve(u: Array, pace: float) -> Array:
        wave = (1 - np.cos(2 * np.pi * (cycles * pace * u + phase))) / 2
        result: Array = envelope(u, pace) * value * wave**sharp
        return result

    return curve


def walk(steps: float) -> Part:
    """Walk ahead: thighs and arms swing in opposition; a knee bends while its leg swings."""
    cycles = steps / 2
    return {
        "left thigh": swing(24, cycles, around=4),
        "right thigh": swing(24, cycles, around=4, phase=0.5),
        "left knee": beat(58, cycles, phase=0.5, sharp=2),
        "right knee": beat(58, cycles, sharp=2),
        "left arm forward": swing(18, cycles, phase=0.5),
        "right arm forward": swing(18, cycles),
        "elbows": hold(16),
        "trunk bend": hold(4),
    }


SHAKE_HANDS: Part = {
    "right arm forward": hold(42),
    "right elbow": swing(9, cycles=4, around=38),
    "right arm inward": hold(12),
    "trunk bend": hold(7),
}

ACTIONS: tuple[Action, ...] = (
    Action(
        6,
        "pickup",
        seconds=2.6,
        performer={
            "trunk bend": path((0.05, 0), (0.45, 68), (0.55, 68), (0.95, 0)),
            "chest bend": path((0.05, 0), (0.45, 22), (0.55, 22), (0.95, 0)),
            "thighs": path((0.05, 0), (0.45, 72), (0.55, 72), (0.95, 0)),
            "knees": path((0.05, 0), (0.45, 92), (0.55, 92), (0.95, 0)),
            "right arm forward": path((0.1, 0), (0.45, 88), (0.55, 84), (0.95, 25), (1, 25)),
            "right elbow": path((0.1, 0), (0.45, -8), (0.55, -4), (0.9, 70), (1, 70)),
            "left arm forward": path((0.1, 0), (0.45, 45), (0.55, 45), (0.95, 0)),
        },
    ),
    Action(
        7,
        "throw",
        seconds=2.0,
        performer={
            "right arm forward": path((0, 0), (0.4, -10), (0.55, 110), (0.7, 45), (1, 0)),
            "right arm spread": path((0, 0), (0.35, 85), (0.5, 60), (0.6, 5), (1, 0)),
            "right arm inward": path((0, 0), (0.35, -80), (0.5, -50), (0.6, 0)),
            "right elbow": path((0, 0), (0.35, 105), (0.45, 100), (0.56, 10), (1, 10)),
            "left arm forward": path((0, 0), (0.35, 50), (0.6, -10), (1, 0)),
            "chest twist": path((0, 0), (0.38, -35), (0.58, 30), (1, 0)),
            "trunk bend": path((0.1, 0), (0.38, -10), (0.6, 22), (1, 0)),
            "left thigh": path((0.25, 0), (0.42, 30), (0.55, 18), (0.8, 15), (1, 0)),
            "left knee": path((0.25, 0), (0.42, 40), (0.55, 10), (1, 0)),
        },
    ),
    Action(
        8,
        "sitting down",
        seconds=2.4,
        performer={
            "thighs": reach(84, 0.2, 0.75),
            "knees": reach(86, 0.2, 0.75),
            "trunk bend": path((0.1, 0), (0.5, 38), (0.85, 6)),
            "arms forward": reach(28, 0.3, 0.9),
            "elbows": reach(42, 0.4, 0.95),
        },
    ),
    Action(
        9,
        "standing up (from sitting position)",
        seconds=2.2,
        performer={
            "thighs": leave(84, 0.25, 0.8),
            "knees": leave(86, 0.25, 0.8),
            "trunk bend": path((0.05, 6), (0.4, 42), (0.85, 0)),
            "arms forward": leave(28, 0.2, 0.9),
            "elbows": leave(42, 0.1, 0.7),
        },
    ),
    Action(
        10,
        "clapping",
        seconds=2.6,
        performer={
            "arms forward": hold(38),
            "elbows": hold(85),
            "arms inward": swing(13, cycles=6, around=20),
        },
    ),
    Action(
        22,
        "cheer up",
        seconds=2.8,
        performer={
            "arms forward": hold(85),
            "arms spread": hold(105),
            "arms inward": hold(-55),
            "elbows": swing(30, cycles=3.5, around=45),
            "trunk bend": hold(-6),
            "head nod": hold(-12),
            "knees": beat(18, cycles=3.5),
            "thighs": beat(9, cycles=3.5),
        },
    ),
    Action(
        23,
        "hand waving",
        seconds=2.6,
        performer={
            "right arm spread": hold(62),
            "right arm forward": hold(25),
            "right arm inward": hold(-85),
            "right elbow": swing(26, cycles=4, around=95),
            "trunk lean": hold(2),
        },
    ),
    Action(
        24,
        "kicking something",
        seconds=1.9,
        performer={
            "right thigh": path((0.1, 0), (0.38, -28), (0.56, 74), (0.68, 45), (0.9, 0)),
            "right knee": path((0.1, 0), (0.4, 75), (0.56, 6), (0.72, 45), (0.9, 0)),
            "left knee": hold(14, 0.35, 0.65),
            "left thigh": hold(7, 0.35, 0.65),
            "trunk bend": path((0.1, 0), (0.38, 12), (0.58, -12), (1, 0)),
            "arms spread": hold(26, 0.4, 0.6),
            "left arm forward": path((0.1, 0), (0.38, -15), (0.58, 30), (1, 0)),
        },
    ),
    Action(
        26,
        "hopping (one foot jumping)",
        seconds=2.8,
        performer={
            "left knee": hold(85),
            "left thigh": hold(25),
            "right knee": beat(38, cycles=5),
            "right thigh": beat(20, cycles=5),
            "jump": beat(0.13, cycles=5, phase=0.5),
            "arms spread": swing(8, cycles=5, around=28),
            "elbows": hold(45),
        },
    ),
    Action(
        27,
        "jump up",
        seconds=1.9,
        performer={
            "thighs": path((0.1, 0), (0.38, 50), (0.5, 0), (0.62, 8), (0.74, 38), (1, 0)),
            "knees": path((0.1, 0), (0.38, 75), (0.5, 4), (0.62, 15), (0.74, 58), (1, 0)),
            "trunk bend": path((0.1, 0), (0.38, 38), (0.52, -2), (0.76, 24), (1, 0)),
            "jump": peak(0.34, moment=0.6, width=0.12),
            "arms forward": path((0.1, 0), (0.36, -40), (0.56, 120), (0.78, 20), (1, 0)),
            "elbows": hold(30, 0.5, 0.6),
        },
    ),
    Action(
        35,
        "nod head/bow",
        seconds=2.2,
        performer={
            "trunk bend": hold(34, 0.42, 0.58),
            "chest bend": hold(14, 0.42, 0.58),
            "head nod": hold(26, 0.36, 0.62),
        },
    ),
    Action(
        38,
        "salute",
        seconds=2.2,
        performer={
            "right arm spread": hold(80),
            "right arm forward": hold(45),
            "right arm inward": hold(-40),
            "right elbow": hold(118),
            "head nod": hold(-4),
        },
    ),
    Action(
        50,
        "punching/slapping other person",
        seconds=2.0,
        performer={
            "right arm forward": path((0, 0), (0.32, 20), (0.48, 104), (0.6, 60), (1, 0)),
            "right arm inward": hold(20, 0.3, 0.6),
            "right elbow": path((0, 0), (0.32, 120), (0.48, 8), (0.62, 70), (1, 0)),
            "left arm forward": hold(25, 0.3, 0.7),
            "left elbow": hold(75, 0.3, 0.7),
            "chest twist": path((0, 0), (0.32, -25), (0.48, 35), (1, 0)),
            "trunk bend": path((0.2, 0), (0.48, 14), (1, 0)),
        },
        partner={
            "trunk bend": path((0.42, 0), (0.58, -22), (1, 0)),
            "head nod": path((0.42, 0), (0.54, -24), (0.9, 0)),
            "right thigh": path((0.46, 0), (0.6, -22), (1, 0)),
            "arms forward": path((0.4, 0), (0.6, 22), (1, 0)),
            "elbows": path((0.4, 0), (0.6, 45), (1, 0)),
        },
        gap=0.85,
    ),
    Action(
        58,
        "handshaking",
        seconds=2.6,
        performer=SHAKE_HANDS,
        partner=SHAKE_HANDS,
        gap=1.0,
    ),
    Action(
        59,
        "walking towards each other",
        seconds=2.6,
        performer=walk(steps=3),
        partner=walk(steps=3),
        gap=0.75,
        nearest="end",
    ),
    Action(
        60,
        "walking apart from each other",
        seconds=2.6,
        performer=walk(steps=3),
        partner=walk(steps=3),
        gap=0.6,
        face="apart",
    ),
)
"""All actions, in the order of the clips."""


def sides(row: str) -> tuple[str, ...]:
    """Return the angles that a row of a motion drives: both sides if it is a plural."""
    first, *rest = row.split(" ")
    if not first.endswith("s"):
        return (row,)
    return tuple(" ".join([side, first.removesuffix("s"), *rest]) for side in ("left", "right"))
