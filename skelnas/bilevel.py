"""One step of the bilevel search, Eqs. (1) and (2): alpha by the architect, then w by SGD."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from skelnas import architect, devices, parallel
from skelnas.batches import Batch
from skelnas.config import Precision, SearchSettings
from skelnas.flat import FlatSGD, FlatWeights, gradients
from skelnas.graphs import Recorded
from skelnas.models.supernet import Supernet

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
        alone = parallel.world_size() == 1
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
