"""A node that edges leave, and what they share."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from skelnas.engine.fused.images import every_second, size_of, to_image, to_rows


class Node:
    """A source of edges: what their operations see of it, and the gradients of that.

    Args:
        image: [N, C, T, V], channels-last.
        stride: of the operations on the edges that leave it.
    """

    def __init__(self, image: Tensor, stride: int) -> None:
        self.image = image
        self.stride = stride
        self._gradients: dict[str, Tensor] = {}

    @cached_property
    def rows(self) -> Tensor:
        """The image as [P, C]."""
        return to_rows(self.image)

    @cached_property
    def relu(self) -> Tensor:
        """The image after ReLU."""
        return self.image.relu()

    @cached_property
    def halved(self) -> Tensor:
        """Every second pixel of the image after ReLU."""
        return every_second(self.relu)

    @cached_property
    def edge_size(self) -> tuple[int, int, int]:
        """N, T and V at the other end of its edges."""
        n, t, v = size_of(self.image)
        return n, -(-t // self.stride), -(-v // self.stride)

    def receive(self, view: str, gradient: Tensor) -> None:
        """Add to the gradient, as rows, of ``image``, ``relu`` or ``halved``; may keep it."""
        if view in self._gradients:
            self._gradients[view].add_(gradient)
        else:
            self._gradients[view] = gradient

    def gradient(self) -> Tensor:
        """Return the gradient of the image, as rows, from those of all three views."""
        gradients = self._gradients
        total = gradients.get("image")
        if "halved" in gradients:
            if "relu" not in gradients:
                gradients["relu"] = torch.zeros_like(self.rows)
            every = to_image(gradients["relu"], size_of(self.image))[:, :, ::2, ::2]
            every += to_image(gradients["halved"], size_of(self.halved))
        if "relu" in gradients:
            through = torch.ops.aten.threshold_backward(gradients["relu"], self.rows, 0)
            total = through if total is None else total.add_(through)
        return torch.zeros_like(self.rows) if total is None else total
