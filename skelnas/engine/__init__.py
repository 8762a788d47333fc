"""Engines evaluate the mixed cells of the supernet; they know tensors, not modules.

Every engine is a function `cell` with the meaning of `skelnas.engine.reference.cell`, the
truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from skelnas.engine import fused, reference, triton
from skelnas.engine.reference import Weights


class Engine(Protocol):
    """Evaluates a mixed cell, as `skelnas.engine.reference.cell` says."""

    def __call__(
        self,
        inputs: tuple[Tensor, Tensor],
        mix: Tensor,
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
"""By the name that ``--engine`` knows; only the reference can be differentiated twice."""
