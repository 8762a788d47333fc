"""Engines evaluate the mixed cells of the supernet. They take tensors, not modules.

Every engine is a function `cell` that computes what `skelnas.engine.reference.cell` computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from skelnas.engine import fused, reference, triton
from skelnas.engine.reference import Weights


class Engine(Protocol):
    """Evaluates a mixed cell, like `skelnas.engine.reference.cell`."""

    def __call__(
        self,
        inputs: tuple[Tensor, Tensor],
        op_weights: Tensor,
        primitives: Sequence[str],
        weights: Sequence[Sequence[Weights]],
        reduction: bool,
    ) -> Tensor:
        """Map the two input nodes to the cell's output."""


ENGINES: dict[str, Engine] = {
    "reference": reference.cell,
    "fused": fused.cell,
    "triton": triton.cell,
}
"""By the name in ``--engine``; only the reference can be differentiated twice."""
