"""Whether data fit a model: joints and channels by name, and how coordinates were made.

A model takes numbers in the order in which it learned them. What data mean by theirs is known by
name, so data in another order are reordered, and data with other joints are refused.

Shapes: V joints, C channels of a joint, R rows (one person in one frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import Cache, Clips
from skelnas.data.readers.base import Layout, channel_name, num_coordinates
from skelnas.data.readers.joint_names import describe_mismatch, find_joint_order, find_order
from skelnas.data.readers.manifest import OF_EACH_CLIP
from skelnas.data.readers.unlabelled import Origin

OTHER_KEYS = frozenset(
    (
        *("test_subjects", "test_cameras", "test_share", "folds", "split_seed"),
        *("seed", "keep_missing", "channels", "delimiter", "skip_columns"),
    )
)
"""Keys of a rule that do not change coordinates: they select clips, or say what files look like."""

WORDED_KEYS = frozenset({"coordinates", "frames"})
"""Keys of a rule that describe it in words, which may differ between versions of skelnas."""

MAX_SIZE_RATIO = 10.0
"""Persons or scores this many times as large or as small as in the training are in another unit."""

MAX_FLAT_SIZE_RATIO = 50.0
"""The same of persons in 2-D, who are near or far; pixels are hundreds of times the fractions."""

USUAL_SIZE_RATIO = 3.0
"""In 3-D, where size does not depend on distance, persons may differ so much: feet are 3.3 a metre.
"""


@dataclass(frozen=True)
class Match:
    """How data fit a model.

    Attributes:
        joints: [V], the index in the data of each joint of the model.
        channels: [C], the same for the channels.
        mismatches: what does not fit, each with both values; empty if the data fit.
        notes: differences that do no harm.
        is_shape_equal: whether the data can be given to the model at all.
        is_layout_equal: whether joints and channels have the same names.
    """

    joints: list[int]
    channels: list[int]
    mismatches: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_shape_equal: bool = True
    is_layout_equal: bool = True

    def reorder(self, clips: Clips) -> Clips:
        """Return clips with joints and channels in the order of the model."""
        poses = clips.poses
        for axis, order in ((1, self.joints), (2, self.channels)):
            if order != list(range(len(order))):
                poses = poses.take(order, axis=axis)  # [R, V, C]
        return clips if poses is clips.poses else replace(clips, poses=poses)


def origin_of(cache: Cache) -> Origin:
    """Return where the clips of a cache come from."""
    return Origin(cache.source, cache.layout, cache.max_persons, cache.rule)


def match_origins(data: Origin, model: Origin) -> Match:
    """Compare where data come from with what a model was trained on.

    Bones, the centre joint and the maximum number of persons say how clips are to be processed.
    They do not change the stored coordinates, so the model's hold, and they are not compared.
    """
    ours, theirs = data.layout, model.layout
    joints, joint_mismatch = _match_names("joints", ours.joints, theirs.joints)
    channels, channel_mismatch = _match_names("channels", ours.channels, theirs.channels)
    mismatches = [text for text in (joint_mismatch, channel_mismatch) if text]
    if ours.y_down != theirs.y_down:
        mismatches.append(f"y grows {_vertical(ours)}, for the model {_vertical(theirs)}")
    rule_mismatches, notes = _compare_rules(data, model)
    if ours.frame_rate and theirs.frame_rate and ours.frame_rate != theirs.frame_rate:
        rates = f"{ours.frame_rate:g} frames per second, for the model {theirs.frame_rate:g}"
        notes.append(rates)
    shapes = [(len(layout.joints), len(layout.channels)) for layout in (ours, theirs)]
    return Match(
        joints,
        channels,
        [*mismatches, *rule_mismatches],
        notes,
        is_shape_equal=shapes[0] == shapes[1],
        is_layout_equal=not (joint_mismatch or channel_mismatch),
    )


def rename_joints(layout: Layout, joints: Sequence[str]) -> Layout:
    """Return a layout with these joints: in their order if they are the same, else renamed."""
    order, mismatch = _match_names("joints", layout.joints, tuple(joints))
    if mismatch:
        return replace(layout, joints=tuple(joints))
    new = {old: index for index, old in enumerate(order)}
    return replace(
        layout,
        joints=tuple(joints),
        bones=tuple((new[child], new[parent]) for child, parent in layout.bones),
        center_joint=None if layout.center_joint is None else new[layout.center_joint],
    )


def find_person_size(clips: Clips, layout: Layout) -> float | None:
    """Return the median size of a person: the diagonal of the box around the joints.

    Measured in the first pose of each clip; None if no clip has two joints apart there.
    """
    rows = np.flatnonzero(clips.present)
    clip = np.searchsorted(clips.starts, rows, side="right")
    _, first = np.unique(clip, return_index=True)
    poses = clips.poses[rows[first]]  # [N, V, C]
    is_found: NDArray[np.bool_] = np.any(poses, axis=2, keepdims=True)  # [N, V, 1]
    space = poses[..., : num_coordinates(layout.channels)].astype(np.float64)
    low = np.where(is_found, space, np.inf).min(axis=1)  # [N, V, D] -> [N, D]
    high = np.where(is_found, space, -np.inf).max(axis=1)
    seen = is_found.any(axis=(1, 2))
    sizes = np.linalg.norm(high[seen] - low[seen], axis=1)  # [N]
    sizes = sizes[sizes > 0]
    return float(np.median(sizes)) if len(sizes) else None


def find_score_size(clips: Clips, layout: Layout) -> float | None:
    """Return the score that nine tenths of the joints do not exceed; None without scores."""
    if "score" not in layout.channels:
        return None
    scores = clips.poses[..., layout.channels.index("score")]  # [R, V]
    scores = scores[scores > 0]
    return float(np.quantile(scores, 0.9)) if len(scores) else None


def compare_units(
    clips: Clips, layout: Layout, person_size: float | None, score_size: float | None
) -> tuple[list[str], list[str]]:
    """Compare the sizes of persons and scores with those of a model, None where unknown.

    Returns:
        What must be in another unit, and what may be.
    """
    score = find_score_size(clips, layout)
    if score and score_size and max(score, score_size) <= 1:
        score = None  # fractions both: one estimator is less sure than the other
    certain: list[str] = []
    possible: list[str] = []
    usual, largest = USUAL_SIZE_RATIO, MAX_SIZE_RATIO
    if num_coordinates(layout.channels) == 2:
        usual = largest = MAX_FLAT_SIZE_RATIO
    for what, size, model_size, usual_ratio, max_ratio in (
        ("a person measures", find_person_size(clips, layout), person_size, usual, largest),
        ("scores reach", score, score_size, MAX_SIZE_RATIO, MAX_SIZE_RATIO),
    ):
        if not size or not model_size:
            continue
        ratio = max(size / model_size, model_size / size)
        text = f"{what} {size:.4g}, for the model {model_size:.4g}"
        if ratio >= max_ratio:
            certain.append(f"{text}: in other units")
        elif ratio >= usual_ratio:
            possible.append(f"{text}: perhaps in other units")
    return certain, possible


def _match_names(
    kind: str, found: tuple[str, ...], expected: tuple[str, ...]
) -> tuple[list[int], str | None]:
    """Return the index in `found` of each expected name, and what does not match."""
    if kind == "channels":
        order = find_order(found, expected, channel_name)
    else:
        order = find_joint_order(found, expected)
    if order is not None:
        return order, None
    return list(range(len(expected))), describe_mismatch(kind, found, expected, "the model's")


def _vertical(layout: Layout) -> str:
    return "downwards" if layout.y_down else "upwards"


def _compare_rules(data: Origin, model: Origin) -> tuple[list[str], list[str]]:
    """Return the mismatches of two rules, and the differences that are only noted."""
    mismatches: list[str] = []
    notes: list[str] = []
    is_same_source = data.source == model.source
    if not is_same_source:
        notes.append(f"from the source {data.source}, the model was trained on {model.source}")
    if not model.rule:
        return mismatches, notes
    ours, theirs = _units(data), _units(model)
    if ours != theirs:
        mismatches.append(f"coordinates are {ours}, for the model {theirs}")
    for key in sorted((data.rule.keys() | model.rule.keys()) - OTHER_KEYS):
        pair = data.rule.get(key), model.rule.get(key)
        if pair[0] == pair[1] or (key == "picture" and (ours != theirs or OF_EACH_CLIP in pair)):
            continue
        text = f"{key.replace('_', ' ')} {_format(pair[0])}, for the model {_format(pair[1])}"
        is_comparable = is_same_source or None not in pair
        (notes if key in WORDED_KEYS or not is_comparable else mismatches).append(text)
    return mismatches, notes


def _units(origin: Origin) -> str:
    """Return what coordinates are fractions of, if the rule says so."""
    return "fractions of the picture" if origin.in_picture else "as recorded"


def _format(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(
            f"{item:g}" if isinstance(item, int | float) else str(item) for item in value
        )
    return "unknown" if value is None else str(value)
