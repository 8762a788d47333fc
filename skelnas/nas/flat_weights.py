"""All weights of a network in one tensor, and SGD on it.

A second-order step moves the weights five times: to the virtual step, to either side for the
finite difference, back, and down the gradient. On one tensor each of these is a single operation
instead of one for each of the supernet's 807 weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from skelnas.runtime import distributed


class FlatWeights:
    """Tensors that share one flat buffer.

    Args:
        tensors: leaves of one dtype on one device; they become views of `values` and keep their
            numbers.

    Attributes:
        tensors: as given.
        values: [n], tensor after tensor, each in channels-last order.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self.values = self.join([tensor.detach() for tensor in tensors])
        for tensor, view in zip(self.tensors, self.split(self.values), strict=True):
            tensor.data = view

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return tensors of these shapes as one [n], in the order of `values`."""
        return torch.cat([_channels_last(tensor).flatten() for tensor in tensors])

    def split(self, values: Tensor) -> list[Tensor]:
        """Return views of an [n] in the shapes of the tensors; the inverse of `join`."""
        pieces = torch.split(values, [tensor.numel() for tensor in self.tensors])
        return [
            _channels_first(piece.view(_channels_last(tensor).shape))
            for piece, tensor in zip(pieces, self.tensors, strict=True)
        ]


def gradients(
    loss: Tensor, inputs: Sequence[Tensor | FlatWeights], create_graph: bool = False
) -> list[Tensor]:
    """Differentiate a loss, summed over all ranks, by each input.

    The gradient of `FlatWeights` is one [n]; that of an input the loss does not depend on is 0.
    No ``.grad`` is read or written.
    """
    leaves = [x.tensors if isinstance(x, FlatWeights) else [x] for x in inputs]
    flat = iter(
        torch.autograd.grad(
            loss,
            [leaf for group in leaves for leaf in group],
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    grouped = [[next(flat) for _ in group] for group in leaves]
    return distributed.all_reduce(
        [
            x.join(group) if isinstance(x, FlatWeights) else group[0]
            for x, group in zip(inputs, grouped, strict=True)
        ]
    )


class FlatSGD:
    """SGD with momentum, weight decay and gradient clipping.

    A step is ``v <- momentum * v + g + weight_decay * w``, ``w <- w - lr * v``, as in PyTorch.

    Args:
        weights: the weights to update.
        names: of the tensors in `weights`, for checkpoints.
        momentum, weight_decay: as above.
        clip: maximum norm of g over all weights.
    """

    def __init__(
        self,
        weights: FlatWeights,
        names: Sequence[str],
        *,
        momentum: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self.weights = weights
        self.names = tuple(names)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.clip = clip
        self.velocity = torch.zeros_like(weights.values)

    def direction(self, grad_w: Tensor, w: Tensor) -> Tensor:
        """Return the next v for an unclipped gradient: what a step takes from w, over the rate.

        Args:
            grad_w: [n].
            w: [n].
        """
        decayed = torch.add(grad_w, w, alpha=self.weight_decay)
        return torch.add(decayed, self.velocity, alpha=self.momentum)

    def step(self, grad_w: Tensor, lr: float | Tensor) -> None:
        """Update the weights in place."""
        norm = torch.linalg.vector_norm(grad_w)
        clipped = grad_w * (self.clip / (norm + 1e-6)).clamp(max=1.0)
        self.velocity.copy_(self.direction(clipped, self.weights.values))
        self.weights.values.sub_(self.velocity * lr)

    def tensors(self) -> dict[str, Tensor]:
        """Return the momentum buffer as views by weight name, as a checkpoint stores it."""
        views = self.weights.split(self.velocity)
        return {f"{n}/momentum_buffer": v for n, v in zip(self.names, views, strict=True)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the momentum buffer.

        Raises:
            KeyError, ValueError: it belongs to other weights.
        """
        views = self.tensors()
        if tensors.keys() != views.keys():
            raise KeyError(sorted(tensors.keys() ^ views.keys())[0])
        for name, view in views.items():
            if tensors[name].shape != view.shape:
                raise ValueError(f"{name} has the shape {list(tensors[name].shape)}")
            view.copy_(tensors[name])


def _channels_last(tensor: Tensor) -> Tensor:
    # [O, I, H, W] -> [O, H, W, I]
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def _channels_first(tensor: Tensor) -> Tensor:
    # [O, H, W, I] -> [O, I, H, W]
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor
