"""What the baselines share: the shape of their data, their persons, and dropout."""

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
    """What a baseline is made for.

    Attributes:
        channels: C, numbers of a joint.
        joints: V of one person.
        persons: M, whose joints lie side by side in the input.
        classes: width of the classifier.
        bones: pairs of joints that are joined; needed by those that say so.
    """

    channels: int
    joints: int
    persons: int
    classes: int
    bones: tuple[tuple[int, int], ...] = ()


class Dropout(nn.Module):
    """Zero numbers at random while training, and scale the others up.

    Attributes:
        generators: one for each clip, so that what is drawn for a clip does not depend on the
            clips beside it; without any, PyTorch's own is drawn from.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generators: list[torch.Generator] = []

    def forward(self, x: Tensor) -> Tensor:
        """Map [N or N x M, ...] to the same shape; the persons of a clip follow each other."""
        if not self.training or not self.generators:
            return F.dropout(x, self.probability, self.training)
        keep = 1 - self.probability
        shape = (len(x) // len(self.generators), *x.shape[1:])
        kept = [torch.rand(shape, device=x.device, generator=own) < keep for own in self.generators]
        return x * torch.cat(kept) / keep


class Baseline(nn.Module):
    """A network that was not searched: clips [N, C, T, M x V] to logits [N, classes].

    Subclasses make `classifier`, their last layer.

    Attributes:
        needs_bones: whether a cache without bones will not do.
        highest_lr: rate that a recipe's is lowered to, where at that it does not learn.
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
        """Map [N, C, T, M x V] to [N x M, C, T, V], the persons of a clip one after the other."""
        of_person = x.reshape(*x.shape[:3], self.shape.persons, self.shape.joints)
        return of_person.permute(0, 3, 1, 2, 4).flatten(0, 1)

    def join_persons(self, x: Tensor) -> Tensor:
        """Map [N x M, ...] to [N, M, ...]."""
        return x.reshape(-1, self.shape.persons, *x.shape[1:])

    def draw_dropout(self, num_clips: int, generator: torch.Generator, share: slice) -> None:
        """Settle what is dropped in the next batch.

        Args:
            num_clips: of the batch.
            generator: of the CPU.
            share: which of the clips this network will see.
        """
        device = self.classifier.weight.device
        seeds = torch.randint(LARGEST_SEED, (num_clips,), generator=generator)[share]
        own = [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generators = own
