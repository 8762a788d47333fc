"""Made-up recordings for the metamorphic tests, and what a reader must make of them.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skelnas.data.readers import kinetics, ntu_facts, nw_ucla, pyskl
from skelnas.data.readers.base import Layout

SCALE = float(os.environ.get("METAMORPHIC_SCALE", "1"))
"""Multiplies the number of examples of every property."""


def examples(count: int) -> Callable[[Any], Any]:
    """Run a property on this many examples, the same in every run."""
    return settings(
        max_examples=max(1, round(count * SCALE)),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@dataclass(frozen=True)
class Kind:
    """What the numbers of a recording mean.

    Attributes:
        layout: joints, bones, channels and centre.
        picture: width and height by which x and y are to be divided, or None.
        persons: maximum number of persons.
    """

    layout: Layout = field(repr=False)
    picture: tuple[float, float] | None = None
    persons: int = 2

    @property
    def is_scored(self) -> bool:
        """Whether the last channel is a score."""
        return self.layout.channels[-1] == "score"

    @property
    def num_spatial(self) -> int:
        """Number of coordinates of a joint."""
        return len(self.layout.channels) - self.is_scored


JOINTS = ("hip", "neck", "tête", "left_hand", "right_hand", "left_foot", "right_foot")
BONES = ((1, 0), (2, 1), (3, 1), (4, 1), (5, 0), (6, 0))
METRES = Kind(Layout(JOINTS, BONES, ("x", "y", "z"), center_joint=0))
PIXELS = Kind(Layout(JOINTS, BONES, ("x", "y", "score")), picture=(640, 480))
SCORED = Kind(Layout(JOINTS, BONES, ("x", "y", "z", "score"), center_joint=0))
OWN = {"metres": METRES, "pixels": PIXELS, "scored": SCORED}

NTU = Kind(ntu_facts.LAYOUT)
NW_UCLA = Kind(nw_ucla.LAYOUT, persons=1)
KINETICS = Kind(kinetics.LAYOUT, picture=(1, 1))
COCO = Kind(pyskl.COCO, picture=(640, 480))


@dataclass(frozen=True)
class Clip:
    """A recording.

    Attributes:
        kind: what its numbers mean.
        numbers: [M, T, V, C] float64; all of a joint's are NaN where it was not found.
    """

    kind: Kind
    numbers: NDArray[np.float64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """[M, T, V], the joints that were found."""
        return np.asarray(np.isfinite(self.numbers).all(axis=-1))

    @property
    def present(self) -> NDArray[np.bool_]:
        """[M, T], the persons who are seen."""
        return np.asarray(self.found.any(axis=-1))

    @property
    def poses(self) -> NDArray[np.float32]:
        """[M, T, V, C], as a cache must store them."""
        poses = self.numbers.copy()
        if self.kind.picture is not None:
            poses[..., :2] = poses[..., :2] / self.kind.picture - 0.5
        return np.nan_to_num(poses, nan=0).astype(np.float32)

    def with_numbers(self, numbers: NDArray[np.float64]) -> Clip:
        """Return another recording of the kind."""
        return replace(self, numbers=numbers)

    def trim(self) -> Clip:
        """Cut the frames before the first and after the last in which somebody is seen."""
        frames = np.flatnonzero(self.present.any(axis=0))
        return self.with_numbers(self.numbers[:, frames[0] : frames[-1] + 1])

    def insert_absent(self, frames: list[int]) -> Clip:
        """Insert frames without persons before the frames with these indices."""
        return self.with_numbers(np.insert(self.numbers, frames, np.nan, axis=1))


def make_clip(
    kind: Kind, seed: int, num_persons: int = 1, num_frames: int = 6, lost: float = 0.0
) -> Clip:
    """Make up a recording.

    Args:
        kind: what its numbers mean.
        seed: of the random numbers.
        num_persons, num_frames: its size.
        lost: probability that a joint is not found; those of the first frame's first person are.
    """
    rng = np.random.default_rng(seed)
    size, num_joints = kind.num_spatial, len(kind.layout.joints)
    shape = (num_persons, num_frames, num_joints, size)
    body = rng.uniform(-0.6, 0.6, (num_persons, 1, num_joints, size))
    waves = 0.3 * np.sin(
        rng.uniform(0.2, 1.5, body.shape) * np.arange(num_frames)[:, None, None]
        + rng.uniform(0, 6, body.shape)
    )
    points = body + waves + 0.01 * rng.standard_normal(shape)
    points[1:] += 0.5
    if kind.picture is None:
        points[..., 2] += 3
    else:
        points = (0.2 * points + 0.5) * kind.picture
    numbers = points
    if kind.is_scored:  # the first person is the surest, so that no rule changes their order
        scores = rng.uniform(0.5, 1, shape[:3]) * np.reshape([1, 0.01][:num_persons], (-1, 1, 1))
        numbers = np.concatenate([points, scores[..., None]], axis=-1)
    is_lost = rng.random(shape[:3]) < lost
    is_lost[0, 0] = False
    is_lost[:, -1, 0] = False  # everybody is seen
    numbers[is_lost] = np.nan
    # Shortest decimals that float32 tells apart, so that text holds the same numbers as arrays.
    return Clip(kind, numbers.astype(np.float32).astype(np.float64))


def clips(
    kind: Kind, *, max_persons: int | None = None, lost: bool = True, min_frames: int = 1
) -> st.SearchStrategy[Clip]:
    """Recordings of a kind, of 1 to 12 frames, with or without joints that were not found."""
    return st.builds(
        make_clip,
        st.just(kind),
        seed=st.integers(0, 10**6),
        num_persons=st.integers(1, max_persons or kind.persons),
        num_frames=st.integers(min_frames, 12),
        lost=st.sampled_from([0.0, 0.2, 0.6] if lost else [0.0]),
    )


def permutations(kind: Kind) -> st.SearchStrategy[list[int]]:
    """Orders of the joints."""
    return st.permutations(range(len(kind.layout.joints))).map(list)


def inverse(order: list[int]) -> list[int]:
    """Return the order that undoes another."""
    return [int(index) for index in np.argsort(order)]
