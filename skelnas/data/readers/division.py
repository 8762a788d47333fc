"""Protocols for recordings that come without: by subjects, by cameras, or at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.dealing import assign_groups, deal, draw_fraction
from skelnas.data.readers.base import ClipTable, Test, Train, Unused
from skelnas.errors import InputError, UsageError
from skelnas.runtime.console import note

RANDOM = "random"
"""The protocol of `test_share`."""

MAX_FOLDS = 1_000


@dataclass(frozen=True)
class Division:
    """Protocols that are asked for, of any source that can say whose a clip is.

    Attributes:
        test_subjects, test_cameras: the test parts of `xsub` and `xview`, which train on all other
            known ones; if empty, there is no such protocol.
        test_share: the fraction that `random` tests on, below 1; 0 for no such protocol.
        folds: how many protocols `fold1`, `fold2`, ... there are, each of which tests on what the
            others train on; 0 for none.
        seed: of `random` and the folds.
    """

    test_subjects: tuple[int, ...] = ()
    test_cameras: tuple[int, ...] = ()
    test_share: float = 0.0
    folds: int = 0
    seed: int = 0

    @property
    def protocols(self) -> list[str]:
        """Names of the protocols."""
        return [
            *(["xsub"] if self.test_subjects else []),
            *(["xview"] if self.test_cameras else []),
            *([RANDOM] if self.test_share else []),
            *(f"fold{number}" for number in range(1, self.folds + 1)),
        ]

    @property
    def rule(self) -> dict[str, Any]:
        """What a cache records of it."""
        return {
            "test_subjects": list(self.test_subjects),
            "test_cameras": list(self.test_cameras),
            **({"test_share": self.test_share} if self.test_share else {}),
            **({"folds": self.folds} if self.folds else {}),
            **({"split_seed": self.seed} if self.test_share or self.folds else {}),
        }

    def check(
        self,
        where: Path,
        clips: ClipTable,
        protocols: Sequence[str] = (),
        hint: str = "add a column split with train and test",
    ) -> None:
        """Check before any clip is read that every protocol will have something to test.

        Args:
            where: for messages.
            clips: the table of all clips.
            protocols: those that the source has already.
            hint: what would make one of the source's own.

        Raises:
            UsageError: a fraction or a number of folds cannot be.
            InputError: there is no protocol, or one of the same name, or nothing to test on.
        """
        if not 0 <= self.test_share < 1:
            raise UsageError(
                f"--test-share {self.test_share:g}: expected a fraction below 1, such as 0.2"
            )
        if self.folds == 1 or not 0 <= self.folds <= MAX_FOLDS:
            raise UsageError(f"--folds {self.folds}: expected 2 to {MAX_FOLDS:,}")
        for protocol in self.protocols:
            if protocol in protocols:
                raise InputError(f"{where}: the table already has a column split_{protocol}")
        for column, numbers, test in (
            ("subject", clips.subjects, self.test_subjects),
            ("camera", clips.cameras, self.test_cameras),
        ):
            for number in test:
                if number not in numbers:
                    raise InputError(f"{where}: no clip has the {column} {number} to test on")
        if not (self.protocols or protocols):
            raise InputError(
                f"{where}: nothing says which clips are for training and which for testing",
                hint=f"{hint}, or give --test-subjects 3,5, --test-share 0.2 or --folds 5",
            )
        try:
            self._split(clips, lambda line: None)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None

    def split(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Map each protocol to [N] values of Train, Test or Unused.

        Raises:
            InputError: so many clips are broken that the rest cannot be divided any more.
        """
        try:
            return self._split(clips, note)
        except ValueError as error:
            raise InputError(f"the clips that could be read: {error}") from None

    def _split(
        self, clips: ClipTable, tell: Callable[[str], object]
    ) -> dict[str, NDArray[np.int8]]:
        splits = {}
        for protocol, numbers, test in (
            ("xsub", clips.subjects, self.test_subjects),
            ("xview", clips.cameras, self.test_cameras),
        ):
            if test:
                is_test = np.isin(numbers, test)
                splits[protocol] = np.where(numbers < 0, Unused, np.where(is_test, Test, Train))
        if self.test_share:
            splits[RANDOM] = np.where(self._draw_test(clips, tell), Test, Train)
        if self.folds:
            folds = self._assign_folds(clips, tell)
            for number in range(self.folds):
                splits[f"fold{number + 1}"] = np.where(folds == number, Test, Train)
        return {protocol: parts.astype(np.int8) for protocol, parts in splits.items()}

    def _draw_test(self, clips: ClipTable, tell: Callable[[str], object]) -> NDArray[np.bool_]:
        """Return [N], whether a clip is for testing; by subject if there are two or more."""
        option = f"--test-share {self.test_share:g}"
        if _num_subjects(clips) >= 2:
            sizes = (1 - self.test_share, self.test_share)
            parts = assign_groups(clips.labels, clips.subjects, sizes, self.seed)
            subjects = np.unique(clips.subjects[parts == 1]).tolist()
            is_test: NDArray[np.bool_] = parts == 1
            tell(f"{option}: by subject; {_name(subjects)} for testing, {is_test.mean():.0%}")
            return is_test
        is_test = draw_fraction(clips.labels, self.test_share, self.seed)
        if not is_test.any():
            raise ValueError(f"{option}: each class has a single clip, so there is none to test on")
        tell(f"{option}: by clip, because {_why_by_clip(clips)}")
        return is_test

    def _assign_folds(self, clips: ClipTable, tell: Callable[[str], object]) -> NDArray[np.int64]:
        """Return [N], the fold of each clip from 0; by subject if there are two or more."""
        num_subjects = _num_subjects(clips)
        if num_subjects >= 2:
            if num_subjects < self.folds:
                raise ValueError(
                    f"--folds {self.folds}: there are {num_subjects} subjects, each of which "
                    f"stays in one fold; expected at most --folds {num_subjects}"
                )
            tell(f"--folds {self.folds}: by subject")
            return assign_groups(clips.labels, clips.subjects, [1] * self.folds, self.seed)
        if len(clips.labels) < self.folds:
            raise ValueError(f"--folds {self.folds}: there are {len(clips.labels)} clips")
        tell(f"--folds {self.folds}: by clip, because {_why_by_clip(clips)}")
        return deal(clips.labels, self.folds, self.seed)


def _num_subjects(clips: ClipTable) -> int:
    """Count the subjects; 0 if that of a clip is not known."""
    subjects = np.unique(clips.subjects)
    return len(subjects) if len(subjects) and subjects[0] >= 0 else 0


def _why_by_clip(clips: ClipTable) -> str:
    if _num_subjects(clips):
        return "there is one subject only"
    return (
        "the subject of some clips is not known"
        if (clips.subjects >= 0).any()
        else ("subjects are not known")
    )


def _name(subjects: Sequence[int]) -> str:
    names = ", ".join(map(str, subjects[:8])) + (", ..." if len(subjects) > 8 else "")
    return f"subject{'s' * (len(subjects) > 1)} {names}"
