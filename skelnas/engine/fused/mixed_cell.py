"""A mixed cell as one autograd function with a hand-written gradient.

The forward pass visits the nodes in order; each operation adds to the targets of all edges that
leave a node. The backward pass visits them in reverse: a node's gradient is complete once all edges
that leave it are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skelnas.engine.fused.connections import Reduce, Scale
from skelnas.engine.fused.convolutions import MIX_JOINTS, Dense, Separable
from skelnas.engine.fused.fallback import Fallback
from skelnas.engine.fused.images import size_of, to_image, to_rows
from skelnas.engine.fused.node import Node
from skelnas.engine.fused.operation import Edges, Operation, Saved, Upstream
from skelnas.engine.fused.pools import AveragePool, MaxPool
from skelnas.engine.reference import Weights
from skelnas.engine.wiring import NUM_INPUTS, count_nodes, outgoing_edges

OPERATIONS: dict[str, Operation] = {
    "max_pool_3x3": MaxPool(),
    "avg_pool_3x3": AveragePool(),
    "conv_3x3": Dense((True, True)),
    "conv_7x1_1x7": Dense((False, True), (True, False)),
    "sep_conv_3x3": Separable(),
    "sep_conv_5x5": Separable(),
    "sep_conv_7x7": Separable(),
    "dil_conv_3x3": Separable(dilation=2),
    "dil_conv_5x5": Separable(dilation=2),
    "tconv_9x1": Separable(),
    "joint_conv": Separable(MIX_JOINTS),
}
"""The fused form of each id. Ids that are neither here nor in `CONNECTIONS` take a `Fallback`."""

CONNECTIONS = ("skip_connect", "se_connect")
"""Ids that are evaluated together, by `Scale` or `Reduce`."""

NestedWeights = Sequence[Sequence[Sequence[Tensor]]]
"""For each edge and id, its weights."""

Key = tuple[int, int]
"""A source node and the position, among the primitives, of the first id that is served."""


def cell(
    inputs: tuple[Tensor, Tensor],
    op_weights: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell; arguments and result are those of `skelnas.engine.reference.cell`.

    The result can be differentiated once, not twice. The cell is evaluated in the precision of
    `op_weights`, also under autocast.
    """
    flat = [tensor for edge in weights for op in edge for tensor in op]
    counts = tuple(tuple(len(op) for op in edge) for edge in weights)
    plan = _Plan(tuple(primitives), count_nodes(len(weights)), counts, reduction)
    with torch.autocast(op_weights.device.type, enabled=False):
        images = [image.to(op_weights.dtype) for image in inputs]
        out: Tensor = _Cell.apply(plan, *images, op_weights, *flat)  # type: ignore[no-untyped-call]
    return out


class _Plan(NamedTuple):
    """The shape of a cell.

    Attributes:
        num_nodes: intermediate nodes.
        weight_counts: for each edge and id, the number of its weights.
    """

    primitives: tuple[str, ...]
    num_nodes: int
    weight_counts: tuple[tuple[int, ...], ...]
    reduction: bool

    def node(self, image: Tensor, source: int) -> Node:
        """Make a node of the cell."""
        return Node(image, 2 if self.reduction and source < NUM_INPUTS else 1)

    def operations(self, node: Node) -> list[tuple[Operation, list[int]]]:
        """List the operations on the edges of a node, with the positions of the ids they serve."""
        operations: list[tuple[Operation, list[int]]] = [
            (OPERATIONS.get(op) or Fallback(op), [position])
            for position, op in enumerate(self.primitives)
            if op != "none" and op not in CONNECTIONS
        ]
        connections = [i for i, op in enumerate(self.primitives) if op in CONNECTIONS]
        if connections:
            ids = [self.primitives[position] for position in connections]
            operations.append((Scale(ids) if node.stride == 1 else Reduce(), connections))
        return operations

    def nest(self, flat: Iterator[Tensor]) -> NestedWeights:
        """Take all weights of the cell from an iterator and nest them by edge and id."""
        return [[list(islice(flat, n)) for n in edge] for edge in self.weight_counts]


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: _Plan, input0: Tensor, input1: Tensor, op_weights: Tensor, *flat: Tensor
    ) -> Tensor:
        images = [image.contiguous(memory_format=torch.channels_last) for image in (input0, input1)]
        weights = plan.nest(iter(flat))
        size = plan.node(images[0], 0).edge_size
        num_pixels = size[0] * size[1] * size[2]
        targets = [op_weights.new_zeros(num_pixels, input0.shape[1]) for _ in range(plan.num_nodes)]
        saved: dict[Key, Saved] = {}
        for source in range(NUM_INPUTS + plan.num_nodes - 1):
            if source >= NUM_INPUTS:
                images.append(to_image(targets[source - NUM_INPUTS], size))
            node = plan.node(images[source], source)
            numbers = outgoing_edges(source, plan.num_nodes)
            by_op = _op_weights_of(numbers, op_weights)
            outs = targets[-len(numbers) :]
            for operation, positions in plan.operations(node):
                edges = _edges(by_op, weights, numbers, positions)
                saved[source, positions[0]] = operation.forward(node, edges, outs)
        ctx.plan, ctx.size = plan, size
        ctx.saved_counts = {key: len(tensors) for key, tensors in saved.items()}
        ctx.save_for_backward(
            *images[:NUM_INPUTS], op_weights, *targets, *flat, *chain(*saved.values())
        )
        return to_image(torch.cat(targets, dim=1), size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        tensors = iter(ctx.saved_tensors)
        images = list(islice(tensors, NUM_INPUTS))
        op_weights = next(tensors)
        images += [to_image(rows, ctx.size) for rows in islice(tensors, plan.num_nodes)]
        weights = plan.nest(tensors)
        saved = {key: tuple(islice(tensors, count)) for key, count in ctx.saved_counts.items()}
        grad_weights = any(ctx.needs_input_grad[4:])
        grad_inputs, grad_op_weights, gradients = _backward(
            plan, images, op_weights, weights, saved, grad_out, grad_weights
        )
        flat = [tensor for edge in gradients for op in edge for tensor in op]
        num_weights = sum(map(sum, plan.weight_counts))
        return (
            None,
            *grad_inputs,
            grad_op_weights,
            *(flat if grad_weights else [None] * num_weights),
        )


def _backward(
    plan: _Plan,
    images: Sequence[Tensor],
    op_weights: Tensor,
    weights: NestedWeights,
    saved: dict[Key, Saved],
    grad_out: Tensor,
    grad_weights: bool,
) -> tuple[list[Tensor], Tensor, NestedWeights]:
    """Return the gradients of the inputs, the op weights and, if needed, the weights."""
    grad_targets = to_rows(grad_out).chunk(plan.num_nodes, dim=1)
    ups: list[Upstream] = []
    grad_inputs: list[Tensor] = []
    grad_op_weights = [op_weights] * len(op_weights)  # all are replaced
    gradients: list[list[list[Tensor]]] = [[[] for _ in edge] for edge in plan.weight_counts]
    for source in reversed(range(NUM_INPUTS + plan.num_nodes)):
        node = plan.node(images[source], source)
        numbers = outgoing_edges(source, plan.num_nodes)
        by_op = _op_weights_of(numbers, op_weights)
        grad_by_op = torch.zeros_like(by_op)
        for operation, positions in reversed(plan.operations(node) if numbers else []):
            edges = _edges(by_op, weights, numbers, positions)
            found = operation.backward(
                node, edges, saved[source, positions[0]], ups[-len(numbers) :], grad_weights
            )
            for position, grad_op_weight, of_edges in zip(positions, *found, strict=True):
                grad_by_op[position] = grad_op_weight
                for number, of_edge in zip(numbers, of_edges, strict=True):
                    gradients[number][position] = of_edge
        for number, column in zip(numbers, grad_by_op.unbind(1), strict=True):
            grad_op_weights[number] = column
        if source < NUM_INPUTS:
            grad_inputs.insert(0, to_image(node.gradient(), size_of(node.image)))
        else:
            total = grad_targets[source - NUM_INPUTS]
            total = total + node.gradient() if numbers else total
            mean = total.mean(0)
            ups.insert(0, Upstream(total - mean, mean))
    return grad_inputs, torch.stack(grad_op_weights), gradients


def _op_weights_of(numbers: Sequence[int], op_weights: Tensor) -> Tensor:
    """Return the op weights of some edges as [ids, K].

    An index made of `numbers` would be copied to the device, which a CUDA graph cannot record.
    """
    rows = [op_weights[number] for number in numbers]
    return torch.stack(rows, 1) if rows else op_weights.new_empty(op_weights.shape[1], 0)


def _edges(
    by_op: Tensor, weights: NestedWeights, numbers: Sequence[int], positions: Sequence[int]
) -> Edges:
    """Return edges as the operation sees them that serves the ids at some positions.

    Args:
        by_op: [ids, K], the op weights of the edges.
        weights: of the cell.
        numbers: of the edges.
        positions: of the ids.
    """
    return Edges(
        [by_op[position] for position in positions],
        [[weights[number][position] for number in numbers] for position in positions],
    )
