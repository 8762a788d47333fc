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
from skelnas.training.genotype_table import is_by_trainings, read_table
from skelnas.training.run_dir import ALPHAS, CONFIG, REPEATS, SearchRun, read_config, read_search


@dataclass(frozen=True)
class Perturbation:
    """Selection by how much the loss rises when an operation or edge is removed.

    Attributes:
        cache: the search's cache, if it was moved.
        num_clips: maximum number of clips to measure on; 0 for the whole half that drives alpha.
        device: None for that of the search.
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
    """Derive a genotype from a search.

    Args:
        run: run folder of a search, finished or not; with ``--repeats`` a finished one, whose
            picked genotype is returned.
        epoch: derive from the alphas after this epoch; 0 is before the first step. None uses the
            last finished epoch or, with ``--stop-skips``, the last one within that limit.
        keep: incoming edges to keep per node (Paper: 2).
        max_skip: maximum number of skips in the normal cell; None for no limit. See
            `skelnas.genotype.choose_cell`.
        perturbation: select by perturbing the supernet of the checkpoint instead of by alphas.

    Raises:
        InputError: the folder holds no search, or the search or its cache is broken.
        UsageError: there are no alphas of that epoch, or the options exclude each other.
        DeviceError: the device is missing.
    """
    config = read_config(run)
    if config.get("verb") == "repeats":
        if (epoch, keep, max_skip, perturbation) != (None, 2, None, None):
            raise UsageError(
                f"{run}: holds several searches; their picked genotype is fixed",
                hint=f"to derive with other options, give one of the searches: {run / 'seed-...'}",
            )
        return _picked(run / REPEATS)
    if is_by_trainings(config):
        if (epoch, keep, max_skip, perturbation) != (None, 2, None, None):
            raise UsageError(
                f"{run}: was searched with --method predict, so it has neither alphas nor supernet",
                hint="leave out --epoch, --keep, --max-skip and --select",
            )
        return read_table(run).choice()
    if config.get("verb") != "search":
        raise InputError(
            f"{run}: not a search: its {CONFIG} was written by {config.get('verb')!r}",
            hint="give the folder that `skelnas search --out` wrote",
        )
    if perturbation is not None:
        if epoch is not None:
            raise UsageError(
                "--epoch needs --select alphas: only the last state of the supernet is saved",
                hint="leave out --epoch or --select perturbation",
            )
        return _perturb(run, config, keep, max_skip, perturbation)
    search = read_search(run, config)
    if not search.lines:
        raise InputError(f"{run / ALPHAS}: no alphas yet", hint="let the search continue")
    if epoch is None:
        epoch = _last_epoch(run, search)
    if epoch not in search.lines:
        raise UsageError(
            f"{run}: no alphas of epoch {epoch}",
            hint=f"it has epochs 0 to {max(search.lines)}",
        )
    return _genotype(run, search, epoch, keep, max_skip)


def _picked(path: Path) -> Genotype:
    """Return the genotype picked by `skelnas search --repeats`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not document.get("summary"):
            raise InputError(
                f"{path.parent}: no genotype has been picked yet",
                hint="resume the search: the same command with --resume",
            )
        model = read_config(path.parent / document["summary"]["picked"])
        return from_dict(model["model"]["genotype"], str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: unexpected content ({error!r})") from None


def _perturb(
    run: Path, config: dict[str, Any], keep: int, max_skip: int | None, options: Perturbation
) -> Genotype:
    from skelnas.nas.perturbation import measure_losses  # needs torch

    losses = measure_losses(
        run,
        config,
        cache=options.cache,
        num_clips=options.num_clips,
        device=options.device,
    )
    normal, reduction = losses["normal"], losses["reduction"]
    return Genotype(
        normal=choose_cell(normal.ops, keep, max_skip, normal.edges),
        reduction=choose_cell(reduction.ops, keep, None, reduction.edges),
    )


def _last_epoch(run: Path, search: SearchRun) -> int:
    """Return the last epoch, or the last one within ``--stop-skips``."""
    last = max(search.lines)
    if search.stop_skips is None:
        return last
    genotypes = {epoch: _genotype(run, search, epoch) for epoch in search.lines}
    epoch = choose_epoch(genotypes, search.stop_skips, search.weight_epochs)
    if epoch != last:
        note(
            f"using epoch {epoch}, the last with at most {search.stop_skips} skip_connect "
            "in the normal cell"
        )
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
        raise InputError(f"{run / ALPHAS}: epoch {epoch}: unexpected content ({error!r})") from None
