"""Skip connection and squeeze-and-excitation; both are factorized reductions at stride 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelnas.engine.fused.images import to_rows
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.norms import centre_, pointwise_factors, pointwise_rstd, scaled
from skelnas.engine.fused.operation import Edges, Gradients, Operation, Saved, Upstream


class Scale(Operation):
    """``skip_connect`` and ``se_connect`` at stride 1: both scale the channels of each clip.

    Args:
        ids: which of the two the space has, in its order.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        rows = _by_clip(node.rows, node)
        mean = rows.mean(1)  # [N, C]
        scale = mean.new_zeros(len(outs), *mean.shape)  # [K, N, C]
        for op, op_weights, weights in zip(self.ids, edges.op_weights, edges.weights, strict=True):
            by_edge = op_weights[:, None, None]
            scale += by_edge * self._gate(mean, weights)[-1] if op == "se_connect" else by_edge
        for out, factor in zip(outs, scale[:, :, None], strict=True):
            _by_clip(out, node).addcmul_(rows, factor)  # [N, T * V, C] * [N, 1, C]
        return mean, scale

    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        mean, scale = saved
        rows = _by_clip(node.rows, node)
        num_pixels = rows.shape[1]
        gs = [_by_clip(up.centred, node) for up in ups]
        g_means = torch.stack([up.mean for up in ups])[:, None]  # [K, 1, C]
        cross = torch.stack([(g * rows).sum(1) for g in gs])  # [K, N, C]
        cross.addcmul_(mean, g_means, value=num_pixels)

        grad_rows = torch.zeros_like(rows)
        for g, factor in zip(gs, scale[:, :, None], strict=True):
            grad_rows.addcmul_(g, factor)
        per_pixel = (scale * g_means).sum(0)  # [N, C], the same for all pixels of a clip
        gradients = Gradients([], [])
        for op, op_weights, weights in zip(self.ids, edges.op_weights, edges.weights, strict=True):
            if op == "skip_connect":
                gradients.op_weights.append(cross.sum((1, 2)))
                gradients.weights.append([[] for _ in ups])
                continue
            squeeze, excite, hidden, gate = self._gate(mean, weights)
            grad_logit = op_weights[:, None, None] * cross * gate * (1 - gate)  # [K, N, C]
            grad_hidden = grad_logit @ excite  # [K, N, C] @ [K, C, H] -> [K, N, H]
            grad_hidden = torch.ops.aten.threshold_backward(grad_hidden, hidden, 0)
            per_pixel += (grad_hidden @ squeeze).sum(0) / num_pixels  # [K, N, C] -> [N, C]
            gradients.op_weights.append((gate * cross).sum((1, 2)))
            grad_squeeze = grad_hidden.mT @ mean  # [K, H, N] @ [N, C] -> [K, H, C]
            grad_excite = grad_logit.mT @ hidden  # [K, C, N] @ [K, N, H] -> [K, C, H]
            gradients.weights.append(
                [list(pair) for pair in zip(grad_squeeze, grad_excite, strict=True)]
            )
        node.add_gradient("image", grad_rows.add_(per_pixel[:, None]).view_as(node.rows))
        return gradients

    @staticmethod
    def _gate(
        mean: Tensor, weights: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both weights [K, H, C] and [K, C, H], hidden layer [K, N, H], gate [K, N, C]."""
        squeeze, excite = (torch.stack(each) for each in zip(*weights, strict=True))
        hidden = (mean @ squeeze.mT).relu_()  # [N, C] @ [K, C, H] -> [K, N, H]
        return squeeze, excite, hidden, (hidden @ excite.mT).sigmoid_()  # @ [K, H, C] -> [K, N, C]


class Reduce(Operation):
    """``skip_connect`` and ``se_connect`` at stride 2: factorized reductions of one image."""

    def forward(self, node: Node, edges: Edges, outs: Sequence[Tensor]) -> Saved:
        h = self._rows(node)
        gram = h.t() @ h  # [C, P] @ [P, C] -> [C, C]
        saved: list[Tensor] = []
        matrices: list[Tensor] = []
        for op_weights, weights in zip(edges.op_weights, edges.weights, strict=True):
            weight = self._weight(weights)
            weight_gram, rstd = pointwise_rstd(gram, weight, len(h))
            matrices.append(scaled(weight, rstd, op_weights))
            saved += [weight_gram, rstd]
        for out, matrix in zip(outs, sum(matrices[1:], start=matrices[0]), strict=True):
            out.addmm_(h, matrix)  # [P, C] @ [C, C] -> [P, C]
        return tuple(saved)

    def backward(
        self, node: Node, edges: Edges, saved: Saved, ups: Sequence[Upstream], grad_weights: bool
    ) -> Gradients:
        h = self._rows(node)
        cross = torch.stack([up.centred.t() @ h for up in ups])  # [C, P] @ [P, C] -> [K, C, C]
        gradients = Gradients([], [])
        of_g, of_h = torch.zeros_like(cross), cross.new_zeros(h.shape[1], h.shape[1])
        for index, (op_weights, weights) in enumerate(
            zip(edges.op_weights, edges.weights, strict=True)
        ):
            weight_gram, rstd = saved[2 * index : 2 * index + 2]
            factors, grad_weight = pointwise_factors(
                self._weight(weights), weight_gram, rstd, op_weights, cross, len(h)
            )
            of_g += factors.of_g
            of_h += factors.of_y.sum(0)
            gradients.op_weights.append(factors.grad_op_weights)
            halves = torch.split(grad_weight[..., None, None], [len(w) for w in weights[0]], dim=1)
            gradients.weights.append([list(pair) for pair in zip(*halves, strict=True)])
        grad_h = h @ of_h
        for up, matrix in zip(ups, of_g, strict=True):
            grad_h.addmm_(up.centred, matrix)  # [P, C] @ [C, C] -> [P, C]
        node.add_gradient("halved", grad_h)
        return gradients

    @staticmethod
    def _rows(node: Node) -> Tensor:
        return centre_(to_rows(node.halved).clone())

    @staticmethod
    def _weight(weights: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return [K, C, C]: the two halves of each factorized reduction, stacked."""
        halves = [torch.stack(half) for half in zip(*weights, strict=True)]  # [K, C / 2, C, 1, 1]
        return torch.cat(halves, dim=1).flatten(2)  # [K, C, C, 1, 1] -> [K, C, C]


def _by_clip(rows: Tensor, node: Node) -> Tensor:
    """View rows [P, C] as [N, T * V, C]."""
    return rows.view(len(node.image), -1, rows.shape[1])
