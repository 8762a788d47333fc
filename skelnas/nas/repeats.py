"""`skelnas search --repeats`: compare searches with several seeds against random genotypes.

All genotypes get the same short training and are scored on subjects held out of the training
part, so that a search can be judged and a genotype picked without the test part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skelnas.config import BudgetSettings, SearchSettings, TrackerName, TrainSettings
from skelnas.data.cache import Cache
from skelnas.errors import InputError, Interrupted
from skelnas.evaluation.cross_validation import score_model, spread
from skelnas.genotype import random_genotype
from skelnas.nas.derive import derive
from skelnas.nas.draw import draw_genotype
from skelnas.nas.search import search
from skelnas.nas.target import target_of_search
from skelnas.runtime import files
from skelnas.runtime.console import note
from skelnas.training import run_dir
from skelnas.training.saved_model import Model
from skelnas.training.train import train

HOLD_OUT = 0.2
"""Default fraction of the subjects to hold out (ours)."""

KINDS = ("searched", "random")


def repeat(
    cache: Path,
    out: Path,
    settings: SearchSettings,
    training: TrainSettings,
    *,
    count: int,
    resume: bool = False,
    force: bool = False,
    track: TrackerName | None = None,
    after_train: Callable[[Path, Model], object] | None = None,
) -> dict[str, Any]:
    """Search with `count` seeds and compare the results with as many random genotypes.

    Seed s makes the run folder ``seed-s`` and the model folders ``searched-s`` and ``random-s``,
    the latter from the genotype ``random:s`` of the same space, within the same budget. Both are
    trained with seed s. No search or training sees the held-out clips; the test part is never read.

    Args:
        cache: a skeleton cache.
        out: folder of all runs and models, and of ``repeats.json``, updated after each network.
        settings: of the searches; its seed is the first one.
        training: of the trainings; seed, protocol and hold-out follow the searches.
        count: number of seeds; may change on resuming.
        resume: continue; finished parts are not repeated.
        force: discard what is in the folder.
        track: a tracker to show the runs in.
        after_train: called with each model folder and its trained model.

    Returns:
        The content of ``repeats.json``.

    Raises:
        InputError, UsageError, DeviceError: see `search`, `train` and `evaluate`.
        Interrupted: stopped by a signal; can be resumed.
    """
    settings, training = match_settings(settings, training)
    target = None
    with Cache.open(cache) as opened:
        layout = asdict(opened.layout)
        if settings.has_budget:
            target = target_of_search(settings, opened, training)
    seeds = range(settings.seed, settings.seed + count)
    config = {
        "verb": "repeats",
        "cache": str(files.real_path(cache)),
        "layout": layout,
        "settings": settings.fixed(),
        "training": training.fixed(),
    }

    def options(folder: Path) -> dict[str, Any]:
        return {**run_dir.resume_or_start(folder), "track": track}

    def make_network(kind: str, seed: int) -> dict[str, Any]:
        """Find a genotype, train it and score it."""
        seeded = {"seed": seed}
        if kind == "searched":
            run = out / f"seed-{seed}"
            seeded_search = settings.model_copy(update=seeded)
            search(cache, run, seeded_search, training=training, **options(run))
            genotype = derive(run)
        elif target is not None:
            genotype = draw_genotype(seed, target.costs, target.budget)
        else:
            genotype = random_genotype(seed, settings.space, settings.nodes)
        model = out / f"{kind}-{seed}"
        seeded_training = training.model_copy(update=seeded)
        trained = train(cache, genotype, model, seeded_training, **options(model))
        if after_train is not None:
            after_train(model, trained.model)
        return {
            "name": model.name,
            "kind": kind,
            "seed": seed,
            **score_model(cache, model, training, "held-out"),
        }

    runs = [f"{kind}-*/" for kind in ("seed", *KINDS)]
    with run_dir.start(out, config, resume=resume, force=force, discard=runs):
        networks = _read(out)
        try:
            for number, (seed, kind) in enumerate(itertools.product(seeds, KINDS), start=1):
                if (name := f"{kind}-{seed}") not in networks:
                    note(f"network {number} of {2 * count}: {name}")
                    networks[name] = make_network(kind, seed)
                    _write(out, networks, None)
        except KeyboardInterrupt:
            raise Interrupted(
                "search --repeats stopped", hint="the same command with --resume continues"
            ) from None
        return _write(out, networks, seeds)


def match_settings(
    settings: SearchSettings, training: TrainSettings
) -> tuple[SearchSettings, TrainSettings]:
    """Give searches and trainings the same seed, protocol and hold-out."""
    settings = settings.model_copy(update={"hold_out": settings.hold_out or HOLD_OUT})
    names = ("seed", "protocol", "hold_out", *BudgetSettings.model_fields)
    shared = {name: getattr(settings, name) for name in names}
    return settings, training.model_copy(update=shared)


def _read(out: Path) -> dict[str, dict[str, Any]]:
    """Read the networks that have been scored, by name."""
    path = out / run_dir.REPEATS
    if not path.exists():
        return {}
    try:
        networks = files.read_object(path)["networks"]
        for network in networks:
            if not math.isfinite(network["top1"]) or not isinstance(network["fingerprint"], str):
                raise ValueError(f"top1 or fingerprint of {network['name']}")
        return {network["name"]: network for network in networks}
    except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise InputError(
            f"{path}: unexpected content ({error!r})",
            hint="delete it, and --resume scores the networks again",
        ) from None


def _write(
    out: Path, networks: Mapping[str, dict[str, Any]], seeds: Sequence[int] | None
) -> dict[str, Any]:
    """Write ``repeats.json``, with a summary once all `seeds` are scored."""
    if len({network["fingerprint"] for network in networks.values()}) > 1:
        raise InputError(
            f"{out}: the cache changed: the networks so far were trained on other clips",
            hint="--force starts again, with all of them on the same clips",
        )
    summary: dict[str, Any] = {}
    if seeds is not None:
        chosen = {kind: [networks[f"{kind}-{seed}"] for seed in seeds] for kind in KINDS}
        summary = {"seeds": list(seeds), "picked": max(chosen["searched"], key=_top1)["name"]}
        summary |= {kind: spread(list(map(_top1, members))) for kind, members in chosen.items()}
    document = {"networks": list(networks.values()), "summary": summary or None}
    files.atomic_write(out / run_dir.REPEATS, files.to_json(document))
    return document


def _top1(network: dict[str, Any]) -> float:
    top1: float = network["top1"]
    return top1
