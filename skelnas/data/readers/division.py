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

SUBJECT = "subject"
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
        recordings: NDArray[np.int32] | None = None,
    ) -> None:
        """Check before any clip is read that every protocol will have something to test.

        Args:
            where: for messages.
            clips: the table of all clips.
            protocols: those that the source has already.
            hint: what would make one of the source's own.
            recordings: see `split`.

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
            self._split(clips, recordings, lambda line: None)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None

    def split(
        self, clips: ClipTable, recordings: NDArray[np.int32] | None = None
    ) -> dict[str, NDArray[np.int8]]:
        """Map each protocol to [N] values of Train, Test or Unused.

        Args:
            clips: the table of the clips.
            recordings: [N], the number of the recording that each clip is a part of, if there are
                some with several clips.

        Raises:
            InputError: so many clips are broken that the rest cannot be divided any more.
        """
        try:
            return self._split(clips, recordings, note)
        except ValueError as error:
            raise InputError(f"the clips that could be read: {error}") from None

    def _split(
        self,
        clips: ClipTable,
        recordings: NDArray[np.int32] | None,
        tell: Callable[[str], object],
    ) -> dict[str, NDArray[np.int8]]:
        splits = {}
        for protocol, numbers, test in (
            ("xsub", clips.subjects, self.test_subjects),
            ("xview", clips.cameras, self.test_cameras),
        ):
            if test:
                is_test = np.isin(numbers, test)
                splits[protocol] = np.where(numbers < 0, Unused, np.where(is_test, Test, Train))
        groups = _find_groups(clips, recordings)
        if self.test_share:
            splits[RANDOM] = np.where(self._draw_test(clips.labels, groups, tell), Test, Train)
        if self.folds:
            folds = self._assign_folds(clips.labels, groups, tell)
            for number in range(self.folds):
                splits[f"fold{number + 1}"] = np.where(folds == number, Test, Train)
        return {protocol: parts.astype(np.int8) for protocol, parts in splits.items()}

    def _draw_test(
        self, labels: NDArray[np.int32], groups: _Groups, tell: Callable[[str], object]
    ) -> NDArray[np.bool_]:
        """Return [N], whether a clip is for testing."""
        option = f"--test-share {self.test_share:g}"
        if groups.numbers is None:
            by_clip = draw_fraction(labels, self.test_share, self.seed)
            if not by_clip.any():
                raise ValueError(
                    f"{option}: each class has a single clip, so there is none to test on"
                )
            tell(f"{option}: {groups}")
            return by_clip
        sizes = (1 - self.test_share, self.test_share)
        parts = assign_groups(labels, groups.numbers, sizes, self.seed)
        is_test: NDArray[np.bool_] = parts == 1
        drawn = np.unique(groups.numbers[is_test]).tolist()
        names = _name(drawn) if groups.kind == SUBJECT else f"{len(drawn)} of {groups.count}"
        tell(f"{option}: {groups}; {names} for testing, {is_test.mean():.0%}")
        return is_test

    def _assign_folds(
        self, labels: NDArray[np.int32], groups: _Groups, tell: Callable[[str], object]
    ) -> NDArray[np.int64]:
        """Return [N], the fold of each clip from 0."""
        if groups.numbers is None:
            if len(labels) < self.folds:
                raise ValueError(f"--folds {self.folds}: there are {len(labels)} clips")
            tell(f"--folds {self.folds}: {groups}")
            return deal(labels, self.folds, self.seed)
        if groups.count < self.folds:
            raise ValueError(
                f"--folds {self.folds}: there are {groups.count} {groups.kind}s, each of which "
                f"stays in one fold; expected at most --folds {groups.count}"
            )
        tell(f"--folds {self.folds}: {groups}")
        return assign_groups(labels, groups.numbers, [1] * self.folds, self.seed)


@dataclass(frozen=True)
class _Groups:
    """What stays together when clips are drawn.

    Attributes:
        kind: what a group is.
        numbers: [N], the group of each clip; None if each clip is drawn for itself.
        reason: why it is not a subject.
    """

    kind: str
    numbers: NDArray[np.int32] | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"by {self.kind}" + (f", because {self.reason}" if self.reason else "")

    @property
    def count(self) -> int:
        """How many groups there are."""
        return 0 if self.numbers is None else len(np.unique(self.numbers))


def _find_groups(clips: ClipTable, recordings: NDArray[np.int32] | None) -> _Groups:
    """Return the subjects, or else the recordings, if there are two or more; or else the clips."""
    if _num_subjects(clips) >= 2:
        return _Groups(SUBJECT, clips.subjects)
    reason = _why_not_by_subject(clips)
    if recordings is not None and 2 <= len(np.unique(recordings)) < len(recordings):
        return _Groups("recording", recordings, reason)
    return _Groups("clip", None, reason)


def _num_subjects(clips: ClipTable) -> int:
    """Count the subjects; 0 if that of a clip is not known."""
    subjects = np.unique(clips.subjects)
    return len(subjects) if len(subjects) and subjects[0] >= 0 else 0


def _why_not_by_subject(clips: ClipTable) -> str:
    if _num_subjects(clips):
        return "there is one subject only"
    if (clips.subjects >= 0).any():
        return "the subject of some clips is not known"
    return "subjects are not known"


def _name(subjects: Sequence[int]) -> str:
    names = ", ".join(map(str, subjects[:8])) + (", ..." if len(subjects) > 8 else "")
    return f"subject{'s' * (len(subjects) > 1)} {names}"


def find_shared_frames(
    parts: NDArray[np.int8], recordings: NDArray[np.int32], spans: NDArray[np.float64]
) -> dict[int, int]:
    """Find the test clips that have frames in common with a training clip.

    Args:
        parts: [N], Train, Test or Unused.
        recordings: [N], the number of the recording that each clip is a part of.
        spans: [N, 2], its first frame in it, and the one after its last.

    Returns:
        Test clip to such a training clip, by their indices.
    """
    shared: dict[int, int] = {}
    is_mixed = np.isin(recordings, recordings[parts == Test])
    is_mixed &= np.isin(recordings, recordings[parts == Train])
    order = [clip for clip in np.lexsort((spans[:, 0], recordings)).tolist() if is_mixed[clip]]
    last = -1  # of the training clips that begin before, the one that ends last
    for clip in order:
        if last < 0 or recordings[last] != recordings[clip]:
            last = -1
        elif parts[clip] == Test and spans[clip, 0] < spans[last, 1]:
            shared[clip] = last
        if parts[clip] == Train and (last < 0 or spans[clip, 1] > spans[last, 1]):
            last = clip
    following = -1  # the training clip that begins next
    for clip in reversed(order):
        if following < 0 or recordings[following] != recordings[clip]:
            following = -1
        elif parts[clip] == Test and spans[following, 0] < spans[clip, 1]:
            shared.setdefault(clip, following)
        if parts[clip] == Train:
            following = clip
    return shared


def note_shared_frames(
    splits: dict[str, NDArray[np.int8]],
    names: Sequence[str],
    recordings: NDArray[np.int32],
    spans: NDArray[np.float64],
) -> None:
    """Print a line for each protocol that tests on frames it was trained on.

    Args:
        splits: protocol to the part of each clip.
        names: [N], of the clips.
        recordings: see `find_shared_frames`, as are the spans.
    """
    for protocol, parts in splits.items():
        if shared := find_shared_frames(parts, recordings, spans):
            test = min(shared)
            note(
                f"{protocol}: {len(shared):,} of {np.count_nonzero(parts == Test):,} test clips "
                "share frames with training clips of the same recording, such as "
                f"{names[test]} with {names[shared[test]]}"
            )
