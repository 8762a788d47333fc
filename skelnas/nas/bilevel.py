"""One step of the bilevel search (Paper: Eqs. (1) and (2)): alpha by the architect, then w by SGD.

On a GPU the step is recorded once as a CUDA graph and replayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from skelnas.config import Precision, SearchSettings
from skelnas.data.dataset import Batch
from skelnas.errors import first_line, is_out_of_memory
from skelnas.nas import architect
from skelnas.nas.alpha_updates import make_alpha_optimizer
from skelnas.nas.cost_term import CostTerm
from skelnas.nas.flat_weights import FlatSGD, FlatWeights, gradients
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import note

Step = Callable[..., Tensor]
"""Learns from one or two batches."""

BatchShapes = tuple[tuple[torch.Size, int], ...]
"""Shape of each batch on this rank, and the clips of the batch on all ranks."""

NUM_WARMUP_STEPS = 3
"""Steps per batch shape before recording: libraries choose their kernels and optimisers create
their state in the first ones (PyTorch's documentation asks for a few)."""


class Bilevel:
    """A supernet and the optimisers of its weights and alphas.

    Args:
        supernet: on its device. Its weights become views of one tensor, changed in place.
        settings: learning rates, order and precision.
        cost_term: part of the alphas' objective, or None.

    Attributes:
        weights, weight_optimizer: w and its SGD.
        alphas, alpha_optimizer: the alphas of the normal and the reduction cell, and their
            optimizer.
    """

    def __init__(
        self, supernet: Supernet, settings: SearchSettings, cost_term: CostTerm | None = None
    ) -> None:
        self.supernet = supernet
        self.cost_term = cost_term
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
        self.alpha_optimizer = make_alpha_optimizer(self.alphas, settings)
        device = self.weights.values.device
        self._lr = torch.zeros((), dtype=self.weights.values.dtype, device=device)
        record = settings.cuda_graphs and device.type == "cuda" and distributed.world_size() == 1
        self._step: Step = CudaGraphStep(self._eager_step) if record else self._eager_step

    def step(self, training: Batch, validation: Batch | None, lr: float) -> Tensor:
        """Update alpha, then w (the release's order).

        Args:
            training: batch of L_train, which drives w.
            validation: batch of L_val, which drives alpha; None leaves alpha as it is.
            lr: learning rate of w.

        Returns:
            [3], this rank's part of sums over the clips of the whole batch: L_train at the new
            alpha and the old w, correctly classified training clips, L_val (0 without a batch).
        """
        self._lr.fill_(lr)
        return self._step(training) if validation is None else self._step(training, validation)

    def _eager_step(self, training: Batch, validation: Batch | None = None) -> Tensor:
        validation_loss = torch.zeros_like(self._lr)
        if validation is not None:
            if self.cost_term is not None:
                self.cost_term.ascend(list(self.supernet.op_weights().values()))
            gradient = self.architecture_gradient(training, validation)
            for alpha, grad_alpha in zip(self.alphas, gradient.alphas, strict=True):
                alpha.grad = grad_alpha
            self.alpha_optimizer.step()
            validation_loss = gradient.validation_loss

        logits = self._logits(training, None, self.settings.precision)  # [N, classes]
        loss = F.cross_entropy(logits, training.labels) * training.fraction
        (grad_w,) = gradients(loss, [self.weights])
        self.weight_optimizer.step(grad_w, self._lr)

        num_correct = (logits.detach().argmax(1) == training.labels).sum()
        num_clips = training.num_clips
        return torch.stack([loss.detach() * num_clips, num_correct, validation_loss * num_clips])

    def architecture_gradient(
        self, training: Batch, validation: Batch, lr: float | Tensor | None = None
    ) -> architect.ArchitectureGradient:
        """Return the gradient of the alphas, of the order and by the method of the settings.

        For the exponentiated update it is the gradient of the operation weights, their softmax.

        Args:
            training: batch of L_train.
            validation: batch of L_val.
            lr: learning rate of the virtual step; None uses that of the last `step`.
        """
        alphas, op_weights = self.alphas, None
        if self.settings.alpha_update == "exponentiated":
            alphas = [alpha.detach().softmax(-1).requires_grad_() for alpha in self.alphas]
            op_weights = dict(zip(self.supernet.alphas, alphas, strict=True))
        gradient = self._loss_gradient(training, validation, alphas, op_weights, lr)
        if self.cost_term is None:
            return gradient
        weights = list((op_weights or self.supernet.op_weights()).values())
        pairs = zip(gradient.alphas, self.cost_term.gradients(weights, alphas), strict=True)
        return replace(gradient, alphas=[of_loss + of_cost for of_loss, of_cost in pairs])

    def _loss_gradient(
        self,
        training: Batch,
        validation: Batch,
        alphas: list[Tensor],
        op_weights: Mapping[str, Tensor] | None,
        lr: float | Tensor | None,
    ) -> architect.ArchitectureGradient:
        """Return the gradient of L_val by the alphas or, where these are given, the op weights."""
        settings = self.settings
        training_loss = partial(self._loss, training, op_weights=op_weights)
        validation_loss = partial(self._loss, validation, op_weights=op_weights)
        if settings.order == "first":
            return architect.first_order(validation_loss, self.weights, alphas)
        virtual_step = architect.VirtualStep(
            lr=self._lr if lr is None else lr, direction=self.weight_optimizer.direction
        )
        if settings.hessian == "exact":
            return architect.second_order_exact(
                training_loss=training_loss,
                validation_loss=validation_loss,
                weights=self.weights,
                alphas=alphas,
                step=virtual_step,
            )
        return architect.second_order(
            training_loss=training_loss,
            validation_loss=validation_loss,
            weights=self.weights,
            alphas=alphas,
            step=virtual_step,
            perturbation=settings.perturbation,
            perturbed_loss=partial(training_loss, precision="fp32"),
        )

    def _loss(
        self,
        batch: Batch,
        weights: Sequence[Tensor] | None = None,
        precision: Precision | None = None,
        op_weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return this rank's part of the loss of a batch.

        Args:
            batch: the clips.
            weights: None uses the supernet's.
            precision: None uses that of the settings.
            op_weights: None uses the softmax of the alphas.
        """
        logits = self._logits(batch, weights, precision or self.settings.precision, op_weights)
        return F.cross_entropy(logits, batch.labels) * batch.fraction

    def _logits(
        self,
        batch: Batch,
        weights: Sequence[Tensor] | None,
        precision: Precision,
        op_weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        with devices.autocast(precision, batch.x.device):
            if weights is None:
                logits: Tensor = self.supernet(batch.x, op_weights)
            else:
                named = dict(zip(self.weight_optimizer.names, weights, strict=True))
                logits = functional_call(self.supernet, named, (batch.x, op_weights))
        return logits.to(self.alphas[0].dtype)  # [N, classes]


class CudaGraphStep:
    """A training step that is recorded as a CUDA graph, one for each shape of its batches.

    The first steps of a shape run eagerly; later ones replay the graph. All of them learn. If
    recording fails, a note says why and the steps stay eager.

    Args:
        step: reads and changes tensors whose addresses stay the same; never synchronises.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._num_warmup_steps: Counter[BatchShapes] = Counter()
        self._graphs: dict[BatchShapes, _CudaGraph] = {}
        self._can_record = True

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """The stream of rehearsals and recordings: libraries keep workspaces for each stream."""
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, *batches: Batch) -> Tensor:
        """Take one step."""
        shapes = tuple((batch.x.shape, batch.num_clips) for batch in batches)
        if shapes in self._graphs:
            return self._graphs[shapes].replay(batches)
        if not self._can_record or self._num_warmup_steps[shapes] < NUM_WARMUP_STEPS:
            self._num_warmup_steps[shapes] += 1
            return on_side_stream(self._step, batches, self._stream)
        try:
            self._graphs[shapes] = _CudaGraph(self._step, batches, self._stream)
        except Exception as error:  # those of Triton are not RuntimeErrors
            if is_out_of_memory(error):
                raise
            self._can_record = False
            note(
                "the step cannot be recorded as a CUDA graph and runs eagerly: "
                f"{type(error).__name__}: {first_line(error)}"
            )
        return self(*batches)


class _CudaGraph:
    """One recorded step and the tensors it reads its batches from."""

    def __init__(self, step: Step, batches: Sequence[Batch], stream: torch.cuda.Stream) -> None:
        self._inputs = [Batch(b.x.clone(), b.labels.clone(), b.num_clips) for b in batches]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):  # records; computes nothing
            self._output = step(*self._inputs)

    def replay(self, batches: Sequence[Batch]) -> Tensor:
        """Take the recorded step on batches of the same shapes."""
        for recorded, batch in zip(self._inputs, batches, strict=True):
            recorded.x.copy_(batch.x)
            recorded.labels.copy_(batch.labels)
        self._graph.replay()
        return self._output.clone()


def on_side_stream(step: Step, batches: Sequence[Batch], stream: torch.cuda.Stream) -> Tensor:
    """Take a step on a side stream, as CUDA requires of the steps before a recording."""
    main = torch.cuda.current_stream()
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        output = step(*batches)
    main.wait_stream(stream)
    return output
