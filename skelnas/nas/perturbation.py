"""Perturbation-based selection: how much the loss rises without an operation or an edge.

Source: Wang et al., Rethinking Architecture Selection in Differentiable NAS (DARTS-PT), ICLR 2021.
Differs from it: the supernet is not fine-tuned between choices; each operation and each edge is
removed by itself from the supernet of the finished search.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from skelnas.config import Device, SearchSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import shuffled_batches
from skelnas.errors import InputError, first_line
from skelnas.nas.search import STREAM_VALIDATION, SearchClips, load_search_clips
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices
from skelnas.runtime.console import note, progress
from skelnas.runtime.seed import random_seed
from skelnas.training.checkpoint import load_checkpoint, select
from skelnas.training.run_dir import CHECKPOINT, CONFIG


@dataclass(frozen=True)
class LossIncreases:
    """Increase of the validation loss when a part of a cell is removed.

    Attributes:
        ops: by operation (all but ``none``) for each edge; edges are ordered by target node, then
            source.
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
) -> dict[str, LossIncreases]:
    """Remove each operation and each edge of a searched supernet, one at a time.

    To remove one is to set its weight to 0 in all cells of its kind; the other weights stay. The
    loss is the mean cross-entropy on clips of the half that drives alpha, in batches of the
    search's size.

    Args:
        run: run folder of the search.
        config: its configuration.
        cache: the search's cache, if it was moved.
        num_clips: maximum number of clips to measure on, at least one batch; 0 for all.
        device: None for that of the search.

    Returns:
        The increases of the normal and the reduction cell, by name.

    Raises:
        InputError: the run has no checkpoint, or the cache is missing or holds other clips.
        DeviceError: the device is missing.
    """
    settings = _read_settings(run, config, device)
    supernet, clips = _load(run, config, settings, cache or Path(str(config.get("cache"))))
    seed = random_seed(settings.seed, STREAM_VALIDATION, settings.epochs)
    batches = list(shuffled_batches(clips.alpha_half, settings.batch_size, seed))
    if num_clips:
        batches = batches[: max(num_clips // settings.batch_size, 1)]

    with torch.no_grad(), devices.precision(settings.precision):
        intact = {cell: weights.clone() for cell, weights in supernet.op_weights().items()}
        removed, op_weights = zip(*_removals(intact, supernet.primitives), strict=True)
        intact_loss = torch.zeros((), device=clips.dataset.device)
        increases = torch.zeros(len(removed), device=clips.dataset.device)
        with progress("perturbation", len(batches) * (1 + len(removed))) as meter:
            for indices in batches:
                batch = clips.dataset.batch(indices)
                loss = F.cross_entropy(supernet(batch.x, intact), batch.labels)
                intact_loss += loss
                meter.advance()
                for index, weights in enumerate(op_weights):
                    logits = supernet(batch.x, weights)  # [N, classes]
                    increases[index] += F.cross_entropy(logits, batch.labels) - loss
                    meter.advance()
    by_part = dict(zip(removed, (increases / len(batches)).tolist(), strict=True))
    num_measured = sum(len(indices) for indices in batches)
    mean = intact_loss.item() / len(batches)
    note(
        f"perturbation: loss {mean:.3f} on {num_measured} clips; "
        f"removed {len(removed)} operations and edges, one at a time"
    )
    if not all(map(math.isfinite, by_part.values())):
        raise InputError(
            f"{run / CHECKPOINT}: the loss of its supernet is not finite",
            hint="--select alphas does not need the supernet",
        )
    ops = [op for op in supernet.primitives if op != "none"]
    return {
        cell: LossIncreases(
            ops=[{op: by_part[cell, edge, op] for op in ops} for edge in range(len(weights))],
            edges=[by_part[cell, edge, ""] for edge in range(len(weights))],
        )
        for cell, weights in intact.items()
    }


def _removals(
    op_weights: dict[str, Tensor], primitives: tuple[str, ...]
) -> Iterator[tuple[tuple[str, int, str], dict[str, Tensor]]]:
    """Yield each part, (cell, edge, operation) or (cell, edge, ""), and the weights without it."""
    for cell, weights in op_weights.items():
        for edge in range(len(weights)):
            for index, op in enumerate((*primitives, "")):
                without = weights.clone()
                without[edge, slice(index, index + 1) if op else slice(None)] = 0
                if op != "none":
                    yield (cell, edge, op), {**op_weights, cell: without}


def _read_settings(run: Path, config: Mapping[str, Any], device: Device | None) -> SearchSettings:
    try:
        settings = SearchSettings(**config["settings"])
    except (KeyError, TypeError, ValidationError) as error:
        reason = first_line(error)
        raise InputError(
            f"{run / CONFIG}: settings of another version of skelnas ({reason})",
            hint="--select alphas does not need them",
        ) from None
    return settings.model_copy(update={"device": device or settings.device, "precision": "fp32"})


def _load(
    run: Path, config: Mapping[str, Any], settings: SearchSettings, cache: Path
) -> tuple[Supernet, SearchClips]:
    """Load the supernet of a search from its checkpoint, and the clips of the search."""
    if not (run / CHECKPOINT).exists():
        raise InputError(f"{run}: no checkpoint yet", hint="let the search continue")
    if not cache.exists():
        raise InputError(
            f"{cache}: the cache of the search is missing", hint="--cache gives its new path"
        )
    device = devices.choose(settings)
    with Cache.open(cache) as opened:
        clips = load_search_clips(opened, settings, device)
        layout = json.loads(json.dumps(asdict(opened.layout)))
    if (clips.fingerprint, layout) != (config.get("fingerprint"), config.get("layout", layout)):
        raise InputError(
            f"{cache}: not the clips that {run} was searched on",
            hint="--cache gives the path of the search's cache",
        )
    tensors, _ = load_checkpoint(run / CHECKPOINT)
    joints = len(clips.dataset.layout.joints)
    supernet = Supernet.of(settings, clips.dataset.shape[0], len(clips.classes), joints)
    try:
        supernet.load_state_dict(select(tensors, "model"))
    except RuntimeError as error:
        reason = first_line(error)
        raise InputError(
            f"{run / CHECKPOINT}: not a checkpoint of this search ({reason})"
        ) from None
    devices.move(supernet, clips.dataset.device)
    return supernet, clips
