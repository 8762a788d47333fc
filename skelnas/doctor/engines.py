"""Explain the choice of engine, and compare the engines with the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from skelnas.config import SearchSettings
from skelnas.engine import ENGINES
from skelnas.engine.choice import why_not_triton
from skelnas.engine.reference import Weights
from skelnas.errors import SkelnasError
from skelnas.genotype import possible_edges
from skelnas.models.ops import make_edge_op
from skelnas.models.stack import CellSpec
from skelnas.nas.supernet import choose_engine, demands
from skelnas.primitives import candidates

CELL = (3, 4, 9, 7)
"""[N, C, T, V] of the cell's inputs: odd sizes, and small enough to be quick."""

NUM_NODES = 2

TOLERANCE = 1e-9
"""Largest difference allowed, relative to the largest element: rounding in float64."""


def explain_engine(settings: SearchSettings) -> dict[str, str]:
    """Return the ``name`` of the engine that a search would use, and ``why``.

    Raises:
        UsageError: the requested engine does not support the settings.
    """
    engine = choose_engine(settings)
    if settings.engine != "auto":
        why = f"requested by --engine {settings.engine}"
    elif not engine.why_not_faster:
        why = "the fastest"
    elif engine.name == "reference":
        why = f"no other can {engine.why_not_faster}"
    else:
        why = f"the fastest without the Triton engine, which is not used: {engine.why_not_faster}"
    return {"name": engine.name, "why": why}


def compare_engines(settings: SearchSettings, device: torch.device) -> str:
    """Compare the outputs and all gradients of two small cells, in float64.

    The Triton engine has a separate check, in float32 and only where it can run.

    Returns:
        A summary in words.

    Raises:
        SkelnasError: an engine differs from the reference.
    """
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    names = [name for name in ENGINES if name not in ("reference", "triton")]
    max_difference = 0.0
    for reduction in (False, True):
        expected = _run("reference", settings, reduction, device)
        for name in names:
            actual = _run(name, settings, reduction, device)
            for tensor, reference in zip(actual, expected, strict=True):
                scale = max(reference.abs().max().item(), 1e-12)
                difference = (tensor - reference).abs().max().item() / scale
                if not difference <= TOLERANCE:
                    raise SkelnasError(
                        f"the {name} engine differs from the reference by {difference:.1e} of the "
                        f"largest element in a {'reduction' if reduction else 'normal'} cell",
                        hint="use --engine reference; please report this with the versions",
                    )
                max_difference = max(max_difference, difference)
    reason = why_not_triton(demands(settings))
    return (
        f"{', '.join(names)}: equal in float64 on {device}, to {max_difference:.0e} (relative); "
        f"triton: {f'not used, {reason}' if reason else 'equal in float32'}"
    )


def _run(
    engine: str, settings: SearchSettings, reduction: bool, device: torch.device
) -> list[Tensor]:
    """Return a cell's output, and its gradients with respect to all inputs and weights."""
    primitives = candidates(settings.space)
    _, channels, _, joints = CELL
    spec = CellSpec((channels, channels), channels, reduction, False, joints)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = [
            [_weights(op, spec, source, device) for op in primitives]
            for _, source in possible_edges(NUM_NODES)
        ]
        logits, first, last = (
            torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
            for shape in ((len(weights), len(primitives)), CELL, CELL)
        )
    out = ENGINES[engine]((first, last), logits.softmax(1), primitives, weights, reduction)
    inputs = [first, last, logits, *(weight for edge in weights for op in edge for weight in op)]
    loss = (out * torch.linspace(-1, 1, out.numel(), device=device).view_as(out)).sum()
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return [out.detach(), *gradients]


def _weights(op: str, spec: CellSpec, source: int, device: torch.device) -> Weights:
    module = make_edge_op(op, spec, source, searching=True).to(device, torch.float64)
    return tuple(module.parameters())
