"""Which engine a search uses, and whether the engines compute here what the reference computes."""

from __future__ import annotations

import torch
from torch import Tensor

from skelnas.config import SearchSettings
from skelnas.engine import ENGINES, triton
from skelnas.engine.reference import Weights
from skelnas.errors import SkelnasError
from skelnas.genotype import NUM_INPUT_NODES
from skelnas.models.ops import make_op, op_stride
from skelnas.nas.supernet import choose_engine
from skelnas.primitives import candidates

CELL = (3, 4, 9, 7)
"""N, C, T, V of the cell that is compared: odd sizes, and quick."""

NODES = 2

TOLERANCE = 1e-9
"""Largest difference that is allowed, as a part of the largest number: rounding in float64."""


def explain(settings: SearchSettings) -> dict[str, str]:
    """Say which engine a search would use, and why.

    Raises:
        UsageError: the one that is asked for cannot do what is asked.
    """
    engine = choose_engine(settings)
    if settings.engine != "auto":
        why = f"--engine {settings.engine} asks for it"
    elif not engine.why_not_faster:
        why = "the fastest"
    elif engine.name == "reference":
        why = f"no other can {engine.why_not_faster}"
    else:
        why = f"the fastest without the Triton engine, which is not used: {engine.why_not_faster}"
    return {"name": engine.name, "why": why}


def compare(settings: SearchSettings, device: torch.device) -> str:
    """Compare every engine with the reference: outputs and all gradients of two small cells.

    The Triton engine has a check of its own, in float32 and only where it can run.

    Returns:
        What was compared, in words.

    Raises:
        SkelnasError: an engine computes something else.
    """
    if device.type == "mps":  # it has no float64
        device = torch.device("cpu")
    others = [name for name in ENGINES if name not in ("reference", "triton")]
    largest = 0.0
    for reduction in (False, True):
        expected = _run("reference", settings, reduction, device)
        for name in others:
            for one, other in zip(_run(name, settings, reduction, device), expected, strict=True):
                scale = max(other.abs().max().item(), 1e-12)
                difference = (one - other).abs().max().item() / scale
                if not difference <= TOLERANCE:
                    raise SkelnasError(
                        f"the {name} engine differs from the reference by {difference:.1e} of the "
                        f"largest number in a {'reduction' if reduction else 'normal'} cell",
                        hint="--engine reference is right; please report this with the versions",
                    )
                largest = max(largest, difference)
    same = f"{', '.join(others)}: the same in float64 on {device}, to {largest:.0e} (relative)"
    reason = triton.why_not(device)
    return f"{same}; triton: {f'not used, {reason}' if reason else 'the same in float32'}"


def _run(
    engine: str, settings: SearchSettings, reduction: bool, device: torch.device
) -> list[Tensor]:
    """Return a cell's output, and its gradients with respect to all that goes in."""
    primitives = candidates(settings.space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = [
            [_weights(op, op_stride(reduction, source), device) for op in primitives]
            for node in range(NODES)
            for source in range(NUM_INPUT_NODES + node)
        ]
        logits, first, last = (
            torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
            for shape in ((len(weights), len(primitives)), CELL, CELL)
        )
    out = ENGINES[engine]((first, last), logits.softmax(1), primitives, weights, reduction)
    inputs = [first, last, logits, *(one for edge in weights for op in edge for one in op)]
    loss = (out * torch.linspace(-1, 1, out.numel(), device=device).view_as(out)).sum()
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return [out.detach(), *gradients]


def _weights(op: str, stride: int, device: torch.device) -> Weights:
    module = make_op(op, CELL[1], stride, searching=True).to(device, torch.float64)
    return tuple(module.parameters())
