"""What a model remembers of the clips that it was trained on: a number of 48 bits for each."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelnas.data.cache import Cache
from skelnas.data.splits import find_copies

NUM_BYTES = 6
"""Of a number: a clip equals one of ten million others by chance once in 28 million times."""


def encode(contents: NDArray[np.uint64]) -> str:
    """Return the numbers of `Cache.contents`, sorted, as text in base64."""
    numbers = np.sort(contents).astype(">u8")
    as_bytes = numbers.view(np.uint8).reshape(-1, 8)[:, -NUM_BYTES:]  # [n, 8] -> [n, 6]
    return b64encode(as_bytes.tobytes()).decode("ascii")


def decode(text: str) -> NDArray[np.uint64]:
    """Return the numbers, sorted.

    Raises:
        ValueError: this is no such text.
    """
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, or for other than ASCII
        raise ValueError(f"trained_clips is not base64 ({error})") from None
    if len(data) % NUM_BYTES:
        raise ValueError(f"trained_clips has {len(data):,} bytes, not a multiple of {NUM_BYTES}")
    as_bytes = np.frombuffer(data, np.uint8).reshape(-1, NUM_BYTES)
    padded = np.pad(as_bytes, ((0, 0), (8 - NUM_BYTES, 0)))  # [n, 6] -> [n, 8]
    return padded.view(">u8").reshape(-1).astype(np.uint64)


def join(*texts: str) -> str:
    """Return the text of the clips of several texts."""
    return encode(np.concatenate([decode(text) for text in texts]))


@dataclass(frozen=True)
class Overlap:
    """Which of the n clips to be scored a model was trained on.

    Attributes:
        num_trained: how many, not counting copies of clips in the training part of the cache.
        is_copy: [n], whether it is one of them as a copy of a clip in the cache's training part.
    """

    num_trained: int
    is_copy: NDArray[np.bool_]


def find_overlap(
    cache: Cache, scored: NDArray[np.int64], train: NDArray[np.int64], trained_clips: str
) -> Overlap | None:
    """Find the clips to be scored that a model was trained on.

    Args:
        cache: an open cache.
        scored, train: indices of its clips: those to be scored, and the part to train on.
        trained_clips: of the model's card.

    Returns:
        None if the model or the cache does not say which clips they are.
    """
    contents = cache.contents
    if contents is None or not trained_clips:
        return None
    is_trained = np.isin(contents[scored], decode(trained_clips))
    is_copy = is_trained & find_copies(cache, train, scored)
    return Overlap(int((is_trained & ~is_copy).sum()), is_copy)
