"""The supernet: each edge of each cell mixes all candidate operations, weighted by alphas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from skelnas.config import SearchSettings
from skelnas.engine import ENGINES
from skelnas.engine.choice import Demands, EngineChoice, choose
from skelnas.engine.triton import Cells
from skelnas.genotype import CELLS, possible_edges
from skelnas.models.ops import make_edge_op, make_preprocessing
from skelnas.models.stack import CellSpec, cell_specs, make_stem, output_channels
from skelnas.primitives import candidates
from skelnas.runtime import distributed

ALPHA_INIT_SCALE = 1e-3
"""Standard deviation of the initial alphas (authors' release)."""


def choose_engine(settings: SearchSettings) -> EngineChoice:
    """Choose the engine of a search.

    Raises:
        UsageError: the requested engine cannot do what the settings demand.
    """
    return choose(settings.engine, demands(settings))


def demands(settings: SearchSettings) -> Demands:
    """Return what a search demands of its engine."""
    layout = settings.channels, settings.layers, settings.nodes, settings.nodes
    cuda = settings.device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    widths = sorted({spec.channels for spec in cell_specs(*layout)})
    return Demands(
        cells=Cells(candidates(settings.space), tuple(widths), settings.nodes),
        device=torch.device("cuda" if cuda else "cpu"),
        tf32=settings.precision == "tf32",
        second_derivative=settings.hessian == "exact" and settings.order == "second",
        bfloat16=settings.precision == "bf16",
        sync_batch_norm=settings.batch_norm == "sync" and distributed.world_size() > 1,
    )


class MixedCell(nn.Module):
    """A cell of mixed ops: it owns the weights, an engine evaluates it."""

    def __init__(
        self,
        spec: CellSpec,
        primitives: Sequence[str],
        num_nodes: int,
        engine: str,
    ) -> None:
        super().__init__()
        self.engine = ENGINES[engine]
        self.reduction = spec.reduction
        self.primitives = tuple(primitives)
        self.preprocess0, self.preprocess1 = make_preprocessing(spec, searching=True)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {op: make_edge_op(op, spec, source, searching=True) for op in self.primitives}
            )
            for _, source in possible_edges(num_nodes)
        )

    def forward(self, s0: Tensor, s1: Tensor, op_weights: Tensor) -> Tensor:
        """Evaluate the cell.

        Args:
            s0, s1: outputs of the last cell but one and of the last cell, after ReLU,
                [N, C, T, V].
            op_weights: softmax of the alphas, [edges, primitives].
        """
        inputs = self.preprocess0(s0), self.preprocess1(s1)
        weights = [
            [tuple(op.parameters()) for op in edge.values()]  # type: ignore[operator]
            for edge in self.edges
        ]
        return self.engine(inputs, op_weights, self.primitives, weights, self.reduction)


class Supernet(nn.Module):
    """The search network: stem, mixed cells, global mean, classifier.

    Paper: 6 cells, 4 normal and 2 reduction, 16 channels, 4 intermediate nodes. BatchNorm keeps
    no running statistics: the supernet is always evaluated with those of the current batch, so
    the passes of a search step cannot affect each other.

    Args:
        in_channels: channels of a clip, 3 for x, y, z.
        num_classes: number of classes.
        primitives: ids of the candidate operations, see `skelnas.primitives.candidates`.
        channels: channels of the first cell; a reduction cell doubles them.
        num_layers: number of cells.
        num_nodes: intermediate nodes of a cell.
        joints: V of one person, which operations that mix joints need; 0 for none.
        engine: name in `skelnas.engine.ENGINES`.
        checkpoint_cells: recompute each cell in the backward pass to save memory.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        primitives: Sequence[str],
        channels: int = 16,
        num_layers: int = 6,
        num_nodes: int = 4,
        joints: int = 0,
        engine: str = "reference",
        checkpoint_cells: bool = False,
    ) -> None:
        super().__init__()
        self.primitives = tuple(primitives)
        self.checkpoint_cells = checkpoint_cells
        self.stem = make_stem(in_channels, channels, searching=True)
        layout = (channels, num_layers, num_nodes, num_nodes)
        self.cells = nn.ModuleList(
            MixedCell(spec, self.primitives, num_nodes, engine)
            for spec in cell_specs(*layout, joints)
        )
        self.classifier = nn.Linear(output_channels(*layout), num_classes)
        self.alphas = nn.ParameterDict(
            {
                cell: nn.Parameter(
                    ALPHA_INIT_SCALE * torch.randn(len(possible_edges(num_nodes)), len(primitives))
                )
                for cell in CELLS
            }
        )

    @classmethod
    def of(cls, settings: SearchSettings, in_channels: int, num_classes: int, joints: int) -> Self:
        """Build the supernet for the settings of a search; `joints` is V of one person."""
        return cls(
            in_channels=in_channels,
            num_classes=num_classes,
            primitives=candidates(settings.space),
            channels=settings.channels,
            num_layers=settings.layers,
            num_nodes=settings.nodes,
            joints=joints,
            engine=choose_engine(settings).name,
            checkpoint_cells=settings.checkpoint_cells,
        )

    def op_weights(self) -> dict[str, Tensor]:
        """Return the softmax of the alphas of each kind of cell, [edges, primitives]."""
        return {cell: alphas.softmax(dim=-1) for cell, alphas in self.alphas.items()}

    def forward(self, x: Tensor, op_weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Map clips [N, C, T, V] to logits [N, classes].

        Args:
            x: the clips.
            op_weights: replaces the softmax of the alphas, by kind of cell.
        """
        op_weights = self.op_weights() if op_weights is None else op_weights
        *cells, last_cell = self.cells
        s0 = s1 = torch.relu(self.stem(x))
        for cell in cells:
            s0, s1 = s1, torch.relu(self._evaluate(cell, s0, s1, op_weights))
        image = self._evaluate(last_cell, s0, s1, op_weights)
        logits: Tensor = self.classifier(image.mean(dim=(2, 3)))  # [N, C, T, V] -> [N, classes]
        return logits

    def _evaluate(
        self, cell: nn.Module, s0: Tensor, s1: Tensor, op_weights: Mapping[str, Tensor]
    ) -> Tensor:
        inputs = s0, s1, op_weights["reduction" if cell.reduction else "normal"]
        output: Tensor = _checkpointed(cell, *inputs) if self.checkpoint_cells else cell(*inputs)
        return output

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the name and value of every parameter except the alphas."""
        for name, parameter in self.named_parameters():
            if not name.startswith("alphas."):
                yield name, parameter


def _checkpointed(cell: nn.Module, *inputs: Tensor) -> Tensor:
    """Evaluate a cell now and once more in the backward pass, with its current weights.

    They are captured here because they may have changed by then: those of a virtual step are in
    place for one pass only.
    """
    weights: dict[str, Tensor] = dict(cell.named_parameters())

    def run(*inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(cell, weights, inputs)
        return output

    output: Tensor = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
    return output
