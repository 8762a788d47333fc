"""`skelnas ensemble`: the scores of several models on the same clips → combined scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skelnas.errors import UsageError
from skelnas.evaluation.scores import Scores, align_scores, log_softmax, read_scores


def ensemble(paths: Sequence[Path], weights: Sequence[float] = ()) -> Scores:
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
        raise UsageError("an ensemble needs two or more files of scores")
    if weights and len(weights) != len(paths):
        raise UsageError(
            f"--weights: {len(weights)} weights for {len(paths)} files",
            hint="give one number for each file, with commas between",
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise UsageError("--weights: a weight is not a number above 0")
    first, *others = [read_scores(path) for path in paths]
    pairs = zip(others, paths[1:], strict=True)
    members = [first, *(align_scores(first, other, paths[0], path) for other, path in pairs)]
    fractions = np.array(weights or [1.0] * len(paths), dtype=np.float64)
    fractions /= fractions.sum()
    weighted = [
        log_softmax(member.logits) + np.log(fraction)
        for member, fraction in zip(members, fractions, strict=True)
    ]
    mean = np.logaddexp.reduce(weighted, axis=0)
    return Scores(first.info, mean.astype(np.float32), first.labels)
