"""What the numbers of a joint are: by their names, or else by a rule that is told.

Without names, x and y come first. Whether the third number is z or a score is judged by the joints
of the clips, see `judge_third`; where it stays open, the user has to name the channels.

Shapes: C numbers of a joint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import CHANNEL_ORDER, MAX_CHANNELS, MAX_COORDINATE, channel_name
from skelnas.data.readers.files import are_found
from skelnas.errors import InputError, UsageError

XY, XYZ, XYS, XYZS = ("x", "y"), ("x", "y", "z"), ("x", "y", "score"), ("x", "y", "z", "score")

Kind = Literal["z", "score", "open"]

MIN_SHARE = 0.25
"""Of the joints must agree, so that a few strange numbers decide nothing."""
MIN_PIXELS = 50
"""From here on, x and y are pixels or millimetres, not metres or fractions of the picture."""
MAX_PER_CENT = 100
"""Beside pixels, numbers up to here may be scores in per cent."""
MAX_RATIO = 20
"""Between z and the larger of x and y."""
NEGATIVE = -0.01
"""Scores that are read off a heat map may be a little below 0."""
SCORES = (-0.1, 1.1)
"""Limits of scores, with the error of a heat map."""
MAX_JOINTS_JUDGED = 20_000


class Guess(NamedTuple):
    """Channels without names.

    Attributes:
        channels: standard names; empty if it stays open.
        reason: what says so, or leaves it open.
    """

    channels: tuple[str, ...]
    reason: str


def parse_channels(names: Sequence[str]) -> tuple[str, ...]:
    """Return the standard names of channels. Raises ValueError with what is wrong."""
    channels = tuple(map(channel_name, names))
    if not set(CHANNEL_ORDER[:2]) <= set(channels):
        raise ValueError("expected x and y among them")
    if len(set(channels)) < len(channels):
        raise ValueError("two are the same")
    if not all(channels):
        raise ValueError("a name is empty")
    if len(channels) > MAX_CHANNELS:
        raise ValueError(f"expected at most {MAX_CHANNELS} names")
    return channels


def parse_option(text: str) -> tuple[str, ...]:
    """Parse the names of ``--channels``. Raises UsageError."""
    try:
        return parse_channels(text.split(",")) if text else ()
    except ValueError as error:
        hint = "name the numbers of a joint in their order, such as x,y,score"
        raise UsageError(f"--channels {text[:80]}: {error}", hint=hint) from None


def guess_channels(numbers: NDArray[Any], usual: Sequence[str] = ()) -> Guess:
    """Return what the numbers of joints are.

    Args:
        numbers: [..., C], as in the files.
        usual: the channels that the layout may have, if it has a name.
    """
    count = numbers.shape[-1]
    choices = [names for names in (XY, XYZ, XYS, XYZS) if len(names) == count]
    named = [names for names in choices if set(names) <= set(usual)]
    if not choices:
        return Guess((), f"{count} numbers a joint")
    if count == len(XY):
        return Guess(XY, "2 numbers a joint")
    joints = _find_joints(numbers)
    if not len(joints):
        return Guess((), "no joint is known")
    kind, reason = judge_third(joints)
    if count == len(XYZS):
        reason += f", the fourth {_extent(joints[:, 3])}"
        is_z = kind == "z" or (bool(named) and kind != "score")
        return Guess(XYZS if is_z and _are_scores(joints[:, 3]) else (), reason)
    judged = {"z": XYZ, "score": XYS, "open": named[0] if len(named) == 1 else ()}[kind]
    if named and judged not in named:
        unlike = f", like {_article(kind)}, but the layout has {', '.join(named[0])}"
        return Guess((), reason + unlike * bool(judged))
    return Guess(judged, reason)


def find_contradiction(numbers: NDArray[Any], channels: Sequence[str]) -> str | None:
    """Return why numbers without names cannot be these channels, or None if they may be.

    Args:
        numbers: [..., C], as in the file.
        channels: names of the C numbers, in their order.
    """
    order = tuple(map(channel_name, channels))
    if order not in (XYZ, XYS, XYZS):
        return None
    joints = _find_joints(numbers)
    if not len(joints):
        return None
    kind, reason = judge_third(joints)
    if kind != "open" and kind != order[2]:
        return f"{reason}, like {_article(kind)} and not {_article(order[2])}"
    if order == XYZS and _is_common((joints[:, 3] < SCORES[0]) | (joints[:, 3] > SCORES[1])):
        return f"the fourth number of a joint is {_extent(joints[:, 3])}, unlike a score"
    return None


def check_channels(
    numbers: NDArray[Any], channels: Sequence[str], where: str, hint: str | None = None
) -> None:
    """Raise InputError if numbers [..., C] without names contradict channels.

    Args:
        numbers: as in the file.
        channels: names of the C numbers, in their order.
        where: the place, for the message.
        hint: what to do; by default, to give ``--channels``.
    """
    if reason := find_contradiction(numbers, channels):
        names = ",".join(channels)
        hint = hint or f"if these are {', '.join(channels)}, say so by --channels {names}"
        raise InputError(f"{where}: {reason}", hint=hint)


def judge_third(joints: NDArray[np.float64]) -> tuple[Kind, str]:
    """Judge the third number of joints [n, C] that were found, n >= 1, C >= 3; return why, too.

    It is z if a quarter of them are negative, or a quarter are above 1 and of the size of x and y.
    It is a score if all are within 0 and 1 (with some error) beside pixels.
    """
    x, y, third = joints[:, 0], joints[:, 1], joints[:, 2]
    size = np.maximum(np.abs(x), np.abs(y))
    beside = f"beside x and y up to {_format(size.max())}"
    reason = f"the third number of a joint is {_extent(third)} {beside}"
    are_pixels = _is_common(size >= MIN_PIXELS)
    are_fractions = not _is_common((x < 0) | (x > 1) | (y < 0) | (y > 1))
    is_alike = (third >= size / MAX_RATIO) & (third <= size * MAX_RATIO)
    is_beyond = third > (MAX_PER_CENT if are_pixels else 1)
    if _is_common(third < NEGATIVE) or (not are_fractions and _is_common(is_beyond & is_alike)):
        return "z", reason
    return "score" if are_pixels and _are_scores(third) else "open", reason


def _find_joints(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Return some or all of the joints [n, C] that were found, without absurd numbers."""
    joints = numbers.reshape(-1, numbers.shape[-1])
    with np.errstate(invalid="ignore"):  # a signalling NaN
        some: NDArray[np.float64] = joints[:: 1 + len(joints) // MAX_JOINTS_JUDGED].astype(float)
        is_known = (np.abs(some) <= MAX_COORDINATE).all(axis=1)
    return some[are_found(some[:, :2], XY) & is_known]


def _is_common(mask: NDArray[np.bool_]) -> bool:
    return bool(mask.mean() >= MIN_SHARE)


def _are_scores(values: NDArray[np.float64]) -> bool:
    low, high = SCORES
    return bool(np.any(values > 0) and np.all((values >= low) & (values <= high)))


def _extent(values: NDArray[np.float64]) -> str:
    return f"{_format(values.min())} to {_format(values.max())}"


def _format(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _article(kind: str) -> str:
    return "a score" if kind == "score" else kind
