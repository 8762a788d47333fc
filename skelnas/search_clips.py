"""The clips of a search: the half that trains w, the half that drives alpha, what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from skelnas.batches import ClipStore
from skelnas.cache import Cache
from skelnas.config import SearchSettings
from skelnas.runs import random_seed
from skelnas.splits import HoldOut, halve, split_training_part

STREAM_INIT, STREAM_SPLIT, STREAM_TRAIN, STREAM_VALIDATION = range(4)
"""What a search draws at random, told apart so that each has a seed of its own."""


@dataclass(frozen=True)
class SearchClips:
    """Clips on the device, and which of them do what.

    Attributes:
        store: the training part of the protocol without what is held out.
        weight_half, alpha_half: which of these clips train w and which drive alpha.
        protocol: the split that was chosen.
        classes: names of all classes.
        hold_out: which clips of the training part are in neither half, or None.
        fingerprint: of the clips in the store.
    """

    store: ClipStore
    weight_half: NDArray[np.int64]
    alpha_half: NDArray[np.int64]
    protocol: str
    classes: list[str]
    hold_out: HoldOut | None
    fingerprint: str


def load_search_clips(
    cache_path: Path, settings: SearchSettings, device: torch.device
) -> SearchClips:
    """Load the training part of the protocol and halve it; the test part is never read.

    Raises:
        InputError: the cache is broken, or its training part cannot be halved.
    """
    with Cache.open(cache_path) as cache:
        protocol = cache.choose_protocol(settings.protocol)
        part = split_training_part(cache, protocol, settings.hold_out)
        weight_half, alpha_half = halve(
            cache.clips.subjects[part.learned],
            random_seed(settings.seed, STREAM_SPLIT),
            by_subject=settings.validation == "subject",
        )
        clips = cache.load(part.learned)
        store = ClipStore(clips, cache.layout, cache.max_persons, settings, device, settings.store)
        return SearchClips(
            store=store,
            weight_half=weight_half,
            alpha_half=alpha_half,
            protocol=protocol,
            classes=cache.classes,
            hold_out=part.hold_out,
            fingerprint=clips.fingerprint(),
        )
