"""A mixed cell as a sequence of kernels, forward and backward; needs Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skelnas.engine.reference import Weights
from skelnas.engine.triton import blocks, launches
from skelnas.engine.triton.launches import Setting, Size
from skelnas.engine.triton.layout import Layout, Shapes, Source, make_layout
from skelnas.engine.wiring import NUM_INPUTS


def evaluate(
    inputs: tuple[Tensor, Tensor],
    op_weights: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell whose operations all have kernels; see `reference.cell`."""
    hidden = 1
    if "se_connect" in primitives:
        hidden = len(weights[-1][list(primitives).index("se_connect")][0])
    layout = make_layout(tuple(primitives), len(op_weights), inputs[0].shape[1], hidden, reduction)
    shapes = [[[weight.shape for weight in op] for op in edge] for edge in weights]
    flat = [tensor for edge in weights for op in edge for tensor in op]
    with torch.autocast(op_weights.device.type, enabled=False):
        images = [image.to(op_weights.dtype) for image in inputs]
        out: Tensor = _Cell.apply(layout, shapes, *images, op_weights, *flat)  # type: ignore[no-untyped-call]
    return out


@dataclass(frozen=True)
class Saved:
    """Tensors of the forward pass, all needed by the backward pass.

    Attributes:
        input0, input1: [N, T, V, C].
        op_weights: [E, P].
        weights: all weights of the cell, flat; see `skelnas.engine.triton.layout`.
        turned: those of convolutions, turned.
        y: [slots, P, C], raw outputs of convolutions.
        norms: [slots, 2, C], means and 1 / sqrt(variance + eps) of these and of all pools.
        scales: [E, N, C], factors of the channels by skip and gate.
        nodes: [P, nodes * C], the intermediate nodes; they are the output.
        squeezed: [nodes, tiles, C], the sum of each tile of each intermediate node.
        squeezed0, squeezed1: [N, C], the sums of the inputs; empty if no gate reads them.
    """

    input0: Tensor
    input1: Tensor
    op_weights: Tensor
    weights: Tensor
    turned: Tensor
    y: Tensor
    norms: Tensor
    scales: Tensor
    nodes: Tensor
    squeezed: Tensor
    squeezed0: Tensor
    squeezed1: Tensor

    def image(self, source: Source, size: Size) -> tuple[Tensor, Size]:
        """Return the rows of a node and its size; the rows of intermediate nodes are strided.

        Args:
            source: the node.
            size: of the intermediate nodes.
        """
        if source.number < NUM_INPUTS:
            image = (self.input0, self.input1)[source.number]
            n, t, v, _ = image.shape
            return image, (n, t, v)
        channels = self.y.shape[2]
        return self.nodes[:, (source.number - NUM_INPUTS) * channels :], size

    def sums(self, source: Source, s: Setting) -> tuple[Tensor, int]:
        """Return the sums of a node over parts of each clip, and the number of parts of a clip."""
        if source.number < NUM_INPUTS:
            return (self.squeezed0, self.squeezed1)[source.number], 1
        return self.squeezed[source.number - NUM_INPUTS], s.tiles(s.blocks.light) // s.size[0]


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        shapes: Shapes,
        input0: Tensor,
        input1: Tensor,
        op_weights: Tensor,
        *flat: Tensor,
    ) -> Tensor:
        inputs = [_to_rows(image) for image in (input0, input1)]
        packed = layout.pack(_nest(flat, shapes), op_weights)
        saved = _forward(layout, inputs, op_weights.contiguous(), packed)
        ctx.layout, ctx.shapes = layout, shapes
        ctx.save_for_backward(*vars(saved).values())
        size = _output_size(layout, inputs[0])
        return saved.nodes.view(*size, -1).permute(0, 3, 1, 2)  # [P, nodes * C] -> [N, C', T', V']

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        saved = Saved(*ctx.saved_tensors)
        grad_weights = any(ctx.needs_input_grad[5:])
        wanted = ctx.needs_input_grad[2:4]
        grad_inputs, grad_op_weights, flat = _backward(
            ctx.layout, saved, grad_out, wanted, grad_weights
        )
        num_weights = len(ctx.needs_input_grad) - 5
        gradients = ctx.layout.unpack(flat, ctx.shapes) if grad_weights else [None] * num_weights
        images = [
            rows.permute(0, 3, 1, 2) if is_wanted else None  # [N, T, V, C] -> [N, C, T, V]
            for rows, is_wanted in zip(grad_inputs, wanted, strict=True)
        ]
        return (None, None, *images, grad_op_weights, *gradients)


def _forward(
    layout: Layout, inputs: Sequence[Tensor], op_weights: Tensor, weights: Tensor
) -> Saved:
    """Compute the nodes, from inputs [N, T, V, C], and everything that the backward pass needs."""
    size, channels = _output_size(layout, inputs[0]), layout.channels
    s = _setting(layout, inputs[0], size)
    num_pixels = size[0] * size[1] * size[2]
    num_slots = layout.pool_slot + 2 * len(layout.sources)
    new = op_weights.new_empty
    has_gate = layout.has_gate and layout.sources[0].stride == 1
    squeezed0, squeezed1 = (
        image.sum((1, 2)) if has_gate else op_weights.new_empty(0) for image in inputs
    )
    turned = layout.turn(weights)
    saved = Saved(
        input0=inputs[0],
        input1=inputs[1],
        op_weights=op_weights,
        weights=weights,
        turned=turned,
        y=new(layout.pool_slot, num_pixels, channels),
        norms=new(num_slots, 2, channels),
        scales=new(layout.num_edges, size[0], channels),
        nodes=new(num_pixels, layout.num_nodes * channels),
        squeezed=new(layout.num_nodes, s.tiles(s.blocks.light), channels),
        squeezed0=squeezed0,
        squeezed1=squeezed1,
    )
    sums = new(num_slots, 2, s.tiles(s.blocks.pixels), channels)
    pools = new(2 * len(layout.sources) * layout.has_pool, num_pixels, channels)
    outputs = {"y": saved.y, "norms": saved.norms}
    weighting = {"op_weights": op_weights, "scales": saved.scales}
    for source in layout.sources:
        image, source_size = saved.image(source, size)
        tensors = outputs | {
            "x": image,
            "sums": sums,
            "pools": pools[2 * source.number :],
            "turned": turned[source.weights :],
        }
        launches.compute_outputs(s, source, source_size, tensors)
        if s.is_scaled(source):
            gates = weighting | {"weights": weights[layout.num_convolved + source.gates :]}
            launches.compute_scales(s, source, *saved.sums(source, s), gates)
        target = source.number + 1 - NUM_INPUTS
        if target >= 0:  # its last source is done
            nodes = {
                "pools": pools,
                "x0": inputs[0],
                "x1": inputs[1],
                "nodes": saved.nodes,
                "out": saved.nodes[:, target * channels :],
                "squeezed": saved.squeezed[target],
            }
            launches.combine(s, target, outputs | weighting | nodes)
    return saved


@dataclass(frozen=True)
class _Buffers:
    """Tensors of the backward pass.

    Attributes:
        up: [nodes, P, C], the gradients of the intermediate nodes.
        sums: [E * (slots + 3), 3, tiles, C], of gradients, raw outputs and their products.
        coefficients: [E * (slots + 3), 3, C], of the gradients of raw outputs.
        inner_up: [two-stage convolutions, P, C], the gradients between two stages.
        grad_h, inner_grad_h: [separable or two-stage convolutions, P, C], the gradients of the
            depthwise outputs of first and second stages.
        pools, grad_pools: [2, P, C], the pools of one node and their gradients.
        max_indices: [P, C], the index 0 to 8 of each maximum under its 3 x 3 pool.
        grad_op_weights: [E, P].
        per_pixel: [nodes, N, C], the gradient that each pixel receives through a clip's mean.
    """

    up: Tensor
    sums: Tensor
    coefficients: Tensor
    inner_up: Tensor
    grad_h: Tensor
    inner_grad_h: Tensor
    pools: Tensor
    grad_pools: Tensor
    max_indices: Tensor
    grad_op_weights: Tensor
    per_pixel: Tensor


def _new_buffers(s: Setting, op_weights: Tensor, num_pixels: int) -> _Buffers:
    layout, new = s.layout, op_weights.new_empty
    channels = layout.channels
    num_tables = layout.num_edges * (layout.slots + 3)
    num_two_stage = max(source.num_two_stage * source.num_edges for source in layout.sources)
    num_separable = max(source.num_separable * source.num_edges for source in layout.sources)
    return _Buffers(
        up=new(layout.num_nodes, num_pixels, channels),
        sums=new(num_tables, 3, s.tiles(s.blocks.light), channels),
        coefficients=new(num_tables, 3, channels),
        inner_up=new(num_two_stage, num_pixels, channels),
        grad_h=new(num_separable, num_pixels, channels),
        inner_grad_h=new(num_two_stage, num_pixels, channels),
        pools=new(2, num_pixels, channels),
        grad_pools=new(2, num_pixels, channels),
        max_indices=new(num_pixels, channels, dtype=torch.uint8),
        grad_op_weights=torch.zeros_like(op_weights),
        per_pixel=new(layout.num_nodes, s.size[0], channels),
    )


def _backward(
    layout: Layout,
    saved: Saved,
    grad_out: Tensor,
    grad_inputs_wanted: Sequence[bool],
    grad_weights: bool,
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return the gradients of inputs, op weights and, flat and if needed, of all weights.

    `grad_out` is [N, nodes * C, T', V'], the gradients of the inputs are [N, T, V, C]; those that
    are not wanted are left unwritten.
    """
    size, channels = _output_size(layout, saved.input0), layout.channels
    s = _setting(layout, saved.input0, size)
    num_pixels, new = len(saved.nodes), saved.op_weights.new_empty
    grad_nodes = _to_rows(grad_out).view(num_pixels, -1)  # [N, T', V', C'] -> [P, nodes * C]
    buffers = _new_buffers(s, saved.op_weights, num_pixels)
    buffers.up[-1] = grad_nodes[:, -channels:]
    grad_convolutions = new(layout.num_convolved if grad_weights else 0)
    grad_gates = new(len(saved.weights) - layout.num_convolved)
    grad_inputs: list[Tensor] = []
    for source in reversed(layout.sources):
        image, source_size = saved.image(source, size)
        node = source.number - NUM_INPUTS
        is_input = node < 0
        out = torch.empty_like(image) if is_input else buffers.up[node]
        if is_input:
            grad_inputs.insert(0, out)
        tensors = vars(buffers) | {
            "y": saved.y,
            "norms": saved.norms,
            "op_weights": saved.op_weights,
            "scales": saved.scales,
            "x": image,
            "weights": saved.weights[source.weights :],
            "turned": saved.turned[source.weights :],
            "grad_weights": grad_convolutions[source.weights :],
            "out": out,
            "base": out if is_input else grad_nodes[:, node * channels :],
        }
        gates = tensors | {
            "weights": saved.weights[layout.num_convolved + source.gates :],
            "grad_weights": grad_gates[source.gates :],
        }
        launches.pool_again(s, source, source_size, tensors)
        launches.differentiate_outputs(s, source, tensors)
        if s.is_scaled(source):
            launches.differentiate_scales(s, source, *saved.sums(source, s), gates)
        is_wanted = not is_input or grad_inputs_wanted[source.number]
        if is_wanted or grad_weights:
            launches.differentiate_stages(s, source, source_size, tensors)
        if is_wanted:
            launches.differentiate_node(s, source, source_size, not is_input, tensors)
        if grad_weights:
            launches.differentiate_weights(s, source, source_size, tensors)
    return grad_inputs, buffers.grad_op_weights, [grad_convolutions, grad_gates]


def _nest(flat: Sequence[Tensor], shapes: Shapes) -> list[list[list[Tensor]]]:
    tensors = iter(flat)
    return [[[next(tensors) for _ in op] for op in edge] for edge in shapes]


def _setting(layout: Layout, image: Tensor, size: Size) -> Setting:
    sizes = blocks.choose(layout.channels, image.device)
    is_tf32 = torch.backends.cuda.matmul.allow_tf32
    return Setting(layout, sizes, size, "tf32" if is_tf32 else sizes.products)


def _to_rows(image: Tensor) -> Tensor:
    """Return [N, C, T, V] as a contiguous [N, T, V, C]; kernels read the memory, not the strides.

    `reshape` would not do: for one clip or equal values it returns views with other strides.
    """
    return image.permute(0, 2, 3, 1).contiguous()


def _output_size(layout: Layout, image: Tensor) -> Size:
    stride = layout.sources[0].stride
    n, t, v, _ = image.shape
    return n, -(-t // stride), -(-v // stride)
