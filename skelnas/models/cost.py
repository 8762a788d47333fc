"""What each operation of a genotype costs in the network that will be trained.

A network's cost is additive: that of its fixed rest, and for each edge that of its operation in all
cells of the kind. So costs are tabulated once, and a genotype is costed without building it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from skelnas.config import TrainSettings
from skelnas.data.dataset import clip_shape
from skelnas.data.readers.base import Layout
from skelnas.data.streams import branch_channels
from skelnas.genotype import CELLS, Cell, Edge, Genotype, possible_edges
from skelnas.models.complexity import Complexity, measure
from skelnas.models.network import Network
from skelnas.models.ops import make_op, op_stride
from skelnas.models.stack import cell_specs

FREE = "max_pool_3x3"
"""An operation without weights and multiply-adds at any stride."""

ZERO = Complexity(0, 0)


@dataclass(frozen=True)
class NetworkShape:
    """What the cost of a network depends on, besides its genotype.

    Attributes:
        layers: number of cells.
        channels: C of the first cell.
        frames: T of a clip.
        joints: V of a clip, those of all persons.
        num_classes: width of the classifier.
        branches: input channels of each branch; one entry for a network without branches.
        nodes: intermediate nodes of a cell.
        persons: M of a clip.
    """

    layers: int
    channels: int
    frames: int
    joints: int
    num_classes: int
    branches: tuple[int, ...]
    nodes: int = 4
    persons: int = 1

    @classmethod
    def of(
        cls,
        settings: TrainSettings,
        layout: Layout,
        max_persons: int,
        num_classes: int,
        nodes: int = 4,
    ) -> NetworkShape:
        """Return the shape of the network that `settings` train on clips of a layout."""
        channels, frames, joints = clip_shape(layout, max_persons, settings)
        branches = [channels]
        if settings.branches:
            branches = [len(indices) for indices in branch_channels(settings.streams, layout)]
        return cls(
            layers=settings.layers,
            channels=settings.channels,
            frames=frames,
            joints=joints,
            num_classes=num_classes,
            branches=tuple(branches),
            nodes=nodes,
            persons=max_persons,
        )

    @property
    def joints_of_person(self) -> int:
        """V of one person."""
        return self.joints // self.persons


@dataclass(frozen=True)
class CostTable:
    """The cost of every choice that a genotype makes.

    Attributes:
        edges: by kind of cell, for each of the `possible_edges`: the cost of each operation in all
            cells of the kind, in the order of the space.
        rest: the cost of all else: stem, preprocessing of the cells, classifier.
    """

    edges: Mapping[str, Sequence[Mapping[str, Complexity]]]
    rest: Complexity

    def total(self, genotype: Genotype) -> Complexity:
        """Return the cost of a genotype's network; equals `skelnas.models.complexity.measure`."""
        total = self.rest
        for kind, index, op in genotype.chosen_ops():
            total += self.edges[kind][index][op]
        return total


def make_cost_table(shape: NetworkShape, ops: Sequence[str]) -> CostTable:
    """Measure the operations of a space where they may stand, on the network's own modules.

    Args:
        shape: of the network that will be trained.
        ops: ids of the operations; ``none`` is left out.
    """
    with torch.random.fork_rng(devices=[]):  # modules draw their weights, and draws belong to a run
        return CostTable(_measure_edges(shape, ops), _measure_rest(shape))


def _measure_edges(
    shape: NetworkShape, ops: Sequence[str]
) -> dict[str, list[dict[str, Complexity]]]:
    """Sum the cost of each operation on each edge over all cells of a kind."""
    sources = [source for _, source in possible_edges(shape.nodes)]
    edges = {kind: [{op: ZERO for op in ops if op != "none"} for _ in sources] for kind in CELLS}
    cost_of = _make_meter()
    frames, joints = shape.frames, shape.joints
    layout = (shape.channels, shape.layers, shape.nodes, shape.nodes)
    for spec in cell_specs(*layout, shape.joints_of_person):
        halved = -(-frames // 2), -(-joints // 2)
        for source, costs in zip(sources, edges[CELLS[spec.reduction]], strict=True):
            stride = op_stride(spec.reduction, source)
            size = halved if spec.reduction and stride == 1 else (frames, joints)
            place = (spec.channels, stride, spec.joints_at(source), size)
            for op in costs:
                costs[op] += _times(len(shape.branches), cost_of(op, *place))
        if spec.reduction:
            frames, joints = halved
    return edges


def _make_meter() -> Callable[[str, int, int, int, tuple[int, int]], Complexity]:
    """Return a function that measures each operation once per channels, stride, joints and size."""

    @cache
    def cost_of(
        op: str, channels: int, stride: int, joints: int, size: tuple[int, int]
    ) -> Complexity:
        return measure(make_op(op, channels, stride, joints=joints), (channels, *size))

    return cost_of


def _measure_rest(shape: NetworkShape) -> Complexity:
    """Measure the network whose operations are all free."""
    cell: Cell = ((Edge(FREE, 0),),) * shape.nodes
    rest = ZERO
    for in_channels in sorted(set(shape.branches)):
        network = Network(
            Genotype(cell, cell),
            in_channels=in_channels,
            num_classes=shape.num_classes,
            channels=shape.channels,
            num_layers=shape.layers,
        )
        cost = measure(network, (in_channels, shape.frames, shape.joints))
        rest += _times(shape.branches.count(in_channels), cost)
    return rest


def _times(count: int, cost: Complexity) -> Complexity:
    return Complexity(count * cost.parameters, count * cost.macs)
