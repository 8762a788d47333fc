"""Operations without a fused form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelnas.engine import reference
from skelnas.engine.fused.images import to_image, to_rows
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.operation import Edges, Gradients, Operation, Saved, Upstream


class Fallback(Operation):
    """The reference's function of an operation, evaluated edge by edge.

    Nothing is saved: the backward pass evaluates the function again and differentiates it by
    autograd.
    """

    def __init__(self, op: str) -> None:
        self.function = reference.OPS[op]

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        (op_weights,), (weights,) = edges.op_weights, edges.weights
        for out, op_weight, edge_weights in zip(outs, op_weights, weights, strict=True):
            y = self.function(node.image, edge_weights, node.stride)
            out.addcmul_(to_rows(y), op_weight)
        return ()

    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        (op_weights,), (weights,) = edges.op_weights, edges.weights
        grad_op_weights = torch.zeros_like(op_weights)
        weight_gradients: list[list[Tensor]] = []
        for k, (up, edge_weights) in enumerate(zip(ups, weights, strict=True)):
            grad_out = to_image(up.centred + up.mean, node.edge_size)
            image, *leaves = (tensor.detach() for tensor in (node.image, *edge_weights))
            inputs = [image.requires_grad_()]
            if grad_weights:
                inputs += [leaf.requires_grad_() for leaf in leaves]
            with torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
                y = self.function(image, leaves, node.stride)
            grad_op_weights[k] = (grad_out * y.detach()).sum()
            grad_x, *gradients = torch.autograd.grad(y, inputs, grad_out * op_weights[k])
            node.add_gradient("image", to_rows(grad_x))
            weight_gradients.append(gradients)
        return Gradients([grad_op_weights], [weight_gradients])
