"""Whether a mirrored clip still belongs to its class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelnas.config import AugmentSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset
from skelnas.data.readers import nw_ucla
from skelnas.data.readers.files import packaged_names

SYMMETRIC_SOURCES = ("ntu", "synthetic", "kinetics", "nw-ucla", "pyskl", "ctrgcn")
"""They may have classes of the lists below, none of which is the mirror image of another."""

MAX_CLIPS, MIN_CLIPS = 1000, 3
"""To compare, of all classes and of a class; of many classes, up to ten clips each."""

NUM_FRAMES = 16
"""At least so many of the T frames, evenly spaced, are compared."""

BATCH_SIZE = 64
ALWAYS = AugmentSettings(flip=1)

MIN_CONFUSED, MIN_INCREASE = 1 / 3, 0.25
"""See `find_mirrored_classes` (ours; on NW-UCLA, MSRC-12 and UTD-MHAD at most 0.21)."""


def has_symmetric_classes(cache: Cache) -> bool:
    """Return whether no class is the mirror image of another, by the lists of public data sets."""
    lists = (
        packaged_names("ntu_classes.txt"),
        packaged_names("kinetics_classes.txt"),
        nw_ucla.ACTIONS.values(),
    )
    is_listed = any(set(cache.classes) <= set(names) for names in lists)
    return cache.source in SYMMETRIC_SOURCES and is_listed


def find_mirrored_classes(dataset: Dataset, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that mirroring turns into each other.

    By the nearest other clip, at least a third of the mirrored clips of each class belong to the
    other class, and more than to their own; as they are, fewer by a quarter do.

    Args:
        dataset: the training clips, of which up to `MAX_CLIPS` are compared; joints have sides.
        classes: names in label order.
    """
    chosen = _choose(dataset.labels.cpu().numpy(), len(classes))
    labels = dataset.labels[chosen]
    plain, mirrored = _sample(dataset, chosen, None), _sample(dataset, chosen, ALWAYS)
    before = _confusion(plain, plain, labels, len(classes))
    after = _confusion(mirrored, plain, labels, len(classes))
    is_confused = (
        (after >= MIN_CONFUSED)
        & (after > after.diagonal()[:, None])
        & (after >= before + MIN_INCREASE)
    )
    pairs = (is_confused & is_confused.T).triu(1).nonzero().tolist()
    return [(classes[one], classes[other]) for one, other in pairs]


def _choose(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Return the indices of up to so many clips of each class that has enough, at random."""
    generator = np.random.default_rng(0)
    size = max(MAX_CLIPS // num_classes, 10)
    present, counts = np.unique(labels, return_counts=True)
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:size]
        for label in present[counts >= MIN_CLIPS]
    ]
    return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *chosen]))


def _sample(dataset: Dataset, indices: Tensor, augment: AugmentSettings | None) -> Tensor:
    """Return clips as [N, numbers] on the CPU, with some of their frames."""
    step = max(dataset.settings.frames // NUM_FRAMES, 1)
    clips = [
        dataset.batch(part, augment).x[:, :, ::step].flatten(1).cpu()  # [n, C, T, V] -> [n, C*T*V]
        for part in torch.split(indices, BATCH_SIZE)
    ]
    return torch.cat(clips)


def _confusion(x: Tensor, references: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return [classes, classes]: where the nearest neighbours of the clips of each class belong.

    Args:
        x, references: [N, numbers] of the same clips, each of which is not its own neighbour.
        labels: [N].
        num_classes: number of classes.
    """
    counts = torch.zeros(num_classes, num_classes)
    if not len(x):
        return counts
    labels = labels.cpu()
    distances = torch.cdist(x, references).fill_diagonal_(torch.inf)  # [N, N]
    counts.index_put_((labels, labels[distances.argmin(1)]), torch.ones(len(x)), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp(min=1)
