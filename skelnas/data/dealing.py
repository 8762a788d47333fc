"""Dealing clips, or whole groups of them, into parts in which the classes are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(labels: NDArray[np.int32], count: int, seed: int) -> NDArray[np.int64]:
    """Deal clips like cards, class by class, so that parts have as many of each, give or take one.

    Args:
        labels: [n], the class of each clip.
        count: of parts.
        seed: of the order within a class.

    Returns:
        [n], the part of each clip, from 0.
    """
    order = _order_by_class(labels, seed)
    parts = np.empty(len(labels), dtype=np.int64)
    parts[order] = np.arange(len(labels)) % count
    return parts


def draw_fraction(labels: NDArray[np.int32], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw a fraction of the clips of each class, rounded up or down; a class's last clip stays.

    Returns:
        [n], whether a clip is drawn. At least one is, unless each class has a single clip.
    """
    is_drawn = np.zeros(len(labels), dtype=np.bool_)
    expected, total = 0.0, 0
    by_class = np.split(*_split_points(labels, seed))
    for clips in by_class:
        expected += fraction * len(clips)
        most = min(math.ceil(round(fraction * len(clips), 9)), len(clips) - 1)
        number = min(max(round(expected - total), 0), most)
        is_drawn[clips[:number]] = True
        total += number
    if not total:
        largest = max(by_class, key=len)
        is_drawn[largest[: min(1, len(largest) - 1)]] = True
    return is_drawn


def assign_groups(
    labels: NDArray[np.int32], groups: NDArray[np.int32], sizes: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Assign whole groups to parts, largest first, each to where the classes stay most even.

    Args:
        labels: [n], the class of each clip.
        groups: [n], what stays together, such as the subject of each clip.
        sizes: of the parts, relative to each other.
        seed: of the order of groups of one size.

    Returns:
        [n], the part of each clip, from 0. None is empty unless there are fewer groups.
    """
    names, group_of_clip = np.unique(groups, return_inverse=True)
    _, class_of_clip = np.unique(labels, return_inverse=True)
    clips = np.zeros((len(names), class_of_clip.max(initial=-1) + 1))  # [groups, classes]
    np.add.at(clips, (group_of_clip, class_of_clip), 1)
    shares = clips / clips.sum(0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-clips[order].sum(1), kind="stable")]
    size = np.array(sizes, dtype=float)  # [parts]
    filled = np.zeros((len(size), shares.shape[1]))  # [parts, classes]
    part_of_group = np.empty(len(names), dtype=np.int64)
    for done, group in enumerate(order):
        added = filled + shares[group]
        growth = ((added**2 - filled**2).sum(1) / size).round(9)  # of the unevenness, for each
        is_full = filled.any(axis=1)
        must_fill = len(order) - done <= np.count_nonzero(~is_full)
        part = int(np.lexsort((filled.sum(1) / size, growth, is_full & must_fill))[0])
        filled[part] = added[part]
        part_of_group[group] = part
    return part_of_group[group_of_clip]


def _order_by_class(labels: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """Return the clips [n] sorted by class, and shuffled within each."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]


def _split_points(
    labels: NDArray[np.int32], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clips [n] sorted by class, and where each class but the first begins."""
    order = _order_by_class(labels, seed)
    return order, np.flatnonzero(np.diff(labels[order])) + 1
