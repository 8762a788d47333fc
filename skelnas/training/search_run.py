"""What the run folder of a search holds for those who derive from it or report on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.config import count_weight_epochs
from skelnas.errors import InputError, shown
from skelnas.training.run_dir import ALPHAS, CONFIG, METRICS, read_lines


@dataclass(frozen=True)
class SearchRun:
    """What a search has logged that its genotypes are derived from.

    Attributes:
        primitives: ids of the candidate operations.
        stop_skips: ``--stop-skips``, or None.
        weight_epochs: number of epochs, from the first, that train the weights only.
        lines: of ``alphas.jsonl``, by epoch.
    """

    primitives: list[str]
    stop_skips: int | None
    weight_epochs: int
    lines: dict[int, dict[str, Any]]


def read_search(folder: Path, config: dict[str, Any]) -> SearchRun:
    """Read what genotypes are derived from; a search that has just begun has no lines.

    Args:
        folder: the run folder.
        config: its ``config.json``.

    Raises:
        InputError: a file is broken, or epochs were done and the alphas are gone.
    """
    primitives, settings = config.get("primitives"), config.get("settings")
    if not isinstance(primitives, list) or not all(isinstance(op, str) for op in primitives):
        raise InputError(f"{folder / CONFIG}: expected primitives, a list of operations")
    stop_skips = settings.get("stop_skips") if isinstance(settings, dict) else ""
    if stop_skips is not None and (isinstance(stop_skips, bool) or not isinstance(stop_skips, int)):
        raise InputError(f"{folder / CONFIG}: expected settings with a number stop_skips or null")
    weight_epochs = _count_weight_epochs(folder / CONFIG, settings)
    path = folder / ALPHAS
    lines = {line["epoch"]: line for line in _read_lines_if_any(path)}
    done = [line["epoch"] for line in _read_lines_if_any(folder / METRICS)]
    first = next(iter(lines), 0)  # earlier ones may have been cut off; no genotype needs them
    missing = [epoch for epoch, found in enumerate(lines, first) if epoch != found][:1]
    if missing or (done and done[-1] not in lines):  # alphas are logged first
        raise InputError(
            f"{path}: is missing or cut short: it lacks epoch {shown((missing or done)[-1])}",
            hint="restore it; --select perturbation derives from the checkpoint, without it",
        )
    return SearchRun(primitives, stop_skips, weight_epochs, lines)


def _count_weight_epochs(path: Path, settings: Any) -> int:
    if "weights_first" not in settings:
        return 0
    try:
        return count_weight_epochs(settings["weights_first"], settings["epochs"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: expected settings with numbers weights_first, epochs") from None


def _read_lines_if_any(path: Path) -> list[dict[str, Any]]:
    return read_lines(path) if path.exists() else []
