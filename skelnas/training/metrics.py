"""What scores say about labelled clips: accuracy, confusion, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CALIBRATION_BINS = 15
"""Of equal width, for the expected calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Metrics:
    """What logits say about labelled clips. Shares are from 0 to 1.

    Attributes:
        top1, top5: share of clips whose class is the first, or one of the first five.
        mean_class: mean over the classes that occur of each class' top-1.
        confusion: [classes, classes] counts; row is the true class, column the predicted.
        nll: mean of -log of the share that the softmax gives to the true class.
        ece: see `calibration_error`.
    """

    top1: float
    top5: float
    mean_class: float
    confusion: NDArray[np.int64]
    nll: float
    ece: float

    @property
    def per_class(self) -> list[float | None]:
        """Top-1 of each class, None for a class without clips."""
        counts = self.confusion.sum(axis=1)
        hits = self.confusion.diagonal()
        return [float(h / n) if n else None for h, n in zip(hits, counts, strict=True)]


def measure(logits: Tensor, labels: Tensor) -> Metrics:
    """Compute metrics from logits [N, classes] and labels [N].

    Of equal logits the lower class counts as higher, so that results do not depend on the device.
    """
    num_classes = logits.shape[1]
    ranked = logits.argsort(dim=1, descending=True, stable=True)
    hit = ranked == labels[:, None]
    log_shares = logits.double().log_softmax(dim=1)
    confidence = log_shares.max(dim=1).values.exp()
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels.numpy(), ranked[:, 0].numpy()), 1)
    present = confusion.sum(axis=1) > 0
    per_class = confusion.diagonal()[present] / confusion.sum(axis=1)[present]
    return Metrics(
        top1=hit[:, :1].any(1).float().mean().item(),
        top5=hit[:, :5].any(1).float().mean().item(),
        mean_class=float(per_class.mean()),
        confusion=confusion,
        nll=-log_shares.gather(1, labels[:, None]).mean().item(),
        ece=calibration_error(confidence, hit[:, 0]),
    )


def calibration_error(confidence: Tensor, hit: Tensor) -> float:
    """Compute the expected calibration error (Guo et al. 2017, Eq. 3), from 0 to 1.

    Clips are put into bins ((b - 1) / B, b / B] by their confidence. The error is the mean over
    the clips of |share of hits in the bin - mean confidence in the bin|.

    Args:
        confidence: [N] float64, share that the softmax gives to the predicted class.
        hit: [N] bool, whether that is the true class.
    """
    bins = (confidence * CALIBRATION_BINS).ceil().long().sub(1).clamp(0, CALIBRATION_BINS - 1)
    excess = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    excess.index_add_(0, bins, hit.double() - confidence)
    return float(excess.abs().sum() / len(hit))
