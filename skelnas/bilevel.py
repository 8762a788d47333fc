"""One step of the bilevel search, Eqs. (1) and (2): alpha by the architect, then w by SGD."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from skelnas import architect, devices
from skelnas.batches import Batch
from skelnas.config import Precision, SearchSettings
from skelnas.job import descend
from skelnas.models.supernet import Supernet

ALPHA_BETAS = (0.5, 0.999)
"""Adam's decay rates for alpha (authors' release)."""


class Bilevel:
    """A supernet and what moves its weights and its alphas.

    Args:
        supernet: on its device; changed in place by every step.
        settings: rates, order and precision.

    Attributes:
        weight_names, weights, weight_optimizer: w and its SGD.
        alphas, alpha_optimizer: alpha, of the normal and the reduction cell, and its Adam.
    """

    def __init__(self, supernet: Supernet, settings: SearchSettings) -> None:
        self.supernet = supernet
        self.settings = settings
        self.weight_names, self.weights = zip(*supernet.named_weights(), strict=True)
        self.alphas = list(supernet.alphas.values())
        self.weight_optimizer = torch.optim.SGD(
            self.weights,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas,
            lr=settings.alpha_lr,
            betas=ALPHA_BETAS,
            weight_decay=settings.alpha_weight_decay,
        )

    def step(self, training: Batch, validation: Batch, lr: float) -> Tensor:
        """Move alpha by its gradient, then w by its own (the release's order).

        Args:
            training: L_train is its loss; drives w.
            validation: L_val is its loss; drives alpha.
            lr: the rate of w.

        Returns:
            This rank's part of three sums over the clips of the whole batch: L_train at the new
            alpha and the old w, clips that were recognised there, and L_val.
        """
        gradient = self.architecture_gradient(training, validation, lr)
        for alpha, alpha_gradient in zip(self.alphas, gradient.alphas, strict=True):
            alpha.grad = alpha_gradient
        self.alpha_optimizer.step()

        logits = self._logits(training, None, self.settings.precision)
        loss = F.cross_entropy(logits, training.labels) * training.share
        descend(self.weight_optimizer, loss, lr, self.settings.grad_clip)

        hits = (logits.detach().argmax(1) == training.labels).sum()
        count = round(len(training.labels) / training.share)  # on all ranks
        return torch.stack([loss.detach() * count, hits, gradient.validation_loss * count])

    def architecture_gradient(
        self, training: Batch, validation: Batch, lr: float
    ) -> architect.ArchitectureGradient:
        """Compute the gradient of alpha in the order that the settings ask for."""
        settings = self.settings
        train, validate = partial(self._loss, training), partial(self._loss, validation)
        if settings.order == "first":
            return architect.first_order(validate, self.weights, self.alphas)
        buffers = [self.weight_optimizer.state[w].get("momentum_buffer") for w in self.weights]
        known = None if buffers[0] is None else buffers
        step = architect.VirtualStep(lr, settings.momentum, known, settings.weight_decay)
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
                named = dict(zip(self.weight_names, weights, strict=True))
                logits = functional_call(self.supernet, named, batch.x)
        return logits.to(self.alphas[0].dtype)
