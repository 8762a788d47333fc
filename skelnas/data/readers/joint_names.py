"""Names of joints and channels: in any order and any usual spelling, and where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skelnas.data.readers.base import Layout, channel_name, fold_name
from skelnas.data.sides import standard_name
from skelnas.errors import InputError, shown

NAME_KEYS = ("joints", "channels")
"""Names beside an array, in the order of its numbers; optional."""

MAX_NAMES = 6
"""Of each kind in a message."""


def find_joint_order(found: tuple[str, ...], expected: tuple[str, ...]) -> list[int] | None:
    """Return the index of each expected joint among those found, in any usual spelling."""
    order = find_order(found, expected, fold_name)
    return find_order(found, expected, standard_name) if order is None else order


def find_order(
    found: tuple[str, ...], expected: tuple[str, ...], fold: Callable[[str], str]
) -> list[int] | None:
    """Return the index of each expected name among those found; None unless both are the same."""
    if found == expected:
        return list(range(len(found)))
    index = {fold(name): number for number, name in enumerate(found)}
    names = [fold(name) for name in expected]
    if len(found) != len(names) or index.keys() != set(names):
        return None
    return [index[name] for name in names]


def order_joints(joints: tuple[str, ...], layout: Layout, where: str) -> list[int]:
    """Return the index of each joint of the layout. Raises InputError if others were found."""
    order = find_joint_order(joints, layout.joints)
    if order is None:
        raise _names_error("joints", joints, layout.joints, where)
    return order


def order_channels(channels: tuple[str, ...], layout: Layout, where: str) -> list[int]:
    """Return the index of each channel of the layout. Raises InputError if others were found."""
    order = find_order(channels, layout.channels, channel_name)
    if order is None:
        raise _names_error("channels", channels, layout.channels, where)
    return order


def _names_error(
    kind: str, found: tuple[str, ...], expected: tuple[str, ...], where: str
) -> InputError:
    """Create the error about other names, with all of them if they are few."""
    text = describe_mismatch(kind, found, expected, "the expected")
    if len(found + expected) <= 2 * MAX_NAMES:
        text = f"expected the {kind} {', '.join(expected)}, found {', '.join(found)}"
    return InputError(f"{where}: {text}")


def describe_mismatch(
    kind: str, found: tuple[str, ...], expected: tuple[str, ...], whose: str
) -> str:
    """Return in which names of joints or channels those found and those expected differ.

    Args:
        kind: "joints" or "channels".
        found, expected: names.
        whose: the expected ones are.
    """
    fold = channel_name if kind == "channels" else standard_name
    folded = [set(map(fold, names)) for names in (found, expected)]
    extra = [name for name in found if fold(name) not in folded[1]]
    missing = [name for name in expected if fold(name) not in folded[0]]
    text = f"its {len(found)} {kind} "
    if extra:
        text += f"include {_shorten(extra)}, {whose} {len(expected)} "
        return text + (f"include {_shorten(missing)}" if missing else "do not")
    if missing:
        return text + f"lack {_shorten(missing)} of {whose} {len(expected)}"
    return text + f"have names that are the same for {whose} {len(expected)}"


def _shorten(names: list[str]) -> str:
    num_others = len(names) - MAX_NAMES
    more = f" and {num_others} other{'s' * (num_others > 1)}" if num_others > 0 else ""
    return ", ".join(names[:MAX_NAMES]) + more


def find_array_names(
    content: Mapping[str, Any], shape: Sequence[int], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of joints and channels that are beside an array [..., V, C].

    Raises:
        InputError: see `find_names`.
    """
    joints, channels = (
        find_names(content, key, count, where)
        for key, count in zip(NAME_KEYS, shape[-2:], strict=True)
    )
    return joints, channels


def find_names(content: Mapping[str, Any], key: str, count: int, where: str) -> tuple[str, ...]:
    """Return the names under a key; empty if there are none.

    Raises:
        InputError: there are too few or too many, or some are the same.
    """
    names = content.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return ()
    fold = channel_name if key == "channels" else fold_name
    if len(names) != count or len(set(map(fold, names))) < count:
        raise InputError(
            f"{where}: expected {count} different names under {key!r}, found {shown(names)}"
        )
    return tuple(map(channel_name, names)) if key == "channels" else tuple(names)
