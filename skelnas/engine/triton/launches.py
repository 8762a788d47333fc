"""Launch the kernels for the edges that leave a node, in the order of their dependencies.

Kernels take their arguments by name: `Setting` has those that all kernels of a node share,
`skelnas.engine.triton.mixed_cell` provides the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skelnas.engine.norm import EPS
from skelnas.engine.triton.blocks import Blocks, padded_channels
from skelnas.engine.triton.kernels import backward, forward, gates, stages, weights
from skelnas.engine.triton.layout import Layout, Source, pack_ops
from skelnas.engine.wiring import NUM_INPUTS

Size = tuple[int, int, int]
"""N, T and V of an image."""

Tensors = Mapping[str, Tensor]
"""Tensors by the names of the kernels' arguments."""

CLIPS = 8
"""Clips whose gates a program computes at once."""


ROW_LENGTHS = {"x": "ROW", "nodes": "ROW", "out": "ROW", "base": "BASE_ROW"}
"""The tensors whose rows may be apart, with the argument that says how far."""


def launch(
    kernel: Any, grid: tuple[int, ...], blocks: Blocks, arguments: Mapping[str, Any]
) -> None:
    """Run a kernel with those of the arguments that it takes; do nothing if the grid is empty.

    Raises:
        ValueError: the kernel, which gets addresses alone, would misread a tensor.
    """
    if all(grid):
        taken = {name: arguments[name] for name in kernel.arg_names}
        for name, value in taken.items():
            if isinstance(value, Tensor) and not value.is_contiguous():
                row = taken.get(ROW_LENGTHS.get(name, ""))
                if value.ndim != 2 or value.stride() != (row, 1):
                    raise ValueError(
                        f"{name} of {kernel.fn.__name__} has the strides {value.stride()}"
                    )
        kernel[grid](**taken, **blocks.options)


class Setting(NamedTuple):
    """What all kernels of a cell have in common.

    Attributes:
        size: of the intermediate nodes.
        precision: of products, in the terms of `triton.language.dot`; those for weights are FMA
            instead of "tf32x3".
    """

    layout: Layout
    blocks: Blocks
    size: Size
    precision: str

    def tiles(self, block: int, size: Size | None = None) -> int:
        """Return the number of tiles, each of up to `block` pixels, of an image."""
        n, t, v = size or self.size
        return n * -(-t * v // block)

    def is_scaled(self, source: Source) -> bool:
        """Return whether a node has a skip or squeeze-and-excitation that scales channels."""
        return source.stride == 1 and self.layout.has_connection

    def arguments(self, source: Source, size: Size) -> dict[str, Any]:
        """Return the arguments, other than tensors, for the edges that leave a node of a size."""
        layout = self.layout
        padded = padded_channels(layout.channels)
        n, t, v = size
        positions = layout.positions
        return {
            "N": n, "T": t, "V": v, "TO": self.size[1], "VO": self.size[2],
            "pixels": self.size[1] * self.size[2],
            "C": layout.channels, "BC": padded, "STRIDE": source.stride,
            "ROW": layout.channels * (layout.num_nodes if source.number >= NUM_INPUTS else 1),
            "K": source.num_edges, "first": source.first, "source": source.number,
            "slots": layout.slots, "stage2_slot": layout.stage2_slot,
            "pool_slot": layout.pool_slot,
            "OPS": pack_ops(source.ops, layout.channels), "NUM_OPS": len(source.ops),
            "POOLS": layout.has_pool, "SCALED": self.is_scaled(source), "IDS": layout.num_ids,
            "MAX_POOL": positions["max_pool_3x3"], "AVG_POOL": positions["avg_pool_3x3"],
            "SKIP": positions["skip_connect"], "GATE": positions["se_connect"],
            "H": layout.hidden, "BH": 1 << (layout.hidden - 1).bit_length(), "BN": CLIPS,
            "ROWS": self.blocks.sums // padded, "EPS": EPS,
            "PRECISION": self.precision,
        }  # fmt: skip


def compute_outputs(s: Setting, source: Source, size: Size, tensors: Tensors) -> None:
    """Compute the raw outputs of all edges that leave a node, and their statistics."""
    arguments = {**s.arguments(source, size), **tensors, "BP": s.blocks.pixels}
    tiles = s.tiles(s.blocks.pixels)
    for stage in (1, 2):
        pools = stage == 1 and s.layout.has_pool
        num_ops = len(source.ops) if stage == 1 else source.num_two_stage
        edges = min(s.blocks.edges, 1 << (source.num_edges - 1).bit_length())
        arguments |= {"STAGE": stage, "POOLS": pools, "tiles": tiles, "num_ops": num_ops}
        arguments |= {"first_slot": 0 if stage == 1 else s.layout.stage2_slot, "EDGES": edges}
        outputs = num_ops * source.num_edges
        num_dense = sum(op.stages == 0 for op in source.ops) if stage == 1 else 0
        jobs = (num_ops - num_dense) * source.num_edges + num_dense * -(-source.num_edges // edges)
        launch(forward.convolve_and_pool, (tiles, jobs + pools), s.blocks.multiplying, arguments)
        launch(forward.finish_statistics, (outputs + 2 * pools,), s.blocks.finishing, arguments)


def compute_scales(
    s: Setting, source: Source, squeezed: Tensor, chunks: int, tensors: Tensors
) -> None:
    """Compute the factors of each clip's channels, from skip and gate.

    Args:
        s: what the kernels of the cell share.
        source: the node.
        squeezed: [N * chunks, C], the sums of the node over parts of each clip.
        chunks: parts of a clip.
        tensors: the others.
    """
    arguments = s.arguments(source, s.size) | {"squeezed": squeezed, "chunks": chunks, **tensors}
    grid = (-(-s.size[0] // CLIPS), source.num_edges)
    launch(gates.channel_scales, grid, s.blocks, arguments)


def combine(s: Setting, target: int, tensors: Tensors) -> None:
    """Sum everything that enters an intermediate node; they count from 0."""
    inputs, nodes = s.layout.sources[0], s.layout.sources[-1]
    arguments = {
        **s.arguments(nodes, s.size), **tensors, "target": target, "BP": s.blocks.light,
        "OPS0": pack_ops(inputs.ops, s.layout.channels), "NUM_OPS0": len(inputs.ops),
        "SCALED0": s.is_scaled(inputs), "ROW": s.layout.channels * s.layout.num_nodes,
    }  # fmt: skip
    launch(forward.combine, (s.tiles(s.blocks.light),), s.blocks, arguments)


def pool_again(s: Setting, source: Source, size: Size, tensors: Tensors) -> None:
    """Compute both pools of a node again, with the index of each maximum."""
    if s.layout.has_pool:
        arguments = {**s.arguments(source, size), **tensors, "BP": s.blocks.light}
        launch(forward.pool, (s.tiles(s.blocks.light),), s.blocks, arguments)


def differentiate_outputs(s: Setting, source: Source, tensors: Tensors) -> None:
    """Compute the gradients of raw outputs and op weights from those of a node's targets."""
    tiles = s.tiles(s.blocks.light)
    arguments = {**s.arguments(source, s.size), **tensors, "BP": s.blocks.light, "tiles": tiles}
    launch(backward.sum_products, (tiles, source.num_edges), s.blocks, arguments)
    outputs = (len(source.ops) + 2 * s.layout.has_pool) * source.num_edges
    launch(backward.finish_gradients, (outputs,), s.blocks.finishing, arguments | {"STAGE": 2})


def differentiate_scales(
    s: Setting, source: Source, squeezed: Tensor, chunks: int, tensors: Tensors
) -> None:
    """Compute the gradients of skip and gate; arguments as in `compute_scales`."""
    arguments = s.arguments(source, s.size) | {"squeezed": squeezed, "chunks": chunks, **tensors}
    arguments["tiles"] = s.tiles(s.blocks.light)
    launch(gates.scales_backward, (source.num_edges,), s.blocks, arguments)


def differentiate_stages(s: Setting, source: Source, size: Size, tensors: Tensors) -> None:
    """Compute the gradients of separable stages, the second one first, and of the pools."""
    heavy, light = s.tiles(s.blocks.pixels), s.tiles(s.blocks.light)
    both = {**s.arguments(source, size), **tensors}
    inner = both | {"grad_h": tensors["inner_grad_h"]}
    jobs = source.num_two_stage * source.num_edges

    pointwise = {"STAGE": 2, "POOLS": False, "BP": s.blocks.pixels}
    launch(stages.pointwise_backward, (heavy, jobs), s.blocks.multiplying, inner | pointwise)
    depthwise = {"STAGE": 1, "BP": s.blocks.light, "tiles": light}
    launch(stages.depthwise_backward, (light, jobs), s.blocks, inner | depthwise)
    launch(backward.finish_gradients, (jobs,), s.blocks.finishing, inner | depthwise)

    jobs = source.num_separable * source.num_edges + s.layout.has_pool
    pointwise |= {"STAGE": 1, "POOLS": s.layout.has_pool}
    launch(stages.pointwise_backward, (heavy, jobs), s.blocks.multiplying, both | pointwise)


def differentiate_node(
    s: Setting, source: Source, size: Size, has_base: bool, tensors: Tensors
) -> None:
    """Collect the gradient of a node.

    Args:
        s: what the kernels of the cell share.
        source: the node.
        size: of the node.
        has_base: whether the node also has a gradient from outside the cell.
        tensors: the others.
    """
    (n, t, v), step = size, source.stride
    arguments = {
        **s.arguments(source, size), **tensors,
        "gated": int(s.layout.has_gate), "HAS_BASE": has_base, "BP": s.blocks.pixels,
        "BASE_ROW": s.layout.channels * s.layout.num_nodes,
    }  # fmt: skip
    grid = (s.tiles(s.blocks.pixels, (n, -(-t // step), -(-v // step))), step**2)
    launch(backward.node_gradient, grid, s.blocks.collecting, arguments)


def differentiate_weights(s: Setting, source: Source, size: Size, tensors: Tensors) -> None:
    """Compute the gradients of the weights of convolutions."""
    tiles = s.tiles(s.blocks.pixels)
    if not source.ops:
        return
    splits = min(-(-s.blocks.programs // (source.num_matrices * source.num_edges)), tiles)
    length = source.num_weights(s.layout.channels)
    parts = tensors["y"].new_empty(splits, length)
    arguments = {**s.arguments(source, size), **tensors, "parts": parts, "length": length}
    arguments |= {"BP": s.blocks.pixels, "tiles": tiles}
    if s.precision == "tf32x3":  # takes so many registers here that FMA is modelled to be faster
        arguments["PRECISION"] = "ieee"
    grid = (splits, source.num_matrices, source.num_edges)
    launch(weights.matrix_gradients, grid, s.blocks.multiplying, arguments)
    grid = (splits, source.num_rows, source.num_edges)
    arguments |= {"BP": s.blocks.light, "tiles": s.tiles(s.blocks.light)}
    launch(weights.depthwise_gradients, grid, s.blocks, arguments)
    torch.sum(parts, 0, out=tensors["grad_weights"][:length])
