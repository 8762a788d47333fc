"""What a searched supernet loses with each of its operations and edges (after DARTS-PT).

Wang et al., Rethinking Architecture Selection in Differentiable NAS, ICLR 2021. Without their
tuning between two choices: every operation and every edge is removed alone, from the supernet
as the search has left it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from skelnas.config import Device, SearchSettings
from skelnas.data.dataset import shuffled
from skelnas.errors import InputError
from skelnas.nas.search import STREAM_VALIDATION, SearchClips, load_search_clips
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices
from skelnas.runtime.console import note, progress
from skelnas.runtime.seed import random_seed
from skelnas.training.checkpoint import load_checkpoint, part_of
from skelnas.training.run_dir import CHECKPOINT, CONFIG


@dataclass(frozen=True)
class Losses:
    """How much the validation loss of a cell's supernet rises when a part of it is removed.

    Attributes:
        ops: for each edge, ordered by target node, then source, by operation but ``none``.
        edges: for each edge.
    """

    ops: list[dict[str, float]]
    edges: list[float]


def measure_losses(
    run: Path,
    config: Mapping[str, Any],
    *,
    cache: Path | None = None,
    num_clips: int = 0,
    device: Device | None = None,
) -> dict[str, Losses]:
    """Remove each operation and each edge of a searched supernet, one at a time.

    What is removed has a share of 0, in all cells of the kind; the other shares stay as they
    are. The loss is the mean cross-entropy on clips of the half that drives alpha, in batches as
    large as the search's, in an order of their own.

    Args:
        run: the folder of a search.
        config: its configuration.
        cache: the search's cache, if it is not where it was.
        num_clips: the most clips to measure on, at least a batch; 0 for the whole half.
        device: where; None for that of the search.

    Returns:
        The losses of the normal and the reduction cell, by name.

    Raises:
        InputError: the run has no checkpoint, or the cache is missing or has other clips.
        DeviceError: the device is missing.
    """
    settings = _read_settings(run, config, device)
    supernet, clips = _load(run, config, settings, cache or Path(str(config.get("cache"))))
    seed = random_seed(settings.seed, STREAM_VALIDATION, settings.epochs)
    batches = list(shuffled(clips.alpha_half, settings.batch_size, seed))
    if num_clips:
        batches = batches[: max(num_clips // settings.batch_size, 1)]

    with torch.no_grad(), devices.precision(settings.precision):
        whole = {cell: shares.clone() for cell, shares in supernet.shares().items()}
        places, mixes = zip(*_remove(whole, supernet.primitives), strict=True)
        intact = torch.zeros((), device=clips.dataset.device)
        sums = torch.zeros(len(mixes), device=clips.dataset.device)
        with progress("perturbation", len(batches) * (1 + len(mixes))) as meter:
            for indices in batches:
                batch = clips.dataset.batch(indices)
                loss = F.cross_entropy(supernet(batch.x, whole), batch.labels)
                intact += loss
                meter.advance()
                for number, mix in enumerate(mixes):
                    sums[number] += F.cross_entropy(supernet(batch.x, mix), batch.labels) - loss
                    meter.advance()
    rises = dict(zip(places, (sums / len(batches)).tolist(), strict=True))
    count = sum(len(indices) for indices in batches)
    mean = intact.item() / len(batches)
    note(f"perturbation: the loss is {mean:.3f} on {count} clips; {len(mixes)} parts removed")
    if not all(map(math.isfinite, rises.values())):
        raise InputError(
            f"{run / CHECKPOINT}: the losses of its supernet are not all finite numbers",
            hint="--select alphas derives without them",
        )
    ops = [op for op in supernet.primitives if op != "none"]
    return {
        cell: Losses(
            ops=[{op: rises[cell, edge, op] for op in ops} for edge in range(len(shares))],
            edges=[rises[cell, edge, ""] for edge in range(len(shares))],
        )
        for cell, shares in whole.items()
    }


def _remove(
    whole: dict[str, Tensor], primitives: tuple[str, ...]
) -> Iterator[tuple[tuple[str, int, str], dict[str, Tensor]]]:
    """Yield the shares without each (cell, edge, operation) and without each (cell, edge, "")."""
    for cell, shares in whole.items():
        for edge in range(len(shares)):
            for index, op in enumerate((*primitives, "")):
                without = shares.clone()
                without[edge, slice(index, index + 1) if op else slice(None)] = 0
                if op != "none":
                    yield (cell, edge, op), {**whole, cell: without}


def _read_settings(run: Path, config: Mapping[str, Any], device: Device | None) -> SearchSettings:
    try:
        settings = SearchSettings(**config["settings"])
    except (KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{run / CONFIG}: the settings are not those of this skelnas ({reason})",
            hint="--select alphas derives without them",
        ) from None
    return settings.model_copy(update={"device": device or settings.device, "precision": "fp32"})


def _load(
    run: Path, config: Mapping[str, Any], settings: SearchSettings, cache: Path
) -> tuple[Supernet, SearchClips]:
    """Load the supernet as the search has left it, and the clips that it was searched on."""
    if not (run / CHECKPOINT).exists():
        raise InputError(f"{run}: holds no checkpoint yet", hint="let the search run on")
    if not cache.exists():
        raise InputError(
            f"{cache}: the cache of the search is not there", hint="--cache says where it is"
        )
    clips = load_search_clips(cache, settings, devices.choose(settings))
    if clips.fingerprint != config.get("fingerprint"):
        raise InputError(
            f"{cache}: has other clips than {run} was searched on",
            hint="--cache names the one that it was searched on",
        )
    tensors, _ = load_checkpoint(run / CHECKPOINT)
    supernet = Supernet.of(settings, clips.dataset.shape[0], len(clips.classes))
    try:
        supernet.load_state_dict(part_of(tensors, "model"))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{run / CHECKPOINT}: is not of this search ({reason})") from None
    devices.place(supernet, clips.dataset.device)
    return supernet, clips
