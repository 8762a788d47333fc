"""Convolutions: dense ones, and separable and dilated ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine.fused.images import (
    dense_gradients,
    depthwise,
    depthwise_input_gradient,
    depthwise_kernel_gradient,
    to_image,
    to_rows,
)
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.norms import (
    centre_,
    measure,
    measure_pointwise,
    norm_factors,
    pointwise_factors,
    scaled,
)
from skelnas.engine.fused.operation import Edges, Gradients, Kept, Operation, Upstream


class Dense(Operation):
    """ReLU, convolutions of all channels one after the other, normalisation.

    Args:
        strided: for each convolution, whether it takes the stride along T and along V.
    """

    def __init__(self, *strided: tuple[bool, bool]) -> None:
        self.strided = strided

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Kept:
        (weights,) = edges.weights
        ys = [centre_(to_rows(self._convolve(node, edge)[-1])) for edge in weights]
        rstd = measure(ys)
        for out, y, scale in zip(outs, ys, rstd * edges.shares[0][:, None], strict=True):
            out.addcmul_(y, scale)
        return (rstd, *ys)

    def backward(
        self, node: Node, edges: Edges, kept: Kept, ups: Sequence[Upstream], wanted: bool
    ) -> Gradients:
        (weights,), (rstd, *ys) = edges.weights, kept
        q = torch.stack([(up.centred * y).sum(0) for up, y in zip(ups, ys, strict=True)])
        factors = norm_factors(q, rstd, edges.shares[0], len(ys[0]))
        by_weights = []
        for up, y, edge, of_up, of_y in zip(
            ups, ys, weights, factors.of_up, factors.of_own, strict=True
        ):
            by_y = (y * of_y).addcmul_(up.centred, of_up)
            by_weights.append(self._backward_edge(node, edge, by_y, wanted))
        return Gradients([factors.by_share], [by_weights])

    def _backward_edge(
        self, node: Node, weights: Sequence[Tensor], by_y: Tensor, wanted: bool
    ) -> list[Tensor]:
        gradient = to_image(by_y, node.edge_size)
        images = self._convolve(node, weights[:-1])
        by_weights: list[Tensor] = []
        for image, weight, stride in reversed(
            list(zip(images, weights, self._strides(node), strict=True))
        ):
            gradient, by_weight = dense_gradients(gradient, image, weight, stride, wanted)
            if by_weight is not None:
                by_weights.insert(0, by_weight)
        node.receive("relu", to_rows(gradient))
        return by_weights

    def _strides(self, node: Node) -> list[tuple[int, int]]:
        return [(node.stride if t else 1, node.stride if v else 1) for t, v in self.strided]

    def _convolve(self, node: Node, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return the image before the first convolution and after each."""
        images = [node.relu]
        for weight, stride in zip(weights, self._strides(node), strict=False):
            padding = (weight.shape[2] // 2, weight.shape[3] // 2)
            images.append(F.conv2d(images[-1], weight, None, stride, padding))
        return images


class Separable(Operation):
    """Once or more: ReLU, depthwise convolution, pointwise convolution, normalisation.

    Dilated by 2 at stride 2, a convolution sees every second pixel only: it is one without
    dilation or stride of the halved image.
    """

    def __init__(self, dilation: int = 1) -> None:
        self.dilation = dilation

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Kept:
        _, image, stride, dilation = self._source(node)
        images = [image] * len(outs)
        kept: list[Tensor] = []
        stages = self._stages(edges)
        for stage, (kernels, weight) in enumerate(stages, start=1):
            hs = [
                centre_(to_rows(depthwise(image, kernel, stride, dilation)))
                for image, kernel in zip(images, kernels, strict=True)
            ]
            grams = torch.stack([h.t() @ h for h in hs])
            spread, rstd = measure_pointwise(grams, weight, len(hs[0]))
            kept += [spread, rstd, *hs]
            if stage == len(stages):
                for out, h, matrix in zip(
                    outs, hs, scaled(weight, rstd, edges.shares[0]), strict=True
                ):
                    out.addmm_(h, matrix)
            else:
                zs = [
                    (h @ matrix).relu_() for h, matrix in zip(hs, scaled(weight, rstd), strict=True)
                ]
                kept += zs
                images, stride, dilation = [to_image(z, node.edge_size) for z in zs], 1, 1
        return tuple(kept)

    def backward(
        self, node: Node, edges: Edges, kept: Kept, ups: Sequence[Upstream], wanted: bool
    ) -> Gradients:
        num_edges = len(ups)
        share = edges.shares[0]
        gradients = [up.centred for up in ups]
        by_shares: list[Tensor] = []
        by_weights: list[list[Tensor]] = [[] for _ in ups]
        stages = self._stages(edges)
        for stage, (kernels, weight) in reversed(list(enumerate(stages))):
            start = stage * (2 + 2 * num_edges)
            spread, rstd, *hs = kept[start : start + 2 + num_edges]
            met = torch.stack([g.t() @ h for g, h in zip(gradients, hs, strict=True)])
            factors, by_matrix = pointwise_factors(weight, spread, rstd, share, met, len(hs[0]))
            by_shares.append(factors.by_share)
            view, image, stride, dilation = self._source(node)
            images = [image] * num_edges
            if stage:
                share = torch.ones_like(share)
                zs = kept[start - num_edges : start]
                images, stride, dilation = [to_image(z, node.edge_size) for z in zs], 1, 1
            for k, (of_up, of_own) in enumerate(zip(factors.of_up, factors.of_own, strict=True)):
                by_h = (gradients[k] @ of_up).addmm_(hs[k], of_own)
                ends = to_image(by_h, node.edge_size), images[k], kernels[k], stride, dilation
                by_image = to_rows(depthwise_input_gradient(*ends))
                if wanted:
                    own = [depthwise_kernel_gradient(*ends), by_matrix[k, :, :, None, None]]
                    by_weights[k][:0] = own
                if stage:
                    masked = torch.ops.aten.threshold_backward(by_image, zs[k], 0)
                    gradients[k] = centre_(masked)
                else:
                    node.receive(view, by_image)
        return Gradients(by_shares[:1], [by_weights])

    def _source(self, node: Node) -> tuple[str, Tensor, int, int]:
        """Return what the first depthwise convolution sees, its stride and its dilation."""
        if node.stride == 2 and self.dilation == 2:
            return "halved", node.halved, 1, 1
        return "relu", node.relu, node.stride, self.dilation

    @staticmethod
    def _stages(edges: Edges) -> list[tuple[Sequence[Tensor], Tensor]]:
        """Return for each stage the K depthwise kernels, and the pointwise weights [K, C, C]."""
        (weights,) = edges.weights
        places = list(zip(*weights, strict=True))
        return [
            (kernels, torch.stack(pointwise).flatten(2))
            for kernels, pointwise in zip(places[::2], places[1::2], strict=True)
        ]
