"""`skelnas derive`: run folder → genotype."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.config import Device
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype, choose_cell, choose_epoch, from_alphas, from_dict
from skelnas.runtime.console import note
from skelnas.training.run_dir import ALPHAS, CONFIG, REPEATS, SearchRun, read_config, read_search


@dataclass(frozen=True)
class Perturbation:
    """Selection by what a removal costs the supernet, in place of alphas.

    Attributes:
        cache: the search's cache, if it is not where it was.
        num_clips: the most clips to measure on, 0 for the whole half that drives alpha.
        device: where; None for that of the search.
    """

    cache: Path | None = None
    num_clips: int = 0
    device: Device | None = None


def derive(
    run: Path,
    *,
    epoch: int | None = None,
    keep: int = 2,
    max_skip: int | None = None,
    perturbation: Perturbation | None = None,
) -> Genotype:
    """Derive the genotype that a search's alphas stand for, or its supernet.

    Args:
        run: the folder of `skelnas search`, finished or not; of one with ``--repeats`` once it is
            finished, for the genotype that was picked.
        epoch: after which epoch, 0 for the start; None for the last one that is done, or with
            ``--stop-skips`` the last one that kept to it.
        keep: incoming edges that each node keeps (paper: 2).
        max_skip: the most skips of the normal cell, None for no limit; see
            `skelnas.genotype.choose_cell`.
        perturbation: choose by what a removal costs the supernet of the checkpoint, not by alphas.

    Raises:
        InputError: the folder holds no search, or its files are broken, or the cache is.
        UsageError: there are no alphas of that epoch, or no supernet.
        DeviceError: the device is missing.
    """
    config = read_config(run)
    if config.get("verb") == "repeats":
        if (epoch, keep, max_skip, perturbation) != (None, 2, None, None):
            raise UsageError(
                f"{run}: holds several searches, and the genotype that was picked is as trained",
                hint=f"derive otherwise from one of them: {run / 'seed-...'}",
            )
        return _picked(run / REPEATS)
    if config.get("verb") != "search":
        raise InputError(
            f"{run}: holds no search: its {CONFIG} is of {config.get('verb')!r}",
            hint="give the folder that `skelnas search --out` wrote",
        )
    if perturbation is not None:
        if epoch is not None:
            raise UsageError(
                "--epoch goes with alphas: of the supernet the last state only is kept",
                hint="leave out --epoch or --select perturbation",
            )
        return _perturb(run, config, keep, max_skip, perturbation)
    search = read_search(run, config)
    if not search.lines:
        raise InputError(f"{run / ALPHAS}: holds no alphas yet", hint="let the search run on")
    if epoch is None:
        epoch = _last_epoch(run, search)
    if epoch not in search.lines:
        raise UsageError(
            f"{run}: has no alphas of epoch {epoch}",
            hint=f"epochs 0 to {max(search.lines)} are there",
        )
    return _genotype(run, search, epoch, keep, max_skip)


def _picked(path: Path) -> Genotype:
    """Return the genotype that `skelnas search --repeats` has picked."""
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not document.get("summary"):
            raise InputError(
                f"{path.parent}: no genotype is picked yet",
                hint="go on with the same `skelnas search` and --resume",
            )
        model = read_config(path.parent / document["summary"]["picked"])
        return from_dict(model["model"]["genotype"], str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not as expected ({error!r})") from None


def _perturb(
    run: Path, config: dict[str, Any], keep: int, max_skip: int | None, how: Perturbation
) -> Genotype:
    from skelnas.nas.perturbation import measure_losses  # nothing else here needs torch

    losses = measure_losses(
        run, config, cache=how.cache, num_clips=how.num_clips, device=how.device
    )
    normal, reduction = losses["normal"], losses["reduction"]
    return Genotype(
        normal=choose_cell(normal.ops, keep, max_skip, normal.edges),
        reduction=choose_cell(reduction.ops, keep, None, reduction.edges),
    )


def _last_epoch(run: Path, search: SearchRun) -> int:
    """Return the last epoch, or where skips have ended the search the one before."""
    last = max(search.lines)
    if search.stop_skips is None:
        return last
    genotypes = {epoch: _genotype(run, search, epoch) for epoch in search.lines}
    epoch = choose_epoch(genotypes, search.stop_skips)
    if epoch != last:
        most = search.stop_skips
        note(f"epoch {epoch}: the last with no more than {most} skip_connect in the normal cell")
    return epoch


def _genotype(
    run: Path, search: SearchRun, epoch: int, keep: int = 2, max_skip: int | None = None
) -> Genotype:
    line = search.lines[epoch]
    try:
        return from_alphas(line["normal"], line["reduction"], search.primitives, keep, max_skip)
    except InputError as error:
        raise InputError(f"{run / ALPHAS}: epoch {epoch}: {error}", hint=error.hint) from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        reason = f"epoch {epoch}: is not as expected ({error!r})"
        raise InputError(f"{run / ALPHAS}: {reason}") from None
