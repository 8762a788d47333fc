"""The candidate operations and the search spaces, as data: usable without torch.

`skelnas.engine.reference.OPS` and `skelnas.models.ops.FACTORIES` hold the function and the module
of each operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skelnas.errors import shown

Kind = Literal["none", "convolution", "pooling", "skip connection", "squeeze-and-excitation"]


@dataclass(frozen=True)
class Primitive:
    """A candidate operation, and how pictures show it.

    Attributes:
        id: its name in genotypes, weights and `--space`.
        kind: what the legend of a picture calls it.
        colour: name in `skelnas.reporting.plot_style.PALETTE`.
        dashes: lengths of the dashes and gaps of its line, in line widths; empty for a solid line.
        fixes_joints: whether its weights are for a certain number of joints.
    """

    id: str
    kind: Kind
    colour: str
    dashes: tuple[float, ...] = ()
    fixes_joints: bool = False


PRIMITIVES: dict[str, Primitive] = {
    primitive.id: primitive
    for primitive in (
        Primitive("none", "none", "grey", (1, 2.5)),
        Primitive("max_pool_3x3", "pooling", "brown"),
        Primitive("avg_pool_3x3", "pooling", "amber", (4, 1.5)),
        Primitive("skip_connect", "skip connection", "green"),
        Primitive("conv_3x3", "convolution", "deep-blue"),
        Primitive("sep_conv_3x3", "convolution", "blue", (5, 1.5)),
        Primitive("sep_conv_5x5", "convolution", "blue", (5, 1.5, 1, 1.5)),
        Primitive("sep_conv_7x7", "convolution", "deep-blue", (5, 1.5)),
        Primitive("dil_conv_3x3", "convolution", "light-blue", (1.5, 1.2)),
        Primitive("dil_conv_5x5", "convolution", "light-blue", (3, 1.2)),
        Primitive("conv_7x1_1x7", "convolution", "deep-blue", (1.5, 1.2)),
        Primitive("se_connect", "squeeze-and-excitation", "purple", (5, 1.5, 1, 1.5, 1, 1.5)),
        Primitive("joint_conv", "convolution", "light-blue", fixes_joints=True),
        Primitive("tconv_9x1", "convolution", "blue", (1, 1)),
    )
}
"""Every operation by its id, in the order of the alphas; genotypes may name all but ``none``."""

_SAR_NO_SE = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "conv_3x3",
    "sep_conv_3x3",
    "dil_conv_3x3",
)

SPACES: dict[str, tuple[str, ...]] = {
    "sar": (*_SAR_NO_SE, "se_connect"),
    "sar-joint": (*_SAR_NO_SE, "se_connect", "joint_conv", "tconv_9x1"),
    "sar-no-se": _SAR_NO_SE,
    "darts": (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
}
"""Named search spaces: Table I; with two operations of ours; the ablation of Table V; the row
"DARTS" of Tables III-IV."""


def candidates(space: str) -> tuple[str, ...]:
    """Return the operation ids of a search space, in the order of `PRIMITIVES`.

    Args:
        space: a key of `SPACES`, or operation ids separated by commas, in any order.

    Raises:
        ValueError: it is neither, or leaves nothing to choose; the message is what was expected.
    """
    if space in SPACES:
        return SPACES[space]
    ops = [op.strip() for op in space.split(",")]
    for op in ops:
        if op not in PRIMITIVES:
            raise ValueError(
                f"one of {', '.join(SPACES)}, or operations with commas between; "
                f"{shown(op)} is none of: {', '.join(PRIMITIVES)}"
            )
        if ops.count(op) > 1:
            raise ValueError(f"each operation once, {op} is named {ops.count(op)} times")
    if len(ops) < 2:
        raise ValueError("two operations or more, so that there is something to choose")
    return tuple(op for op in PRIMITIVES if op in ops)
