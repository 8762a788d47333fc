"""`skelnas derive`: run folder → genotype."""

from __future__ import annotations

from pathlib import Path

from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype
from skelnas.runs import ALPHAS, CONFIG, read_config, read_lines
from skelnas.selection import from_alphas


def derive(run: Path, *, epoch: int | None = None, keep: int = 2) -> Genotype:
    """Derive the genotype that a search's alphas stand for.

    Args:
        run: the folder of `skelnas search`, finished or not.
        epoch: after which epoch, 0 for the start; None for the last one that is done.
        keep: incoming edges that each node keeps (paper: 2).

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
    try:
        epochs = {line["epoch"]: line for line in read_lines(run / ALPHAS)}
    except (KeyError, TypeError) as error:
        raise InputError(f"{run / ALPHAS}: a line is not as expected ({error!r})") from None
    if not epochs:
        raise InputError(f"{run / ALPHAS}: holds no alphas yet", hint="let the search run on")
    wanted = max(epochs) if epoch is None else epoch
    if wanted not in epochs:
        raise UsageError(
            f"{run}: has no alphas of epoch {wanted}", hint=f"epochs 0 to {max(epochs)} are there"
        )
    try:
        line = epochs[wanted]
        return from_alphas(line["normal"], line["reduction"], config["primitives"], keep)
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{run / ALPHAS}: epoch {wanted} is not as expected ({error!r})") from None
