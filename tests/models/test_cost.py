"""A table of costs says what `measure` says of the network itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from skelnas.config import TrainSettings
from skelnas.data.readers.ntu import LAYOUT
from skelnas.genotype import BUILT_IN, Edge, Genotype, random_genotype
from skelnas.models.branches import Branches
from skelnas.models.complexity import Complexity, measure
from skelnas.models.cost import CostTable, NetworkShape, make_cost_table
from skelnas.models.network import Network
from skelnas.primitives import PRIMITIVES

OPS = [op for op in PRIMITIVES if op != "none"]

SMALL = NetworkShape(
    layers=5, channels=3, frames=13, joints=9, num_classes=4, branches=(3,), nodes=2
)


def measure_network(genotype: Genotype, shape: NetworkShape) -> Complexity:
    """Build the network and measure it."""
    networks = [
        Network(
            genotype,
            in_channels=in_channels,
            num_classes=shape.num_classes,
            channels=shape.channels,
            num_layers=shape.layers,
            joints=shape.joints_of_person,
        )
        for in_channels in shape.branches
    ]
    if len(networks) == 1:
        return measure(networks[0], (shape.branches[0], shape.frames, shape.joints))
    most = max(shape.branches)
    channels = [list(range(count)) for count in shape.branches]
    return measure(Branches(networks, channels), (most, shape.frames, shape.joints))


@pytest.fixture(scope="module")
def table() -> CostTable:
    return make_cost_table(SMALL, list(PRIMITIVES))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kind", ["normal", "reduction"])
def test_every_operation_at_every_place(table: CostTable, op: str, kind: str) -> None:
    pools = ((Edge("max_pool_3x3", 0),), (Edge("max_pool_3x3", 1),))
    places = [
        ((Edge(op, 0),), pools[1]),
        ((Edge(op, 1),), pools[1]),
        *((pools[0], (Edge(op, source),)) for source in range(3)),
    ]
    for index, cell in enumerate(places):
        genotype = replace(Genotype(pools, pools), **{kind: cell})
        expected = measure_network(genotype, SMALL)
        assert table.total(genotype) == expected
        assert table.rest + table.edges[kind][index][op] == expected


@pytest.mark.parametrize(
    "shape",
    [
        replace(SMALL, nodes=4),
        replace(SMALL, nodes=4, layers=1, channels=16),
        replace(SMALL, nodes=4, layers=2, joints=1),
        replace(SMALL, nodes=2, layers=7, branches=(3, 3, 6)),
        replace(SMALL, nodes=3, frames=1, channels=5),
        replace(SMALL, nodes=4, channels=8, joints=26, persons=2),
    ],
)
def test_random_genotypes_in_networks_of_any_shape(shape: NetworkShape) -> None:
    table = make_cost_table(shape, OPS)
    for seed in range(3):
        genotype = random_genotype(seed, ",".join(OPS), shape.nodes)
        assert table.total(genotype) == measure_network(genotype, shape)


def test_a_table_keeps_the_order_of_the_space(table: CostTable) -> None:
    for cell in table.edges.values():
        assert [list(costs) for costs in cell] == [OPS] * 5


def test_the_released_genotype_has_the_published_size() -> None:
    shape = NetworkShape.of(TrainSettings(streams="joint"), LAYOUT, max_persons=2, num_classes=60)
    cost = make_cost_table(shape, OPS).total(BUILT_IN["ntu_cs112se30"])
    assert round(cost.parameters / 1e6, 3) == 1.319
    assert round(cost.macs / 1e9, 2) == 1.33


def test_the_shape_follows_the_settings() -> None:
    settings = TrainSettings(layers=5, channels=8, frames=20, streams="joint,bone", branches=True)
    assert NetworkShape.of(settings, LAYOUT, max_persons=2, num_classes=7, nodes=3) == NetworkShape(
        layers=5,
        channels=8,
        frames=20,
        joints=50,
        num_classes=7,
        branches=(3, 3, 6),
        nodes=3,
        persons=2,
    )


def test_measuring_leaves_random_numbers_alone() -> None:
    torch.manual_seed(1)
    make_cost_table(SMALL, OPS)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert drawn == torch.rand(1)
