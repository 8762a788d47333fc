"""A mixed cell as a sequence of kernels, forward and backward; needs Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skelnas.engine.reference import Weights
from skelnas.engine.triton import blocks, launches
from skelnas.engine.triton.launches import Setting, Size
from skelnas.engine.triton.layout import NUM_INPUTS, Layout, Shapes, Source, make_layout


def evaluate(
    inputs: tuple[Tensor, Tensor],
    mix: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell whose operations all have kernels; see `reference.cell`."""
    hidden = 1
    if "se_connect" in primitives:
        hidden = len(weights[-1][list(primitives).index("se_connect")][0])
    layout = make_layout(tuple(primitives), len(mix), inputs[0].shape[1], hidden, reduction)
    shapes = [[[weight.shape for weight in op] for op in edge] for edge in weights]
    flat = [tensor for edge in weights for op in edge for tensor in op]
    with torch.autocast(mix.device.type, enabled=False):
        images = [image.to(mix.dtype) for image in inputs]
        out: Tensor = _Cell.apply(layout, shapes, *images, mix, *flat)  # type: ignore[no-untyped-call]
    return out


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        shapes: Shapes,
        input0: Tensor,
        input1: Tensor,
        mix: Tensor,
        *flat: Tensor,
    ) -> Tensor:
        inputs = [image.contiguous(memory_format=torch.channels_last) for image in (input0, input1)]
        packed = layout.pack(_nest(flat, shapes), mix)
        kept = _forward(layout, inputs, mix.contiguous(), packed)
        ctx.layout, ctx.shapes, ctx.names = layout, shapes, list(kept)
        ctx.save_for_backward(*kept.values())
        size = _output_size(layout, input0)
        return kept["nodes"].view(*size, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        kept = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        wanted = any(ctx.needs_input_grad[5:])
        by_inputs, by_mix, flat = _backward(ctx.layout, kept, upstream, wanted)
        num_weights = len(ctx.needs_input_grad) - 5
        by_weights = ctx.layout.unpack(flat, ctx.shapes) if wanted else [None] * num_weights
        return (None, None, *by_inputs, by_mix, *by_weights)


def _forward(
    layout: Layout, inputs: Sequence[Tensor], mix: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Compute the nodes of a cell, rows side by side, and all that the backward pass needs."""
    size, channels = _output_size(layout, inputs[0]), layout.channels
    s = _setting(layout, inputs[0], size)
    pixels = size[0] * size[1] * size[2]
    slots = layout.pools_at + 2 * len(layout.sources)
    kept = {
        "input0": inputs[0],
        "input1": inputs[1],
        "mix": mix,
        "weights": weights,
        "y": mix.new_empty(slots, pixels, channels),
        "norms": mix.new_empty(slots, 2, channels),
        "places": mix.new_empty(len(layout.sources), pixels, channels, dtype=torch.uint8),
        "scales": mix.new_empty(layout.num_edges, size[0], channels),
        "nodes": mix.new_empty(pixels, layout.num_nodes * channels),
        "squeezed": mix.new_empty(layout.num_nodes, s.tiles(s.blocks.light), channels),
    }
    for number, image in enumerate(inputs):
        kept[f"squeezed{number}"] = image.sum((2, 3)) if layout.gated else mix.new_empty(0)
    sums = mix.new_empty(slots, 2, s.tiles(s.blocks.pixels), channels)
    some = {name: kept[name] for name in ("y", "norms")}
    for source in layout.sources:
        image, own_size = _image(kept, source, size)
        places, own = kept["places"][source.number], weights[source.weights :]
        tensors = some | {"x": image, "sums": sums, "places": places, "weights": own}
        launches.leave_node(s, source, own_size, tensors)
        if s.scaled(source):
            gates = {"weights": weights[layout.num_convolved + source.gates :]}
            launches.scale(
                s,
                source,
                *_squeezed(kept, s, source),
                gates | {name: kept[name] for name in ("mix", "scales")},
            )
        node = source.number - 1
        if node >= 0:  # all of its sources are done
            out = {"out": kept["nodes"][:, node * channels :], "squeezed": kept["squeezed"][node]}
            images = {"x0": inputs[0], "x1": inputs[1]}
            given = {name: kept[name] for name in ("mix", "scales", "nodes")}
            launches.combine(s, node, some | given | images | out)
    return kept


def _backward(
    layout: Layout, kept: dict[str, Tensor], upstream: Tensor, wanted: bool
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return the gradients of inputs, shares and, if wanted, flat ones of all weights."""
    size, channels = _output_size(layout, kept["input0"]), layout.channels
    s = _setting(layout, kept["input0"], size)
    mix = kept["mix"]
    pixels = len(kept["nodes"])
    tables = layout.num_edges * (layout.slots + 3)
    by_nodes = upstream.permute(0, 2, 3, 1).reshape(pixels, -1)
    up = mix.new_empty(layout.num_nodes, pixels, channels)
    up[-1] = by_nodes[:, -channels:]
    separable = max(source.separable * source.num_edges for source in layout.sources)
    two_stage = max(source.two_stage * source.num_edges for source in layout.sources)
    splits = min(s.blocks.splits, s.tiles(s.blocks.pixels))
    own = {name: kept[name] for name in ("y", "norms", "mix")}
    own |= {
        "up": up,
        "sums": mix.new_empty(tables, 3, s.tiles(s.blocks.light), channels),
        "coefficients": mix.new_empty(tables, 3, channels),
        "inner_up": mix.new_empty(two_stage, pixels, channels),
        "by_h": mix.new_empty(separable, pixels, channels),
        "by_pools": mix.new_empty(2, pixels, channels),
        "by_mix": torch.zeros_like(mix),
        "everywhere": mix.new_empty(layout.num_nodes, size[0], channels),
    }
    by_convolutions = mix.new_empty(splits, layout.num_convolved if wanted else 0)
    by_gates = mix.new_empty(len(kept["weights"]) - layout.num_convolved)
    by_inputs: list[Tensor] = []
    for source in reversed(layout.sources):
        image, own_size = _image(kept, source, size)
        node = source.number - NUM_INPUTS
        given = own | {"x": image, "weights": kept["weights"][source.weights :]}
        given |= {"places": kept["places"][source.number], "scales": kept["scales"]}
        given |= {"by_weights": by_convolutions.view(-1)[source.weights if wanted else 0 :]}
        if node < 0:
            given["out"] = torch.empty_like(image)
            given["base"] = given["out"]
            by_inputs.insert(0, given["out"])
        else:
            given["out"], given["base"] = up[node], by_nodes[:, node * channels :]
        gates = given | {
            "weights": kept["weights"][layout.num_convolved + source.gates :],
            "by_weights": by_gates[source.gates :],
        }
        launches.leave_targets(s, source, given)
        if s.scaled(source):
            launches.through_scales(s, source, *_squeezed(kept, s, source), gates)
        launches.through_stages(s, source, own_size, wanted, given)
        launches.to_node(s, source, own_size, node >= 0, given)
        if wanted:
            launches.to_dense_weights(s, source, own_size, given)
    return by_inputs, own["by_mix"], [by_convolutions.sum(0), by_gates]


def _nest(flat: Sequence[Tensor], shapes: Shapes) -> list[list[list[Tensor]]]:
    tensors = iter(flat)
    return [[[next(tensors) for _ in op] for op in edge] for edge in shapes]


def _setting(layout: Layout, image: Tensor, size: Size) -> Setting:
    tf32 = torch.backends.cuda.matmul.allow_tf32
    sizes = blocks.choose(layout.channels, image.device)
    return Setting(layout, sizes, size, "tf32" if tf32 else "ieee")


def _size(image: Tensor) -> Size:
    n, _, t, v = image.shape
    return n, t, v


def _output_size(layout: Layout, image: Tensor) -> Size:
    stride = layout.sources[0].stride
    n, t, v = _size(image)
    return n, -(-t // stride), -(-v // stride)


def _image(kept: dict[str, Tensor], source: Source, size: Size) -> tuple[Tensor, Size]:
    """Return a node of a cell, whose rows may be apart, and its size."""
    if source.number < NUM_INPUTS:
        image = kept[f"input{source.number}"]
        return image, _size(image)
    channels = kept["y"].shape[2]
    return kept["nodes"][:, (source.number - NUM_INPUTS) * channels :], size


def _squeezed(kept: dict[str, Tensor], s: Setting, source: Source) -> tuple[Tensor, int]:
    """Return the sums of parts of each clip of a node, and how many parts a clip has."""
    if source.number < NUM_INPUTS:
        return kept[f"squeezed{source.number}"], 1
    return kept["squeezed"][source.number - NUM_INPUTS], s.tiles(s.blocks.light) // s.size[0]
