"""The network that a genotype describes, to be trained from scratch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skelnas.genotype import NUM_INPUT_NODES, Cell, Genotype
from skelnas.models.channels_last import with_channels_last_gradient
from skelnas.models.norm import JointNorm
from skelnas.models.ops import make_edge_op, make_preprocessing
from skelnas.models.stack import CellSpec, cell_specs, make_stem, output_channels


class DropPath(nn.Module):
    """Drop an edge for whole clips in training, and scale the remaining clips up.

    Attributes:
        factors: [N], the factor of each clip of the batch; None for 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factors: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, T, V] to the same shape."""
        if not self.training or self.factors is None:
            return x
        return x * self.factors.to(x.dtype)[:, None, None, None]


class DerivedCell(nn.Module):
    """A cell with the operations of a genotype."""

    def __init__(self, spec: CellSpec, cell: Cell) -> None:
        super().__init__()
        self.sources = [[edge.source for edge in node] for node in cell]
        self.preprocess0, self.preprocess1 = make_preprocessing(spec)
        self.nodes = nn.ModuleList()
        for node in cell:
            ops = nn.ModuleList()
            for edge in node:
                op = make_edge_op(edge.op, spec, edge.source)
                # An identity is never dropped (DARTS).
                ops.append(op if isinstance(op, nn.Identity) else nn.Sequential(op, DropPath()))
            self.nodes.append(ops)

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Map the outputs of the two cells before, after ReLU, to this cell's output."""
        states = [self.preprocess0(before_last), self.preprocess1(last)]
        for ops, sources in zip(self.nodes, self.sources, strict=True):
            incoming = [op(states[source]) for op, source in zip(ops, sources, strict=True)]  # type: ignore[call-overload]
            states.append(sum(incoming[1:], start=incoming[0]))
        return torch.cat(states[NUM_INPUT_NODES:], dim=1)  # nodes x [N, C, T', V'] -> [N, C', ...]


class Network(nn.Module):
    """The derived network: stem, cells, global mean, classifier.

    Paper: 9 cells, with reduction cells at a third and two thirds of the depth. With 36 channels,
    the released NTU cross-subject genotype has 1.319 million parameters for 60 classes.

    Args:
        genotype: the two cells.
        in_channels: channels of the clips, 3 for x, y, z.
        num_classes: width of the classifier.
        channels: C of the first cell.
        num_layers: number of cells.
        joints: V of one person, which operations that mix joints need; 0 for none.
        normalised_joints: V, to normalise each channel of each joint before the stem; 0 for none.
    """

    def __init__(
        self,
        genotype: Genotype,
        *,
        in_channels: int,
        num_classes: int,
        channels: int = 36,
        num_layers: int = 9,
        joints: int = 0,
        normalised_joints: int = 0,
    ) -> None:
        super().__init__()
        self.input_norm: nn.Module = nn.Identity()
        if normalised_joints:
            self.input_norm = JointNorm(in_channels, normalised_joints)
        self.stem = make_stem(in_channels, channels)
        layout = (channels, num_layers, len(genotype.normal), len(genotype.reduction))
        self.cells = nn.ModuleList(
            DerivedCell(spec, genotype.reduction if spec.reduction else genotype.normal)
            for spec in cell_specs(*layout, joints)
        )
        self.num_classes = num_classes
        self.classifier = nn.Linear(output_channels(*layout), num_classes)
        self._drop_paths = [module for module in self.modules() if isinstance(module, DropPath)]

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, V] to logits [N, classes]."""
        *cells, last_cell = self.cells
        before_last = last = torch.relu(self.stem(self.input_norm(x)))
        for cell in cells:
            before_last, last = last, torch.relu(cell(before_last, last))
        image = with_channels_last_gradient(last_cell(before_last, last))  # [N, C, T, V]
        logits: Tensor = self.classifier(image.mean(dim=(2, 3)))  # [N, C] -> [N, classes]
        return logits

    def draw_drop_paths(
        self, probability: float, num_clips: int, generator: torch.Generator, rank_slice: slice
    ) -> None:
        """Draw which edges are dropped for which clips of the next batch.

        Args:
            probability: of each edge and clip, at least 0 and below 1.
            num_clips: of the batch, on all ranks.
            generator: on the CPU, so that every device draws the same.
            rank_slice: the clips of this rank.
        """
        keep = 1.0 - probability
        mask = torch.rand(len(self._drop_paths), num_clips, generator=generator) < keep
        factors = (mask[:, rank_slice] / keep).to(self.classifier.weight.device)
        for module, row in zip(self._drop_paths, factors, strict=True):
            module.factors = row
