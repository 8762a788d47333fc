"""The cost in the objective of the alphas: lambda * (E[C] / B - 1) for each limit B.

E[C] is the expected cost of the network that would be derived. Both it and B leave out what no
choice changes, such as the stem; otherwise lambda would mean less the tighter the limit is. Each
lambda rises while E[C] is above its limit and falls while it is below (dual ascent, as in LightNAS,
Luo et al. 2022), so no weight has to be tuned. The term does not depend on w: it adds to the direct
term of the gradient of alpha, the same for each order, and needs no pass through the supernet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from skelnas.genotype import CELLS, list_nodes
from skelnas.models.complexity import Complexity
from skelnas.nas.target import Target

RISE = 20.0
"""What lambda gains in a whole search in which E[C] is twice the limit (ours)."""

DAMPING = 5.0
"""Times E[C] / B - 1, what is added to lambda at once, so that E[C] does not swing (ours)."""

APPROACH = 0.5
"""Fraction of the search in which the limit comes down from the first E[C] to B (ours): if lambda
rose for as long as E[C] needs to get there, it would then press it far below."""

MIN_ROOM = 0.05
"""Of the limit, what is taken to be left for choices if almost nothing is (ours)."""

TINY = 1e-12
"""The least weight of all operations of an edge together."""


class CostTerm:
    """The cost term and its multipliers; a `skelnas.training.checkpoint.State`.

    Args:
        target: the network, with one limit or two.
        num_steps: of alpha, in the whole search.
        like: gives dtype and device.

    Attributes:
        names: of the limited costs, ``params`` and ``macs``.
        lambdas: [limits].
    """

    def __init__(self, target: Target, num_steps: int, like: Tensor) -> None:
        limits = {"params": target.budget.max_params, "macs": target.budget.max_macs}
        self.names = [name for name, limit in limits.items() if limit is not None]
        self._num_steps = num_steps
        self._is_op = torch.tensor([op != "none" for op in target.primitives], device=like.device)
        self._costs = [_tabulate(target, kind, self.names).to(like) for kind in CELLS]
        self._rest = _relative(target, self.names, target.costs.rest).to(like)
        self._room = (1 - self._rest).clamp_min(MIN_ROOM)
        edges = target.costs.edges["normal"]
        node_of_edge = torch.tensor([n for n, node in enumerate(list_nodes(edges)) for _ in node])
        same_node = (node_of_edge[:, None] == node_of_edge).to(like)  # [edges, edges]
        self._others = same_node.fill_diagonal_(0)  # the other edges of the same node
        self.lambdas = torch.zeros_like(self._rest)
        self._first = torch.zeros_like(self._rest)  # E[C] / B at the first step
        self._steps_done = torch.zeros((), dtype=like.dtype, device=like.device)

    def expected(self, op_weights: Sequence[Tensor]) -> Tensor:
        """Return E[C] / B of the whole network, [limits].

        An operation of an edge is expected with its weight among those other than ``none``, and an
        edge with its chance to be one of the two that its node keeps.

        Args:
            op_weights: of the normal and the reduction cell, [edges, ops] each.
        """
        expected = self._rest
        for weights, costs in zip(op_weights, self._costs, strict=True):
            ops = weights * self._is_op
            ops = ops / ops.sum(1, keepdim=True).clamp_min(TINY)
            kept = self._keep_chances((weights * self._is_op).amax(1))
            expected = expected + torch.einsum("e,eo,leo->l", kept, ops, costs)
        return expected

    def _keep_chances(self, strengths: Tensor) -> Tensor:
        """Return each edge's chance to be kept, [edges], if a node draws two in proportion.

        The first is drawn in proportion to the strengths of all, the second to those of the others:
        s_i / S * (1 + sum over the others j of s_j / (S - s_j)), where S is their sum.

        Args:
            strengths: [edges], the weight of the strongest operation, by which edges are derived.
        """
        strengths = strengths.clamp_min(TINY)
        of_others = self._others @ strengths  # [edges]: S - s_i, without cancellation
        odds = strengths / of_others
        return strengths / (strengths + of_others) * (1 + self._others @ odds)

    def gradients(self, op_weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient of the term at the current lambdas.

        Args:
            op_weights: as for `expected`; functions of the leaves.
            leaves: what to differentiate by.
        """
        excess = self._excess(op_weights)
        weights = (self.lambdas + DAMPING * excess.detach()).clamp_min(0)
        return list(torch.autograd.grad((weights * excess).sum(), list(leaves)))

    def _excess(self, op_weights: Sequence[Tensor]) -> Tensor:
        """Return how far E[C] is above the limit of the moment, relative to the room, [limits]."""
        left = (1 - self._steps_done / (APPROACH * self._num_steps)).clamp_min(0)
        limit = 1 + (self._first - 1).clamp_min(0) * left  # comes down to 1
        return (self.expected(op_weights) - limit) / self._room

    @torch.no_grad()
    def ascend(self, op_weights: Sequence[Tensor]) -> None:
        """Update the lambdas; once a step. Nothing here synchronises with the device."""
        expected = self.expected(op_weights)
        self._first.copy_(torch.where(self._steps_done == 0, expected, self._first))
        self.lambdas.add_(RISE / self._num_steps * self._excess(op_weights)).clamp_min_(0)
        self._steps_done.add_(1)

    @torch.no_grad()
    def record(self, op_weights: Sequence[Tensor]) -> dict[str, float]:
        """Return E[C] / B and lambda of each limit, for the metrics of an epoch."""
        metrics: dict[str, float] = {}
        values = zip(self.names, self.expected(op_weights), self.lambdas, strict=True)
        for name, expected, weight in values:
            metrics |= {f"expected_{name}": expected.item(), f"lambda_{name}": weight.item()}
        return metrics

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors by name."""
        return {"lambdas": self.lambdas, "first": self._first, "steps": self._steps_done}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from what `tensors` returned.

        Raises:
            KeyError, ValueError: it is of other limits.
        """
        for name, tensor in self.tensors().items():
            if tensors[name].shape != tensor.shape:
                raise ValueError(f"{name} has the shape {list(tensors[name].shape)}")
            tensor.copy_(tensors[name])


def _tabulate(target: Target, kind: str, names: Sequence[str]) -> Tensor:
    """Return the costs of a cell's operations over their limits, [limits, edges, ops]."""
    none = Complexity(0, 0)
    rows = [
        torch.stack([_relative(target, names, ops.get(op, none)) for op in target.primitives])
        for ops in target.costs.edges[kind]
    ]
    return torch.stack(rows).permute(2, 0, 1)  # [edges, ops, limits] -> [limits, edges, ops]


def _relative(target: Target, names: Sequence[str], cost: Complexity) -> Tensor:
    """Return a cost over the limits, [limits], in float64."""
    budget = target.budget
    pairs = {"params": (cost.parameters, budget.max_params), "macs": (cost.macs, budget.max_macs)}
    values = [value / limit for value, limit in (pairs[name] for name in names) if limit]
    return torch.tensor(values, dtype=torch.float64)
