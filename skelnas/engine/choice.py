"""Choose the engine of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from skelnas.engine import triton
from skelnas.errors import UsageError


@dataclass(frozen=True)
class Demands:
    """What a search demands of its engine.

    Attributes:
        cells: the supernet's.
        device: the device that the search runs on.
        tf32: whether products may round their inputs to TF32.
        second_derivative: whether cells are differentiated twice.
        bfloat16: whether cells are evaluated in bfloat16.
        sync_batch_norm: whether batch statistics span several ranks.
    """

    cells: triton.Cells
    device: torch.device
    tf32: bool = False
    second_derivative: bool = False
    bfloat16: bool = False
    sync_batch_norm: bool = False


class EngineChoice(NamedTuple):
    """The engine of a search.

    Attributes:
        name: a key of `skelnas.engine.ENGINES`.
        why_not_faster: if it was chosen automatically, why no faster engine was; else empty.
    """

    name: str
    why_not_faster: str = ""


def choose(requested: str, demands: Demands) -> EngineChoice:
    """Choose the requested engine, or for ``auto`` the fastest one that meets the demands.

    Raises:
        UsageError: the requested engine does not meet them.
    """
    if reason := _why_only_reference(demands):
        if requested in ("fused", "triton"):
            raise UsageError(
                f"--engine {requested} cannot {reason}",
                hint="use --engine reference or auto",
            )
        return EngineChoice("reference", "" if requested == "reference" else reason)
    if requested in ("reference", "fused"):
        return EngineChoice(requested)
    reason = why_not_triton(demands)
    if reason and requested == "triton":
        raise UsageError(
            f"--engine triton cannot be used: {reason}", hint="--engine fused works everywhere"
        )
    return EngineChoice("fused", reason) if reason else EngineChoice("triton")


def why_not_triton(demands: Demands) -> str:
    """Return why the Triton engine cannot be used, or nothing; see `triton.why_not`."""
    cells = demands.cells
    reason = triton.uncovered(cells.primitives, max(cells.widths))
    return reason or triton.why_not(demands.device, cells, demands.tf32)


def _why_only_reference(demands: Demands) -> str:
    """Return what only the reference engine can do, worded after "cannot", or nothing."""
    if demands.second_derivative:
        return "be differentiated twice, as --hessian exact needs"
    if demands.bfloat16:
        return "compute in bfloat16, as --precision bf16 asks"
    if demands.sync_batch_norm:
        return "normalise over several ranks, as --batch-norm sync needs"
    return ""
