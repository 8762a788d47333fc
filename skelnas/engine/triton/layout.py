"""Where the kernels find what in their large tensors.

Raw outputs lie in one tensor [slots, P, C]. Each edge has the same number of slots: first one for
every convolution, in the order of the primitives, then one for the second stage of each that has
two. After all edges come two slots a source of edges, for its pools. Gradients and their sums
have three more slots an edge: for both pools and for the node itself.

Weights lie in one flat tensor: for each source and operation those of all edges that leave it, a
dense one as [C, k, k, C]; squeeze-and-excitation comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from skelnas.engine.reference import Weights

Shapes = list[list[list[torch.Size]]]
"""Of the weights: for each edge and operation those of each."""

NUM_INPUTS = 2

MAX_CHANNELS = 64
"""Of a cell; what one program holds of an image grows with them."""


class Op(NamedTuple):
    """A convolution as the kernels know it.

    Attributes:
        size: of its kernel.
        dilation: of a separable one.
        stages: separable stages; 0 for a dense convolution.
        place: of its id among the primitives.
    """

    size: int
    dilation: int
    stages: int
    place: int = 0

    def num_weights(self, channels: int) -> int:
        """Return the number of the weights of an edge."""
        depth = self.size**2 * channels
        return self.stages * (depth + channels**2) if self.stages else depth * channels


def code_of(ops: Sequence[Op], channels: int) -> int:
    """Return operations as one number, 64 bits each: `skelnas.engine.triton.kernels` says how."""
    code = separable = two_stage = taps = weights = 0
    for index, op in enumerate(ops):
        form = op.size | op.dilation << 4 | op.stages << 8 | op.place << 12
        before = separable << 16 | two_stage << 20 | taps << 24 | weights << 32
        code |= (form | before) << 64 * index
        separable += op.stages > 0
        two_stage += op.stages == 2
        taps += 0 if op.stages else op.size**2
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
"""1 x 1 convolutions, dense ones, at stride 2; scales of channels at stride 1."""

POOLS = ("max_pool_3x3", "avg_pool_3x3")

COVERED = frozenset({"none", *CONVOLUTIONS, *CONNECTIONS, *POOLS})
"""The ids that there are kernels for."""


class Source(NamedTuple):
    """A node that edges leave.

    Attributes:
        first: the first node that it has an edge to; intermediate nodes count from 0.
        num_edges: K; the others follow.
        stride: of its operations.
        ops: its convolutions.
        weights, gates: where those and the weights of squeeze-and-excitation begin.
    """

    number: int
    first: int
    num_edges: int
    stride: int
    ops: tuple[Op, ...]
    weights: int
    gates: int

    @property
    def separable(self) -> int:
        """Number of convolutions that are separable."""
        return sum(op.stages > 0 for op in self.ops)

    @property
    def two_stage(self) -> int:
        """Number of convolutions that have a second stage."""
        return sum(op.stages == 2 for op in self.ops)

    @property
    def dense_taps(self) -> int:
        """Number of the taps of all dense convolutions."""
        return sum(op.size**2 for op in self.ops if not op.stages)


class Layout(NamedTuple):
    """The plan of a cell.

    Attributes:
        places: for each of the ids that are no convolutions its place, or -1.
        num_ids: number of primitives, ``none`` included.
        terms: where the slots of second stages begin in those of an edge.
        slots: number of those of an edge.
        hidden: width of squeeze-and-excitation.
        order: edge, place and position of each flat weight.
        num_convolved: how many of the flat weights are no gates'.
    """

    channels: int
    num_nodes: int
    num_edges: int
    num_ids: int
    places: dict[str, int]
    sources: tuple[Source, ...]
    terms: int
    slots: int
    hidden: int
    order: tuple[tuple[int, int, int], ...]
    num_convolved: int

    @property
    def pooled(self) -> bool:
        """Say whether there is a pool."""
        return any(self.places[name] >= 0 for name in POOLS)

    @property
    def gated(self) -> bool:
        """Say whether there is squeeze-and-excitation."""
        return self.places["se_connect"] >= 0

    @property
    def connected(self) -> bool:
        """Say whether there is a skip or squeeze-and-excitation."""
        return any(self.places[name] >= 0 for name in CONNECTIONS)

    @property
    def pools_at(self) -> int:
        """The first slot of pools."""
        return self.num_edges * self.slots

    def pack(self, weights: Sequence[Sequence[Weights]], like: Tensor) -> Tensor:
        """Return all weights of a cell as one flat tensor of the kind of `like`."""
        flat = [weights[edge][place][position] for edge, place, position in self.order]
        return torch.cat([like.new_empty(0), *map(_rows, flat)])

    def unpack(self, flat: Sequence[Tensor], shapes: Shapes) -> list[Tensor]:
        """Return flat gradients, of convolutions and of gates, in the order of the weights."""
        order = iter(self.order)
        found = {}
        for values in flat:
            start = 0
            while start < len(values):
                edge, place, position = next(order)
                shape = shapes[edge][place][position]
                found[edge, place, position] = _unrow(values[start : start + shape.numel()], shape)
                start += shape.numel()
        return [found[key] for key in sorted(found)]


def _rows(weight: Tensor) -> Tensor:
    return (weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight).reshape(-1)


def _unrow(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    out, into, *kernel = shape
    return flat.view(out, *kernel, into).permute(0, 3, 1, 2)


def edges_of(first: int, num_edges: int, source: int) -> list[int]:
    """Return the numbers of a source's edges, as the reference counts."""
    return [node * (node + 3) // 2 + source for node in range(first, first + num_edges)]


@lru_cache(maxsize=64)
def make_layout(
    primitives: tuple[str, ...], num_edges: int, channels: int, hidden: int, reduction: bool
) -> Layout:
    """Lay out a cell of `num_edges` edges; `hidden` is the width of squeeze-and-excitation."""
    num_nodes = next(n for n in range(1, num_edges) if n * (n + 3) // 2 == num_edges)
    places = {
        name: primitives.index(name) if name in primitives else -1
        for name in (*CONNECTIONS, *POOLS)
    }
    plain = tuple(
        CONVOLUTIONS[name]._replace(place=place)
        for place, name in enumerate(primitives)
        if name in CONVOLUTIONS
    )
    halving = tuple(Op(1, 1, 0, places[name]) for name in CONNECTIONS if places[name] >= 0)
    sources: list[Source] = []
    order: list[tuple[int, int, int]] = []
    start = 0
    for number in range(NUM_INPUTS + num_nodes - 1):
        first = max(number + 1 - NUM_INPUTS, 0)
        near = reduction and number < NUM_INPUTS
        ops = plain + halving if near else plain
        count = num_nodes - first
        sources.append(Source(number, first, count, 2 if near else 1, ops, start, 0))
        for op in ops:
            order += [
                (edge, op.place, position)
                for edge in edges_of(first, count, number)
                for position in range(2 * op.stages or (2 if op.size == 1 else 1))
            ]
            start += count * op.num_weights(channels)
    convolved = start
    for number, source in enumerate(sources):
        sources[number] = source._replace(gates=start - convolved)
        if places["se_connect"] >= 0 and source.stride == 1:
            order += [
                (edge, places["se_connect"], position)
                for edge in edges_of(source.first, source.num_edges, number)
                for position in range(2)
            ]
            start += source.num_edges * prod((2, hidden, channels))
    terms = max(len(source.ops) for source in sources)
    return Layout(
        channels, num_nodes, num_edges, len(primitives), places, tuple(sources), terms,
        terms + max(source.two_stage for source in sources), hidden, tuple(order), convolved,
    )  # fmt: skip
