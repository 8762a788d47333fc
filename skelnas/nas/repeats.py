"""`skelnas search --repeats`: searches with several seeds, beside genotypes drawn at random.

All genotypes are trained alike, for a short while, and scored on subjects that were held out of
the training part. So a search can be judged and a genotype picked without the test part.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skelnas.config import EvaluateSettings, SearchSettings, TrainSettings
from skelnas.errors import InputError, Interrupted
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import random_genotype
from skelnas.nas.derive import derive
from skelnas.nas.search import search
from skelnas.runtime import files
from skelnas.runtime.console import note
from skelnas.training import run_dir
from skelnas.training.train import train

HOLD_OUT = 0.2
"""Share of the subjects that is held out if no other is asked for (ours)."""

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
    tensorboard: bool = False,
    after_train: Callable[[Path], object] | None = None,
) -> dict[str, Any]:
    """Search with `count` seeds, and compare what they find with as many random genotypes.

    Seed s makes the run folder ``seed-s`` and the model folders ``searched-s`` and ``random-s``,
    the latter of ``random:s`` in the space of the search. Both are trained with seed s. No search
    and no training sees what is held out; the test part is never read.

    Args:
        cache: a skeleton cache.
        out: the folder of all that; ``repeats.json`` is written anew after each network.
        settings: of the searches; their seeds count up from this one.
        training: of the trainings; seed, protocol and hold-out are those of the searches.
        count: how many seeds; may be another one when the work is resumed.
        resume: go on; what is finished is not done again.
        force: forget what was done in the folder.
        tensorboard: write events for TensorBoard, too.
        after_train: called with each model folder once it is trained.

    Returns:
        What ``repeats.json`` holds.

    Raises:
        InputError, UsageError, DeviceError: see `search`, `train` and `evaluate`.
        Interrupted: asked to stop; the work can be resumed.
    """
    settings, training = agree(settings, training)
    seeds = range(settings.seed, settings.seed + count)
    config = {
        "verb": "repeats",
        "cache": str(cache.resolve()),
        "settings": settings.asked(),
        "training": training.asked(),
    }

    def how(folder: Path) -> dict[str, bool]:
        """Go on with what is there, or start in what `_forget` has left."""
        is_there = (folder / run_dir.CONFIG).exists()
        return {"resume": is_there, "force": not is_there, "tensorboard": tensorboard}

    def make(kind: str, seed: int) -> dict[str, Any]:
        """Find a genotype, train it and score it."""
        seeded = {"seed": seed}
        if kind == "searched":
            run = out / f"seed-{seed}"
            search(cache, run, settings.model_copy(update=seeded), **how(run))
            genotype = derive(run)
        else:
            genotype = random_genotype(seed, settings.space, settings.nodes)
        model = out / f"{kind}-{seed}"
        train(cache, genotype, model, training.model_copy(update=seeded), **how(model))
        if after_train is not None:
            after_train(model)
        return {"name": model.name, "kind": kind, "seed": seed, **_score(cache, model, training)}

    with run_dir.start(out, config, resume=resume, force=force):
        if force:
            _forget(out)
        networks = _read(out)
        try:
            for number, (seed, kind) in enumerate(itertools.product(seeds, KINDS), start=1):
                if (name := f"{kind}-{seed}") not in networks:
                    note(f"network {number} of {2 * count}: {name}")
                    networks[name] = make(kind, seed)
                    _write(out, networks, None)
        except KeyboardInterrupt:
            raise Interrupted(
                "search --repeats stopped", hint="the same command with --resume goes on from here"
            ) from None
        return _write(out, networks, seeds)


def agree(
    settings: SearchSettings, training: TrainSettings
) -> tuple[SearchSettings, TrainSettings]:
    """Let searches and trainings hold out the same, with the same seed and protocol."""
    settings = settings.model_copy(update={"hold_out": settings.hold_out or HOLD_OUT})
    same = {name: getattr(settings, name) for name in ("seed", "protocol", "hold_out")}
    return settings, training.model_copy(update=same)


def _forget(out: Path) -> None:
    """Forget the runs of all seeds, or going on would meet those of other settings."""
    for kind in ("seed", *KINDS):
        for config in out.glob(f"{kind}-*/{run_dir.CONFIG}"):
            run_dir.forget(config.parent)


def _score(cache: Path, model: Path, training: TrainSettings) -> dict[str, Any]:
    """Score a model on what was held out."""
    where = training.model_dump(include={"device", "threads", "store"})
    result = evaluate(cache, model, EvaluateSettings(part="held-out", **where))
    return {
        "protocol": result.scores.about.protocol,
        "clips": len(result.scores),
        "chance": result.scores.chance,
        "top1": result.metrics.top1,
        "top5": result.metrics.top5,
        "mean_class_accuracy": result.metrics.mean_class,
        "parameters": result.complexity.parameters,
        "macs": result.complexity.macs,
        "fingerprint": run_dir.read_config(model)["fingerprint"],
    }


def _read(out: Path) -> dict[str, dict[str, Any]]:
    """Read the networks that are scored already, by name."""
    path = out / run_dir.REPEATS
    if not path.exists():
        return {}
    try:
        networks = json.loads(path.read_text())["networks"]
        for network in networks:
            if not math.isfinite(network["top1"]) or not isinstance(network["fingerprint"], str):
                raise ValueError(f"top1 or fingerprint of {network['name']}")
        return {network["name"]: network for network in networks}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: is not as expected ({error!r})",
            hint="without it, --resume scores the networks again",
        ) from None


def _write(
    out: Path, networks: Mapping[str, dict[str, Any]], seeds: Sequence[int] | None
) -> dict[str, Any]:
    """Write ``repeats.json``; with the comparison of some seeds, once they are all scored."""
    if len({network["fingerprint"] for network in networks.values()}) > 1:
        raise InputError(
            "the cache has other clips than the networks before were trained on",
            hint="--force starts anew, with all of them on the same clips",
        )
    summary: dict[str, Any] = {}
    if seeds is not None:
        chosen = {kind: [networks[f"{kind}-{seed}"] for seed in seeds] for kind in KINDS}
        summary = {"seeds": list(seeds), "picked": max(chosen["searched"], key=_top1)["name"]}
        summary |= {kind: _spread(list(map(_top1, members))) for kind, members in chosen.items()}
    document = {"networks": list(networks.values()), "summary": summary or None}
    files.atomic_write(out / run_dir.REPEATS, files.to_json(document))
    return document


def _top1(network: dict[str, Any]) -> float:
    top1: float = network["top1"]
    return top1


def _spread(scores: list[float]) -> dict[str, float | None]:
    """Say how scores lie; the standard deviation is that of a sample, so one has none."""
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    return {"mean": statistics.fmean(scores), "deviation": deviation, "best": max(scores)}
