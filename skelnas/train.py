"""`skelnas train`: genotype or baseline → model folder, from scratch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas import devices, parallel, runs
from skelnas.batches import ClipStore, num_batches, shuffled
from skelnas.cache import Cache
from skelnas.checkpoint import OptimizerState, State
from skelnas.config import ClipSettings, TrainSettings
from skelnas.console import note
from skelnas.engine.norm import over_ranks
from skelnas.errors import InputError, UsageError
from skelnas.footprint import making
from skelnas.genotype import Genotype
from skelnas.job import Item, Job, descend, open_run
from skelnas.model_folder import ModelCard, save_model
from skelnas.models.average import Average
from skelnas.models.baselines import Baseline, find_baseline
from skelnas.models.complexity import measure
from skelnas.models.norm import BatchNorm
from skelnas.readme import write_card
from skelnas.splits import split_training_part
from skelnas.tensorboard import EventWriter

STREAM_INIT, STREAM_ORDER, STREAM_DROP, STREAM_AUGMENT = range(4)
"""What is drawn at random, told apart so that each has a seed of its own."""

OF_THE_CACHE = ("layout", "rule", "versions")
"""What a model says and nobody has asked for: how the clips were read, and by what."""

OF_CELLS = ("channels", "layers", "drop_path")
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

    The test part and what is held out are never read. Nothing is selected: the model is the
    last epoch's.

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
        InputError: the cache is broken, has no training clips, no joints that can be flipped, or
            no bones and the baseline needs them.
        UsageError: the folder holds another run, or there is no such baseline, or a setting of
            cells is asked of it.
        DeviceError: the device is missing or out of memory.
        Interrupted: asked to stop; the run can be resumed.
    """
    about_network, unused = _describe(architecture, settings)
    events = EventWriter(out) if tensorboard else None
    with parallel.joined(settings.rank_timeout), over_ranks(settings.batch_norm == "sync"):
        device = devices.choose(settings)
        settings = devices.settle(settings, device)
        with Cache.open(cache_path) as cache:
            protocol = cache.choose_protocol(settings.protocol)
            settings = settings.model_copy(update={"protocol": protocol})
            part = split_training_part(cache, protocol, settings.hold_out)
            clips = cache.load(part.learned)
            layout, persons = cache.layout, cache.max_persons
            store = ClipStore(clips, layout, persons, settings, device, settings.store)
            store.check(settings)
            if settings.flip:
                _check_sides(cache.classes, cache_path)
            card = ModelCard(
                classes=cache.classes,
                input_shape=store.shape,
                joints=list(cache.layout.joints),
                clip_settings=settings.model_dump(include=set(ClipSettings.model_fields)),
                source=cache.source,
                layout=cache.layout,
                rule=cache.rule,
                protocol=protocol,
                hold_out=part.hold_out,
                versions=runs.versions(),
                **about_network,
            )
            if card.baseline is not None and find_baseline(card.baseline).needs_bones:
                if not layout.bones:
                    raise InputError(
                        f"{cache_path}: does not say which joints are joined, and "
                        f"{card.baseline} needs bones",
                        hint="prepare it from a source with bones, or take another --model",
                    )
                card = replace(card, bones=layout.bones)
        asked = {key: value for key, value in card.to_dict().items() if key not in OF_THE_CACHE}
        config = {
            "verb": "train",
            "cache": str(cache_path.resolve()),
            "settings": {k: v for k, v in settings.asked().items() if k not in unused},
            "beside_recipe": [name for name in settings.beside_recipe() if name not in unused],
            "ranks": parallel.world_size() if settings.batch_norm == "rank" else "any",
            "model": asked,
            "clips": len(store),
            "fingerprint": clips.fingerprint(),
        }
        with open_run(out, config, resume=resume, force=force, mirror=events) as run:
            with making("train", device):
                job = _Training(run, settings, store, card)
            with devices.precision(settings.precision):
                job.work()
            if job.average is not None:
                job.average.give()
            if run.writes:
                save_model(out, job.network, card)
                write_card(out)
            return out / runs.MODEL


def _describe(
    architecture: Genotype | str, settings: TrainSettings
) -> tuple[dict[str, Any], set[str]]:
    """Return what the card says of a network, and the settings that it has no use for."""
    if isinstance(architecture, Genotype):
        widths = settings.model_dump(include={"channels", "layers"})
        return {"genotype": architecture.to_dict(), **widths}, set()
    find_baseline(architecture)
    for name in OF_CELLS:
        if getattr(settings, name) != settings.by_recipe(name):
            raise UsageError(
                f"--{name.replace('_', '-')} is a setting of cells, and {architecture} has none",
                hint="leave it out: a baseline has the sizes and the dropout of its paper",
            )
    return {"baseline": architecture}, set(OF_CELLS)


def _check_sides(classes: list[str], cache_path: Path) -> None:
    """See that a mirrored clip is still of its class."""
    for name in classes:
        if {"left", "right"} & set(re.split(r"[\W_]+", name.lower())):
            raise InputError(
                f"{cache_path}: a mirrored clip of the class {name!r} would be of another class",
                hint="--flip 0 leaves clips as they are",
            )


class _Training(Job):
    """A training at work: the network and its optimiser."""

    verb = "train"
    metrics = ("train_loss", "train_top1")

    def __init__(
        self, run: runs.Run, settings: TrainSettings, store: ClipStore, card: ModelCard
    ) -> None:
        self.settings = settings
        self.store = store
        torch.manual_seed(runs.random_seed(settings.seed, STREAM_INIT))
        self.network = card.make_network()
        complexity = measure(self.network, store.shape)
        held_out = f", {card.hold_out.clips} are held out" if card.hold_out else ""
        others = [f"--{name.replace('_', '-')}" for name in settings.beside_recipe()]
        beside = f", but for {', '.join(others)}" if others else ""
        note(f"train: by the {settings.recipe} recipe{beside}")
        note(
            f"train: {len(store)} clips{held_out} ({card.protocol}), "
            f"{complexity.parameters:,} parameters, "
            f"{complexity.macs / 1e6:,.1f} million MACs a clip, on {store.device}"
        )
        devices.place(self.network, store.device)
        self.forward = torch.compile(self.network) if settings.compile else self.network
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov and settings.momentum > 0,  # without any they are the same
        )
        names = [name for name, _ in self.network.named_parameters()]
        states: dict[str, State] = {"optimizer": OptimizerState(self.optimizer, names)}
        self.average = Average(self.network, settings.ema) if settings.ema else None
        if self.average is not None:
            states["average"] = self.average
        super().__init__(
            run,
            self.network,
            states,
            epochs=settings.epochs,
            steps_per_epoch=num_batches(len(store), settings.batch_size),
            lr=(settings.lr, settings.lr_min),
            seed=settings.seed,
            warmup=settings.warmup,
        )

    def plan_epoch(self) -> Iterator[tuple[Tensor]]:
        """Yield for each step the clips that it learns from."""
        everything = np.arange(len(self.store))
        seed = self.random_seed(STREAM_ORDER, self.epoch)
        return zip(shuffled(everything, self.settings.batch_size, seed), strict=True)

    def take_step(self, item: Item) -> tuple[Tensor, int]:
        """Learn from one batch."""
        (indices,) = item
        count = len(indices)
        share = parallel.share(count)
        drops = self._generator(STREAM_DROP)
        if isinstance(self.network, Baseline):
            self.network.draw_dropout(count, drops, share)
        else:
            chance = self.settings.drop_path * self.epoch / self.epochs
            self.network.drop_paths(chance, count, drops, share)
        batch = self.store.batch(indices, self.settings, self._generator(STREAM_AUGMENT), share)

        with devices.autocast(self.settings.precision, self.store.device):
            logits = self.forward(batch.x)
        smoothing = self.settings.label_smoothing
        loss = F.cross_entropy(logits.float(), batch.labels, label_smoothing=smoothing)
        loss = loss * batch.share
        descend(self.optimizer, loss, self.lr(self.steps_done), self.settings.grad_clip)
        if self.settings.batch_norm == "rank":
            self._average_statistics(batch.share)
        if self.average is not None:
            self.average.update(self.steps_done + 1)

        hits = (logits.detach().argmax(1) == batch.labels).sum()
        return torch.stack([loss.detach() * count, hits]), count

    def _generator(self, stream: int) -> torch.Generator:
        """Return what one step draws from, the same on every rank."""
        return torch.Generator().manual_seed(self.random_seed(stream, self.epoch, self.step))

    def _average_statistics(self, share: float) -> None:
        """Let all ranks have the mean of the running statistics that each has of its clips."""
        running = [
            statistic
            for module in self.network.modules()
            if isinstance(module, BatchNorm)
            for statistic in (module.running_mean, module.running_var)
            if statistic is not None
        ]
        averages = parallel.all_reduce([value * share for value in running])
        torch._foreach_copy_(running, averages)
