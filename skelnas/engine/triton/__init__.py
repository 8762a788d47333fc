"""The Triton engine: the arithmetic of the fused engine in a few CUDA kernels.

Importing this package does not need Triton. See docs/engine.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from skelnas.engine import fused
from skelnas.engine.reference import Weights
from skelnas.engine.triton.layout import COVERED, MAX_CHANNELS

CAPABILITY = (8, 0)
"""The lowest compute capability that the kernels support."""

TOLERANCE = 1e-3
"""Largest relative error that the check of a device accepts; rounding causes about 1e-5."""


def cell(
    inputs: tuple[Tensor, Tensor],
    op_weights: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell; arguments and result are those of `skelnas.engine.reference.cell`.

    The result can be differentiated once, not twice. Cells that the kernels do not cover go to the
    fused engine: those on other devices than CUDA, those of other types than float32, and those
    that `uncovered` names.
    """
    has_kernels = op_weights.is_cuda and op_weights.dtype == torch.float32
    if not has_kernels or uncovered(primitives, inputs[0].shape[1]):
        return fused.cell(inputs, op_weights, primitives, weights, reduction)
    from skelnas.engine.triton.mixed_cell import evaluate

    return evaluate(inputs, op_weights, primitives, weights, reduction)


def uncovered(primitives: Sequence[str], channels: int) -> str:
    """Return why the kernels do not cover a cell, or nothing."""
    if missing := sorted(set(primitives) - COVERED):
        return f"there is no kernel for {', '.join(missing)}"
    if channels > MAX_CHANNELS:
        return f"cells of {channels} channels are too wide, {MAX_CHANNELS} is the most"
    return ""


@lru_cache
def why_not(device: torch.device) -> str:
    """Run the kernels on a device and return why they cannot be used there, or nothing.

    The first call on a machine compiles them, which takes about a minute; Triton caches them.
    """
    if device.type != "cuda":
        return f"its kernels need CUDA, not {device.type}"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if (capability := torch.cuda.get_device_capability(device)) < CAPABILITY:
        return "its kernels need capability {}.{}, not {}.{}".format(*CAPABILITY, *capability)
    try:
        from skelnas.engine.triton.check import largest_error

        error = largest_error(device)
    except Exception as failure:  # whatever a compiler or driver raises
        lines = str(failure).strip().splitlines() or [""]
        return f"its kernels fail here: {type(failure).__name__}: {lines[0]}"
    if not error <= TOLERANCE:
        return f"its kernels compute something else here: an error of {error:.0e}"
    return ""
