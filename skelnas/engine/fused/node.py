"""A source of edges, with the work that its edges share."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from skelnas.engine.fused.images import every_second, size_of, to_image, to_rows


class Node:
    """A source of edges: the views of its image that operations read, and their gradients.

    Args:
        image: [N, C, T, V], channels-last.
        stride: of the operations on its outgoing edges.
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

    def add_gradient(self, view: str, gradient: Tensor) -> None:
        """Add to the gradient of ``image``, ``relu`` or ``halved``.

        Args:
            view: one of the three.
            gradient: [P, C]; the node takes it over and may change it in place.
        """
        if view in self._gradients:
            self._gradients[view].add_(gradient)
        else:
            self._gradients[view] = gradient

    def gradient(self) -> Tensor:
        """Return the gradient [P, C] of the image, from those of all three views."""
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
