"""What the training part of a protocol is split into: to learn from, and to be held out.

What is held out can choose between networks or epochs, which the test part never may.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import Cache
from skelnas.data.readers.base import Train
from skelnas.errors import InputError
from skelnas.runtime.console import note

HOLD_OUT_SEED = 0
"""The same for every run, so that networks of different seeds are scored on the same clips."""


@dataclass(frozen=True)
class HoldOut:
    """What was held out of a training part: enough to tell it again.

    Attributes:
        share: what was asked for.
        subjects: whose clips, or None where they were drawn whoever is in them.
        clips: how many.
        names: a CRC-32 of their names.
    """

    share: float
    subjects: list[int] | None
    clips: int
    names: str


@dataclass(frozen=True)
class TrainingPart:
    """The training clips of a protocol, as positions in the cache, sorted.

    Attributes:
        learned: [n] what is learned from.
        held_out: [m] what is not; empty if nothing was to be held out.
        hold_out: what that is, or None.
    """

    learned: NDArray[np.int64]
    held_out: NDArray[np.int64]
    hold_out: HoldOut | None


def split_training_part(cache: Cache, protocol: str, share: float) -> TrainingPart:
    """Hold out all clips of some subjects of the training part.

    Args:
        cache: where the clips lie.
        protocol: one of the cache's.
        share: of the subjects, from 0 to below 1; rounded, but at least one is held out and one
            left. Where fewer than two subjects are known, of the clips, drawn at random.

    Returns:
        The two parts; a function of the cache's clips and the share, and of no seed.

    Raises:
        InputError: the training part is empty, or too small to hold anything out.
    """
    clips = cache.part_indices(protocol, Train)
    if not share:
        return TrainingPart(clips, clips[:0], None)
    if len(clips) < 2:
        raise InputError(
            f"{cache.path}: nothing can be held out of the only training clip of {protocol}",
            hint="leave out --hold-out, or prepare a cache with more clips",
        )
    generator = np.random.default_rng(HOLD_OUT_SEED)
    of_clip = cache.clips.subjects[clips]
    subjects = np.unique(of_clip)
    if len(subjects) < 2 or subjects[0] < 0:
        note("hold-out: the subjects are not known, so clips are held out, whoever is in them")
        order = generator.permutation(clips)
        is_held = np.isin(clips, order[: _count(share, len(order))])
        who = None
    else:
        order = generator.permutation(subjects)
        who = sorted(order[: _count(share, len(order))].tolist())
        is_held = np.isin(of_clip, who)
    held = clips[is_held]
    names = "\0".join(cache.clips.names[index] for index in held).encode()
    return TrainingPart(
        clips[~is_held], held, HoldOut(share, who, len(held), f"{zlib.crc32(names):08x}")
    )


def halve(
    subjects: NDArray[np.int32], seed: int, *, by_subject: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split clips at random into the half that trains w and the half that drives alpha.

    Args:
        subjects: [n] of each clip.
        seed: of what is drawn.
        by_subject: whether no subject may be in both halves.

    Returns:
        Which of the n clips each half has, sorted.

    Raises:
        InputError: there are too few clips or subjects to make two halves.
    """
    generator = np.random.default_rng(seed)
    groups = subjects if by_subject else np.arange(len(subjects))
    order = generator.permutation(np.unique(groups))
    chosen = np.isin(groups, order[: len(order) // 2])
    if not chosen.any():
        raise InputError(
            f"the training part cannot be halved: {len(subjects)} clips of "
            f"{len(np.unique(subjects))} subjects",
            hint="a protocol with more clips, or for --validation subject more subjects, is needed",
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _count(share: float, whole: int) -> int:
    return min(max(round(share * whole), 1), whole - 1)
