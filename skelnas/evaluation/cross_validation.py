"""`skelnas train --folds`: train on all folds but one, test on that one, for each."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skelnas.config import EvaluateSettings, TrackerName, TrainSettings
from skelnas.config.evaluation import ScoredPart
from skelnas.data.cache import Cache
from skelnas.data.splits import name_folds
from skelnas.errors import UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import Genotype
from skelnas.models.create import find_architecture
from skelnas.runtime import files
from skelnas.runtime.console import note
from skelnas.training import run_dir
from skelnas.training.run_dir import FOLDS
from skelnas.training.saved_model import Model
from skelnas.training.train import train


def cross_validate(
    cache_path: Path | str,
    architecture: Genotype | str,
    out: Path | str,
    settings: TrainSettings,
    *,
    count: int,
    resume: bool = False,
    force: bool = False,
    track: TrackerName | None = None,
    after_train: Callable[[Path, Model], object] | None = None,
) -> dict[str, Any]:
    """Train and score a network once for each fold.

    The folds are the protocols ``fold1``, ``fold2``, ... of the cache if it has them and the
    settings name no protocol. Otherwise they divide the training part of the protocol, by subject
    if there are enough, and its test part is never read.

    Args:
        cache_path: a skeleton cache.
        architecture: as for `train`.
        out: folder of the model folders ``fold1``, ``fold2``, ... and of ``folds.json``.
        settings: of each training.
        count: number of folds.
        resume: continue; finished folds are only scored again.
        force: discard what is in the folder.
        track: a tracker to show the runs in.
        after_train: called with each model folder and its trained model.

    Returns:
        The content of ``folds.json``.

    Raises:
        UsageError: the cache has another number of folds; see also `train`.
        InputError, DeviceError, Interrupted: see `train` and `evaluate`.
    """
    cache_path, out = Path(cache_path), Path(out)
    architecture = find_architecture(architecture)
    run_dir.check(out, resume=resume, force=force)
    with Cache.open(cache_path) as cache:
        protocols = choose_folds(cache, settings.protocol, count)
    config = {
        "verb": "folds",
        "cache": str(files.real_path(cache_path)),
        "architecture": architecture if isinstance(architecture, str) else architecture.to_dict(),
        "protocols": protocols,
        "settings": settings.fixed(),
    }
    folds = []
    with run_dir.start(out, config, resume=resume, force=force, discard=["fold*/"]):
        for number, protocol in enumerate(protocols, start=1):
            note(f"fold {number} of {count}: {protocol}")
            model = out / f"fold{number}"
            trained = train(
                cache_path,
                architecture,
                model,
                settings.model_copy(update={"protocol": protocol}),
                track=track,
                **run_dir.resume_or_start(model),
            )
            if after_train is not None:
                after_train(model, trained.model)
            folds.append({"name": model.name, **score_model(cache_path, model, settings, "test")})
        document = {"folds": folds, "summary": spread([fold["top1"] for fold in folds])}
        files.atomic_write(out / FOLDS, files.to_json(document))
    return document


def choose_folds(cache: Cache, protocol: str, count: int) -> list[str]:
    """Return the names of the folds, see `cross_validate`.

    Raises:
        UsageError: the cache has another number of folds.
        InputError: the training part cannot be divided so.
    """
    stored = [name for name in cache.splits if re.fullmatch(r"fold[1-9]\d*", name)]
    if protocol or not stored:
        return name_folds(cache, cache.choose_protocol(protocol), count)
    names = [f"fold{number}" for number in range(1, count + 1)]
    if set(names) != set(stored):
        raise UsageError(
            f"--folds {count}: {cache.path} was divided into {len(stored)} folds",
            hint=f"give --folds {len(stored)}, or a --protocol whose training part to divide",
        )
    return names


def score_model(
    cache: Path, model: Path, settings: TrainSettings, part: ScoredPart
) -> dict[str, Any]:
    """Score a model on a part of the protocol that it was trained on.

    Args:
        cache: the cache.
        model: the model folder.
        settings: of the training; say what machine to use.
        part: "test" or "held-out".
    """
    machine = settings.model_dump(include={"device", "threads", "store"})
    result = evaluate(cache, model, EvaluateSettings(part=part, **machine))
    return {
        "protocol": result.scores.info.protocol,
        "clips": len(result.scores),
        "chance": result.scores.chance,
        "top1": result.metrics.top1,
        "top5": result.metrics.top5,
        "mean_class_accuracy": result.metrics.mean_class,
        "parameters": result.complexity.parameters,
        "macs": result.complexity.macs,
        "fingerprint": run_dir.read_config(model)["fingerprint"],
    }


def spread(scores: Sequence[float]) -> dict[str, float | None]:
    """Return mean, sample standard deviation (None for a single score) and maximum."""
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    return {"mean": statistics.fmean(scores), "deviation": deviation, "best": max(scores)}
