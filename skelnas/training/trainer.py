"""A training at work: what a step and the end of an epoch are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.config import TrainSettings
from skelnas.data.dataset import Batch, Dataset, num_batches, shuffled_batches
from skelnas.models.baselines import Baseline
from skelnas.models.branches import parts
from skelnas.models.complexity import measure
from skelnas.models.norm import BatchNorm
from skelnas.runtime import devices, distributed, seed
from skelnas.runtime.console import note
from skelnas.training import metrics, run_dir
from skelnas.training.averaging import Average
from skelnas.training.best_epoch import BestEpoch
from skelnas.training.checkpoint import OptimizerState, State
from skelnas.training.inference import score
from skelnas.training.loop import Item, TrainLoop, descend
from skelnas.training.saved_model import ModelCard

STREAM_INIT, STREAM_ORDER, STREAM_DROP, STREAM_AUGMENT = range(4)
"""What is drawn at random, told apart so that each has a seed of its own."""

SCORED_TOGETHER = 64
"""Clips of a batch where an epoch is scored; it changes rounding only."""


class Trainer(TrainLoop):
    """A network that learns.

    Args:
        run: the folder.
        settings: see `TrainSettings`.
        dataset: the clips to learn from.
        card: what the network is.
        held_out: clips that choose the epoch, or None for the last one.
    """

    verb = "train"
    metrics = ("train_loss", "train_top1")

    def __init__(
        self,
        run: run_dir.RunDir,
        settings: TrainSettings,
        dataset: Dataset,
        card: ModelCard,
        held_out: Dataset | None = None,
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.held_out = held_out
        torch.manual_seed(seed.random_seed(settings.seed, STREAM_INIT))
        self.network = card.make_network()
        complexity = measure(self.network, dataset.shape)
        aside = f", {card.hold_out.clips} are held out" if card.hold_out else ""
        others = [f"--{name.replace('_', '-')}" for name in settings.beside_recipe()]
        beside = f", but for {', '.join(others)}" if others else ""
        note(f"train: by the {settings.recipe} recipe{beside}")
        note(
            f"train: {len(dataset)} clips{aside} ({card.protocol}), "
            f"{complexity.parameters:,} parameters, "
            f"{complexity.macs / 1e6:,.1f} million MACs a clip, on {dataset.device}"
        )
        devices.place(self.network, dataset.device)
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
        self.best = BestEpoch(self.network) if held_out is not None else None
        if self.best is not None:
            states["best"] = self.best
        super().__init__(
            run,
            self.network,
            states,
            epochs=settings.epochs,
            steps_per_epoch=num_batches(len(dataset), settings.batch_size),
            lr=(settings.lr, settings.lr_min),
            seed=settings.seed,
            warmup=settings.warmup,
        )

    def plan_epoch(self) -> Iterator[tuple[Tensor]]:
        """Yield for each step the clips that it learns from."""
        everything = np.arange(len(self.dataset))
        seed = self.random_seed(STREAM_ORDER, self.epoch)
        return zip(shuffled_batches(everything, self.settings.batch_size, seed), strict=True)

    def take_step(self, item: Item) -> tuple[Tensor, int]:
        """Learn from one batch."""
        (indices,) = item
        count = len(indices)
        share = distributed.rank_slice(count)
        self._settle_drops(count, share)
        batch = self.dataset.batch(indices, self.settings, self._generator(STREAM_AUGMENT), share)

        with devices.autocast(self.settings.precision, self.dataset.device):
            logits = self.forward(batch.x)
        branches = logits.float().unbind(2) if logits.dim() == 3 else [logits.float()]
        losses = torch.stack([self._loss(of_branch, batch) for of_branch in branches])
        # All of each loss, so that a branch learns at the rate at which it would alone.
        descend(self.optimizer, losses.sum(), self.lr(self.steps_done), self.settings.grad_clip)
        if self.settings.batch_norm == "rank":
            self._average_statistics(batch.fraction)
        if self.average is not None:
            self.average.update(self.steps_done + 1)

        hits = (torch.stack(branches).mean(0).detach().argmax(1) == batch.labels).sum()
        return torch.stack([losses.detach().mean() * count, hits]), count

    def _settle_drops(self, count: int, share: slice) -> None:
        """Draw what is dropped in the next batch, in each branch by itself."""
        generator = self._generator(STREAM_DROP)
        chance = self.settings.drop_path * self.epoch / self.epochs
        for part in parts(self.network):
            if isinstance(part, Baseline):
                part.draw_dropout(count, generator, share)
            elif self.settings.drop_path:  # at a chance of 0 too, or the second epoch compiles anew
                part.drop_paths(chance, count, generator, share)

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of this rank's share of a batch."""
        smoothing = self.settings.label_smoothing
        return F.cross_entropy(logits, batch.labels, label_smoothing=smoothing) * batch.fraction

    def end_epoch(self, record: dict[str, Any]) -> str:
        """See how good the network is on what was held out, if that chooses the epoch."""
        if self.best is None or self.held_out is None:
            return ""
        with self.average.given() if self.average is not None else nullcontext():
            precision = self.settings.precision
            logits = score(self.network, self.held_out, SCORED_TOGETHER, precision=precision)
            found = metrics.measure(logits, self.held_out.labels.cpu())
            self.best.offer(self.epoch, found.top1, found.nll)
        record |= {"held_out_top1": found.top1, "held_out_nll": found.nll}
        return f"held_out_top1 {found.top1:.1%}"

    def finish(self) -> None:
        """Let the network be what the training has come to."""
        if self.best is not None:
            note(f"train: the model is that of epoch {self.best.epoch}, by the held-out clips")
            self.best.give()
        elif self.average is not None:
            self.average.give()

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
        averages = distributed.all_reduce([value * share for value in running])
        torch._foreach_copy_(running, averages)
