"""The Triton engine: the arithmetic of the fused engine in a few CUDA kernels.

Importing this package does not need Triton. See docs/engine.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from skelnas.engine import fused
from skelnas.engine.reference import Weights
from skelnas.engine.triton.layout import COVERED, MAX_CHANNELS

CAPABILITY = (8, 0)
"""The lowest compute capability that the kernels support."""

TOLERANCES = {False: 1e-3, True: 0.2}
"""Largest relative error that the check of a device accepts, without and with TF32. Rounding causes
about 1e-6 and, to 11 bits, up to 0.07: it changes the sign of some inputs of ReLUs."""

CHECK_SECONDS = 900
"""Longest time that the check may take; compiling everything takes about two minutes."""


class Cells(NamedTuple):
    """The cells of a supernet, as far as kernels are compiled for them.

    Attributes:
        primitives: the candidate operation ids.
        widths: their channels.
        num_nodes: intermediate nodes.
    """

    primitives: tuple[str, ...]
    widths: tuple[int, ...]
    num_nodes: int


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
def why_not(device: torch.device, cells: Cells, tf32: bool) -> str:
    """Run the kernels of some cells on a device and return why they cannot be used, or nothing.

    The first call on a machine compiles them, which takes about two minutes; Triton caches them.

    Args:
        device: to run on.
        cells: normal and reduction cells of these are checked.
        tf32: whether products may round their inputs; they are checked without, too.
    """
    if device.type != "cuda":
        return f"its kernels need CUDA, not {device.type}"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if (capability := torch.cuda.get_device_capability(device)) < CAPABILITY:
        return "its kernels need capability {}.{}, not {}.{}".format(*CAPABILITY, *capability)
    if device.index is None:
        device = torch.device(device.type, torch.cuda.current_device())
    return checked(device, cells, tf32)


def checked(device: torch.device, cells: Cells, tf32: bool) -> str:
    """Check the kernels in another process, since one that fails may spoil CUDA for its process."""
    command = [sys.executable, "-P", "-m", "skelnas.engine.triton.check", str(device)]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [*command, json.dumps(cells), json.dumps(tf32)],
            env=os.environ | paths, capture_output=True, text=True, timeout=CHECK_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"its kernels did not finish a check in {CHECK_SECONDS} seconds"
    if done.returncode:
        *_, reason = ["", *done.stderr.splitlines()]
        return f"its kernels fail here: {reason or f'exit code {done.returncode}'}"
    for rounded, error in json.loads(done.stdout.splitlines()[-1]):
        if not error <= TOLERANCES[rounded]:
            return f"its kernels compute something else here: an error of {error:.0e}"
    return ""
