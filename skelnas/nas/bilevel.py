"""One step of the bilevel search, Eqs. (1) and (2): alpha by the architect, then w by SGD."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from skelnas.config import Precision, SearchSettings
from skelnas.data.dataset import Batch
from skelnas.errors import is_out_of_memory
from skelnas.nas import architect
from skelnas.nas.flat_weights import FlatSGD, FlatWeights, gradients
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import note

Step = Callable[[Batch, Batch], Tensor]
"""Learns from two batches."""

REHEARSALS = 3
"""Steps with batches of a shape before they are recorded: libraries choose their kernels, and
optimisers make their state (PyTorch's documentation asks for a few)."""


class Recorded:
    """A step on CUDA that is recorded for each shape of its batches, after a few rehearsals.

    A rehearsal is a step like any other, and so is a replay. Where recording fails, the step
    goes on unrecorded and says so.

    Args:
        step: reads and changes tensors that stay where they are; never waits for the device.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._rehearsed: Counter[Any] = Counter()
        self._graphs: dict[Any, _Graph] = {}
        self._works = True

    def __call__(self, training: Batch, validation: Batch) -> Tensor:
        """Take a step."""
        batches = training, validation
        key = tuple((batch.x.shape, batch.share) for batch in batches)
        if key in self._graphs:
            return self._graphs[key].replay(batches)
        if not self._works or self._rehearsed[key] < REHEARSALS:
            self._rehearsed[key] += 1
            return aside(self._step, batches)
        try:
            self._graphs[key] = _Graph(self._step, batches)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._works = False
            reason = str(error).splitlines()[0]
            note(f"the step cannot be recorded as a CUDA graph, and runs as it is: {reason}")
        return self(training, validation)


class _Graph:
    """One recording: the kernels of a step, and where they read their batches."""

    def __init__(self, step: Step, batches: tuple[Batch, Batch]) -> None:
        self._inputs = [Batch(b.x.clone(), b.labels.clone(), b.share) for b in batches]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):  # nothing is computed yet
            self._output = step(self._inputs[0], self._inputs[1])

    def replay(self, batches: tuple[Batch, Batch]) -> Tensor:
        """Take the recorded step on other batches of the same shapes."""
        for own, batch in zip(self._inputs, batches, strict=True):
            own.x.copy_(batch.x)
            own.labels.copy_(batch.labels)
        self._graph.replay()
        return self._output.clone()


def aside(step: Step, batches: tuple[Batch, Batch]) -> Tensor:
    """Take a step on another stream, as a step has to be that is to be recorded later."""
    main = torch.cuda.current_stream()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        output = step(*batches)
    main.wait_stream(stream)
    return output


ALPHA_BETAS = (0.5, 0.999)
"""Adam's decay rates for alpha (authors' release)."""


class Bilevel:
    """A supernet and what moves its weights and its alphas.

    Args:
        supernet: on its device; its weights become views of one tensor, and are changed in place
            by every step.
        settings: rates, order and precision.

    Attributes:
        weights, weight_optimizer: w and its SGD.
        alphas, alpha_optimizer: alpha, of the normal and the reduction cell, and its Adam.
    """

    def __init__(self, supernet: Supernet, settings: SearchSettings) -> None:
        self.supernet = supernet
        self.settings = settings
        names, tensors = zip(*supernet.named_weights(), strict=True)
        self.weights = FlatWeights(tensors)
        self.alphas = list(supernet.alphas.values())
        self.weight_optimizer = FlatSGD(
            self.weights,
            names,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            clip=settings.grad_clip,
        )
        device = self.weights.values.device
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas,
            lr=settings.alpha_lr,
            betas=ALPHA_BETAS,
            weight_decay=settings.alpha_weight_decay,
            capturable=device.type == "cuda",
        )
        self._lr = torch.zeros((), dtype=self.weights.values.dtype, device=device)
        alone = distributed.world_size() == 1
        record = settings.cuda_graphs and alone and device.type == "cuda"
        self._take_step = Recorded(self._step) if record else self._step

    def step(self, training: Batch, validation: Batch, lr: float) -> Tensor:
        """Move alpha by its gradient, then w by its own (the release's order).

        On a GPU the step is recorded and replayed as one CUDA graph.

        Args:
            training: L_train is its loss; drives w.
            validation: L_val is its loss; drives alpha.
            lr: the rate of w.

        Returns:
            This rank's part of three sums over the clips of the whole batch: L_train at the new
            alpha and the old w, clips that were recognised there, and L_val.
        """
        self._lr.fill_(lr)
        return self._take_step(training, validation)

    def _step(self, training: Batch, validation: Batch) -> Tensor:
        gradient = self.architecture_gradient(training, validation)
        for alpha, alpha_gradient in zip(self.alphas, gradient.alphas, strict=True):
            alpha.grad = alpha_gradient
        self.alpha_optimizer.step()

        logits = self._logits(training, None, self.settings.precision)
        loss = F.cross_entropy(logits, training.labels) * training.share
        (slope,) = gradients(loss, [self.weights])
        self.weight_optimizer.step(slope, self._lr)

        hits = (logits.detach().argmax(1) == training.labels).sum()
        count = round(len(training.labels) / training.share)  # on all ranks
        return torch.stack([loss.detach() * count, hits, gradient.validation_loss * count])

    def architecture_gradient(
        self, training: Batch, validation: Batch, lr: float | Tensor | None = None
    ) -> architect.ArchitectureGradient:
        """Compute the gradient of alpha in the order that the settings ask for.

        The rate of the virtual step is that of the last step, if no other is given.
        """
        settings = self.settings
        train, validate = partial(self._loss, training), partial(self._loss, validation)
        if settings.order == "first":
            return architect.first_order(validate, self.weights, self.alphas)
        rate = self._lr if lr is None else lr
        step = architect.VirtualStep(rate, self.weight_optimizer.direction)
        problem = train, validate, self.weights, self.alphas, step
        if settings.hessian == "exact":
            return architect.second_order_exact(*problem)
        perturbed = partial(self._loss, training, precision="fp32")
        return architect.second_order(*problem, settings.perturbation, perturbed)

    def _loss(
        self,
        batch: Batch,
        weights: Sequence[Tensor] | None = None,
        precision: Precision | None = None,
    ) -> Tensor:
        """Evaluate this rank's part of the loss of a batch.

        At the supernet's weights and in the precision of the settings, if no other are given.
        """
        logits = self._logits(batch, weights, precision or self.settings.precision)
        return F.cross_entropy(logits, batch.labels) * batch.share

    def _logits(
        self, batch: Batch, weights: Sequence[Tensor] | None, precision: Precision
    ) -> Tensor:
        with devices.autocast(precision, batch.x.device):
            if weights is None:
                logits: Tensor = self.supernet(batch.x)
            else:
                named = dict(zip(self.weight_optimizer.names, weights, strict=True))
                logits = functional_call(self.supernet, named, batch.x)
        return logits.to(self.alphas[0].dtype)
