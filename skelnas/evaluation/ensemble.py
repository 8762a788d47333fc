"""`skelnas ensemble`: files of scores of the same clips → scores of all together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import UsageError
from skelnas.evaluation.scores import Scores, match, read


def ensemble(paths: Sequence[Path], weights: Sequence[float] = ()) -> Scores:
    """Combine scores clip by clip by name: the weighted mean of the models' softmax shares.

    Args:
        paths: two files of scores or more.
        weights: of each file, above 0, in any unit; all alike if there are none.

    Returns:
        Logarithms of the shares, for the clips in the order of the first file.

    Raises:
        UsageError: there are too few files, or not as many weights.
        InputError: a file is broken, or the files are not of the same clips and classes.
    """
    if len(paths) < 2:
        raise UsageError("an ensemble needs two files of scores or more")
    if weights and len(weights) != len(paths):
        raise UsageError(
            f"--weights: {len(weights)} weights for {len(paths)} files",
            hint="give one number for each file, with commas between",
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise UsageError("--weights: a weight is not a number above 0")
    first, *others = [read(path) for path in paths]
    pairs = zip(others, paths[1:], strict=True)
    members = [first, *(match(first, other, paths[0], path) for other, path in pairs)]
    parts = np.array(weights or [1.0] * len(paths), dtype=np.float64)
    parts /= parts.sum()
    log_shares = [
        _log_softmax(member.logits) + np.log(part)
        for member, part in zip(members, parts, strict=True)
    ]
    mean = np.logaddexp.reduce(log_shares, axis=0)
    return Scores(first.about, mean.astype(np.float32), first.labels)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = logits.astype(np.float64)
    logarithms: NDArray[np.float64] = exact - np.logaddexp.reduce(exact, axis=1, keepdims=True)
    return logarithms
