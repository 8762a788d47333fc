"""`skelnas derive`: run folder → genotype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skelnas.console import note
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype
from skelnas.runs import ALPHAS, CONFIG, read_config, read_lines
from skelnas.selection import count_skips, from_alphas


def derive(
    run: Path, *, epoch: int | None = None, keep: int = 2, max_skip: int | None = None
) -> Genotype:
    """Derive the genotype that a search's alphas stand for.

    Args:
        run: the folder of `skelnas search`, finished or not.
        epoch: after which epoch, 0 for the start; None for the last one that is done, or with
            ``--stop-skips`` the last one that kept to it.
        keep: incoming edges that each node keeps (paper: 2).
        max_skip: the most skips of the normal cell, None for no limit; see
            `skelnas.selection.choose_cell`.

    Raises:
        InputError: the folder holds no search, or its files are broken.
        UsageError: there are no alphas of that epoch.
    """
    config = read_config(run)
    if config.get("verb") != "search":
        raise InputError(
            f"{run}: holds no search: its {CONFIG} is of {config.get('verb')!r}",
            hint="give the folder that `skelnas search --out` wrote",
        )
    epochs = _read_epochs(run / ALPHAS)
    try:
        if epoch is None:
            epoch = _last_epoch(epochs, config)
        if epoch not in epochs:
            raise UsageError(
                f"{run}: has no alphas of epoch {epoch}",
                hint=f"epochs 0 to {max(epochs)} are there",
            )
        return _genotype(epochs[epoch], config, keep, max_skip)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"{run / ALPHAS}: a line is not as expected ({error!r})") from None


def _read_epochs(path: Path) -> dict[int, dict[str, Any]]:
    try:
        epochs = {line["epoch"]: line for line in read_lines(path)}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: a line is not as expected ({error!r})") from None
    if not epochs:
        raise InputError(f"{path}: holds no alphas yet", hint="let the search run on")
    return epochs


def _last_epoch(epochs: dict[int, dict[str, Any]], config: dict[str, Any]) -> int:
    """Return the last epoch, or where skips have ended the search the one before."""
    most = config["settings"].get("stop_skips")
    if most is None:
        return max(epochs)
    kept = [
        epoch for epoch in epochs if epoch and count_skips(_genotype(epochs[epoch], config)) <= most
    ]
    epoch = max(kept, default=max(epochs))
    if epoch != max(epochs):
        note(f"epoch {epoch}: the last with no more than {most} skip_connect in the normal cell")
    return epoch


def _genotype(
    line: dict[str, Any], config: dict[str, Any], keep: int = 2, max_skip: int | None = None
) -> Genotype:
    return from_alphas(line["normal"], line["reduction"], config["primitives"], keep, max_skip)
