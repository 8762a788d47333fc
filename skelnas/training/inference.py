"""Scoring clips with a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skelnas.config import Precision
from skelnas.data.dataset import Dataset
from skelnas.data.sampling import TemporalCrop
from skelnas.errors import DeviceError, NotFinite, shown
from skelnas.models.branches import AnyNetwork
from skelnas.models.onnx_network import OnnxNetwork
from skelnas.runtime import devices, distributed
from skelnas.runtime.devices import AnySettings

VIEW_LENGTH = 0.9
"""Length of each of several views, as a fraction of the clip (ours)."""


def choose_device(
    network: AnyNetwork | OnnxNetwork, settings: AnySettings
) -> tuple[torch.device, AnySettings]:
    """Return the device to score on, and the settings with the precision that 'auto' means there.

    Raises:
        DeviceError: the device is missing, or does not support the precision; or it is not the CPU,
            on which ONNX Runtime computes in float32.
    """
    if isinstance(network, OnnxNetwork):
        for option, value, possible in (
            ("device", settings.device, "cpu"),
            ("precision", settings.precision, "fp32"),
        ):
            if value not in ("auto", possible):
                raise DeviceError(
                    f"--{option} {value}: ONNX Runtime computes on the CPU, in float32",
                    hint="the model folder that was exported can be used on other devices",
                )
        settings = settings.model_copy(update={"device": "cpu", "precision": "fp32"})
    device = devices.choose(settings)
    return device, devices.resolve_precision(settings, device)


@torch.no_grad()
def score(
    network: AnyNetwork | OnnxNetwork,
    dataset: Dataset,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
    precision: Precision = "fp32",
    views: int = 1,
) -> Tensor:
    """Return the logits [N, classes] of every clip of a dataset, in order, on the CPU.

    The ranks score whole batches in turn, so that batches are the same as in a single process.

    Args:
        network: left in the mode, training or evaluation, that it was in.
        dataset: the clips.
        batch_size: clips per batch.
        advance: called with the number of clips that were just scored.
        precision: of the forward pass.
        views: of each clip, see `temporal_crops`. For several, the result is the logarithm of
            their mean softmax probabilities.
    """
    distributed.check_same([dataset.labels], "before scoring")
    was_training = network.training
    network.eval()
    logits = torch.zeros(len(dataset), network.num_classes)
    batches = torch.split(torch.arange(len(dataset)), batch_size)
    ranks = distributed.world_size()
    try:
        for start in range(0, len(batches), ranks):
            turn = batches[start : start + ranks]  # a batch for each rank, fewer at the end
            for indices in turn[distributed.rank() :][:1]:
                logits_of_views = []
                for crop in temporal_crops(views):
                    x = dataset.batch(indices, crop=crop).x
                    with devices.autocast(precision, dataset.device):
                        logits_of_views.append(network(x).float())
                logits[indices] = _mean(logits_of_views).cpu()
            advance(sum(map(len, turn)))
    finally:
        network.train(was_training)
    return distributed.all_reduce([logits])[0]


def check_finite(logits: Tensor, names: Sequence[str], model: str = "the model") -> None:
    """Check the scores of a finished model; those of a training tell that it diverges.

    Args:
        logits: [N, classes].
        names: of the N clips.
        model: for the message.

    Raises:
        NotFinite: names the first clip with a logit that is not finite.
    """
    is_finite = logits.isfinite().all(1)
    if not is_finite.all():
        name = names[int(is_finite.logical_not().nonzero()[0])]
        raise NotFinite(
            f"{model}: its scores of {shown(name)} are not finite",
            hint="its training has diverged, or its weights are damaged; train it again, perhaps "
            "with a smaller --lr",
        )


def temporal_crops(views: int) -> list[TemporalCrop | None]:
    """Return the crop of a clip that each view shows.

    A single view shows the whole clip (None); several show nine tenths of it, evenly spaced from
    start to end (ours).
    """
    if views == 1:
        return [None]
    return [TemporalCrop(VIEW_LENGTH, view / (views - 1)) for view in range(views)]


def _mean(logits: list[Tensor]) -> Tensor:
    """Return the log of the mean softmax probabilities; the logits of a single view unchanged."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack(logits).log_softmax(2).logsumexp(0) - math.log(len(logits))
