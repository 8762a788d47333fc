"""Connections: skip and squeeze-and-excitation, which are factorized reductions at stride 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelnas.engine.fused.images import to_rows
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.norms import centre_, measure_pointwise, pointwise_factors, scaled
from skelnas.engine.fused.operation import Edges, Gradients, Kept, Operation, Upstream


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
