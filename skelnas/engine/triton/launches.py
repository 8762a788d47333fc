"""Running the kernels on the edges that leave a node, in the order in which they need each other.

Kernels take their arguments by name: what is the same for all kernels of a node is in `Setting`,
the tensors come from `skelnas.engine.triton.mixed_cell`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from skelnas.engine.norm import EPS
from skelnas.engine.triton.blocks import Blocks, reserved
from skelnas.engine.triton.kernels import backward, forward, gates, stages
from skelnas.engine.triton.layout import NUM_INPUTS, Layout, Source, code_of

Size = tuple[int, int, int]
"""N, T and V of an image."""

Tensors = Mapping[str, Tensor]

CLIPS = 8
"""So many clips' gates are computed at once."""


def launch(kernel: Any, grid: tuple[int, ...], warps: int, arguments: Mapping[str, Any]) -> None:
    """Run a kernel on those of the arguments that it has; without programs nothing is run."""
    if all(grid):
        own = {name: arguments[name] for name in kernel.arg_names}
        kernel[grid](**own, num_warps=warps, enable_fp_fusion=True)


class Setting(NamedTuple):
    """What all kernels of a cell are told.

    Attributes:
        size: of the intermediate nodes.
        precision: of products, as `triton.language.dot` calls it.
    """

    layout: Layout
    blocks: Blocks
    size: Size
    precision: str

    def tiles(self, pixels: int, size: Size | None = None) -> int:
        """Return how many tiles of so many pixels an image has."""
        n, t, v = size or self.size
        return n * -(-t * v // pixels)

    def scaled(self, source: Source) -> bool:
        """Say whether a node has skip or squeeze-and-excitation that scales channels."""
        return source.stride == 1 and self.layout.connected

    def arguments(self, source: Source, size: Size) -> dict[str, Any]:
        """Return whatever kernels ask about the edges that leave a node of some size."""
        layout = self.layout
        wide = reserved(layout.channels)
        largest = max((op.size for op in source.ops if op.stages), default=1)
        n, t, v = size
        places = layout.places
        return {
            "N": n, "T": t, "V": v, "TO": self.size[1], "VO": self.size[2],
            "pixels": self.size[1] * self.size[2],
            "C": layout.channels, "BC": wide, "STRIDE": source.stride,
            "ROW": layout.channels * (layout.num_nodes if source.number >= NUM_INPUTS else 1),
            "K": source.num_edges, "first": source.first, "source": source.number,
            "slots": layout.slots, "terms": layout.terms, "pools_at": layout.pools_at,
            "OPS": code_of(source.ops, layout.channels), "NUM_OPS": len(source.ops),
            "POOLS": layout.pooled, "SCALED": self.scaled(source), "IDS": layout.num_ids,
            "MAXIMUM": places["max_pool_3x3"], "AVERAGE": places["avg_pool_3x3"],
            "SKIP": places["skip_connect"], "GATE": places["se_connect"],
            "H": layout.hidden, "BH": 1 << (layout.hidden - 1).bit_length(), "BN": CLIPS,
            "TAPS": 1 << (largest**2 - 1).bit_length(), "num_weights": layout.num_convolved,
            "ROWS": 2048 // wide, "EPS": EPS, "PRECISION": self.precision,
        }  # fmt: skip


def leave_node(s: Setting, source: Source, size: Size, tensors: Tensors) -> None:
    """Compute the raw outputs of all edges that leave a node, and their statistics."""
    given = {**s.arguments(source, size), **tensors, "BP": s.blocks.pixels}
    tiles = s.tiles(s.blocks.pixels)
    for stage in (1, 2):
        pools = stage == 1 and s.layout.pooled
        ops = len(source.ops) if stage == 1 else source.two_stage
        own = {"STAGE": stage, "POOLS": pools, "tiles": tiles, "num_ops": ops}
        own["terms"] = s.layout.terms if stage == 2 else 0
        jobs = ops * source.num_edges
        launch(forward.convolve_and_pool, (tiles, jobs + pools), s.blocks.warps, given | own)
        launch(forward.finish_statistics, (jobs + 2 * pools,), s.blocks.warps, given | own)


def scale(s: Setting, source: Source, squeezed: Tensor, chunks: int, tensors: Tensors) -> None:
    """Compute what skip and gate scale the channels of each clip by.

    Args:
        squeezed: [N * chunks, C], the node's sums over parts of each clip.
    """
    given = s.arguments(source, s.size) | {"squeezed": squeezed, "chunks": chunks, **tensors}
    launch(gates.scales_of, (-(-s.size[0] // CLIPS), source.num_edges), s.blocks.warps, given)


def combine(s: Setting, target: int, tensors: Tensors) -> None:
    """Sum all that enters an intermediate node."""
    near, far = s.layout.sources[0], s.layout.sources[-1]
    given = {
        **s.arguments(far, s.size), **tensors, "target": target, "BP": s.blocks.light,
        "OPS0": code_of(near.ops, s.layout.channels), "NUM_OPS0": len(near.ops),
        "SCALED0": s.scaled(near), "ROW": s.layout.channels * s.layout.num_nodes,
    }  # fmt: skip
    launch(forward.combine, (s.tiles(s.blocks.light),), s.blocks.warps, given)


def leave_targets(s: Setting, source: Source, tensors: Tensors) -> None:
    """Take the gradients of a node's targets to those of raw outputs and shares."""
    tiles = s.tiles(s.blocks.light)
    given = {**s.arguments(source, s.size), **tensors, "BP": s.blocks.light, "tiles": tiles}
    launch(backward.meet, (tiles, source.num_edges), s.blocks.warps, given)
    results = (len(source.ops) + 2 * s.layout.pooled) * source.num_edges
    launch(backward.finish_gradients, (results,), s.blocks.warps, given | {"STAGE": 2})


def through_scales(
    s: Setting, source: Source, squeezed: Tensor, chunks: int, tensors: Tensors
) -> None:
    """Differentiate in what scales channels; `squeezed` as in `scale`."""
    given = s.arguments(source, s.size) | {"squeezed": squeezed, "chunks": chunks, **tensors}
    given["tiles"] = s.tiles(s.blocks.light)
    launch(gates.through_scales, (source.num_edges,), s.blocks.warps, given)


def through_stages(s: Setting, source: Source, size: Size, wanted: bool, tensors: Tensors) -> None:
    """Take gradients through separable stages, the second one first, and to the pools."""
    heavy, light = s.tiles(s.blocks.pixels), s.tiles(s.blocks.light)
    splits = min(s.blocks.splits, heavy) if wanted else heavy
    given = {**s.arguments(source, size), **tensors, "WANTED": wanted}

    def pointwise(stage: int, ops: int, pools: bool) -> None:
        own = {"STAGE": stage, "POOLS": pools, "BP": s.blocks.pixels, "tiles": heavy}
        grid = (splits, ops * source.num_edges + pools)
        launch(stages.through_pointwise, grid, s.blocks.warps, given | own)

    inner = source.two_stage * source.num_edges
    pointwise(2, source.two_stage, pools=False)
    own = {"BP": s.blocks.light, "tiles": light, "STAGE": 1}
    launch(stages.through_depthwise, (light, inner), s.blocks.warps, given | own)
    launch(backward.finish_gradients, (inner,), s.blocks.warps, given | own)
    pointwise(1, source.separable, s.layout.pooled)


def to_node(s: Setting, source: Source, size: Size, based: bool, tensors: Tensors) -> None:
    """Collect a node's gradient; `based`: it has one from outside the cell already."""
    (n, t, v), step = size, source.stride
    own = {
        "extra": int(s.layout.gated), "BASED": based, "BP": s.blocks.pixels,
        "BASE_ROW": s.layout.channels * s.layout.num_nodes,
    }  # fmt: skip
    grid = (s.tiles(s.blocks.pixels, (n, -(-t // step), -(-v // step))), step**2)
    launch(backward.to_node, grid, s.blocks.warps, {**s.arguments(source, size), **tensors, **own})


def to_dense_weights(s: Setting, source: Source, size: Size, tensors: Tensors) -> None:
    """Differentiate in the weights of dense convolutions."""
    tiles = s.tiles(s.blocks.pixels)
    grid = (min(s.blocks.splits, tiles), source.dense_taps, source.num_edges)
    own = {"BP": s.blocks.pixels, "tiles": tiles}
    given = {**s.arguments(source, size), **tensors, **own}
    launch(stages.to_dense_weights, grid, s.blocks.warps, given)
