"""All weights of a network side by side in one tensor, and steps in it.

A search moves its weights five times a step: to the virtual step, to both sides for the
difference, back, and down. In one tensor each of these is one operation, not one for each of the
supernet's 807 weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from skelnas.runtime import distributed


class FlatWeights:
    """Tensors that lie in one.

    Args:
        tensors: leaves of one type on one device; they become views of `values`, with the same
            numbers.

    Attributes:
        tensors: as given.
        values: [n], all numbers: tensor after tensor, each in channels-last order.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self.values = self.join([tensor.detach() for tensor in tensors])
        for tensor, view in zip(self.tensors, self.split(self.values), strict=True):
            tensor.data = view

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return [n], tensors of the same shapes in the order of `values`."""
        return torch.cat([_channels_last(tensor).flatten() for tensor in tensors])

    def split(self, values: Tensor) -> list[Tensor]:
        """Return views of [n] with the shapes of the tensors: the inverse of `join`."""
        pieces = torch.split(values, [tensor.numel() for tensor in self.tensors])
        return [
            _channels_first(piece.view(_channels_last(tensor).shape))
            for piece, tensor in zip(pieces, self.tensors, strict=True)
        ]


def gradients(
    loss: Tensor, inputs: Sequence[Tensor | FlatWeights], create_graph: bool = False
) -> list[Tensor]:
    """Differentiate the loss that all ranks make up together, by each input; [n] by flat weights.

    An input that the loss does not depend on has a gradient of 0. No ``.grad`` is read or written.
    """
    leaves = [x.tensors if isinstance(x, FlatWeights) else [x] for x in inputs]
    everything = [leaf for group in leaves for leaf in group]
    found = iter(
        torch.autograd.grad(
            loss,
            everything,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    grouped = [[next(found) for _ in group] for group in leaves]
    return distributed.all_reduce(
        [
            x.join(group) if isinstance(x, FlatWeights) else group[0]
            for x, group in zip(inputs, grouped, strict=True)
        ]
    )


class FlatSGD:
    """SGD with momentum, weight decay and a limit for the gradient's norm.

    A step is ``v <- momentum v + g + weight_decay w`` and ``w <- w - lr v``, as PyTorch's.

    Args:
        weights: what it moves.
        names: of its tensors, for a checkpoint.
        momentum, weight_decay: as above.
        clip: the largest norm of g, over all weights; a longer g is shortened to it.
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

    def direction(self, gradient: Tensor, values: Tensor) -> Tensor:
        """Return what a step without the limit takes from weights, but for the rate: the next v.

        Args:
            gradient: [n], g.
            values: [n], w.
        """
        decayed = torch.add(gradient, values, alpha=self.weight_decay)
        return torch.add(decayed, self.velocity, alpha=self.momentum)

    def step(self, gradient: Tensor, lr: float | Tensor) -> None:
        """Move the weights."""
        norm = torch.linalg.vector_norm(gradient)
        shortened = gradient * (self.clip / (norm + 1e-6)).clamp(max=1.0)
        self.velocity.copy_(self.direction(shortened, self.weights.values))
        self.weights.values.sub_(self.velocity * lr)

    def tensors(self) -> dict[str, Tensor]:
        """Return v by the names of the weights, as a checkpoint keeps it."""
        views = self.weights.split(self.velocity)
        return {f"{n}/momentum_buffer": v for n, v in zip(self.names, views, strict=True)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Have v as `tensors` gave it.

        Raises:
            KeyError, ValueError: it is that of other weights.
        """
        known = self.tensors()
        if tensors.keys() != known.keys():
            raise KeyError(sorted(tensors.keys() ^ known.keys())[0])
        for name, view in known.items():
            if tensors[name].shape != view.shape:
                raise ValueError(f"{name} has the shape {list(tensors[name].shape)}")
            view.copy_(tensors[name])


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor
