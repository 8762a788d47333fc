"""The training loop: epochs of steps that can stop after any step and resume to the same bits.

A step depends only on the weights, the optimizers and the position (epoch, step), all of which
are in the checkpoint.
"""

from __future__ import annotations

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from skelnas.errors import Diverged, InputError, Interrupted, first_line, is_out_of_memory
from skelnas.runtime import distributed
from skelnas.runtime.console import note
from skelnas.runtime.memory import batch_too_large, free_bytes
from skelnas.runtime.seed import random_seed
from skelnas.runtime.signals import StopFlag, stop_on_signal
from skelnas.training.checkpoint import State, load_checkpoint, save_checkpoint, select
from skelnas.training.progress import Display, Reading, format_metric, watch
from skelnas.training.run_dir import CHECKPOINT, METRICS, RunDir, read_lines

SECONDS_BETWEEN_CHECKPOINTS = 300.0
"""Within an epoch; the end of each epoch has a checkpoint in any case."""

Item = tuple[Tensor, ...]
"""The data of one step: the clip indices of each batch that it uses."""


class TrainLoop(ABC):
    """A model that learns in epochs of steps, in a run folder.

    Args:
        run_dir: the folder.
        model: everything that is learned; its state is part of the checkpoint.
        states: by name, what else the checkpoint holds: optimizers, a running average.
        epochs, steps_per_epoch: the length of the run.
        lr: learning rate at the start and at the end of its cosine.
        seed: of everything random.
        warmup: fraction of the steps in which the rate rises, before its cosine.
    """

    verb: ClassVar[str]
    """The command; shown with the progress."""

    metrics: ClassVar[tuple[str, ...]]
    """Names of the sums that `take_step` returns."""

    memory_hint: ClassVar[str] = ""
    """Added to the hint when memory runs out."""

    def __init__(
        self,
        run_dir: RunDir,
        model: nn.Module,
        states: Mapping[str, State],
        *,
        epochs: int,
        steps_per_epoch: int,
        lr: tuple[float, float],
        seed: int,
        warmup: float = 0.0,
    ) -> None:
        self.run_dir = run_dir
        self.model = model
        self.states = states
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.lr_range = lr
        self.seed = seed
        self.warmup = warmup
        self.epoch = 0
        self.step = 0
        device = next(model.parameters()).device
        self._sums = torch.zeros(len(self.metrics), device=device)
        self._count = 0
        self._free_bytes = None if distributed.world_size() > 1 else free_bytes(device)
        self._saved_at = 0.0

    @abstractmethod
    def plan_epoch(self) -> Iterator[Item]:
        """Yield the data of each step of this epoch, from its first step; cheap to skip."""

    @abstractmethod
    def take_step(self, item: Item) -> tuple[Tensor, int]:
        """Learn from one item.

        Returns:
            On the device, the sum of each of `metrics` over the clips of this rank; and the
            number of clips on all ranks.
        """

    def end_epoch(self, record: dict[str, Any]) -> str:
        """Add to the epoch's line of metrics; return text for the epoch's note."""
        return ""

    def read(self) -> Reading:
        """Return the metrics of this epoch so far; waits for the device."""
        return Reading({**self.mean_metrics(), "lr": self.lr(self.steps_done - 1)})

    def stop_reason(self) -> str:
        """Return why the run ends before its last epoch, or "" if it does not.

        Asked between epochs. It must depend only on what the folder holds, so that a resumed
        run ends where the original would have.
        """
        return ""

    @property
    def steps_done(self) -> int:
        """Steps since the start of the run."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    def lr(self, steps_done: int) -> float:
        """Return the learning rate of the step after `steps_done` steps."""
        warmup_steps = round(self.warmup * self.total_steps)
        if steps_done < warmup_steps:
            return self.lr_range[0] * (steps_done + 1) / warmup_steps
        progress = (steps_done - warmup_steps) / (self.total_steps - warmup_steps)
        return cosine(progress, *self.lr_range)

    def random_seed(self, *position: int) -> int:
        """Return the seed of one position in this run, see `skelnas.runtime.seed`."""
        return random_seed(self.seed, *position)

    def run(self) -> None:
        """Work from the checkpoint, if there is one, to the last epoch or a reason to stop.

        Raises:
            Interrupted: Ctrl-C or SIGTERM, after a checkpoint of the current step was saved.
        """
        self._restore_all_ranks()
        if self._is_over():
            reason = self.stop_reason() or "that was the last one"
            note(f"{self.verb} has already ended after epoch {self.epoch}: {reason}")
            return
        with stop_on_signal() as stop, watch(self.verb, self.epochs, self.steps_per_epoch) as view:
            view.show(self.epoch, self.step)
            self._saved_at = time.monotonic()
            while not self._is_over():
                self._run_epoch(stop, view)
        if reason := self.stop_reason():
            note(f"{self.verb} ended after epoch {self.epoch}: {reason}")

    def _restore_all_ranks(self) -> None:
        """Start all ranks at the same step with the same numbers: the first rank's."""
        where = "at the start"
        distributed.run_on_first(self.restore)  # first, because it rewrites the logs
        if not distributed.is_first():
            self.restore()
        distributed.check_same([torch.tensor([self.epoch, self.step, self._count])], where)
        if self.epoch == self.step == 0:
            distributed.broadcast(list(self.model.parameters()))
        distributed.check_same(list(self._state_tensors().values()), where)
        if distributed.world_size() > 1:
            note(f"{self.verb}: {distributed.world_size()} ranks share every batch")

    def restore(self) -> None:
        """Restore from the checkpoint, if there is one, and drop what was logged after it.

        Raises:
            InputError: the checkpoint is broken, of another run, or missing.
        """
        path = self.run_dir.folder / CHECKPOINT
        if not path.exists():
            self._check_no_epochs_logged(path)
            self.run_dir.drop_epochs_after(-1)
            return
        tensors, position = load_checkpoint(path)
        self.epoch, self.step, self._count = position["epoch"], position["step"], position["count"]
        try:
            if self.epoch > self.epochs or self.step > self.steps_per_epoch:
                raise ValueError(f"epoch {self.epoch}, step {self.step} is after the end")
            self._sums.copy_(tensors["sums"])
            self.model.load_state_dict(select(tensors, "model"))
            for name, state in self.states.items():
                state.restore(select(tensors, name))
        except (KeyError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise InputError(
                f"{path}: does not belong to this run ({reason})", hint="--force starts over"
            ) from None
        self.run_dir.drop_epochs_after(self.epoch)

    def _check_no_epochs_logged(self, checkpoint: Path) -> None:
        """Check that no checkpoint was lost; the first epoch is logged just before it is saved."""
        path = self.run_dir.folder / METRICS
        num_logged = len(read_lines(path)) if path.exists() else 0
        if num_logged > 1:
            raise InputError(
                f"{checkpoint}: is missing, though {num_logged} epochs were done",
                hint="restore it, or start over with --force",
            )

    def _is_over(self) -> bool:
        return self.epoch == self.epochs or bool(self.stop_reason())

    def _run_epoch(self, stop: StopFlag, view: Display) -> None:
        """Take the remaining steps of this epoch."""
        started = time.monotonic()
        for item in itertools.islice(self.plan_epoch(), self.step, None):
            sums, count = self._take_step_or_explain(item)
            self._sums += distributed.all_reduce([sums])[0]
            self._count += count
            self.step += 1
            view.show(self.epoch, self.step, self.read)
            self._save_if_due(stop)
        self._end_epoch(time.monotonic() - started)

    def _take_step_or_explain(self, item: Item) -> tuple[Tensor, int]:
        """Take a step; if memory runs out, say how many clips would fit."""
        try:
            return self.take_step(item)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler nothing holds the tensors of the failed step any more.
        raise batch_too_large(
            self.verb,
            lambda num_clips: self.take_step(tuple(indices[:num_clips] for indices in item)),
            len(item[0]),
            self._free_bytes,
            self._sums.device,
            self.memory_hint,
        )

    def _save_if_due(self, stop: StopFlag) -> None:
        """Save a checkpoint within an epoch, if the last one is old or the run is to stop."""
        is_old = time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS
        stops, saves = distributed.any_rank(stop.requested, is_old)
        if stops or saves:
            self._check_finite()
            self._save()
        if stops:
            raise Interrupted(
                f"{self.verb} stopped in epoch {self.epoch + 1} after step {self.step}",
                hint="the same command with --resume continues from here",
            )

    def _end_epoch(self, seconds: float) -> None:
        self._check_finite()
        metrics = self.mean_metrics()
        record = {"epoch": self.epoch + 1, **metrics, "lr": self.lr(self.steps_done - 1)}
        self.epoch, self.step = self.epoch + 1, 0
        self._sums.zero_()
        self._count = 0
        distributed.check_same(list(self._state_tensors().values()), f"in epoch {self.epoch}")
        more = self.end_epoch(record)
        self.run_dir.log({**record, "seconds": round(seconds, 3)})
        self._save()
        text = "  ".join(f"{name} {format_metric(name, value)}" for name, value in metrics.items())
        note(f"epoch {self.epoch}/{self.epochs}  {text}  {more}  {seconds:.1f} s")

    def mean_metrics(self) -> dict[str, float]:
        """Return the means over the clips of this epoch so far."""
        means = (self._sums / max(self._count, 1)).tolist()
        return dict(zip(self.metrics, means, strict=True))

    def _check_finite(self) -> None:
        """Check that the run has not diverged; such a state is never saved.

        The last step can do it after its loss was finite.
        """
        metrics = self.mean_metrics()
        if not all(map(math.isfinite, metrics.values())):
            sign = ", ".join(f"{name} {value}" for name, value in metrics.items())
        elif not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            sign = "weights that are not finite"
        else:
            return
        raise Diverged(
            f"{self.verb} diverged in epoch {self.epoch + 1}: {sign}",
            hint="a smaller --lr may help; the checkpoint is from before",
        )

    def _state_tensors(self) -> dict[str, Tensor]:
        """Return all tensors that the next step depends on; the same on every rank."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for owner, state in self.states.items():
            tensors |= {f"{owner}/{name}": value for name, value in state.tensors().items()}
        return {**tensors, "sums": self._sums}

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.run_dir.writes:
            position = {"epoch": self.epoch, "step": self.step, "count": self._count}
            save_checkpoint(self.run_dir.folder / CHECKPOINT, self._state_tensors(), position)


def cosine(progress: float, first: float, last: float) -> float:
    """Return a rate that falls from `first` to `last` along half a cosine wave.

    The paper decreases the learning rate "at each iteration"; the cosine is the release's.

    Args:
        progress: fraction of the run that is done, from 0 to 1.
        first, last: the rate at 0 and at 1.
    """
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, grad_clip: float) -> None:
    """Take one clipped step down the loss, differentiating by this optimizer's parameters only."""
    (group,) = optimizer.param_groups
    parameters: list[Tensor] = group["params"]
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    optimizer.zero_grad()
    used = [(p, g) for p, g in zip(parameters, grads, strict=True) if g is not None]
    summed = distributed.all_reduce([grad for _, grad in used])
    for (parameter, _), grad in zip(used, summed, strict=True):
        parameter.grad = grad
    torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    group["lr"] = lr
    optimizer.step()
