"""Candidate operations of an edge, forward and backward.

Each adds its output times its share to `out`, the rows of the edge's target, and returns what
its backward needs. What the edges of a node have in common is prepared once for all of them,
and their gradients are finished together. `skelnas.engine.reference` has the same operations
in plain words; the arithmetic of normalising is in `norms`.

An operation serves one or more ids of the search space, and has a share for each.
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
)

Kept = tuple[Tensor, ...]
"""Tensors that a backward needs."""


class Edge(NamedTuple):
    """An edge, as one operation sees it.

    Attributes:
        shares: one number for each id.
        weights: for each id, as `skelnas.engine.reference` takes them.
    """

    shares: Sequence[Tensor]
    weights: Sequence[Sequence[Tensor]]


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
        shares: for each id a tensor whose sum is the gradient of its share.
        weights: for each id the gradient of each weight; only if they are wanted.
    """

    shares: list[Tensor]
    weights: list[list[Tensor]]


class Operation(ABC):
    """A candidate operation."""

    def prepare(self, node: Node) -> Kept:
        """Do what all edges of a node share."""
        return ()

    @abstractmethod
    def forward(self, node: Node, shared: Kept, edge: Edge, out: Tensor) -> Kept:
        """Add to out [P', C]."""

    @abstractmethod
    def backward(
        self, node: Node, shared: Kept, edge: Edge, kept: Kept, up: Upstream, wanted: bool
    ) -> Gradients:
        """Give the node its gradient and return the others; `wanted`: those of weights too."""

    def finish(self, node: Node, shared: Kept) -> None:  # noqa: B027
        """After the backward of all edges: give the node what was gathered for it."""


class Pool(Operation):
    """A 3 x 3 pool."""

    @abstractmethod
    def pool(self, node: Node) -> Kept:
        """Return the pooled image, and what `unpool` needs."""

    @abstractmethod
    def unpool(self, node: Node, gradient: Tensor, kept: Kept) -> Tensor:
        """Return the gradient of the node's image."""

    def prepare(self, node: Node) -> Kept:
        pooled, *kept = self.pool(node)
        y = centre_(to_rows(pooled))
        return (y, measure(y), *kept)

    def forward(self, node: Node, shared: Kept, edge: Edge, out: Tensor) -> Kept:
        y, rstd, *_ = shared
        out.addcmul_(y, rstd * edge.shares[0])
        return ()

    def backward(
        self, node: Node, shared: Kept, edge: Edge, kept: Kept, up: Upstream, wanted: bool
    ) -> Gradients:
        y, rstd, *_ = shared
        factors = norm_factors(y, rstd, edge.shares[0], up.centred)
        name = type(self).__name__
        node.receive_scaled(name, up.centred, factors.of_up)
        node.receive(f"{name} own", factors.of_own)
        return Gradients([factors.by_share], [[]])

    def finish(self, node: Node, shared: Kept) -> None:
        y, _, *kept = shared
        name = type(self).__name__
        by_y = node.take(name).addcmul_(y, node.take(f"{name} own"))
        by_image = self.unpool(node, to_image(by_y, node.edge_size), tuple(kept))
        node.receive("image", to_rows(by_image))


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

    def forward(self, node: Node, shared: Kept, edge: Edge, out: Tensor) -> Kept:
        y = centre_(to_rows(self._convolve(node, edge.weights[0])[-1]))
        rstd = measure(y)
        out.addcmul_(y, rstd * edge.shares[0])
        return y, rstd

    def backward(
        self, node: Node, shared: Kept, edge: Edge, kept: Kept, up: Upstream, wanted: bool
    ) -> Gradients:
        (weights,), (y, rstd) = edge.weights, kept
        factors = norm_factors(y, rstd, edge.shares[0], up.centred)
        by_y = (y * factors.of_own).addcmul_(up.centred, factors.of_up)
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
        return Gradients([factors.by_share], [by_weights])

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

    def forward(self, node: Node, shared: Kept, edge: Edge, out: Tensor) -> Kept:
        (weights,), (share,) = edge.weights, edge.shares
        _, image, stride, dilation = self._source(node)
        kept: list[Tensor] = []
        last = len(weights) - 2
        for stage in range(0, len(weights), 2):
            kernel, matrix = weights[stage], weights[stage + 1].flatten(1)
            h = centre_(to_rows(depthwise(image, kernel, stride, dilation)))
            spread, rstd = measure_pointwise(h, matrix)
            kept += [h, spread, rstd]
            if stage == last:
                out.addmm_(h, (matrix * (rstd * share)[:, None]).t())
            else:
                z = (h @ (matrix * rstd[:, None]).t()).relu_()
                kept.append(z)
                image, stride, dilation = to_image(z, node.edge_size), 1, 1
        return tuple(kept)

    def backward(
        self, node: Node, shared: Kept, edge: Edge, kept: Kept, up: Upstream, wanted: bool
    ) -> Gradients:
        (weights,), (share,) = edge.weights, edge.shares
        gradient = up.centred
        by_shares: list[Tensor] = []
        by_weights: list[Tensor] = []
        for stage in reversed(range(0, len(weights), 2)):
            kernel, matrix = weights[stage], weights[stage + 1].flatten(1)
            h, spread, rstd = kept[2 * stage : 2 * stage + 3]
            factors, by_matrix = pointwise_factors(
                matrix, spread, rstd, share, gradient.t() @ h, len(h)
            )
            by_shares.append(factors.by_share)
            by_h = (gradient @ factors.of_up).addmm_(h, factors.of_own)
            view, image, stride, dilation = self._source(node)
            if stage:
                z = kept[2 * stage - 1]
                image, stride, dilation = to_image(z, node.edge_size), 1, 1
                share = torch.ones_like(share)
            through = to_image(by_h, node.edge_size)
            by_image = to_rows(depthwise_input_gradient(through, image, kernel, stride, dilation))
            if wanted:
                by_kernel = depthwise_kernel_gradient(through, image, kernel, stride, dilation)
                by_weights[:0] = [by_kernel, by_matrix[:, :, None, None]]
            if stage:
                gradient = centre_(torch.ops.aten.threshold_backward(by_image, z, 0))
            else:
                node.receive(view, by_image)
        return Gradients(by_shares[:1], [by_weights])

    def _source(self, node: Node) -> tuple[str, Tensor, int, int]:
        """Return what the first depthwise convolution sees, its stride and its dilation."""
        if node.stride == 2 and self.dilation == 2:
            return "halved", node.halved, 1, 1
        return "relu", node.relu, node.stride, self.dilation


class Scale(Operation):
    """``skip_connect`` and ``se_connect`` at stride 1: both scale the channels of each clip.

    Args:
        ids: which of the two are there, in the order of the shares.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def prepare(self, node: Node) -> Kept:
        return (_by_clip(node.rows, node).mean(1),)

    def forward(self, node: Node, shared: Kept, edge: Edge, out: Tensor) -> Kept:
        (mean,) = shared
        scale = torch.zeros_like(mean)
        for name, share, weights in zip(self.ids, edge.shares, edge.weights, strict=True):
            scale += share * self._gate(mean, *weights)[1] if name == "se_connect" else share
        _by_clip(out, node).addcmul_(_by_clip(node.rows, node), scale[:, None])
        return (scale,)

    def backward(
        self, node: Node, shared: Kept, edge: Edge, kept: Kept, up: Upstream, wanted: bool
    ) -> Gradients:
        (mean,), (scale,) = shared, kept
        upstream, rows = _by_clip(up.centred, node), _by_clip(node.rows, node)
        num_pixels = rows.shape[1]
        met = (upstream * rows).sum(1).addcmul_(mean, up.mean, value=num_pixels)
        node.receive_scaled("scaled", upstream, scale[:, None])
        everywhere = scale * up.mean
        gradients = Gradients([], [])
        for name, share, weights in zip(self.ids, edge.shares, edge.weights, strict=True):
            if name == "skip_connect":
                gradients.shares.append(met)
                gradients.weights.append([])
                continue
            squeeze, excite = weights
            hidden, gate = self._gate(mean, squeeze, excite)
            by_logit = share * met * gate * (1 - gate)
            by_hidden = torch.ops.aten.threshold_backward(by_logit @ excite, hidden, 0)
            everywhere.addmm_(by_hidden, squeeze, alpha=1 / num_pixels)
            gradients.shares.append(gate * met)
            gradients.weights.append([by_hidden.t() @ mean, by_logit.t() @ hidden])
        node.receive("everywhere", everywhere)
        return gradients

    def finish(self, node: Node, shared: Kept) -> None:
        by_image = node.take("scaled").add_(node.take("everywhere")[:, None])
        node.receive("image", by_image.view_as(node.rows))

    @staticmethod
    def _gate(mean: Tensor, squeeze: Tensor, excite: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden layer and the gate of squeeze-and-excitation."""
        hidden = (mean @ squeeze.t()).relu_()
        return hidden, (hidden @ excite.t()).sigmoid_()


class Reduce(Operation):
    """``skip_connect`` and ``se_connect`` at stride 2: factorized reductions of one image."""

    def prepare(self, node: Node) -> Kept:
        return (centre_(to_rows(node.halved).clone()),)

    def forward(self, node: Node, shared: Kept, edge: Edge, out: Tensor) -> Kept:
        (h,) = shared
        kept: list[Tensor] = []
        together = h.new_zeros(h.shape[1], h.shape[1])
        for share, weights in zip(edge.shares, edge.weights, strict=True):
            matrix = torch.cat(list(weights)).flatten(1)
            spread, rstd = measure_pointwise(h, matrix)
            together.addcmul_(matrix, (rstd * share)[:, None])
            kept += [spread, rstd]
        out.addmm_(h, together.t())
        return tuple(kept)

    def backward(
        self, node: Node, shared: Kept, edge: Edge, kept: Kept, up: Upstream, wanted: bool
    ) -> Gradients:
        (h,) = shared
        met = up.centred.t() @ h
        together = torch.zeros_like(met)
        gradients = Gradients([], [])
        for index, (share, weights) in enumerate(zip(edge.shares, edge.weights, strict=True)):
            matrix = torch.cat(list(weights)).flatten(1)
            spread, rstd = kept[2 * index : 2 * index + 2]
            factors, by_matrix = pointwise_factors(matrix, spread, rstd, share, met, len(h))
            together += factors.of_up
            node.receive("reduced own", factors.of_own)
            gradients.shares.append(factors.by_share)
            sizes = [len(weight) for weight in weights]
            gradients.weights.append(list(torch.split(by_matrix[:, :, None, None], sizes)))
        node.receive_product("reduced", up.centred, together)
        return gradients

    def finish(self, node: Node, shared: Kept) -> None:
        (h,) = shared
        node.receive("halved", node.take("reduced").addmm_(h, node.take("reduced own")))


def _by_clip(rows: Tensor, node: Node) -> Tensor:
    """View rows [P, C] as [N, T * V, C]."""
    return rows.view(len(node.image), -1, rows.shape[1])
