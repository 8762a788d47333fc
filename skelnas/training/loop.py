"""Long work: epochs of steps that can be stopped at any step and go on as if nothing had been.

What a step does depends only on the weights, the optimisers and the place in the run
(epoch, step), and all three are in the checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from skelnas.errors import InputError, Interrupted, SkelnasError, is_out_of_memory
from skelnas.runtime import distributed
from skelnas.runtime.console import note
from skelnas.runtime.memory import free_bytes, too_large
from skelnas.runtime.seed import random_seed
from skelnas.runtime.signals import stop_on_signal
from skelnas.training.checkpoint import State, load_checkpoint, part_of, save_checkpoint
from skelnas.training.progress import Reading, figure, watch
from skelnas.training.run_dir import CHECKPOINT, METRICS, Mirror, RunDir, read_lines, start

SECONDS_BETWEEN_CHECKPOINTS = 300.0
"""Within an epoch; a checkpoint is also kept at the end of each."""

Item = tuple[Tensor, ...]
"""What a step works on: the indices of the clips of each batch that it takes."""


class TrainLoop(ABC):
    """A model that learns in epochs of steps, in a run folder.

    Args:
        run: the folder.
        model: everything that is learned; its state is part of the checkpoint.
        states: by name, what else a step depends on and is part of the checkpoint: optimisers,
            a running average.
        epochs, steps_per_epoch: how long the work is.
        lr: the learning rate at the start and at the end of its cosine.
        seed: of all that is drawn at random.
        warmup: share of the steps in which the rate rises, before its cosine.
    """

    verb: ClassVar[str]
    """Stands beside the progress bar."""

    metrics: ClassVar[tuple[str, ...]]
    """Names of what `take_step` returns, averaged over the clips of an epoch."""

    lighter: ClassVar[str] = ""
    """Hint that is added where memory is spent."""

    def __init__(
        self,
        run: RunDir,
        model: nn.Module,
        states: Mapping[str, State],
        *,
        epochs: int,
        steps_per_epoch: int,
        lr: tuple[float, float],
        seed: int,
        warmup: float = 0.0,
    ) -> None:
        self.run = run
        self.model = model
        self.states = states
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.rates = lr
        self.seed = seed
        self.warmup = warmup
        self.epoch = 0
        self.step = 0
        device = next(model.parameters()).device
        self._sums = torch.zeros(len(self.metrics), device=device)
        self._free_bytes = None if distributed.world_size() > 1 else free_bytes(device)
        self._count = 0

    @abstractmethod
    def plan_epoch(self) -> Iterator[Item]:
        """Yield what each step of this epoch works on, from its first step; cheap to skip."""

    @abstractmethod
    def take_step(self, item: Item) -> tuple[Tensor, int]:
        """Learn from one item.

        Returns:
            Sums over its clips on this rank, one for each of `metrics`, on the device, and
            how many clips it has on all ranks.
        """

    def end_epoch(self, record: dict[str, Any]) -> str:
        """Add to the epoch's line of metrics; return what else to tell the reader."""
        return ""

    def read(self) -> Reading:
        """Read how this epoch goes so far; waits for the device."""
        averages = (self._sums / max(self._count, 1)).tolist()
        figures = dict(zip(self.metrics, averages, strict=True))
        return Reading({**figures, "lr": self.lr(self.steps_done - 1)})

    def why_stop(self) -> str:
        """Say why the work ends before its last epoch, or nothing.

        It is asked between epochs and must depend on what the folder keeps only, so that a run
        that goes on ends where it would have ended.
        """
        return ""

    @property
    def steps_done(self) -> int:
        """Steps from the start of the work."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def total_steps(self) -> int:
        """Steps from the first epoch to the last."""
        return self.epochs * self.steps_per_epoch

    def lr(self, steps_done: int) -> float:
        """Return the learning rate of the step that comes after so many."""
        rising = round(self.warmup * self.total_steps)
        if steps_done < rising:
            return self.rates[0] * (steps_done + 1) / rising
        return cosine((steps_done - rising) / (self.total_steps - rising), *self.rates)

    def random_seed(self, *place: int) -> int:
        """Return the seed of one place in this run."""
        return random_seed(self.seed, *place)

    def work(self) -> None:
        """Go from the checkpoint, if there is one, to the last epoch or a reason to stop.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint of this very step is kept.
        """
        self._meet()
        if self._is_over():
            reason = self.why_stop() or "that was the last one"
            note(f"{self.verb} has ended already, after epoch {self.epoch}: {reason}")
            return
        with stop_on_signal() as stop, watch(self.verb, self.epochs, self.steps_per_epoch) as view:
            view.show(self.epoch, self.step)
            saved = time.monotonic()
            while not self._is_over():
                started = time.monotonic()
                for number, item in enumerate(self.plan_epoch()):
                    if number < self.step:
                        continue
                    sums, count = self._step(item)
                    self._sums += distributed.all_reduce([sums])[0]
                    self._count += count
                    self.step += 1
                    view.show(self.epoch, self.step, self.read)
                    late = time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS
                    stops, saves = distributed.agree(stop.requested, late)
                    if stops or saves:
                        self._averages()
                        self._save()
                        saved = time.monotonic()
                    if stops:
                        raise Interrupted(
                            f"{self.verb} stopped in epoch {self.epoch + 1} after step {self.step}",
                            hint="the same command with --resume goes on from here",
                        )
                self._end_epoch(time.monotonic() - started)
        if reason := self.why_stop():
            note(f"{self.verb} ended after epoch {self.epoch}: {reason}")

    def _step(self, item: Item) -> tuple[Tensor, int]:
        """Take a step; where memory does not suffice, say how many clips would fit."""
        try:
            return self.take_step(item)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # The handler is left, so that nothing holds the tensors of the failed step any more.
        part = partial(self._take_part, item)
        raise too_large(
            self.verb, part, len(item[0]), self._free_bytes, self._sums.device, self.lighter
        )

    def _take_part(self, item: Item, num_clips: int) -> None:
        self.take_step(tuple(indices[:num_clips] for indices in item))

    def _is_over(self) -> bool:
        return self.epoch == self.epochs or bool(self.why_stop())

    def _averages(self) -> list[float]:
        """Return the metrics of this epoch so far; a run that diverged is never saved."""
        averages: list[float] = (self._sums / max(self._count, 1)).tolist()
        if not all(map(math.isfinite, averages)):
            figures = ", ".join(f"{n} {v}" for n, v in zip(self.metrics, averages, strict=True))
            raise SkelnasError(
                f"{self.verb} diverged in epoch {self.epoch + 1}: {figures}",
                hint="a smaller --lr may help; the checkpoint is from before",
            )
        return averages

    def _end_epoch(self, seconds: float) -> None:
        averages = self._averages()
        lr = self.lr(self.steps_done - 1)
        self.epoch, self.step = self.epoch + 1, 0
        self._sums.zero_()
        self._count = 0
        record = {"epoch": self.epoch, **dict(zip(self.metrics, averages, strict=True)), "lr": lr}
        figures = "  ".join(
            f"{name} {figure(name, value)}"
            for name, value in zip(self.metrics, averages, strict=True)
        )
        distributed.check_same(list(self._tensors().values()), f"in epoch {self.epoch}")
        more = self.end_epoch(record)
        self.run.log({**record, "seconds": round(seconds, 3)})
        self._save()
        note(f"epoch {self.epoch}/{self.epochs}  {figures}  {more}  {seconds:.1f} s")

    def _tensors(self) -> dict[str, Tensor]:
        """Return all numbers that the next step depends on, the same on every rank."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for owner, state in self.states.items():
            tensors |= {f"{owner}/{name}": value for name, value in state.tensors().items()}
        return {**tensors, "sums": self._sums}

    def _save(self) -> None:
        if self.run.writes:
            place = {"epoch": self.epoch, "step": self.step, "count": self._count}
            save_checkpoint(self.run.folder / CHECKPOINT, self._tensors(), place)

    def restore(self) -> None:
        """Be as the checkpoint says, if there is one; forget what was logged after it.

        Raises:
            InputError: the checkpoint is broken, of another run, or gone.
        """
        path = self.run.folder / CHECKPOINT
        if not path.exists():
            self._check_unsaved(path)
            self.run.keep_epochs(-1)
            return
        tensors, place = load_checkpoint(path)
        self.epoch, self.step, self._count = place["epoch"], place["step"], place["count"]
        try:
            if self.epoch > self.epochs or self.step > self.steps_per_epoch:
                raise ValueError(f"epoch {self.epoch}, step {self.step} is after the end")
            self._sums.copy_(tensors["sums"])
            self.model.load_state_dict(part_of(tensors, "model"))
            for owner, state in self.states.items():
                state.restore(part_of(tensors, owner))
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path}: is not of this run ({reason})", hint="--force starts the run anew"
            ) from None
        self.run.keep_epochs(self.epoch)

    def _check_unsaved(self, checkpoint: Path) -> None:
        """See that no work was lost with a checkpoint: an epoch is logged just before its own."""
        path = self.run.folder / METRICS
        done = len(read_lines(path)) if path.exists() else 0
        if done > 1:
            raise InputError(
                f"{checkpoint}: is missing, though {done} epochs were done",
                hint="put it back, or start the run anew with --force",
            )

    def _meet(self) -> None:
        """Let all ranks begin at the same step with the same numbers: the first rank's."""
        where = "at the start"
        distributed.on_first(self.restore)  # before the others, for it rewrites what was logged
        if not distributed.is_first():
            self.restore()
        distributed.check_same([torch.tensor([self.epoch, self.step, self._count])], where)
        if self.epoch == self.step == 0:
            distributed.broadcast(list(self.model.parameters()))
        distributed.check_same(list(self._tensors().values()), where)
        if distributed.world_size() > 1:
            note(f"{self.verb}: {distributed.world_size()} ranks share every batch")


def open_run(
    folder: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
    mirror: Mirror | None = None,
) -> RunDir:
    """Open a run folder on all ranks: the first works in it, the others read its checkpoint.

    See `skelnas.training.run_dir.start`.

    Raises:
        SkelnasError: the ranks were asked for different things, or have different clips.
    """
    asked = json.dumps({name: value for name, value in config.items() if name != "cache"})
    distributed.check_same([torch.tensor(list(asked.encode()))], "at the start")
    begin = partial(start, folder, config, resume=resume, force=force, mirror=mirror)
    return distributed.on_first(begin) or RunDir(folder, writes=False)


def cosine(progress: float, first: float, last: float) -> float:
    """Return a rate that falls from `first` to `last` along half a cosine wave.

    The paper decreases the learning rate "at each iteration"; the cosine is the release's.

    Args:
        progress: how much of the work is done, from 0 to 1.
        first, last: the rate at 0 and at 1.
    """
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, grad_clip: float) -> None:
    """Take one step down a loss: gradients of this optimiser's parameters only, clipped."""
    (group,) = optimizer.param_groups
    parameters: list[Tensor] = group["params"]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    optimizer.zero_grad()
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    summed = distributed.all_reduce([gradient for _, gradient in used])
    for (parameter, _), gradient in zip(used, summed, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    group["lr"] = lr
    optimizer.step()
