"""Dense and separable convolutions, the latter also with mixing of joints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine.fused.images import (
    dense_gradients,
    depthwise,
    depthwise_grad_image,
    depthwise_grad_kernel,
    to_image,
    to_rows,
)
from skelnas.engine.fused.joints import mix_joints, mix_joints_grad_image, mix_joints_grad_mixing
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.norms import (
    centre_,
    compute_rstd,
    norm_factors,
    pointwise_factors,
    pointwise_rstd,
    scaled,
)
from skelnas.engine.fused.operation import Edges, Gradients, Operation, Saved, Upstream


class Dense(Operation):
    """ReLU, dense convolutions in sequence, normalisation.

    Args:
        strided: for each convolution, whether it takes the stride along T and along V.
    """

    def __init__(self, *strided: tuple[bool, bool]) -> None:
        self.strided = strided

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        (weights,) = edges.weights
        ys = [centre_(to_rows(self._convolve(node, edge)[-1])) for edge in weights]
        rstd = compute_rstd(ys)
        for out, y, scale in zip(outs, ys, rstd * edges.op_weights[0][:, None], strict=True):
            out.addcmul_(y, scale)
        return (rstd, *ys)

    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        (weights,), (rstd, *ys) = edges.weights, saved
        q = torch.stack([(up.centred * y).sum(0) for up, y in zip(ups, ys, strict=True)])
        factors = norm_factors(q, rstd, edges.op_weights[0], len(ys[0]))
        gradients = []
        for up, y, edge, of_g, of_y in zip(
            ups, ys, weights, factors.of_g, factors.of_y, strict=True
        ):
            grad_y = (y * of_y).addcmul_(up.centred, of_g)
            gradients.append(self._backward_edge(node, edge, grad_y, grad_weights))
        return Gradients([factors.grad_op_weights], [gradients])

    def _backward_edge(
        self, node: Node, weights: Sequence[Tensor], grad_y: Tensor, grad_weights: bool
    ) -> list[Tensor]:
        gradient = to_image(grad_y, node.edge_size)
        images = self._convolve(node, weights[:-1])
        gradients: list[Tensor] = []
        for image, weight, stride in reversed(
            list(zip(images, weights, self._strides(node), strict=True))
        ):
            gradient, grad_weight = dense_gradients(gradient, image, weight, stride, grad_weights)
            if grad_weight is not None:
                gradients.insert(0, grad_weight)
        node.add_gradient("relu", to_rows(gradient))
        return gradients

    def _strides(self, node: Node) -> list[tuple[int, int]]:
        return [(node.stride if t else 1, node.stride if v else 1) for t, v in self.strided]

    def _convolve(self, node: Node, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return the image before the first convolution and after each."""
        images = [node.relu]
        for weight, stride in zip(weights, self._strides(node), strict=False):
            padding = (weight.shape[2] // 2, weight.shape[3] // 2)
            images.append(F.conv2d(images[-1], weight, None, stride, padding))
        return images


class Filter(NamedTuple):
    """What a separable convolution does to each channel, and the gradients of that.

    Attributes:
        apply: maps an image, weights, stride and dilation to an image.
        grad_image, grad_weight: map the gradient of the result and the same to gradients.
    """

    apply: Callable[[Tensor, Tensor, int, int], Tensor]
    grad_image: Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
    grad_weight: Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


DEPTHWISE = Filter(depthwise, depthwise_grad_image, depthwise_grad_kernel)
MIX_JOINTS = Filter(mix_joints, mix_joints_grad_image, mix_joints_grad_mixing)


class Separable(Operation):
    """ReLU, filter of each channel, pointwise convolution, normalisation; one or more stages.

    With dilation 2 and stride 2, a convolution sees only every second pixel: it is one without
    dilation or stride on the halved image.
    """

    def __init__(self, filter: Filter = DEPTHWISE, dilation: int = 1) -> None:
        self.filter = filter
        self.dilation = dilation

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        _, image, stride, dilation = self._source(node)
        images = [image] * len(outs)
        saved: list[Tensor] = []
        stages = self._stages(edges)
        for stage, (kernels, weight) in enumerate(stages, start=1):
            hs = [
                centre_(to_rows(self.filter.apply(image, kernel, stride, dilation)))
                for image, kernel in zip(images, kernels, strict=True)
            ]
            gram = torch.stack([h.t() @ h for h in hs])  # [C, P] @ [P, C] -> [C, C], for each edge
            weight_gram, rstd = pointwise_rstd(gram, weight, len(hs[0]))
            saved += [weight_gram, rstd, *hs]
            if stage == len(stages):
                matrices = scaled(weight, rstd, edges.op_weights[0])
                for out, h, matrix in zip(outs, hs, matrices, strict=True):
                    out.addmm_(h, matrix)  # [P, C] @ [C, C] -> [P, C]
            else:
                matrices = scaled(weight, rstd)
                zs = [(h @ matrix).relu_() for h, matrix in zip(hs, matrices, strict=True)]
                saved += zs
                images, stride, dilation = [to_image(z, node.edge_size) for z in zs], 1, 1
        return tuple(saved)

    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        num_edges = len(ups)
        op_weights = edges.op_weights[0]
        grad_op_weights: list[Tensor] = []
        gs = [up.centred for up in ups]
        gradients: list[list[Tensor]] = [[] for _ in ups]
        for stage, (kernels, weight) in reversed(list(enumerate(self._stages(edges)))):
            start = stage * (2 + 2 * num_edges)  # a stage saves weight_gram, rstd, hs and zs
            weight_gram, rstd, *hs = saved[start : start + 2 + num_edges]
            cross = torch.stack([g.t() @ h for g, h in zip(gs, hs, strict=True)])  # [K, C, C]
            factors, grad_weight = pointwise_factors(
                weight, weight_gram, rstd, op_weights, cross, len(hs[0])
            )
            grad_op_weights.append(factors.grad_op_weights)
            view, image, stride, dilation = self._source(node)
            images = [image] * num_edges
            if stage:
                op_weights = torch.ones_like(op_weights)  # earlier stages are not weighted
                zs = saved[start - num_edges : start]
                images, stride, dilation = [to_image(z, node.edge_size) for z in zs], 1, 1
            for k, (of_g, of_h) in enumerate(zip(factors.of_g, factors.of_y, strict=True)):
                grad_h = (gs[k] @ of_g).addmm_(hs[k], of_h)  # [P, C] @ [C, C] -> [P, C]
                ends = to_image(grad_h, node.edge_size), images[k], kernels[k], stride, dilation
                grad_image = to_rows(self.filter.grad_image(*ends))
                if grad_weights:
                    grad_pointwise = grad_weight[k, :, :, None, None]
                    gradients[k][:0] = [self.filter.grad_weight(*ends), grad_pointwise]
                if stage:
                    gs[k] = centre_(torch.ops.aten.threshold_backward(grad_image, zs[k], 0))
                else:
                    node.add_gradient(view, grad_image)
        return Gradients(grad_op_weights[:1], [gradients])

    def _source(self, node: Node) -> tuple[str, Tensor, int, int]:
        """Return the view that the first filter reads, its stride and dilation."""
        if node.stride == 2 and self.dilation == 2:
            return "halved", node.halved, 1, 1
        return "relu", node.relu, node.stride, self.dilation

    @staticmethod
    def _stages(edges: Edges) -> list[tuple[Sequence[Tensor], Tensor]]:
        """Return for each stage the K filters, and the pointwise weights [K, C, C]."""
        (weights,) = edges.weights
        by_position = list(zip(*weights, strict=True))
        return [
            (kernels, torch.stack(pointwise).flatten(2))  # [K, C, C, 1, 1] -> [K, C, C]
            for kernels, pointwise in zip(by_position[::2], by_position[1::2], strict=True)
        ]
