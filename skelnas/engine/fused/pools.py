"""Pools: the same for all edges that leave a node, and so done once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine.fused.images import (
    depthwise,
    depthwise_input_gradient,
    one_over_pool_size,
    to_image,
    to_rows,
)
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.norms import centre_, measure, norm_factors
from skelnas.engine.fused.operation import Edges, Gradients, Kept, Operation, Upstream


class Pool(Operation):
    """A 3 x 3 pool: the same for all edges, and so done once."""

    @abstractmethod
    def pool(self, node: Node) -> Kept:
        """Return the pooled image, and what `unpool` needs."""

    @abstractmethod
    def unpool(self, node: Node, gradient: Tensor, kept: Kept) -> Tensor:
        """Return the gradient of the node's image."""

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Kept:
        pooled, *kept = self.pool(node)
        y = centre_(to_rows(pooled))
        rstd = measure([y])
        for out, scale in zip(outs, rstd * edges.shares[0][:, None], strict=True):
            out.addcmul_(y, scale)
        return (y, rstd, *kept)

    def backward(
        self, node: Node, edges: Edges, kept: Kept, ups: Sequence[Upstream], wanted: bool
    ) -> Gradients:
        y, rstd, *places = kept
        q = torch.stack([(up.centred * y).sum(0) for up in ups])
        factors = norm_factors(q, rstd, edges.shares[0], len(y))
        by_y = y * factors.of_own.sum(0)
        for up, factor in zip(ups, factors.of_up, strict=True):
            by_y.addcmul_(up.centred, factor)
        by_image = self.unpool(node, to_image(by_y, node.edge_size), tuple(places))
        node.receive("image", to_rows(by_image))
        return Gradients([factors.by_share], [[[] for _ in ups]])


class MaxPool(Pool):
    """The maximum; where several pixels have it, the first gets the gradient (PyTorch)."""

    def pool(self, node: Node) -> Kept:
        pooled, places = F.max_pool2d_with_indices(node.image, [3, 3], [node.stride] * 2, [1, 1])
        return pooled, places

    def unpool(self, node: Node, gradient: Tensor, kept: Kept) -> Tensor:
        by_image: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, node.image, [3, 3], [node.stride] * 2, [1, 1], [1, 1], False, *kept
        )
        return by_image


class AveragePool(Pool):
    """The mean of the pixels that are there: a sum, by convolution, over their number."""

    def pool(self, node: Node) -> Kept:
        sums = depthwise(node.image, self._kernel(node), node.stride)
        return (sums.mul_(one_over_pool_size(node.image, node.stride)),)

    def unpool(self, node: Node, gradient: Tensor, kept: Kept) -> Tensor:
        gradient = gradient * one_over_pool_size(node.image, node.stride)
        return depthwise_input_gradient(gradient, node.image, self._kernel(node), node.stride)

    @staticmethod
    def _kernel(node: Node) -> Tensor:
        return node.image.new_ones(node.image.shape[1], 1, 3, 3)
