"""How cells are stacked, in the supernet and in the derived network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from skelnas.genotype import NUM_INPUT_NODES
from skelnas.models.norm import BatchNorm

STEM_MULTIPLIER = 3
"""Channels of the stem over those of the first cell (authors' release)."""


@dataclass(frozen=True)
class CellSpec:
    """Sizes of one cell of a network.

    Attributes:
        input_channels: of the outputs of the cell before the last and of the last cell.
        channels: C of every node of this cell.
        reduction: whether this cell halves T and V.
        after_reduction: whether the last cell halves them, so that the other input is too large.
        joints: V of one person at the input nodes; 0 if unknown.
    """

    input_channels: tuple[int, int]
    channels: int
    reduction: bool
    after_reduction: bool
    joints: int = 0

    def joints_at(self, source: int) -> int:
        """Return V of one person at a node; 0 if unknown."""
        halved = self.reduction and source >= NUM_INPUT_NODES
        return -(-self.joints // 2) if halved else self.joints


def cell_specs(
    channels: int, num_layers: int, normal_nodes: int, reduction_nodes: int, joints: int = 0
) -> Iterator[CellSpec]:
    """Yield the cells of a network; a third and two thirds down, a reduction doubles the channels.

    Args:
        channels: C of the first cell.
        num_layers: number of cells.
        normal_nodes, reduction_nodes: intermediate nodes of a cell, which are concatenated.
        joints: V of one person in a clip; 0 if unknown.
    """
    before_last = last = STEM_MULTIPLIER * channels
    after_reduction = False
    for layer in range(num_layers):
        reduction = layer in (num_layers // 3, 2 * num_layers // 3)
        if reduction:
            channels *= 2
        yield CellSpec((before_last, last), channels, reduction, after_reduction, joints)
        num_nodes = reduction_nodes if reduction else normal_nodes
        before_last, last = last, num_nodes * channels
        after_reduction = reduction
        joints = -(-joints // 2) if reduction else joints


def output_channels(channels: int, num_layers: int, normal_nodes: int, reduction_nodes: int) -> int:
    """Return the channels of the output of the last cell."""
    *_, last = cell_specs(channels, num_layers, normal_nodes, reduction_nodes)
    return last.channels * (reduction_nodes if last.reduction else normal_nodes)


def make_stem(in_channels: int, channels: int, searching: bool = False) -> nn.Module:
    """Make the stem: 3 x 3 convolution and normalisation with scale and shift, no ReLU."""
    width = STEM_MULTIPLIER * channels
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        BatchNorm(width, track_running_stats=not searching),
    )
