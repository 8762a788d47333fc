"""Candidate operations as modules, which own the weights.

In the supernet, normalisation has neither scale nor running statistics, and pools are normalised;
in the derived network, normalisation has both, and pools are not normalised (the paper's method,
after DARTS). The supernet's arithmetic is an engine's; the network runs these modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from skelnas.engine import reference
from skelnas.genotype import NUM_INPUT_NODES
from skelnas.models.layers import (
    Depthwise,
    Dilated,
    FactorizedReduce,
    JointMixing,
    SqueezeExcite,
)
from skelnas.models.norm import make_norm
from skelnas.models.stack import CellSpec
from skelnas.primitives import PRIMITIVES, Primitive


def conv_norm(in_channels: int, out_channels: int, searching: bool = False) -> nn.Module:
    """Make the 1 x 1 preprocessing of a cell's input node, after its ReLU."""
    return nn.Sequential(
        nn.Identity(),  # the numbers in the names of the tensors stay
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        make_norm(out_channels, searching),
    )


def make_preprocessing(spec: CellSpec, searching: bool = False) -> tuple[nn.Module, nn.Module]:
    """Make the modules that bring the two inputs of a cell to its size and channels.

    The inputs have passed a ReLU: an output is read by two cells, which share it.
    """
    before_last, last = spec.input_channels
    resize = FactorizedReduce if spec.after_reduction else conv_norm
    return (
        resize(before_last, spec.channels, searching),
        conv_norm(last, spec.channels, searching),
    )


def op_stride(reduction: bool, source: int) -> int:
    """Return 2 for operations next to the input nodes of a reduction cell, else 1."""
    return 2 if reduction and source < NUM_INPUT_NODES else 1


@dataclass(frozen=True)
class OpSpec:
    """What an operation is made for.

    Attributes:
        channels: C, of input and output.
        stride: 1 or 2, along T and V alike.
        searching: whether it is for the supernet; see the docstring of this module.
        joints: V of one person in the input; 0 if unknown.
    """

    channels: int
    stride: int
    searching: bool = False
    joints: int = 0


Factory = Callable[[OpSpec], nn.Module]
"""Makes an operation."""


def make_op(
    op: str, channels: int, stride: int, searching: bool = False, joints: int = 0
) -> nn.Module:
    """Make a candidate operation.

    Args:
        op: an id of `skelnas.primitives.PRIMITIVES`; ``none`` gives an empty module.
        channels, stride, searching, joints: see `OpSpec`.

    Raises:
        ValueError: there is no such operation, or it needs the number of joints.
    """
    if op not in FACTORIES:
        raise ValueError(f"unknown operation {op!r}")
    if PRIMITIVES[op].fixes_joints and not joints:
        raise ValueError(f"{op} needs the number of joints of a person")
    return FACTORIES[op](OpSpec(channels, stride, searching, joints))


def make_edge_op(op: str, cell: CellSpec, source: int, searching: bool = False) -> nn.Module:
    """Make an operation on an edge that leaves a node of a cell; raises as `make_op` does."""
    stride = op_stride(cell.reduction, source)
    return make_op(op, cell.channels, stride, searching, cell.joints_at(source))


def register_op(primitive: Primitive, function: reference.Function, factory: Factory) -> None:
    """Add a candidate operation to the spaces, the engines and the networks of this process.

    Args:
        primitive: its id, kind and line style.
        function: maps x [N, C, T, V], the weights and the stride to [N, C, T', V'].
        factory: makes the module; its parameters are the weights, in the order of the function.

    Raises:
        ValueError: the id is taken.
    """
    if primitive.id in PRIMITIVES:
        raise ValueError(f"there is already an operation {primitive.id!r}")
    PRIMITIVES[primitive.id] = primitive
    reference.OPS[primitive.id] = function
    FACTORIES[primitive.id] = factory


def _dense(channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, bias=False)


def _pointwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1, bias=False)


def _none(spec: OpSpec) -> nn.Module:
    return nn.Identity()


def _max_pool(spec: OpSpec) -> nn.Module:
    return _pool(nn.MaxPool2d(3, spec.stride, padding=1), spec)


def _avg_pool(spec: OpSpec) -> nn.Module:
    return _pool(nn.AvgPool2d(3, spec.stride, padding=1, count_include_pad=False), spec)


def _pool(pool: nn.Module, spec: OpSpec) -> nn.Module:
    return nn.Sequential(pool, make_norm(spec.channels, True)) if spec.searching else pool


def _skip_connect(spec: OpSpec) -> nn.Module:
    return nn.Identity() if spec.stride == 1 else _factorized_reduce(spec)


def _se_connect(spec: OpSpec) -> nn.Module:
    return SqueezeExcite(spec.channels) if spec.stride == 1 else _factorized_reduce(spec)


def _factorized_reduce(spec: OpSpec) -> nn.Module:
    return FactorizedReduce(spec.channels, spec.channels, spec.searching)


def _conv_3x3(spec: OpSpec) -> nn.Module:
    conv = _dense(spec.channels, (3, 3), (spec.stride, spec.stride))
    return nn.Sequential(nn.ReLU(), conv, make_norm(spec.channels, spec.searching))


def _conv_7x1_1x7(spec: OpSpec) -> nn.Module:
    along_v = _dense(spec.channels, (1, 7), (1, spec.stride))
    along_t = _dense(spec.channels, (7, 1), (spec.stride, 1))
    return nn.Sequential(nn.ReLU(), along_v, along_t, make_norm(spec.channels, spec.searching))


def _sep_conv(kernel: int, spec: OpSpec) -> nn.Module:
    return nn.Sequential(
        *_before_pointwise(Depthwise(spec.channels, kernel, spec.stride), spec),
        *_before_pointwise(Depthwise(spec.channels, kernel, 1), spec),
    )


def _dil_conv(kernel: int, spec: OpSpec) -> nn.Module:
    return nn.Sequential(*_before_pointwise(Dilated(spec.channels, kernel, spec.stride), spec))


def _joint_conv(spec: OpSpec) -> nn.Module:
    mixing = JointMixing(spec.channels, spec.joints, spec.stride)
    return nn.Sequential(*_before_pointwise(mixing, spec))


def _tconv_9x1(spec: OpSpec) -> nn.Module:
    return nn.Sequential(*_before_pointwise(Depthwise(spec.channels, (9, 1), spec.stride), spec))


def _before_pointwise(spatial: nn.Module, spec: OpSpec) -> tuple[nn.Module, ...]:
    norm = make_norm(spec.channels, spec.searching)
    return nn.ReLU(), spatial, _pointwise(spec.channels), norm


FACTORIES: dict[str, Factory] = {
    "none": _none,
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip_connect,
    "conv_3x3": _conv_3x3,
    "sep_conv_3x3": partial(_sep_conv, 3),
    "sep_conv_5x5": partial(_sep_conv, 5),
    "sep_conv_7x7": partial(_sep_conv, 7),
    "dil_conv_3x3": partial(_dil_conv, 3),
    "dil_conv_5x5": partial(_dil_conv, 5),
    "conv_7x1_1x7": _conv_7x1_1x7,
    "se_connect": _se_connect,
    "joint_conv": _joint_conv,
    "tconv_9x1": _tconv_9x1,
}
"""The module of each operation id."""
