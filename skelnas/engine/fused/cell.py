"""A mixed cell as one function with a gradient of its own.

Nodes are visited in order. What the edges that leave a node have in common is prepared once;
then each edge adds to its target, one operation after the other. The gradient walks the same
way back: a node's is complete once all edges that leave it are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skelnas.engine.fused.images import size_of, to_image, to_rows
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.operations import (
    AveragePool,
    Dense,
    Edge,
    MaxPool,
    Operation,
    Reduce,
    Scale,
    Separable,
    Upstream,
)
from skelnas.engine.reference import Weights

NUM_INPUTS = 2

SINGLE: dict[str, Operation] = {
    "max_pool_3x3": MaxPool(),
    "avg_pool_3x3": AveragePool(),
    "conv_3x3": Dense((True, True)),
    "conv_7x1_1x7": Dense((False, True), (True, False)),
    "sep_conv_3x3": Separable(),
    "sep_conv_5x5": Separable(),
    "sep_conv_7x7": Separable(),
    "dil_conv_3x3": Separable(dilation=2),
    "dil_conv_5x5": Separable(dilation=2),
}
"""Operations that serve one id."""

TOGETHER = ("skip_connect", "se_connect")
"""Ids that are served by one operation."""


def cell(
    inputs: tuple[Tensor, Tensor],
    mix: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell: `skelnas.engine.reference.cell` says what, and of which shapes.

    The result can be differentiated once, not twice. Under autocast the cell is evaluated in
    the precision of the shares all the same.
    """
    flat = [tensor for edge in weights for op in edge for tensor in op]
    lengths = tuple(tuple(len(op) for op in edge) for edge in weights)
    plan = _Plan(tuple(primitives), lengths, reduction)
    with torch.autocast(mix.device.type, enabled=False):
        nodes = [image.to(mix.dtype) for image in inputs]
        out: Tensor = _Cell.apply(plan, *nodes, mix, *flat)  # type: ignore[no-untyped-call]
    return out


class _Plan(NamedTuple):
    """The shape of a cell.

    Attributes:
        lengths: for each edge and operation the number of its weights.
    """

    primitives: tuple[str, ...]
    lengths: tuple[tuple[int, ...], ...]
    reduction: bool

    @property
    def num_nodes(self) -> int:
        """Number of intermediate nodes."""
        nodes = 0
        while sum(range(NUM_INPUTS, NUM_INPUTS + nodes)) < len(self.lengths):
            nodes += 1
        return nodes

    def edges(self, source: int) -> dict[int, int]:
        """Return the edges that leave a node by their target; numbered as in the reference."""
        targets = range(max(source + 1, NUM_INPUTS), NUM_INPUTS + self.num_nodes)
        return {target: sum(range(NUM_INPUTS, target)) + source for target in targets}

    def node(self, image: Tensor, source: int) -> Node:
        """Make a node of the cell."""
        return Node(image, 2 if self.reduction and source < NUM_INPUTS else 1)

    def operations(self, node: Node) -> list[tuple[Operation, list[int]]]:
        """List what is done on the edges of a node, and the places of the ids it serves."""
        known = [(SINGLE[name], [i]) for i, name in enumerate(self.primitives) if name in SINGLE]
        together = [i for i, name in enumerate(self.primitives) if name in TOGETHER]
        if together:
            ids = [self.primitives[place] for place in together]
            known.append((Scale(ids) if node.stride == 1 else Reduce(), together))
        return known

    def nest(self, flat: Sequence[Tensor]) -> list[list[list[Tensor]]]:
        """Give the flat list of weights its form back: edge, operation, weight."""
        tensors = iter(flat)
        return [[[next(tensors) for _ in range(n)] for n in edge] for edge in self.lengths]


class _Record:
    """Tensors that the backward needs, put away and taken back in the same order."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.counts: list[int] = []

    def add(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.tensors += kept
        self.counts.append(len(kept))
        return kept

    @staticmethod
    def replay(tensors: Sequence[Tensor], counts: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        place = 0
        for count in counts:
            yield tuple(tensors[place : place + count])
            place += count


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: _Plan, input0: Tensor, input1: Tensor, mix: Tensor, *flat: Tensor
    ) -> Tensor:
        images = [image.contiguous(memory_format=torch.channels_last) for image in (input0, input1)]
        weights = plan.nest(flat)
        shares = [row.unbind() for row in mix.unbind()]
        size = plan.node(images[0], 0).edge_size
        num_pixels = size[0] * size[1] * size[2]
        targets = [mix.new_zeros(num_pixels, input0.shape[1]) for _ in range(plan.num_nodes)]
        record = _Record()
        for source in range(NUM_INPUTS + plan.num_nodes - 1):
            if source >= NUM_INPUTS:
                images.append(to_image(targets[source - NUM_INPUTS], size))
            node = plan.node(images[source], source)
            operations = plan.operations(node)
            shared = [record.add(operation.prepare(node)) for operation, _ in operations]
            for target, number in plan.edges(source).items():
                out = targets[target - NUM_INPUTS]
                for (operation, places), common in zip(operations, shared, strict=True):
                    edge = _pick(shares[number], weights[number], places)
                    record.add(operation.forward(node, common, edge, out))
        ctx.plan, ctx.counts, ctx.size = plan, record.counts, size
        ctx.save_for_backward(*images[:NUM_INPUTS], mix, *targets, *flat, *record.tensors)
        return to_image(torch.cat(targets, dim=1), size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        input0, input1, mix, *rest = ctx.saved_tensors
        targets, rest = rest[: plan.num_nodes], rest[plan.num_nodes :]
        num_weights = sum(map(sum, plan.lengths))
        weights = plan.nest(rest[:num_weights])
        visits = list(_Record.replay(rest[num_weights:], ctx.counts))
        shares = [row.unbind() for row in mix.unbind()]
        images = [input0, input1, *(to_image(rows, ctx.size) for rows in targets)]

        wanted = any(ctx.needs_input_grad[4:])
        by_targets = to_rows(upstream).chunk(plan.num_nodes, dim=1)
        ups: dict[int, Upstream] = {}
        by_inputs: list[Tensor] = []
        by_shares = [[mix.new_zeros(1)] * len(plan.primitives) for _ in plan.lengths]
        by_weights: list[list[list[Tensor]]] = [[[] for _ in edge] for edge in plan.lengths]
        for source in reversed(range(NUM_INPUTS + plan.num_nodes)):
            node = plan.node(images[source], source)
            edges = plan.edges(source)
            if edges:
                operations = plan.operations(node)
                num_visits = len(operations) * (1 + len(edges))
                own = visits[len(visits) - num_visits :]
                del visits[len(visits) - num_visits :]
                shared, kept = own[: len(operations)], iter(own[len(operations) :])
                for target, number in edges.items():
                    for (operation, places), common in zip(operations, shared, strict=True):
                        edge = _pick(shares[number], weights[number], places)
                        gradients = operation.backward(
                            node, common, edge, next(kept), ups[target], wanted
                        )
                        for place, by_share, by_own in zip(places, *gradients, strict=True):
                            by_shares[number][place] = by_share
                            by_weights[number][place] = by_own
                for (operation, _), common in zip(operations, shared, strict=True):
                    operation.finish(node, common)
            if source < NUM_INPUTS:
                by_inputs.insert(0, to_image(node.gradient(), size_of(node.image)))
            else:
                total = by_targets[source - NUM_INPUTS]
                total = total + node.gradient() if edges else total
                mean = total.mean(0)
                ups[source] = Upstream(total - mean, mean)

        by_mix = torch.stack([torch.stack([s.sum() for s in edge]) for edge in by_shares])
        flat = [tensor for edge in by_weights for op in edge for tensor in op]
        return (None, *by_inputs, by_mix, *(flat if wanted else [None] * num_weights))


def _pick(shares: Sequence[Tensor], weights: Sequence[Weights], places: Sequence[int]) -> Edge:
    return Edge([shares[place] for place in places], [weights[place] for place in places])
