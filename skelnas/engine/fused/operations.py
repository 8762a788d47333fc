"""Candidate operations of the edges that leave a node, forward and backward.

Each adds, for every edge, its output times its share to the rows of the edge's target, and
returns what its backward needs. What the edges have in common is done once.
`skelnas.engine.reference` has the same operations in plain words; the arithmetic of normalising
is in `norms`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine.fused.images import (
    dense_gradients,
    depthwise,
    depthwise_input_gradient,
    depthwise_kernel_gradient,
    one_over_pool_size,
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


class Scale(Operation):
    """``skip_connect`` and ``se_connect`` at stride 1: both scale the channels of each clip.

    Args:
        ids: which of the two are there, in the order of the shares.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Kept:
        rows = _by_clip(node.rows, node)
        mean = rows.mean(1)
        scale = mean.new_zeros(len(outs), *mean.shape)
        for name, share, weights in zip(self.ids, edges.shares, edges.weights, strict=True):
            by_edge = share[:, None, None]
            scale += by_edge * self._gate(mean, weights)[-1] if name == "se_connect" else by_edge
        for out, factor in zip(outs, scale[:, :, None], strict=True):
            _by_clip(out, node).addcmul_(rows, factor)
        return mean, scale

    def backward(
        self, node: Node, edges: Edges, kept: Kept, ups: Sequence[Upstream], wanted: bool
    ) -> Gradients:
        mean, scale = kept
        rows = _by_clip(node.rows, node)
        num_pixels = rows.shape[1]
        upstream = [_by_clip(up.centred, node) for up in ups]
        means = torch.stack([up.mean for up in ups])[:, None]
        met = torch.stack([(g * rows).sum(1) for g in upstream])
        met.addcmul_(mean, means, value=num_pixels)

        by_rows = torch.zeros_like(rows)
        for gradient, factor in zip(upstream, scale[:, :, None], strict=True):
            by_rows.addcmul_(gradient, factor)
        everywhere = (scale * means).sum(0)
        gradients = Gradients([], [])
        for name, share, weights in zip(self.ids, edges.shares, edges.weights, strict=True):
            if name == "skip_connect":
                gradients.shares.append(met.sum((1, 2)))
                gradients.weights.append([[] for _ in ups])
                continue
            squeeze, excite, hidden, gate = self._gate(mean, weights)
            by_logit = share[:, None, None] * met * gate * (1 - gate)
            by_hidden = torch.ops.aten.threshold_backward(by_logit @ excite, hidden, 0)
            everywhere += (by_hidden @ squeeze).sum(0) / num_pixels
            gradients.shares.append((gate * met).sum((1, 2)))
            pairs = zip(by_hidden.mT @ mean, by_logit.mT @ hidden, strict=True)
            gradients.weights.append([list(pair) for pair in pairs])
        node.receive("image", by_rows.add_(everywhere[:, None]).view_as(node.rows))
        return gradients

    @staticmethod
    def _gate(
        mean: Tensor, weights: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the weights of squeeze-and-excitation, its hidden layer and its gate, [K, ...]."""
        squeeze, excite = (torch.stack(each) for each in zip(*weights, strict=True))
        hidden = (mean @ squeeze.mT).relu_()
        return squeeze, excite, hidden, (hidden @ excite.mT).sigmoid_()


class Reduce(Operation):
    """``skip_connect`` and ``se_connect`` at stride 2: factorized reductions of one image."""

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Kept:
        h = self._rows(node)
        gram = h.t() @ h
        kept: list[Tensor] = []
        together: list[Tensor] = []
        for share, weights in zip(edges.shares, edges.weights, strict=True):
            weight = self._weight(weights)
            spread, rstd = measure_pointwise(gram, weight, len(h))
            together.append(scaled(weight, rstd, share))
            kept += [spread, rstd]
        for out, matrix in zip(outs, sum(together[1:], start=together[0]), strict=True):
            out.addmm_(h, matrix)
        return tuple(kept)

    def backward(
        self, node: Node, edges: Edges, kept: Kept, ups: Sequence[Upstream], wanted: bool
    ) -> Gradients:
        h = self._rows(node)
        met = torch.stack([up.centred.t() @ h for up in ups])
        gradients = Gradients([], [])
        of_up, of_own = torch.zeros_like(met), met.new_zeros(h.shape[1], h.shape[1])
        for index, (share, weights) in enumerate(zip(edges.shares, edges.weights, strict=True)):
            spread, rstd = kept[2 * index : 2 * index + 2]
            factors, by_weight = pointwise_factors(
                self._weight(weights), spread, rstd, share, met, len(h)
            )
            of_up += factors.of_up
            of_own += factors.of_own.sum(0)
            gradients.shares.append(factors.by_share)
            halves = torch.split(by_weight[..., None, None], [len(w) for w in weights[0]], dim=1)
            gradients.weights.append([list(pair) for pair in zip(*halves, strict=True)])
        by_h = h @ of_own
        for up, matrix in zip(ups, of_up, strict=True):
            by_h.addmm_(up.centred, matrix)
        node.receive("halved", by_h)
        return gradients

    @staticmethod
    def _rows(node: Node) -> Tensor:
        return centre_(to_rows(node.halved).clone())

    @staticmethod
    def _weight(weights: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return [K, C, C]: both halves of each factorized reduction, one below the other."""
        halves = [torch.stack(half) for half in zip(*weights, strict=True)]
        return torch.cat(halves, dim=1).flatten(2)


def _by_clip(rows: Tensor, node: Node) -> Tensor:
    """View rows [P, C] as [N, T * V, C]."""
    return rows.view(len(node.image), -1, rows.shape[1])
