"""Whether a cache fits a model, before and after its clips are read, and is new to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import Cache, Clips
from skelnas.data.dataset import clip_shape
from skelnas.data.matching import (
    Match,
    compare_units,
    match_origins,
    origin_of,
    rename_joints,
)
from skelnas.data.readers.base import Layout, fold_name
from skelnas.data.readers.unlabelled import Origin
from skelnas.data.splits import find_copies, split_training_part
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.scores import check_classes
from skelnas.runtime.console import note
from skelnas.training.card import ModelCard, note_unknown_facts
from skelnas.training.trained_clips import decode, find_overlap


@dataclass(frozen=True)
class Fit:
    """How the clips of a cache become those of a model.

    Attributes:
        match: of the joints and channels.
        origin: of the clips that the model was trained on.
        mismatches: what does not fit, but was allowed.
    """

    match: Match
    origin: Origin
    mismatches: list[str]


def fit_cache(cache: Cache, card: ModelCard, model_path: Path, *, allow: bool = False) -> Fit:
    """Compare a cache with what a model was trained on.

    A model of an earlier version may say no more than the names of its joints.

    Args:
        cache: the cache.
        card: of the model.
        model_path: for messages.
        allow: whether to go on if they do not fit, with a note.

    Raises:
        InputError: they do not fit.
    """
    origin = card.find_origin(rename_joints(cache.layout, card.joints))
    match = match_origins(origin_of(cache), origin)
    mismatches, can_be_allowed = match.mismatches, match.is_shape_equal
    channels, _, _ = clip_shape(origin.layout, origin.max_persons, card.make_clip_settings())
    if channels != card.input_shape[0]:
        mismatches = [*mismatches, f"{channels} channels, for the model {card.input_shape[0]}"]
        can_be_allowed = False
    _settle(cache.path, model_path, mismatches, allow=allow, can_be_allowed=can_be_allowed)
    check_classes(
        cache.classes,
        card.classes,
        cache.path,
        model_path,
        f"the model was trained on {card.source}, the cache is of {cache.source}",
    )
    notes = [] if mismatches else list(match.notes)
    if card.make_clip_settings().center and (text := _compare_centers(cache.layout, origin.layout)):
        notes.append(text)
    for text in notes:
        note(f"{cache.path}: {text}")
    note_unknown_facts(card, str(model_path))
    return Fit(match, origin, mismatches)


def _compare_centers(layout: Layout, model_layout: Layout) -> str | None:
    """Say how clips are centred if that is not as their layout says."""
    ours, theirs = (
        None if one.center_joint is None else one.joints[one.center_joint]
        for one in (layout, model_layout)
    )
    if ours == theirs or (ours and theirs and fold_name(ours) == fold_name(theirs)):
        return None
    found = f"its centre joint is {ours}" if ours else "it has no centre joint"
    used = f"centred on {theirs}" if theirs else "not centred"
    return f"{found}, but clips are {used}, as in the training"


def fit_clips(
    clips: Clips, fit: Fit, card: ModelCard, paths: tuple[Path, Path], *, allow: bool
) -> list[str]:
    """Compare clips in the order of a model with those that it was trained on.

    Raises:
        InputError: they do not fit, and that is not allowed.
    """
    most = int(clips.num_persons.argmax())
    persons, max_persons = int(clips.num_persons[most]), fit.origin.max_persons
    mismatches = []
    if persons > max_persons:
        mismatches.append(
            f"{persons} persons in clip {clips.names[most]}, for the model at most {max_persons}"
        )
    layout = fit.origin.layout
    certain, possible = compare_units(clips, layout, card.person_size, card.score_size)
    mismatches += certain
    for text in possible:
        note(f"{paths[0]}: {text}")
    _settle(*paths, mismatches, allow=allow, can_be_allowed=True)
    return mismatches


def _settle(
    path: Path, model_path: Path, mismatches: list[str], *, allow: bool, can_be_allowed: bool
) -> None:
    """Refuse mismatches, or print them if they are allowed."""
    if not mismatches:
        return
    text = "; ".join(mismatches)
    if allow and can_be_allowed:
        note(f"{path}: does not fit {model_path}, as allowed: {text}")
        return
    hint = "`skelnas inspect` shows what is in a cache"
    if can_be_allowed:
        hint = "`skelnas evaluate --allow-mismatch` scores the clips as they are, and records that"
    raise InputError(f"{path}: does not fit {model_path}: {text}", hint=hint)


def check_unseen(
    cache: Cache,
    chosen: NDArray[np.int64],
    train: NDArray[np.int64],
    card: ModelCard,
    path: Path,
    protocol: str,
    *,
    allow: bool,
) -> tuple[list[str], NDArray[np.bool_]]:
    """Check that a model was not trained on the clips chosen to score it.

    Args:
        cache: an open cache.
        chosen, train: indices of its clips: those to score, and the part to train on.
        card, path: of the model.
        protocol: that is scored.
        allow: note what is wrong, and go on.

    Returns:
        How many it was trained on, if there are any and that is allowed, or that nobody knows; and
        which of them, [n], are copies of clips of the part to train on.

    Raises:
        UsageError: there are some.
    """
    overlap = find_overlap(cache, chosen, train, card.trained_clips)
    is_copy = overlap.is_copy if overlap else find_copies(cache, train, chosen)
    num_seen = overlap.num_trained if overlap else None
    if not num_seen and protocol != card.protocol and cache.source == card.source:
        num_seen = _count_seen_by_protocol(cache, chosen, card)
        if num_seen is None and overlap is None:
            unknown = (
                f"the model was trained on {card.protocol}, which {cache.path.name} does not have, "
                "so it may have been trained on these clips"
            )
            note(unknown)
            return [unknown], is_copy
    if not num_seen:
        return [], is_copy
    seen = f"{num_seen:,} of the {len(chosen):,} clips of {protocol}"
    if not allow:
        raise UsageError(
            f"{path}: was trained on {seen}, so its scores would be too high",
            hint="score it on the cache and protocol that it was trained on, or train a model on "
            "these; --allow-mismatch scores it anyway, and records it",
        )
    seen = f"the model was trained on {seen}"
    note(seen)
    return [seen], is_copy


def _count_seen_by_protocol(cache: Cache, chosen: NDArray[np.int64], card: ModelCard) -> int | None:
    """Count the chosen clips in the training part of a model's protocol.

    Returns:
        None if this cache has no such part; 0 if it is another one than the model's.
    """
    try:
        share = card.hold_out.share if card.hold_out else 0.0
        part = split_training_part(cache, card.protocol, share)
    except InputError:
        return None
    if card.trained_clips and len(part.train) != len(decode(card.trained_clips)):
        return 0  # other data; as many could be the same clips, stored as other numbers
    return len(np.intersect1d(chosen, part.train))
