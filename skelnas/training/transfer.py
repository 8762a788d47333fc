"""Starting from a model of other joints or channels: what of it is taken over.

Cells share their weights over all joints, so they fit any number of them. What a convolution sees
beside a joint depends on the order of the joints, so those that the model knows by name come first,
in its order. Only the stem reads channels: each keeps its weights by its name. The normalisation of
the input, which has no parameters, is measured on the clips.

Shapes: N clips, C input channels, T frames, V joints, W channels of the stem.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from skelnas.data.dataset import Dataset
from skelnas.data.readers.base import Layout
from skelnas.data.sides import standard_name
from skelnas.data.streams import branch_channels, num_spatial
from skelnas.errors import InputError
from skelnas.models.branches import AnyNetwork, Branches, parts
from skelnas.models.norm import JointNorm
from skelnas.runtime.console import note
from skelnas.training.card import ModelCard

NO_NAME = re.compile(r"joint ?\d+")
"""Standard name of a joint that has none: its number says nothing about other layouts."""

MEASURING_BATCH_SIZE = 64


def order_like_model(data: Layout, card: ModelCard, where: str) -> list[int]:
    """Return the joints of data with those first that a model knows, in its order; and say which.

    Args:
        data: the layout of the clips.
        card: of the model.
        where: the option that names the model, for messages.

    Raises:
        InputError: the model's weights are for its joints alone, or fewer than half of the joints
            of the smaller layout have a name in both.
    """
    if fixed := card.find_what_fixes_joints():
        raise InputError(
            f"{where}: {fixed} has weights for each of its {len(card.joints)} joints, and takes no "
            "others",
            hint="cells without operations that mix joints learn other joints and channels",
        )
    index = {standard_name(name): number for number, name in enumerate(data.joints)}
    names = list(map(standard_name, card.joints))
    shared = [index[name] for name in names if name in index and not NO_NAME.fullmatch(name)]
    least = -(-min(len(names), len(index)) // 2)
    if len(shared) < least:
        raise InputError(
            f"{where}: {len(shared)} of the {len(data.joints)} joints are among its "
            f"{len(card.joints)} by name, expected {least} or more",
            hint="`skelnas layouts` lists the names of joints; prepare --joints gives them",
        )
    others = [number for number in range(len(data.joints)) if number not in shared]
    unknown = f", not {_shorten([data.joints[number] for number in others])}" if others else ""
    num_missing = len(names) - len(shared)
    missing = f"; {num_missing} of its {len(names)} are not here" if num_missing else ""
    note(f"{where}: knows {len(shared)} of the {len(data.joints)} joints{unknown}{missing}")
    return [*shared, *others]


def note_channels(data: Layout, model: Layout, where: str) -> None:
    """Say which channels the model has weights for."""
    new = [name for name in data.channels if name not in model.channels]
    unused = [name for name in model.channels if name not in data.channels]
    texts = [f"{', '.join(new)} has weights that start at 0"] if new else []
    texts += [f"its weights for {', '.join(unused)} are left out"] if unused else []
    if data.y_down != model.y_down:
        texts.append("its weights for y are negated, since y grows in the other direction")
    if texts:
        note(f"{where}: {'; '.join(texts)}")


def fit_weights(
    state: dict[str, Tensor], old: ModelCard, new: ModelCard
) -> tuple[dict[str, Tensor], int]:
    """Fit the weights of a model to other joints and channels.

    Args:
        state: of the model.
        old, new: cards of the model and of the network to be trained.

    Returns:
        The weights without statistics of the input, with a stem for the new channels; and how many
        of them start at 0, since the model has none like them.
    """
    assert old.layout is not None
    assert new.layout is not None
    fitted = {name: value for name, value in state.items() if "input_norm" not in name.split(".")}
    y_sign = 1 if old.layout.y_down == new.layout.y_down else -1
    num_new = 0
    inputs = zip(_name_inputs(old, old.layout), _name_inputs(new, new.layout), strict=True)
    for number, (old_names, new_names) in enumerate(inputs):
        key = f"networks.{number}.stem.0.weight" if old.branches else "stem.0.weight"
        weight = state[key]  # [W, C, 3, 3]
        fitted[key] = weight.new_zeros(len(weight), len(new_names), *weight.shape[2:])
        for channel, name in enumerate(new_names):
            if name in old_names:
                sign = y_sign if name.endswith(" y") else 1
                fitted[key][:, channel] = sign * weight[:, old_names.index(name)]
            else:
                num_new += fitted[key][:, channel].numel()
    return fitted, num_new


def _name_inputs(card: ModelCard, layout: Layout) -> list[list[str]]:
    """Return the names of the input channels of each part of a network, such as "bone y"."""
    streams, size = card.make_clip_settings().streams, num_spatial(layout)
    names = [f"{stream} {axis}" for stream in streams.split(",") for axis in layout.channels[:size]]
    names += layout.channels[size:]
    channels = branch_channels(streams, layout) if card.branches else [list(range(len(names)))]
    return [[names[index] for index in indices] for indices in channels]


@torch.no_grad()
def measure_inputs(network: AnyNetwork, dataset: Dataset) -> None:
    """Set the statistics of the input's normalisation to those of all clips.

    Each of several ranks has them all.
    """
    mean, variance = _measure(dataset)  # [C, V] each
    channels = (
        network.channels if isinstance(network, Branches) else [list(range(dataset.shape[0]))]
    )
    for part, indices in zip(parts(network), channels, strict=True):
        norm = getattr(part, "input_norm", None)
        if isinstance(norm, JointNorm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean[indices].flatten())
            norm.running_var.copy_(variance[indices].flatten())


def _measure(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of each channel of each joint over all clips, [C, V]."""
    num_channels, num_frames, num_joints = dataset.shape
    count = len(dataset) * num_frames
    batches = torch.split(torch.arange(len(dataset)), MEASURING_BATCH_SIZE)
    total = torch.zeros(num_channels, num_joints, dtype=torch.float64)
    for batch in batches:
        total += dataset.batch(batch).x.double().sum((0, 2)).cpu()
    mean = total / count
    squares = torch.zeros_like(mean)
    for batch in batches:
        rest = dataset.batch(batch).x.double().cpu() - mean[:, None]  # [N, C, T, V]
        squares += rest.square().sum((0, 2))
    return mean, squares / max(count - 1, 1)


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} others" if len(names) > 5 else ""
    return ", ".join(names[: 4 if more else 5]) + more
