"""`skelnas train`: genotype or baseline → model folder, from scratch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from skelnas.config import ClipSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset
from skelnas.data.splits import HoldOut, split_training_part
from skelnas.engine.norm import over_ranks
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype
from skelnas.models.baselines import find_baseline
from skelnas.runtime import devices, distributed, files
from skelnas.runtime.console import note
from skelnas.runtime.memory import making
from skelnas.training import run_dir
from skelnas.training.loop import open_run
from skelnas.training.saved_model import ModelCard, save_model
from skelnas.training.tensorboard import EventWriter
from skelnas.training.trainer import Trainer

OF_THE_CACHE = ("layout", "rule", "versions")
"""What a model says and nobody has asked for: how the clips were read, and by what."""

OF_CELLS = ("channels", "layers", "drop_path", "input_norm")
"""Settings that a baseline does not have."""


def train(
    cache_path: Path,
    architecture: Genotype | str,
    out: Path,
    settings: TrainSettings,
    *,
    resume: bool = False,
    force: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train the network of a genotype, or a baseline, on the training part of a protocol.

    The test part is never read, and what is held out is not learned from. The model is the last
    epoch's, unless what is held out is asked to choose the epoch.

    Args:
        cache_path: a skeleton cache.
        architecture: the cells, or the name of a baseline.
        out: the model folder.
        settings: see `TrainSettings`.
        resume: go on with the run in the folder.
        force: forget the run in the folder.
        tensorboard: also write events for TensorBoard.

    Returns:
        The path of ``model.safetensors``.

    Raises:
        InputError: the cache is broken, has no training clips, no bones and the baseline needs
            them, or its clips cannot be mirrored and that is asked for beside the recipe.
        UsageError: the folder holds another run, or there is no such baseline, or a setting of
            cells is asked of it, or an epoch is to be chosen and nothing is held out, or branches
            are asked of one stream.
        DeviceError: the device is missing or out of memory.
        Interrupted: asked to stop; the run can be resumed.
    """
    _check_asked(settings)
    about_network, unused = _describe(architecture, settings)
    if isinstance(architecture, str):
        settings = _slow_down_if_needed(settings, architecture)
    events = EventWriter(out) if tensorboard else None
    with distributed.joined(settings.rank_timeout), over_ranks(settings.batch_norm == "sync"):
        device = devices.choose(settings)
        settings = devices.settle(settings, device)
        with Cache.open(cache_path) as cache:
            protocol = cache.choose_protocol(settings.protocol)
            settings = settings.model_copy(update={"protocol": protocol})
            part = split_training_part(cache, protocol, settings.hold_out)
            clips = cache.load(part.train)
            layout, persons = cache.layout, cache.max_persons
            dataset = Dataset(clips, layout, persons, settings, device, settings.store)
            held_out = None
            if settings.select_epoch:
                others = cache.load(part.held_out)
                held_out = Dataset(others, layout, persons, settings, device, settings.store)
            if settings.flip:
                settings = _mirror_if_possible(settings, dataset, cache.classes, cache_path)
            card = _make_card(cache, part.hold_out, dataset.shape, settings, about_network)
        config = {
            "verb": "train",
            "cache": str(cache_path.resolve()),
            "settings": {k: v for k, v in settings.asked().items() if k not in unused},
            "beside_recipe": [name for name in settings.beside_recipe() if name not in unused],
            "ranks": distributed.world_size() if settings.batch_norm == "rank" else "any",
            "model": {k: v for k, v in card.to_dict().items() if k not in OF_THE_CACHE},
            "clips": len(dataset),
            "fingerprint": clips.fingerprint(),
        }
        with open_run(out, config, resume=resume, force=force, mirror=events) as run:
            with making("train", device):
                job = Trainer(run, settings, dataset, card, held_out)
            with devices.precision(settings.precision), devices.compiling(settings.compile):
                job.work()
            job.finish()
            if run.writes:
                chosen = job.best.epoch if job.best is not None else None
                save_model(out, job.network, replace(card, epoch=chosen))
            return out / run_dir.MODEL


def _check_asked(settings: TrainSettings) -> None:
    """See that settings do not ask for what others rule out."""
    if settings.select_epoch and not settings.hold_out:
        raise UsageError(
            "--select-epoch chooses by clips that are held out, and there are none",
            hint="--hold-out 0.2 holds a fifth of the subjects out of the training part",
        )
    if settings.branches and "," not in settings.streams:
        raise UsageError(
            f"--branches is for several streams, and there is one: {settings.streams}",
            hint="--streams joint,bone,motion makes three, and so four branches",
        )


def _describe(
    architecture: Genotype | str, settings: TrainSettings
) -> tuple[dict[str, Any], set[str]]:
    """Return what the card says of a network, and the settings that it has no use for."""
    if isinstance(architecture, Genotype):
        form = settings.model_dump(include={"channels", "layers", "input_norm"})
        return {"genotype": architecture.to_dict(), **form}, set()
    find_baseline(architecture)
    for name in OF_CELLS:
        if getattr(settings, name) != settings.by_recipe(name):
            raise UsageError(
                f"--{name.replace('_', '-')} is a setting of cells, and {architecture} has none",
                hint="leave it out: a baseline has the sizes and the dropout of its paper",
            )
    return {"baseline": architecture}, set(OF_CELLS)


def _make_card(
    cache: Cache,
    hold_out: HoldOut | None,
    shape: tuple[int, int, int],
    settings: TrainSettings,
    about_network: dict[str, Any],
) -> ModelCard:
    """Say what is trained on which clips.

    Raises:
        InputError: a baseline needs bones, and the cache has none.
    """
    baseline = about_network.get("baseline")
    needs_bones = baseline is not None and find_baseline(baseline).needs_bones
    if needs_bones and not cache.layout.bones:
        raise InputError(
            f"{cache.path}: does not say which joints are joined, and {baseline} needs bones",
            hint="prepare it from a source with bones, or take another --model",
        )
    return ModelCard(
        classes=cache.classes,
        input_shape=shape,
        joints=list(cache.layout.joints),
        clip_settings=settings.model_dump(include=set(ClipSettings.model_fields)),
        source=cache.source,
        layout=cache.layout,
        rule=cache.rule,
        protocol=settings.protocol,
        hold_out=hold_out,
        versions=files.versions(),
        branches=settings.branches,
        bones=cache.layout.bones if needs_bones else (),
        **about_network,
    )


def _slow_down_if_needed(settings: TrainSettings, baseline: str) -> TrainSettings:
    """Lower the recipe's --lr to what a baseline can learn at; another is left as it is."""
    highest = find_baseline(baseline).highest_lr
    recipes = settings.by_recipe("lr")
    if settings.lr != recipes or recipes <= highest:
        return settings
    note(f"train: --lr {highest}, for {baseline} does not learn at the recipe's {recipes}")
    return settings.model_copy(update={"lr": highest})


def _mirror_if_possible(
    settings: TrainSettings, dataset: Dataset, classes: list[str], cache_path: Path
) -> TrainSettings:
    """Leave out the recipe's --flip where clips cannot be mirrored; another is refused."""
    try:
        dataset.check_augmentation(settings)
        _check_sides(classes, cache_path)
    except InputError as error:
        if settings.flip != settings.by_recipe("flip"):
            raise
        note(f"train: --flip 0, for a clip cannot be mirrored ({error})")
        return settings.model_copy(update={"flip": 0.0})
    return settings


def _check_sides(classes: list[str], cache_path: Path) -> None:
    """See that a mirrored clip is still of its class."""
    for name in classes:
        if {"left", "right"} & set(re.split(r"[\W_]+", name.lower())):
            raise InputError(
                f"{cache_path}: a mirrored clip of the class {name!r} would be of another class",
                hint="--flip 0 leaves clips as they are",
            )
