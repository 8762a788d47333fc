"""Folds: protocols that hold a share of another protocol's training part out.

``xsub@subject:1/2`` learns from one half of the subjects in the training part of ``xsub`` and
tests on the other half, ``xsub@subject:2/2`` the other way round. The test part of ``xsub`` is in
neither. So genotypes can be compared without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from skelnas.data.dealing import assign_groups, deal
from skelnas.data.readers.base import ClipTable, Test, Train, Unused

FOLD_SEED = 0
"""The same for every run, so that all networks are scored on the same clips."""

FoldsBy = Literal["subject", "camera", "clip"]

_NAME = re.compile(r"(.+)@(subject|camera|clip):([1-9]\d{0,3})/([1-9]\d{0,3})")


@dataclass(frozen=True)
class Fold:
    """One of several folds.

    Attributes:
        protocol: the one whose training part is divided.
        by: clips of one subject or one camera stay in one fold; "clip" keeps none together.
        number: from 1 to `count`; this fold is held out, the others are learned from.
        count: of folds, two or more.
    """

    protocol: str
    by: FoldsBy
    number: int
    count: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a fold's name, such as ``xsub@subject:1/2``; None if it is not one."""
        if not (match := _NAME.fullmatch(name)):
            return None
        protocol, by, number, count = match.groups()
        if not (int(count) >= 2 and int(number) <= int(count)):
            return None
        return cls(protocol, by, int(number), int(count))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.protocol}@{self.by}:{self.number}/{self.count}"

    def split(self, parts: NDArray[np.int8], clips: ClipTable) -> NDArray[np.int8]:
        """Split the training part.

        Args:
            parts: [N], Train, Test or Unused, of the protocol.
            clips: the table of the N clips.

        Returns:
            [N], Train, Test (held out) or Unused (whatever was not Train).

        Raises:
            ValueError: subjects or cameras are unknown, or fewer than the folds.
        """
        train = np.flatnonzero(parts == Train)
        labels = clips.labels[train]
        if self.by == "clip":
            folds = deal(labels, self.count, FOLD_SEED)
        else:
            groups = {"subject": clips.subjects, "camera": clips.cameras}[self.by][train]
            if (groups < 0).any():
                raise ValueError(f"the {self.by} of some clips is not known")
            folds = assign_groups(labels, groups, [1] * self.count, FOLD_SEED)
        num_filled = len(np.unique(folds))
        if num_filled < self.count:
            raise ValueError(f"{num_filled} {self.by}{'s' * (num_filled != 1)}")
        split = np.full(len(parts), Unused, dtype=np.int8)
        split[train] = np.where(folds == self.number - 1, Test, Train)
        return split
