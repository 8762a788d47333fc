"""Metrics of logits on labelled clips: accuracy, confusion, calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CALIBRATION_BINS = 15
"""Bins of equal width of the expected calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of logits on labelled clips. Accuracies are fractions from 0 to 1.

    Attributes:
        top1, top5: fraction of clips whose class is ranked first, or among the first five.
        mean_class: mean of the per-class top-1 over the classes that occur.
        confusion: [classes, classes] counts; rows are true classes, columns predicted ones.
        nll: mean negative log-likelihood of the true class.
        ece: see `calibration_error`.
    """

    top1: float
    top5: float
    mean_class: float
    confusion: NDArray[np.int64] = field(repr=False)
    nll: float
    ece: float

    @property
    def per_class(self) -> list[float | None]:
        """Top-1 of each class; None for a class without clips."""
        counts = self.confusion.sum(axis=1)
        hits = self.confusion.diagonal()
        return [float(h / n) if n else None for h, n in zip(hits, counts, strict=True)]


def measure(logits: Tensor, labels: Tensor) -> Metrics:
    """Compute metrics from logits [N, classes] and labels [N].

    Ties are broken in favour of the lower class index, so that results do not depend on the device.
    """
    num_classes = logits.shape[1]
    ranked = logits.argsort(dim=1, descending=True, stable=True)
    hit = ranked == labels[:, None]
    log_probabilities = logits.double().log_softmax(dim=1)
    confidence = log_probabilities.max(dim=1).values.exp()
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels.numpy(), ranked[:, 0].numpy()), 1)
    present = confusion.sum(axis=1) > 0
    per_class = confusion.diagonal()[present] / confusion.sum(axis=1)[present]
    return Metrics(
        top1=hit[:, :1].any(1).float().mean().item(),
        top5=hit[:, :5].any(1).float().mean().item(),
        mean_class=float(per_class.mean()),
        confusion=confusion,
        nll=-log_probabilities.gather(1, labels[:, None]).mean().item(),
        ece=calibration_error(confidence, hit[:, 0]),
    )


def calibration_error(confidence: Tensor, hit: Tensor) -> float:
    """Compute the expected calibration error (Guo et al. 2017, Eq. 3), from 0 to 1.

    Clips are put into bins ((b - 1) / B, b / B] by their confidence. The error is the mean over
    the clips of |accuracy in the clip's bin - mean confidence in the clip's bin|.

    Args:
        confidence: [N] float64, softmax probability of the predicted class.
        hit: [N] bool, whether the predicted class is the true one.
    """
    bins = (confidence * CALIBRATION_BINS).ceil().long().sub(1).clamp(0, CALIBRATION_BINS - 1)
    excess = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    excess.index_add_(0, bins, hit.double() - confidence)
    return float(excess.abs().sum() / len(hit))
