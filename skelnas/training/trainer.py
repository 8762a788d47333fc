"""Trains a network: its steps, and what happens at the end of an epoch."""

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
from skelnas.errors import InputError
from skelnas.models.baselines import Baseline
from skelnas.models.branches import AnyNetwork, parts
from skelnas.models.complexity import measure
from skelnas.models.norm import first_batch, running_statistics
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import note
from skelnas.runtime.seed import random_seed
from skelnas.training import metrics
from skelnas.training.averaging import WeightAverage
from skelnas.training.best_epoch import BestEpoch, Patience
from skelnas.training.card import ModelCard
from skelnas.training.checkpoint import OptimizerState, State
from skelnas.training.fine_tune import fix_statistics, freeze_trunk, has_other_layout, take_over
from skelnas.training.inference import score
from skelnas.training.loop import Item, TrainLoop, descend
from skelnas.training.run_dir import CHECKPOINT, RunDir
from skelnas.training.saved_model import Model
from skelnas.training.transfer import measure_inputs

STREAM_INIT, STREAM_ORDER, STREAM_DROP, STREAM_AUGMENT = range(4)
"""Random streams, each with its own seeds."""

SCORING_BATCH_SIZE = 64
"""For the held-out clips after each epoch; it affects rounding only."""


class Trainer(TrainLoop):
    """Trains the network that a model card describes.

    Args:
        run_dir: the model folder.
        settings: see `TrainSettings`.
        dataset: the clips to learn from.
        card: describes the network.
        held_out: clips to score after each epoch, or None.
        initial: model to start from, or None.
    """

    verb = "train"
    metrics = ("train_loss", "train_top1")

    def __init__(
        self,
        run_dir: RunDir,
        settings: TrainSettings,
        dataset: Dataset,
        card: ModelCard,
        held_out: Dataset | None = None,
        initial: Model | None = None,
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.held_out = held_out
        torch.manual_seed(random_seed(settings.seed, STREAM_INIT))
        self.network = card.make_network()
        self._announce(card)
        if initial is not None:
            take_over(self.network, initial, card, settings.init)
        devices.move(self.network, dataset.device)
        if initial is not None and has_other_layout(dataset.layout, initial.card):
            measure_inputs(self.network, dataset)
        self.forward = torch.compile(self.network) if settings.compile else self.network
        learned = dict(self.network.named_parameters())
        if settings.freeze:
            learned = freeze_trunk(self.network)
        self.optimizer = torch.optim.SGD(
            learned.values(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov and settings.momentum > 0,  # PyTorch refuses it without
        )
        states: dict[str, State] = {"optimizer": OptimizerState(self.optimizer, list(learned))}
        self.average = WeightAverage(self.network, settings.ema) if settings.ema else None
        if self.average is not None:
            states["average"] = self.average
        self.best = BestEpoch(self.network) if settings.select_epoch else None
        if self.best is not None:
            states["best"] = self.best
        self.patience = Patience(settings.patience) if settings.patience else None
        if self.patience is not None:
            states["patience"] = self.patience
        self.class_weights = None
        if settings.class_weights == "balanced":
            self.class_weights = balance_classes(dataset.labels, len(card.classes))
        super().__init__(
            run_dir,
            self.network,
            states,
            epochs=settings.epochs,
            steps_per_epoch=num_batches(len(dataset), settings.batch_size),
            lr=(settings.lr, settings.lr_min),
            seed=settings.seed,
            warmup=settings.warmup,
        )

    def _announce(self, card: ModelCard) -> None:
        """Print what is trained, on what and how."""
        flags = [f"--{name.replace('_', '-')}" for name in self.settings.recipe_deviations()]
        exceptions = f", except {', '.join(flags)}" if flags else ""
        note(f"train: the {self.settings.recipe} recipe{exceptions}")
        held_out = f", {card.hold_out.clips} held out" if card.hold_out else ""
        complexity = measure(self.network, self.dataset.shape)
        note(
            f"train: {len(self.dataset)} clips{held_out} ({card.protocol}), "
            f"{complexity.parameters:,} parameters, "
            f"{complexity.macs / 1e6:,.1f} million MACs a clip, on {self.dataset.device}"
        )

    def restore(self) -> None:
        """Restore the checkpoint, of which the best epoch so far is a part."""
        super().restore()
        if self.best is not None and self.epoch and not self.best.tensors():
            raise InputError(
                f"{self.run_dir.folder / CHECKPOINT}: lacks the best of {self.epoch} epochs",
                hint="--force starts over",
            )

    def plan_epoch(self) -> Iterator[tuple[Tensor]]:
        """Yield the clips of each step."""
        indices = np.arange(len(self.dataset))
        seed = self.random_seed(STREAM_ORDER, self.epoch)
        return zip(shuffled_batches(indices, self.settings.batch_size, seed), strict=True)

    def take_step(self, item: Item) -> tuple[Tensor, int]:
        """Learn from one batch."""
        (indices,) = item
        num_clips = len(indices)
        rank_slice = distributed.rank_slice(num_clips)
        self._draw_drops(num_clips, rank_slice)
        generator = self._generator(STREAM_AUGMENT)
        batch = self.dataset.batch(indices, self.settings, generator, rank_slice)

        if self.settings.freeze:
            fix_statistics(self.network)
        starts_here = self.steps_done == 0 and not self.settings.init
        with first_batch(self.network) if starts_here else nullcontext():
            with devices.autocast(self.settings.precision, self.dataset.device):
                logits = self.forward(batch.x)  # [N, classes], or [N, classes, branches]
            branches = logits.float().unbind(2) if logits.dim() == 3 else [logits.float()]
            losses = torch.stack([self._loss(branch, batch) for branch in branches])
            # The sum, not the mean, so that each branch learns at the rate at which it would alone.
            descend(self.optimizer, losses.sum(), self.lr(self.steps_done), self.settings.grad_clip)
        if self.settings.batch_norm == "rank" and not self.settings.freeze:
            self._average_statistics(batch.fraction)
        if self.average is not None:
            self.average.update(self.steps_done + 1)

        hits = (torch.stack(branches).mean(0).detach().argmax(1) == batch.labels).sum()
        return torch.stack([losses.detach().mean() * num_clips, hits]), num_clips

    def _draw_drops(self, num_clips: int, rank_slice: slice) -> None:
        """Draw what is dropped in the next batch, separately for each branch."""
        generator = self._generator(STREAM_DROP)
        probability = self.settings.drop_path * self.epoch / self.epochs
        for part in parts(self.network):
            if isinstance(part, Baseline):
                part.draw_dropout(num_clips, generator, rank_slice)
            elif self.settings.drop_path:  # at 0 too, or the second epoch would compile again
                part.draw_drop_paths(probability, num_clips, generator, rank_slice)

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return this rank's part of the mean cross-entropy of a batch."""
        smoothing = self.settings.label_smoothing
        if self.class_weights is None:
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        else:
            losses = F.cross_entropy(
                logits, batch.labels, label_smoothing=smoothing, reduction="none"
            )
            # Not divided by the sum of the weights, which differs between ranks.
            loss = (losses * self.class_weights[batch.labels]).mean()
        return loss * batch.fraction

    def _average_statistics(self, fraction: float) -> None:
        """Average the running statistics over the ranks, weighted by their clips."""
        running = running_statistics(self.network)
        averages = distributed.all_reduce([value * fraction for value in running])
        torch._foreach_copy_(running, averages)

    def _generator(self, stream: int) -> torch.Generator:
        """Return the random generator of this step, the same on every rank."""
        return torch.Generator().manual_seed(self.random_seed(stream, self.epoch, self.step))

    def end_epoch(self, record: dict[str, Any]) -> str:
        """Score the network on the held-out clips, if there are any."""
        if self.held_out is None:
            return ""
        with self.average.applied() if self.average is not None else nullcontext():
            precision = self.settings.precision
            logits = score(self.network, self.held_out, SCORING_BATCH_SIZE, precision=precision)
            measured = metrics.measure(logits, self.held_out.labels.cpu())
            if self.best is not None:
                self.best.update(self.epoch, measured.top1, measured.nll)
        if self.patience is not None:
            self.patience.update(self.epoch, measured.nll)
        record |= {"held_out_top1": measured.top1, "held_out_nll": measured.nll}
        return f"held_out_top1 {measured.top1:.1%}  held_out_nll {measured.nll:.4f}"

    def stop_reason(self) -> str:
        """Return why the run ends early: the held-out loss has not improved for a while."""
        if self.patience is None or not self.patience.is_over(self.epoch):
            return ""
        return f"the held-out loss was lowest after epoch {self.patience.epoch} (--patience)"

    def load_result(self) -> tuple[AnyNetwork, int | None]:
        """Load the final weights into the network: of the best epoch, or the running average.

        Returns:
            The network; and its epoch if held-out clips chose it, else None.
        """
        if self.best is not None:
            note(f"train: the model is that of epoch {self.best.epoch}, by the held-out clips")
            self.best.apply()
            return self.network, self.best.epoch
        if self.average is not None:
            self.average.apply()
        return self.network, None


def balance_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Return a weight for each class, [classes], that makes all weigh the same together.

    The mean over the clips is 1, so that learning rates stay as they are.

    Args:
        labels: [N], the class of each clip.
        num_classes: length of the result; a class without clips has the weight 0.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (counts.count_nonzero() * counts.clamp(min=1))
    return weights * (counts > 0)
