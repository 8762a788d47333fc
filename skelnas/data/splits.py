"""Splits of a protocol's training part: into training and held-out clips, and into halves.

Held-out clips may choose between networks or epochs; test clips never may.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import Cache, Fold, FoldsBy
from skelnas.data.readers.base import Test, Train
from skelnas.errors import InputError
from skelnas.runtime.console import note

HOLD_OUT_SEED = 0
"""The same for every run, so that networks of different seeds are scored on the same clips."""

MAX_NAMES = 3
"""Names of classes in a note."""


@dataclass(frozen=True)
class HoldOut:
    """What was held out of a training part, in enough detail to recognise it later.

    Stored in model cards and run configurations under these field names.

    Attributes:
        share: the requested fraction.
        subjects: the held-out subjects, or None if clips were drawn regardless of subject.
        clips: number of clips.
        names: CRC-32 of their names.
    """

    share: float
    subjects: list[int] | None
    clips: int
    names: str


@dataclass(frozen=True)
class TrainingPart:
    """The training clips of a protocol, as sorted indices into the cache.

    Attributes:
        train: [n], the clips to train on.
        held_out: [m], the others; empty if nothing is held out.
        hold_out: description of the held-out clips, or None.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    hold_out: HoldOut | None


def split_training_part(cache: Cache, protocol: str, fraction: float) -> TrainingPart:
    """Hold out all clips of some subjects of the training part.

    Args:
        cache: an open cache.
        protocol: one of the cache's.
        fraction: of the subjects, from 0 to below 1, rounded so that at least one is held out and
            one is left. With fewer than two known subjects, of the clips, drawn at random.

    Returns:
        The two parts; they depend on the cache's clips and the fraction, but on no seed.

    Raises:
        InputError: the training part is empty, or too small to hold anything out.
    """
    clips = cache.nonempty_indices(protocol, Train)
    if not fraction:
        return TrainingPart(clips, clips[:0], None)
    if len(clips) < 2:
        raise InputError(
            f"{cache.path}: nothing can be held out of the only training clip of {protocol}",
            hint="leave out --hold-out, or prepare a cache with more clips",
        )
    generator = np.random.default_rng(HOLD_OUT_SEED)
    subject_of_clip = cache.clips.subjects[clips]
    subjects = np.unique(subject_of_clip)
    held_out_subjects: list[int] | None = None
    if len(subjects) < 2 or subjects[0] < 0:
        note("hold-out: subjects are not known, so clips are held out regardless of subject")
        order = generator.permutation(clips)
        is_held_out = np.isin(clips, order[: _num_held_out(fraction, len(order))])
    else:
        order = generator.permutation(subjects)
        held_out_subjects = sorted(order[: _num_held_out(fraction, len(order))].tolist())
        is_held_out = np.isin(subject_of_clip, held_out_subjects)
    held_out = clips[is_held_out]
    names = "\0".join(cache.clips.names[index] for index in held_out).encode()
    hold_out = HoldOut(fraction, held_out_subjects, len(held_out), f"{zlib.crc32(names):08x}")
    return TrainingPart(clips[~is_held_out], held_out, hold_out)


def name_folds(cache: Cache, protocol: str, count: int, by: FoldsBy | None = None) -> list[str]:
    """Name the folds of a protocol's training part, which are protocols themselves.

    Args:
        cache: an open cache.
        protocol: one of the cache's.
        count: of folds.
        by: what stays together; None for subjects if there are enough, and else for none.

    Raises:
        InputError: the training part cannot be divided so.
    """
    if by is None:
        subjects = np.unique(cache.clips.subjects[cache.nonempty_indices(protocol, Train)])
        by = "subject" if len(subjects) >= count and subjects[0] >= 0 else "clip"
    names = [str(Fold(protocol, by, number, count)) for number in range(1, count + 1)]
    for name in names:
        cache.nonempty_indices(name, Train)
    return names


def _num_held_out(fraction: float, total: int) -> int:
    return min(max(round(fraction * total), 1), total - 1)


def check_scorable(cache: Cache, protocol: str, part: TrainingPart) -> None:
    """Check that there are clips to score a model by.

    Raises:
        InputError: the test part is empty, and nothing is held out.
    """
    if not len(part.held_out) and not len(cache.indices(protocol, Test)):
        raise InputError(
            f"{cache.path}: {protocol} has no test clips, so a model of it could not be scored",
            hint="--hold-out 0.2 keeps a fifth of the training clips for that; "
            "`skelnas prepare` can divide clips by --test-share or --folds",
        )


def note_faults(cache: Cache, protocol: str, part: TrainingPart) -> None:
    """Print notes on what cannot be learned or scored: clips are missing, or copies of others.

    Args:
        cache: an open cache.
        protocol: one of the cache's.
        part: its training part.
    """
    labels, test = cache.clips.labels, cache.indices(protocol, Test)
    parts = (labels[clips] for clips in (part.train, test, part.held_out))
    for line in find_missing_clips(protocol, cache.classes, *parts):
        note(line)
    note_copies(cache, protocol, part.train, test, "test")
    note_copies(cache, protocol, part.train, part.held_out, "held-out")


def note_copies(
    cache: Cache, protocol: str, train: NDArray[np.int64], scored: NDArray[np.int64], name: str
) -> None:
    """Print a note if clips to score a model by are copies of training clips.

    Args:
        cache: an open cache.
        protocol: one of the cache's, for the note.
        train, scored: indices of its clips.
        name: of the scored part, for the note.
    """
    if num_copies := np.count_nonzero(find_copies(cache, train, scored)):
        note(
            f"{protocol}: {num_copies:,} of the {len(scored):,} {name} clips have the same numbers "
            "as training clips"
        )


def find_copies(
    cache: Cache, train: NDArray[np.int64], scored: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which scored clips, [n], have the numbers of a training clip.

    None has, if there are no checksums.
    """
    contents = cache.contents
    if contents is None:
        return np.zeros(len(scored), np.bool_)
    return np.isin(contents[scored], contents[train])


def find_missing_clips(
    protocol: str,
    classes: Sequence[str],
    train: NDArray[np.int32],
    test: NDArray[np.int32],
    held_out: NDArray[np.int32] | None = None,
) -> list[str]:
    """Return a line for everything that cannot be learned or scored for lack of clips.

    Args:
        protocol: name of the protocol.
        classes: names in order of the label.
        train, test, held_out: labels of the clips of each part.
    """
    in_train, in_test, in_held_out = (
        np.bincount(labels, minlength=len(classes))  # [classes]
        for labels in (train, test, train[:0] if held_out is None else held_out)
    )
    lines = []
    if not len(train):
        return [f"{protocol} has no training clips"]
    if not len(test):
        lines.append(
            f"{protocol} has no test clips: a model of it can be scored by --hold-out alone"
        )
    if np.count_nonzero(in_train) == 1:
        lines.append(
            f"{protocol}: all training clips are of one class, so there is nothing to tell apart"
        )
    elsewhere = in_held_out + in_test
    for is_affected, what in (
        (
            (in_train == 0) & (elsewhere > 0),
            "no training clips, and cannot be recognised",
        ),
        ((in_train == 0) & (elsewhere == 0), "no clips at all"),
        (in_train == 1, "a single training clip"),
        ((in_train > 0) & (in_test == 0) & (len(test) > 0), "no test clips"),
    ):
        names = [classes[label] for label in np.flatnonzero(is_affected).tolist()]
        if names:
            first = ", ".join(map(repr, names[:MAX_NAMES]))
            more = ", ..." if len(names) > MAX_NAMES else ""
            count = f"{len(names)} of {len(classes)} classes"
            have = "has" if len(names) == 1 else "have"
            lines.append(f"{protocol}: {count} ({first}{more}) {have} {what}")
    return lines


def halve(
    subjects: NDArray[np.int32], seed: int, *, by_subject: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split clips at random into the half that trains w and the half that drives alpha.

    Args:
        subjects: [n], the subject of each clip.
        seed: of the random split.
        by_subject: keep each subject in one half.

    Returns:
        The sorted indices, from 0 to n - 1, of each half.

    Raises:
        InputError: there are too few clips or subjects to make two halves, or subjects are to be
            kept together but some are unknown.
    """
    if by_subject and (subjects < 0).any():
        raise InputError(
            "the training part cannot be halved by subject: the subject of some clips is not known",
            hint="leave out --validation subject, and clips are halved regardless of subject",
        )
    generator = np.random.default_rng(seed)
    groups = subjects if by_subject else np.arange(len(subjects))
    order = generator.permutation(np.unique(groups))
    in_second = np.isin(groups, order[: len(order) // 2])
    if not in_second.any():
        raise InputError(
            f"the training part cannot be halved: {len(subjects)} clips of "
            f"{len(np.unique(subjects))} subjects",
            hint="choose a protocol with more clips or, for --validation subject, more subjects",
        )
    return np.flatnonzero(~in_second), np.flatnonzero(in_second)
