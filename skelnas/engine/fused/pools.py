"""Pools: the same for all edges that leave a node, and so computed once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine.fused.images import (
    depthwise,
    depthwise_grad_image,
    one_over_pool_size,
    to_image,
    to_rows,
)
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.norms import centre_, compute_rstd, norm_factors
from skelnas.engine.fused.operation import Edges, Gradients, Operation, Saved, Upstream


class Pool(Operation):
    """A 3 x 3 pool, normalised."""

    @abstractmethod
    def pool(self, node: Node) -> Saved:
        """Return the pooled image, and what `unpool` needs."""

    @abstractmethod
    def unpool(self, node: Node, grad_pooled: Tensor, saved: Saved) -> Tensor:
        """Return the gradient of the node's image."""

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        pooled, *saved = self.pool(node)
        y = centre_(to_rows(pooled))
        rstd = compute_rstd([y])
        for out, scale in zip(outs, rstd * edges.op_weights[0][:, None], strict=True):
            out.addcmul_(y, scale)
        return (y, rstd, *saved)

    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        y, rstd, *indices = saved
        q = torch.stack([(up.centred * y).sum(0) for up in ups])
        factors = norm_factors(q, rstd, edges.op_weights[0], len(y))
        grad_y = y * factors.of_y.sum(0)
        for up, factor in zip(ups, factors.of_g, strict=True):
            grad_y.addcmul_(up.centred, factor)
        grad_image = self.unpool(node, to_image(grad_y, node.edge_size), tuple(indices))
        node.add_gradient("image", to_rows(grad_image))
        return Gradients([factors.grad_op_weights], [[[] for _ in ups]])


class MaxPool(Pool):
    """The maximum; among equal pixels the first gets the gradient, as in PyTorch."""

    def pool(self, node: Node) -> Saved:
        pooled, indices = F.max_pool2d_with_indices(node.image, [3, 3], [node.stride] * 2, [1, 1])
        return pooled, indices

    def unpool(self, node: Node, grad_pooled: Tensor, saved: Saved) -> Tensor:
        grad_image: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            grad_pooled, node.image, [3, 3], [node.stride] * 2, [1, 1], [1, 1], False, *saved
        )
        return grad_image


class AveragePool(Pool):
    """The mean without the padding: a sum, by convolution, over the number of pixels."""

    def pool(self, node: Node) -> Saved:
        sums = depthwise(node.image, self._kernel(node), node.stride)
        return (sums.mul_(one_over_pool_size(node.image, node.stride)),)

    def unpool(self, node: Node, grad_pooled: Tensor, saved: Saved) -> Tensor:
        grad_sums = grad_pooled * one_over_pool_size(node.image, node.stride)
        return depthwise_grad_image(grad_sums, node.image, self._kernel(node), node.stride)

    @staticmethod
    def _kernel(node: Node) -> Tensor:
        return node.image.new_ones(node.image.shape[1], 1, 3, 3)
