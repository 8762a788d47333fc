"""What the numbers of a joint are, compared with a slow and obvious rule, and with the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from skelnas.data.readers.channels import (
    find_contradiction,
    guess_channels,
    parse_channels,
    parse_option,
)
from skelnas.data.readers.layouts import LAYOUTS
from skelnas.errors import UsageError

Array = NDArray[np.float64]

XYZ, XYS, XYZS = ("x", "y", "z"), ("x", "y", "score"), ("x", "y", "z", "score")


def examples(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


# Against a slow rule


def judge_slowly(joints: list[list[float]]) -> str:
    """Return z, score or open, for joints that were found."""

    def are_common(wanted: Callable[[float, float, float], bool]) -> bool:
        return 4 * sum(wanted(x, y, w) for x, y, w, *_ in joints) >= len(joints)

    pixels = are_common(lambda x, y, w: abs(x) >= 50 or abs(y) >= 50)
    fractions = not are_common(lambda x, y, w: not (0 <= x <= 1 and 0 <= y <= 1))
    limit = 100 if pixels else 1

    def is_as_large(x: float, y: float, w: float) -> bool:
        size = max(abs(x), abs(y))
        return w > limit and w >= size / 20 and w <= 20 * size

    if are_common(lambda x, y, w: w < -0.01):
        return "z"
    if not fractions and are_common(is_as_large):
        return "z"
    scores = [joint[2] for joint in joints]
    return "score" if pixels and are_scores(scores) else "open"


def are_scores(values: list[float]) -> bool:
    return max(values) > 0 and all(-0.1 <= value <= 1.1 for value in values)


def guess_slowly(numbers: Array, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Return the channels, empty if it stays open."""
    count = numbers.shape[-1]
    if count == 2:
        return ("x", "y")
    joints = [
        joint
        for joint in numbers.reshape(-1, count).tolist()
        if all(map(math.isfinite, joint)) and joint[:2] not in ([0, 0], [-1, -1])
    ]
    if not joints or count not in (3, 4):
        return ()
    kind = judge_slowly(joints)
    if count == 4:
        has_z = kind == "z" or (kind == "open" and usual == XYZS)
        return XYZS if has_z and are_scores([joint[3] for joint in joints]) else ()
    if usual == XYS:
        return () if kind == "z" else XYS
    if usual == XYZ:
        return () if kind == "score" else XYZ
    return {"z": XYZ, "score": XYS, "open": ()}[kind]


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 1.1, -0.1, -0.01, 50.0, 100.0, 20.0, math.nan]),
    st.floats(-1, 1),
    st.floats(-1000, 1000),
)


@examples(600)
@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=3, max_side=5), elements=NUMBERS),
    st.sampled_from([(), XYS, XYZ, XYZS]),
)
def test_channels_are_those_of_a_slow_rule(numbers: Array, usual: tuple[str, ...]) -> None:
    if numbers.shape[-1] == 1:
        return
    guess = guess_channels(numbers, usual)
    assert guess.channels == guess_slowly(numbers, usual)
    assert guess.reason


# Against the truth


def random_points(rng: np.random.Generator, count: int, low: float, high: float) -> Array:
    return rng.uniform(low, high, (count, 2))


PLACES = {
    "pixels": lambda rng, n: random_points(rng, n, 0, rng.uniform(200, 4000)),
    "millimetres": lambda rng, n: random_points(rng, n, -1000, 1000),
    "metres": lambda rng, n: random_points(rng, n, -1.5, 1.5),
    "fractions": lambda rng, n: random_points(rng, n, 0, 1),
    "centred fractions": lambda rng, n: random_points(rng, n, -0.5, 0.5),
}
SCORES = {
    "scores": lambda rng, n: rng.uniform(0, 1, n),
    "sure": lambda rng, n: np.ones(n),
    "heat map": lambda rng, n: rng.uniform(-0.02, 1.05, n),
    "logits": lambda rng, n: rng.uniform(0, 8, n),
    "per cent": lambda rng, n: rng.uniform(0, 100, n),
}
DEPTHS = {
    "from the camera": lambda rng, n, size: size * rng.uniform(1.2, 4, n),
    "from the hip": lambda rng, n, size: size * rng.uniform(-1, 1, n),
    "of MediaPipe": lambda rng, n, size: rng.uniform(-0.8, 0.9, n),
    "unknown": lambda rng, n, size: np.zeros(n),
}
SEEDS = st.integers(0, 10**6)


@examples(300)
@given(SEEDS, st.integers(1, 400), st.sampled_from(sorted(SCORES)), st.sampled_from(sorted(PLACES)))
def test_scores_are_never_taken_for_depths(seed: int, count: int, kind: str, place: str) -> None:
    if (kind in ("logits", "per cent")) != (place in ("pixels", "fractions")):
        place = "pixels"
    rng = np.random.default_rng(seed)
    numbers = np.column_stack([PLACES[place](rng, count), SCORES[kind](rng, count)])
    guess = guess_channels(numbers)
    assert guess.channels in (XYS, ())
    if place == "pixels" and kind in ("scores", "sure"):
        assert guess.channels == XYS
    assert guess_channels(numbers, LAYOUTS["coco17"].layout.channels).channels == XYS
    assert find_contradiction(numbers, XYS) is None


@examples(300)
@given(
    SEEDS, st.integers(30, 400), st.sampled_from(sorted(DEPTHS)), st.sampled_from(sorted(PLACES))
)
def test_depths_are_never_taken_for_scores(seed: int, count: int, kind: str, place: str) -> None:
    rng = np.random.default_rng(seed)
    points = PLACES[place](rng, count)
    depths = DEPTHS[kind](rng, count, np.abs(points).max())
    numbers = np.column_stack([points, depths])
    guess = guess_channels(numbers)
    assert guess.channels in (XYZ, ())
    if kind in ("from the hip", "of MediaPipe") or (kind, place) == ("from the camera", "metres"):
        assert guess.channels == XYZ
    assert guess_channels(numbers, LAYOUTS["kinect-v2"].layout.channels).channels == XYZ
    assert find_contradiction(numbers, XYZ) is None
    scored = np.column_stack([numbers, rng.uniform(0, 1, count)])
    assert guess_channels(scored, LAYOUTS["mediapipe33"].layout.channels).channels == XYZS
    assert find_contradiction(scored, XYZS) is None


@examples(100)
@given(SEEDS, st.sampled_from(sorted(PLACES)), st.integers(1, 3))
def test_joints_that_were_not_found_say_nothing(seed: int, place: str, every: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.column_stack([PLACES[place](rng, 60), rng.uniform(0, 1, 60)])
    lost = np.repeat(numbers, 1 + every, axis=0)
    for offset, missing in enumerate([(0, 0, 0), (math.nan,) * 3, (-1, -1, -1)][:every]):
        lost[1 + offset :: 1 + every] = missing
    assert guess_channels(lost).channels == guess_channels(numbers).channels


def test_what_is_known_of_data_is_contradicted_by_others() -> None:
    rng = np.random.default_rng(0)
    pixels, scores = rng.uniform(0, 640, (50, 2)), rng.uniform(0.1, 1, 50)
    scored, metres = np.column_stack([pixels, scores]), rng.uniform(-1, 1, (50, 3))
    assert "like a score and not z" in (find_contradiction(scored, XYZ) or "")
    assert "like z and not a score" in (find_contradiction(metres, ("x", "y", "conf")) or "")
    four = np.column_stack([metres, pixels[:, 0]])
    assert "unlike a score" in (find_contradiction(four, XYZS) or "")
    assert find_contradiction(four, ("x", "y", "z", "time")) is None
    assert find_contradiction(metres * math.nan, XYS) is None


# Names


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ("x,y", ("x", "y")),
        (" Y,X , Conf", ("y", "x", "score")),
        ("x,y,z,visibility", XYZS),
        ("x,y,z,presence", ("x", "y", "z", "presence")),
        ("", ()),
    ],
)
def test_names_become_standard_names(names: str, channels: tuple[str, ...]) -> None:
    assert parse_option(names) == channels


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("x,z", "expected x and y among them"),
        ("x,y,c,conf", "two are the same"),
        ("x,y,", "a name is empty"),
        ("x,y," + ",".join(map(str, range(63))), "expected at most 64 names"),
    ],
)
def test_impossible_names_are_refused(names: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_channels(names.split(","))
    with pytest.raises(UsageError, match=f"^--channels .*: {reason}"):
        parse_option(names)
