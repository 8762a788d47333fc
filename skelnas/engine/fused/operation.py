"""What an operation of the fused engine is given and gives back.

An operation works on all K edges that leave a node: it adds, for every edge, its output times its
share to the rows of the edge's target, and returns what its backward needs. What the edges have in
common is done once. `skelnas.engine.reference` has the same operations in plain words; the
arithmetic of normalising is in `norms`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from skelnas.engine.fused.node import Node

Kept = tuple[Tensor, ...]
"""Tensors that a backward needs."""


class Edges(NamedTuple):
    """The K edges that leave a node, as an operation that serves n ids sees them.

    Attributes:
        shares: [n, K].
        weights: for each id and edge, as `skelnas.engine.reference` takes them.
    """

    shares: Sequence[Tensor]
    weights: Sequence[Sequence[Sequence[Tensor]]]


class Upstream(NamedTuple):
    """The gradient of the target of an edge.

    Attributes:
        centred: [P', C], less its mean.
        mean: [C], over all pixels.
    """

    centred: Tensor
    mean: Tensor


class Gradients(NamedTuple):
    """What an operation's backward returns; the node has received its own by then.

    Attributes:
        shares: for each id the gradients of its shares, [K].
        weights: for each id and edge the gradient of each weight; only if they are wanted.
    """

    shares: list[Tensor]
    weights: list[list[list[Tensor]]]


class Operation(ABC):
    """A candidate operation on all edges that leave a node."""

    @abstractmethod
    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Kept:
        """Add to the K outs [P', C]."""

    @abstractmethod
    def backward(
        self, node: Node, edges: Edges, kept: Kept, ups: Sequence[Upstream], wanted: bool
    ) -> Gradients:
        """Give the node its gradient and return the others; `wanted`: those of weights too."""
