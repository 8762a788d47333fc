"""`skelnas ensemble`: the scores of several models on the same clips → combined scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import UsageError
from skelnas.evaluation.scores import ENSEMBLE, Scores, align_scores, read_scores


def ensemble(paths: Sequence[Path | str], weights: Sequence[float] = ()) -> Scores:
    """Average the softmax probabilities of several models, matching clips by name.

    Args:
        paths: two or more files of scores.
        weights: a positive weight for each file, on any scale; equal weights if empty.

    Returns:
        The logarithms of the mean probabilities, for the clips in the order of the first file.

    Raises:
        UsageError: there are fewer than two files, or not as many weights as files.
        InputError: a file is broken, or the files differ in their clips or classes.
    """
    if len(paths) < 2:
        raise UsageError(
            "an ensemble needs two or more files of scores",
            hint="`skelnas evaluate CACHE MODEL --scores FILE` writes one",
        )
    if weights and len(weights) != len(paths):
        raise UsageError(
            f"--weights: {len(weights)} for {len(paths)} files",
            hint="give one number for each file, with commas between",
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise UsageError("--weights: a weight is not a number above 0")
    files = [Path(path) for path in paths]
    first, *others = [read_scores(file) for file in files]
    pairs = zip(others, files[1:], strict=True)
    members = [first, *(align_scores(first, other, files[0], file) for other, file in pairs)]
    fractions = np.array(weights or [1.0] * len(paths), dtype=np.float64)
    fractions /= fractions.max()  # the sum of large numbers is infinite
    fractions /= fractions.sum()
    weighted = [
        _log_softmax(member.logits) + np.log(fraction)
        for member, fraction in zip(members, fractions, strict=True)
    ]
    mean = np.logaddexp.reduce(weighted, axis=0)
    mismatches = [
        f"{path}: {text}"
        for path, member in zip(paths, members, strict=True)
        for text in member.info.mismatches
    ]
    copies = sorted({name for member in members for name in member.info.copies})
    info = replace(first.info, mismatches=mismatches, copies=copies, model=ENSEMBLE)
    return Scores(info, mean.astype(np.float32), first.labels)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log-probabilities of logits [N, classes], which never underflow."""
    exact = logits.astype(np.float64)
    log_probabilities: NDArray[np.float64] = exact - np.logaddexp.reduce(
        exact, axis=1, keepdims=True
    )
    return log_probabilities
