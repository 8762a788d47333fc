"""Shared parts of the baselines: input shape, persons and dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Shape:
    """The data that a baseline is built for.

    Attributes:
        channels: C.
        joints: V of one person.
        persons: M; their joints are concatenated in the input.
        classes: width of the classifier.
        bones: pairs of connected joints, needed if the baseline `needs_bones`.
    """

    channels: int
    joints: int
    persons: int
    classes: int
    bones: tuple[tuple[int, int], ...] = ()


class Dropout(nn.Module):
    """Zero values at random in training, and scale the others up.

    Attributes:
        generators: one for each clip, so that a clip's draw does not depend on the other clips of
            the batch; if empty, PyTorch's global generator is used.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generators: list[torch.Generator] = []

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, ...] or [N x M, ...] to the same shape; the persons of a clip are consecutive."""
        if not self.training or not self.generators:
            return F.dropout(x, self.probability, self.training)
        keep = 1 - self.probability
        shape = (len(x) // len(self.generators), *x.shape[1:])
        masks = [torch.rand(shape, device=x.device, generator=g) < keep for g in self.generators]
        return x * torch.cat(masks) / keep


class Baseline(nn.Module):
    """A network that was not searched: maps clips [N, C, T, M x V] to logits [N, classes].

    Subclasses set `classifier`, their last layer.

    Attributes:
        needs_bones: whether it needs a cache with bones.
        highest_lr: learning rate that a recipe's is capped at, where a higher one does not train.
    """

    classifier: nn.Linear
    needs_bones: ClassVar[bool] = False
    highest_lr: ClassVar[float] = math.inf

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    @property
    def num_classes(self) -> int:
        """Width of the classifier."""
        return self.shape.classes

    def split_persons(self, x: Tensor) -> Tensor:
        """Map [N, C, T, M x V] to [N x M, C, T, V]; the persons of a clip are consecutive."""
        x = x.reshape(*x.shape[:3], self.shape.persons, self.shape.joints)  # [N, C, T, M, V]
        return x.permute(0, 3, 1, 2, 4).flatten(0, 1)  # [N, M, C, T, V] -> [N x M, C, T, V]

    def join_persons(self, x: Tensor) -> Tensor:
        """Map [N x M, ...] to [N, M, ...]."""
        return x.reshape(-1, self.shape.persons, *x.shape[1:])

    def draw_dropout(self, num_clips: int, generator: torch.Generator, rank_slice: slice) -> None:
        """Draw the seeds of the next batch's dropout.

        Args:
            num_clips: of the batch, on all ranks.
            generator: on the CPU.
            rank_slice: the clips of this rank.
        """
        device = self.classifier.weight.device
        seeds = torch.randint(LARGEST_SEED, (num_clips,), generator=generator)[rank_slice]
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generators = generators
