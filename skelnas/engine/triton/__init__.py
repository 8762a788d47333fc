"""The Triton engine: the fused engine's arithmetic as a few kernels for CUDA.

Optional: importing this package does not need Triton. docs/engine.md explains the kernels.
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
"""The least that the kernels are compiled for."""

TOLERANCE = 1e-3
"""Largest error that the check of a device allows, relative; rounding makes about 1e-5."""


def cell(
    inputs: tuple[Tensor, Tensor],
    mix: Tensor,
    primitives: Sequence[str],
    weights: Sequence[Sequence[Weights]],
    reduction: bool,
) -> Tensor:
    """Evaluate a mixed cell: `skelnas.engine.reference.cell` says what, and of which shapes.

    The result can be differentiated once, not twice. What the kernels are not made for is left
    to the fused engine: other devices than CUDA, other numbers than float32, and what `uncovered`
    names.
    """
    there = mix.is_cuda and mix.dtype == torch.float32
    if not there or uncovered(primitives, inputs[0].shape[1]):
        return fused.cell(inputs, mix, primitives, weights, reduction)
    from skelnas.engine.triton.evaluate import evaluate

    return evaluate(inputs, mix, primitives, weights, reduction)


def uncovered(primitives: Sequence[str], channels: int) -> str:
    """Say what there are no kernels for, or nothing."""
    if missing := sorted(set(primitives) - COVERED):
        return f"there is no kernel for {', '.join(missing)}"
    if channels > MAX_CHANNELS:
        return f"cells of {channels} channels are too wide, {MAX_CHANNELS} is the most"
    return ""


@lru_cache
def why_not(device: torch.device) -> str:
    """Say why the kernels cannot be used on a device, or nothing: they are run and compared.

    The first time on a machine that compiles them, which takes a minute or so; Triton keeps what
    it compiles.
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
    except Exception as failure:  # whatever a compiler or driver may say
        lines = str(failure).strip().splitlines() or [""]
        return f"its kernels fail here: {type(failure).__name__}: {lines[0]}"
    if not error <= TOLERANCE:
        return f"its kernels compute something else here: an error of {error:.0e}"
    return ""
