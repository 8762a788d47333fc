"""The interface of the fused engine's operations.

An operation works on all K edges that leave a node. It adds each edge's weighted output to the rows
of the edge's target and returns what its backward pass needs; work that the edges share is done
once. `skelnas.engine.reference` states the same operations plainly; `norms` has the arithmetic of
normalisation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from skelnas.engine.fused.node import Node

Saved = tuple[Tensor, ...]
"""Tensors that a backward pass needs."""


class Edges(NamedTuple):
    """The K edges that leave a node, as seen by an operation that serves n ids.

    Attributes:
        op_weights: for each id, [K].
        weights: for each id and edge, in the order of `skelnas.engine.reference`.
    """

    op_weights: Sequence[Tensor]
    weights: Sequence[Sequence[Sequence[Tensor]]]


class Upstream(NamedTuple):
    """The gradient of an edge's target.

    Attributes:
        centred: [P', C], less its mean.
        mean: [C], over all pixels.
    """

    centred: Tensor
    mean: Tensor


class Gradients(NamedTuple):
    """What a backward pass returns; the gradient of the node has been added to it by then.

    Attributes:
        op_weights: for each id, [K].
        weights: for each id, edge and weight, its gradient; unspecified if not requested.
    """

    op_weights: list[Tensor]
    weights: list[list[list[Tensor]]]


class Operation(ABC):
    """A candidate operation on all edges that leave a node."""

    @abstractmethod
    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        """Add to the K outs [P', C]."""

    @abstractmethod
    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        """Add to the node's gradient and return the others.

        Args:
            saved: what the forward pass returned.
            ups: for each edge.
            grad_weights: whether the gradients of the weights are needed.
        """
