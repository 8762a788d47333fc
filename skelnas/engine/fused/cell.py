"""A mixed cell as one function with a gradient of its own.

Nodes are visited in order; each operation adds to the targets of all edges that leave a node.
The gradient walks the same way back: a node's is complete once all edges that leave it are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skelnas.engine.fused.connections import Reduce, Scale
from skelnas.engine.fused.convolutions import Dense, Separable
from skelnas.engine.fused.images import size_of, to_image, to_rows
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.operation import Edges, Operation, Upstream
from skelnas.engine.fused.pools import AveragePool, MaxPool
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

    def numbers(self, source: int) -> list[int]:
        """Return the numbers, as the reference counts, of the edges from a node to all after."""
        targets = range(max(source + 1, NUM_INPUTS), NUM_INPUTS + self.num_nodes)
        return [sum(range(NUM_INPUTS, target)) + source for target in targets]

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


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: _Plan, input0: Tensor, input1: Tensor, mix: Tensor, *flat: Tensor
    ) -> Tensor:
        images = [image.contiguous(memory_format=torch.channels_last) for image in (input0, input1)]
        weights = plan.nest(flat)
        size = plan.node(images[0], 0).edge_size
        num_pixels = size[0] * size[1] * size[2]
        targets = [mix.new_zeros(num_pixels, input0.shape[1]) for _ in range(plan.num_nodes)]
        kept: list[Tensor] = []
        counts: list[int] = []
        for source in range(NUM_INPUTS + plan.num_nodes - 1):
            if source >= NUM_INPUTS:
                images.append(to_image(targets[source - NUM_INPUTS], size))
            node = plan.node(images[source], source)
            numbers = plan.numbers(source)
            shares = mix[numbers].t()
            outs = targets[-len(numbers) :]
            for operation, places in plan.operations(node):
                edges = _pick(shares, weights, numbers, places)
                own = operation.forward(node, edges, outs)
                kept += own
                counts.append(len(own))
        ctx.plan, ctx.counts, ctx.size = plan, counts, size
        ctx.save_for_backward(*images[:NUM_INPUTS], mix, *targets, *flat, *kept)
        return to_image(torch.cat(targets, dim=1), size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        input0, input1, mix, *rest = ctx.saved_tensors
        targets, rest = rest[: plan.num_nodes], rest[plan.num_nodes :]
        num_weights = sum(map(sum, plan.lengths))
        weights, kept = plan.nest(rest[:num_weights]), rest[num_weights:]
        counts = list(ctx.counts)
        images = [input0, input1, *(to_image(rows, ctx.size) for rows in targets)]

        wanted = any(ctx.needs_input_grad[4:])
        by_targets = list(to_rows(upstream).chunk(plan.num_nodes, dim=1))
        ups: list[Upstream] = []
        by_inputs: list[Tensor] = []
        by_mix = torch.zeros_like(mix)
        by_weights: list[list[list[Tensor]]] = [[[] for _ in edge] for edge in plan.lengths]
        for source in reversed(range(NUM_INPUTS + plan.num_nodes)):
            node = plan.node(images[source], source)
            numbers = plan.numbers(source)
            shares = mix[numbers].t()
            by_shares = torch.zeros_like(shares)
            for operation, places in reversed(plan.operations(node) if numbers else []):
                edges = _pick(shares, weights, numbers, places)
                count = counts.pop()
                own = tuple(kept[len(kept) - count :])
                del kept[len(kept) - count :]
                gradients = operation.backward(node, edges, own, ups[-len(numbers) :], wanted)
                for place, by_share, by_own in zip(places, *gradients, strict=True):
                    by_shares[place] = by_share
                    for number, of_edge in zip(numbers, by_own, strict=True):
                        by_weights[number][place] = of_edge
            by_mix[numbers] = by_shares.t()
            if source < NUM_INPUTS:
                by_inputs.insert(0, to_image(node.gradient(), size_of(node.image)))
            else:
                total = by_targets[source - NUM_INPUTS]
                total = total + node.gradient() if numbers else total
                mean = total.mean(0)
                ups.insert(0, Upstream(total - mean, mean))
        flat = [tensor for edge in by_weights for op in edge for tensor in op]
        return (None, *by_inputs, by_mix, *(flat if wanted else [None] * num_weights))


def _pick(
    shares: Tensor,
    weights: Sequence[Sequence[Sequence[Tensor]]],
    numbers: Sequence[int],
    places: Sequence[int],
) -> Edges:
    """Return some edges as an operation at some places among the primitives sees them."""
    return Edges(
        [shares[place] for place in places],
        [[weights[number][place] for number in numbers] for place in places],
    )
