"""The reference engine: operations as plain functions, slow and readable, the ground truth.

Every operation maps x [N, C, T, V] and its weights to [N, C, T', V'], where T' and V' are T and V
divided by the stride, rounded up. Normalisation uses the statistics of the current batch and has
neither scale nor shift, so that only the alphas weight the operations (DARTS; the paper's
supernet). Weights have the layout of `torch.nn.functional.conv2d` or `linear`; the modules that own
them are made by `skelnas.models.ops`, with the weights in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine.norm import batch_norm

Weights = Sequence[Tensor]
"""The weights of one operation, in the order in which it uses them."""

Function = Callable[[Tensor, Weights, int], Tensor]
"""An operation: maps x [N, C, T, V], its weights and its stride to [N, C, T', V']."""


def convolve(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve with padding that keeps the size at stride 1; the weight's shape sets the groups."""
    kernel = weight.shape[-2:]
    return F.conv2d(
        x,
        weight,
        stride=stride,
        dilation=dilation,
        padding=[dilation * (size // 2) for size in kernel],
        groups=x.shape[1] // weight.shape[1],
    )


def conv(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, Conv3: ReLU, convolution, normalisation."""
    (dense,) = weights
    return batch_norm(convolve(F.relu(x), dense, stride))


def sep_conv(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, SpeConv3: ReLU, depthwise, pointwise, normalisation; all twice, stride first."""
    depthwise1, pointwise1, depthwise2, pointwise2 = weights
    x = batch_norm(convolve(convolve(F.relu(x), depthwise1, stride), pointwise1))
    return batch_norm(convolve(convolve(F.relu(x), depthwise2), pointwise2))


def dil_conv(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, DilConv3: ReLU, depthwise with dilation 2, pointwise, normalisation."""
    depthwise, pointwise = weights
    return batch_norm(convolve(convolve(F.relu(x), depthwise, stride, dilation=2), pointwise))


def temporal_conv(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Ours, tconv_9x1: ReLU, depthwise along T, pointwise, normalisation."""
    depthwise, pointwise = weights
    return batch_norm(convolve(convolve(F.relu(x), depthwise, stride), pointwise))


def joint_conv(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Ours, joint_conv: ReLU, mixing of the joints, pointwise, normalisation."""
    mixing, pointwise = weights
    return batch_norm(convolve(mix_joints(F.relu(x), mixing, stride), pointwise))


def mix_joints(x: Tensor, mixing: Tensor, stride: int = 1) -> Tensor:
    """Replace the joints of each person by weighted sums of them, in every frame alike.

    Pixels are taken to be V joints of one person after the other, as in a batch. Halving an image
    whose persons have an odd number of joints leaves the last person without a last joint: it
    counts as 0.

    Args:
        x: [N, C, T, W], where W is the V joints of every person.
        mixing: [G, V', V], a matrix for each of G groups of consecutive channels. V' is V, or half
            of it at stride 2, rounded up.
        stride: 2 drops every second frame, and half of W.
    """
    x = x[:, :, ::stride]  # [N, C, T', W]
    n, c, t, w = x.shape
    groups, after, before = mixing.shape
    persons = -(-w // before)
    x = F.pad(x, (0, persons * before - w))  # [N, C, T', W] -> [N, C, T', M * V]
    x = x.reshape(n, groups, -1, before) @ mixing.mT  # [N, G, C / G * T' * M, V] @ [G, V, V']
    return x.reshape(n, c, t, persons * after)[..., : -(-w // stride)]  # [N, C, T', W']


def factored_conv(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """DARTS' conv_7x1_1x7: ReLU, convolution along V, convolution along T, normalisation."""
    along_v, along_t = weights
    x = F.conv2d(F.relu(x), along_v, stride=(1, stride), padding=(0, along_v.shape[-1] // 2))
    x = F.conv2d(x, along_t, stride=(stride, 1), padding=(along_t.shape[-2] // 2, 0))
    return batch_norm(x)


def max_pool(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, MaxPoll3: 3 x 3 maximum, normalisation."""
    return batch_norm(F.max_pool2d(x, 3, stride, padding=1))


def avg_pool(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, AveragePoll3: 3 x 3 mean without the padding, normalisation."""
    return batch_norm(F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False))


def skip_connect(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, SkipConnect: the input itself; a factorized reduction at stride 2."""
    return x if stride == 1 else factorized_reduce(x, weights)


def se_connect(x: Tensor, weights: Weights, stride: int) -> Tensor:
    """Table I, SeConncet: squeeze-and-excitation; a factorized reduction at stride 2."""
    if stride != 1:
        return factorized_reduce(x, weights)
    squeeze, excite = weights
    hidden = F.relu(F.linear(x.mean(dim=(2, 3)), squeeze))  # [N, C] -> [N, H]
    gate = torch.sigmoid(F.linear(hidden, excite))  # [N, H] -> [N, C]
    return x * gate[:, :, None, None]


def factorized_reduce(x: Tensor, weights: Weights) -> Tensor:
    """Halve T and V: ReLU, two 1 x 1 convolutions of stride 2 side by side, normalisation.

    Differs from DARTS, like the authors' release: the second convolution is not shifted by one
    pixel, so that odd sizes work. Subsampling before the convolutions is equivalent to their
    stride; `skelnas.models.layers.FactorizedReduce` explains why.
    """
    x = F.relu(x[:, :, ::2, ::2])  # [N, C, T / 2, V / 2], rounded up
    return batch_norm(torch.cat([convolve(x, weight) for weight in weights], dim=1))


OPS: dict[str, Function] = {
    "max_pool_3x3": max_pool,
    "avg_pool_3x3": avg_pool,
    "skip_connect": skip_connect,
    "conv_3x3": conv,
    "sep_conv_3x3": sep_conv,
    "sep_conv_5x5": sep_conv,
    "sep_conv_7x7": sep_conv,
    "dil_conv_3x3": dil_conv,
    "dil_conv_5x5": dil_conv,
    "conv_7x1_1x7": factored_conv,
    "se_connect": se_connect,
    "joint_conv": joint_conv,
    "tconv_9x1": temporal_conv,
}
"""The function of each operation id; ``none`` has none: it only takes part in the softmax."""


def mixed_op(
    x: Tensor,
    op_weights: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Weights],
    stride: int,
) -> Tensor:
    """Sum the outputs of all candidate operations of an edge, each times its op weight.

    Args:
        x: [N, C, T, V], the edge's source node.
        op_weights: [P], the softmax of the edge's alphas, ``none`` included.
        primitives: the P operation ids.
        weights: of each of the P operations.
        stride: 1, or 2 next to the input nodes of a reduction cell.
    """
    return sum(
        (
            op_weight * OPS[op](x, tensors, stride)
            for op_weight, op, tensors in zip(op_weights, primitives, weights, strict=True)
            if op != "none"
        ),
        start=x.new_zeros(()),
    )


def cell(
    inputs: tuple[Tensor, Tensor],
    op_weights: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell: each intermediate node sums mixed operations of all earlier nodes.

    `skelnas.engine.wiring` describes the order of the edges.

    Args:
        inputs: the two preprocessed input nodes, each [N, C, T, V].
        op_weights: [E, P], for each edge the softmax of its alphas.
        primitives: the P operation ids.
        weights: for each edge and operation, its weights.
        reduction: whether operations next to the input nodes have stride 2.

    Returns:
        [N, C * nodes, T', V'], the concatenated intermediate nodes.
    """
    nodes = list(inputs)
    edge = 0
    while edge < len(op_weights):
        incoming = []
        for source, x in enumerate(nodes):
            stride = 2 if reduction and source < len(inputs) else 1
            incoming.append(mixed_op(x, op_weights[edge], primitives, weights[edge], stride))
            edge += 1
        nodes.append(sum(incoming[1:], start=incoming[0]))
    return torch.cat(nodes[len(inputs) :], dim=1)  # nodes x [N, C, T', V'] -> [N, nodes * C, ...]
