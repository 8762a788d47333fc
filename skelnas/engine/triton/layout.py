"""Where results and weights are in the large tensors of the kernels.

Raw outputs are in one tensor [slots, P, C]. Every edge has the same number of slots: one for each
convolution, in the order of the primitives, then one for the second stage of each two-stage
convolution. Pools are apart, since the backward pass computes them again; in tables with a row a
slot, each source node has two for its pools after all edges. Gradients and their sums
have three additional slots an edge: for both pools and for the node itself.

Weights are in one flat tensor: for each source and operation those of all edges that leave the
source, dense ones as [C', k, k, C]; those of squeeze-and-excitation come last. A second tensor has
those of convolutions turned, as the forward pass reads them without bank conflicts: dense ones as
[k, k, C, C'], depthwise ones as [k, k, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from skelnas.engine.reference import Weights
from skelnas.engine.wiring import NUM_INPUTS, count_nodes, outgoing_edges

Shapes = list[list[list[torch.Size]]]
"""The shapes of the weights, for each edge and operation."""

MAX_CHANNELS = 64
"""Channels of the widest cell: the part of an image that a program holds grows with them."""


class Op(NamedTuple):
    """A convolution, as described to the kernels.

    Attributes:
        size: of its kernel.
        dilation: of a separable convolution.
        stages: separable stages; 0 for a dense convolution.
        position: of its id among the primitives.
    """

    size: int
    dilation: int
    stages: int
    position: int = 0

    @property
    def num_matrices(self) -> int:
        """Number of matrices [C', C] among the weights of an edge."""
        return self.stages or self.size**2

    def num_weights(self, channels: int) -> int:
        """Return the number of weights of an edge."""
        depth = self.size**2 * channels
        return self.stages * (depth + channels**2) if self.stages else depth * channels


def pack_ops(ops: Sequence[Op], channels: int) -> int:
    """Pack operations into one number, 64 bits each from the low end.

    4 bits each for size, dilation, stages and position, and for the numbers of separable and of
    two-stage convolutions before this one; from bit 32 on the weights, per edge, of all before it.
    `kernels.packed` reads them.
    """
    code = separable = two_stage = weights = 0
    for index, op in enumerate(ops):
        fields = op.size | op.dilation << 4 | op.stages << 8 | op.position << 12
        before = separable << 16 | two_stage << 20 | weights << 32
        code |= (fields | before) << 64 * index
        separable += op.stages > 0
        two_stage += op.stages == 2
        weights += op.num_weights(channels)
    return code


CONVOLUTIONS = {
    "conv_3x3": Op(3, 1, 0),
    "sep_conv_3x3": Op(3, 1, 2),
    "sep_conv_5x5": Op(5, 1, 2),
    "sep_conv_7x7": Op(7, 1, 2),
    "dil_conv_3x3": Op(3, 2, 1),
    "dil_conv_5x5": Op(5, 2, 1),
}

CONNECTIONS = ("skip_connect", "se_connect")
"""Dense 1 x 1 convolutions at stride 2; scales of channels at stride 1."""

POOLS = ("max_pool_3x3", "avg_pool_3x3")

COVERED = frozenset({"none", *CONVOLUTIONS, *CONNECTIONS, *POOLS})
"""The ids that the kernels cover."""


class Source(NamedTuple):
    """A node that edges leave.

    Attributes:
        number: of the node.
        first: its first target, counted from the first intermediate node; the others follow.
        num_edges: K, the number of its outgoing edges.
        stride: of its operations.
        ops: its convolutions.
        weights: offset of their weights.
        gates: offset of the weights of squeeze-and-excitation, after all convolutions.
    """

    number: int
    first: int
    num_edges: int
    stride: int
    ops: tuple[Op, ...]
    weights: int
    gates: int

    @property
    def num_separable(self) -> int:
        """Number of separable convolutions."""
        return sum(op.stages > 0 for op in self.ops)

    @property
    def num_two_stage(self) -> int:
        """Number of convolutions with a second stage."""
        return sum(op.stages == 2 for op in self.ops)

    @property
    def num_matrices(self) -> int:
        """Number of matrices [C', C] among the weights of an edge."""
        return sum(op.num_matrices for op in self.ops)

    @property
    def num_rows(self) -> int:
        """Number of rows of all depthwise kernels of an edge."""
        return sum(op.stages * op.size for op in self.ops)

    def num_weights(self, channels: int) -> int:
        """Return the number of weights of all convolutions."""
        return self.num_edges * sum(op.num_weights(channels) for op in self.ops)


class Layout(NamedTuple):
    """The layout of a cell.

    Attributes:
        num_ids: number of primitives, ``none`` included.
        positions: of connections and pools among the primitives; -1 for those that are absent.
        stage2_slot: the first slot of second stages, within an edge.
        slots: slots of an edge.
        hidden: width of the hidden layer of squeeze-and-excitation.
        order: for each flat weight its edge, the position of its id and its index in the operation.
        num_convolved: number of flat weights of convolutions; those of gates follow.
    """

    channels: int
    num_nodes: int
    num_edges: int
    num_ids: int
    positions: dict[str, int]
    sources: tuple[Source, ...]
    stage2_slot: int
    slots: int
    hidden: int
    order: tuple[tuple[int, int, int], ...]
    num_convolved: int

    @property
    def has_pool(self) -> bool:
        """Whether there is a pool."""
        return any(self.positions[name] >= 0 for name in POOLS)

    @property
    def has_gate(self) -> bool:
        """Whether there is squeeze-and-excitation."""
        return self.positions["se_connect"] >= 0

    @property
    def has_connection(self) -> bool:
        """Whether there is a skip connection or squeeze-and-excitation."""
        return any(self.positions[name] >= 0 for name in CONNECTIONS)

    @property
    def pool_slot(self) -> int:
        """The first slot of pools."""
        return self.num_edges * self.slots

    def pack(self, weights: Sequence[Sequence[Weights]], like: Tensor) -> Tensor:
        """Return all weights of a cell as one flat tensor, of the type and device of `like`."""
        flat = [weights[edge][position][index] for edge, position, index in self.order]
        return torch.cat([like.new_empty(0), *map(_to_channels_last, flat)])

    def turn(self, packed: Tensor) -> Tensor:
        """Return packed weights of convolutions with their input channels before the output."""
        order = _turned_order(self.sources, self.channels, packed.device)
        return packed.index_select(0, order)

    def unpack(self, flat: Sequence[Tensor], shapes: Shapes) -> list[Tensor]:
        """Split flat gradients, of convolutions and gates, into those of each weight, in order."""
        order = iter(self.order)
        found = {}
        for values in flat:
            start = 0
            while start < len(values):
                edge, position, index = next(order)
                shape = shapes[edge][position][index]
                weight = values[start : start + shape.numel()]
                found[edge, position, index] = _from_channels_last(weight, shape)
                start += shape.numel()
        return [found[key] for key in sorted(found)]


@lru_cache(maxsize=64)
def _turned_order(sources: tuple[Source, ...], channels: int, device: torch.device) -> Tensor:
    """Return the position among the packed weights of each turned one."""
    parts = []
    start = 0

    def append(c_out: int, taps: int, c_in: int) -> None:
        nonlocal start
        number = c_out * taps * c_in
        packed = torch.arange(start, start + number).view(c_out, taps, c_in)
        parts.append(packed.permute(1, 2, 0).flatten())  # [C', k * k, C] -> [k * k, C, C']
        start += number

    for source in sources:
        for op in source.ops:
            for _ in range(source.num_edges * max(op.stages, 1)):
                append(channels, op.size**2, 1 if op.stages else channels)
                if op.stages:
                    append(channels, 1, channels)
    return torch.cat(parts).to(device) if parts else torch.arange(0, device=device)


def _to_channels_last(weight: Tensor) -> Tensor:
    if weight.ndim == 4:
        weight = weight.permute(0, 2, 3, 1)  # [C', C, k, k] -> [C', k, k, C]
    return weight.reshape(-1)


def _from_channels_last(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    c_out, c_in, *kernel = shape
    return flat.view(c_out, *kernel, c_in).permute(0, 3, 1, 2)  # [C', k, k, C] -> [C', C, k, k]


@lru_cache(maxsize=64)
def make_layout(
    primitives: tuple[str, ...], num_edges: int, channels: int, hidden: int, reduction: bool
) -> Layout:
    """Lay out a cell with `num_edges` edges; `hidden` is the width of squeeze-and-excitation."""
    num_nodes = count_nodes(num_edges)
    positions = {
        name: primitives.index(name) if name in primitives else -1
        for name in (*CONNECTIONS, *POOLS)
    }
    plain = tuple(
        CONVOLUTIONS[name]._replace(position=position)
        for position, name in enumerate(primitives)
        if name in CONVOLUTIONS
    )
    reducing = tuple(Op(1, 1, 0, positions[name]) for name in CONNECTIONS if positions[name] >= 0)
    sources: list[Source] = []
    order: list[tuple[int, int, int]] = []
    start = 0
    for number in range(NUM_INPUTS + num_nodes - 1):
        first = max(number + 1 - NUM_INPUTS, 0)
        strided = reduction and number < NUM_INPUTS
        ops = plain + reducing if strided else plain
        count = num_nodes - first
        sources.append(Source(number, first, count, 2 if strided else 1, ops, start, 0))
        for op in ops:
            order += [
                (edge, op.position, index)
                for edge in outgoing_edges(number, num_nodes)
                for index in range(2 * op.stages or (2 if op.size == 1 else 1))
            ]
            start += count * op.num_weights(channels)
    convolved = start
    for number, source in enumerate(sources):
        sources[number] = source._replace(gates=start - convolved)
        if positions["se_connect"] >= 0 and source.stride == 1:
            order += [
                (edge, positions["se_connect"], index)
                for edge in outgoing_edges(number, num_nodes)
                for index in range(2)
            ]
            start += source.num_edges * prod((2, hidden, channels))
    stage2_slot = max(len(source.ops) for source in sources)
    return Layout(
        channels, num_nodes, num_edges, len(primitives), positions, tuple(sources), stage2_slot,
        stage2_slot + max(source.num_two_stage for source in sources), hidden, tuple(order),
        convolved,
    )  # fmt: skip
