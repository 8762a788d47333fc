"""Which joint is the counterpart of which on the other side of the body, by their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from skelnas.errors import InputError

SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
OTHER_SIDE = {"left": "right", "right": "left"}

BODY_PARTS = (
    *("shoulder", "clavicle", "collar", "arm", "elbow", "forearm", "wrist", "hand", "finger"),
    *("thumb", "hip", "thigh", "knee", "shin", "ankle", "foot", "heel", "toe", "eye"),
)
"""After a letter of a side without any separator, these make a name that needs a counterpart."""

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+\d*|[A-Z]+\d*|\d+|[^\W\d_A-Za-z]+")
"""A word of a name in `snake_case`, `SCREAMING_CASE`, `camelCase` or with any other separator."""

_JOINED = re.compile(r"(?P<first>left|right|l|r)(?P<rest>.+)|(?P<start>.+)(?P<last>left|right)")
"""A side and the rest of a word without any separator."""


class _Sided(NamedTuple):
    """A joint name taken apart: its words in lower case, with None for the side, and the side."""

    words: tuple[str | None, ...]
    side: str

    @property
    def counterpart(self) -> _Sided:
        return _Sided(self.words, OTHER_SIDE[self.side])


def find_mirrored_joints(joints: Sequence[str]) -> list[int]:
    """Return for each joint the index of its counterpart on the other side of the body.

    A joint on neither side is its own counterpart.

    Args:
        joints: names such as `hand_left_tip`, `LEFT_EYE`, `LShoulder`, `l_wrist` or `lhip`.

    Raises:
        InputError: no joint has a side, or some have no counterpart.
    """
    readings = [_read(name) for name in joints]
    index = {sided: joint for joint, sides in enumerate(readings) for sided in sides}
    mirrored = list(range(len(joints)))
    unpaired = []
    for joint, sides in enumerate(readings):
        counterparts = [index[s.counterpart] for s in sides if s.counterpart in index]
        if counterparts:
            mirrored[joint] = counterparts[0]
        elif any(sides.values()):
            unpaired.append(joint)
    unpaired += [j for j, other in enumerate(mirrored) if mirrored[other] != j]
    if unpaired or mirrored == list(range(len(joints))):
        names = ", ".join(joints[joint] for joint in unpaired)
        have = "has" if len(unpaired) == 1 else "have"
        reason = f"{names} {have} no counterpart" if unpaired else "no joint is left or right"
        raise InputError(
            f"joints cannot be mirrored: {reason}",
            hint="--flip needs pairs of names such as hand_left and hand_right; 0 turns it off",
        )
    return mirrored


def standard_name(joint: str) -> str:
    """Return a form that usual spellings of a joint share: left_wrist, WRIST_LEFT, LWrist, l-wrist.

    Names without a certain side keep their words, in lower case.
    """
    for sided, is_certain in _read(joint).items():
        if is_certain:
            return f"{''.join(word for word in sided.words if word)} {sided.side}"
    return "".join(split_words(joint))


def find_side(joint: str) -> str:
    """Return `left`, `right`, or an empty text where a name has no certain side."""
    return next((sided.side for sided, is_certain in _read(joint).items() if is_certain), "")


def split_words(name: str) -> list[str]:
    """Split a name into its words, in lower case."""
    return [word.lower() for word in _WORD.findall(unicodedata.normalize("NFC", name))]


def _read(name: str) -> dict[_Sided, bool]:
    """Return the ways to read a name as that of a joint with a side; whether each is certain."""
    words: list[str | None] = [*split_words(name)]
    sides = {SIDES[word] for word in words if word in SIDES}
    if len(sides) == 1 and len(words) > 1:
        others = tuple(None if word in SIDES else word for word in words)
        return {_Sided(others, sides.pop()): True}
    readings = {}
    for position, word in enumerate(words):
        if not sides and (match := _JOINED.fullmatch(word or "")):
            first, rest, start, last = match.groups()
            parts = (None, rest) if first else (start, None)
            sided = (*words[:position], *parts, *words[position + 1 :])
            is_certain = first in OTHER_SIDE or (rest or "").startswith(BODY_PARTS)
            readings[_Sided(sided, SIDES[first or last])] = is_certain
    return readings
