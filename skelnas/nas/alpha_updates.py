"""How a step moves the alphas: by Adam, as in the paper, or by the exponentiated gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skelnas.config import SearchSettings

BETAS = (0.5, 0.999)
"""Adam's decay rates (authors' release)."""

TRAVEL = 5.9
"""How far an alpha can go in DARTS: 19,500 steps of Adam, each of about the rate, 3e-4."""

MIN_OP_WEIGHT = 1e-5
"""Below it no operation weight falls before normalisation, so that none is lost (GAEA)."""


def resolve_alpha_lr(settings: SearchSettings, steps_per_epoch: int) -> SearchSettings:
    """Replace ``--alpha-lr auto`` by the rate with which alphas can go as far as in DARTS."""
    if settings.alpha_lr != "auto":
        return settings
    num_steps = steps_per_epoch * (settings.epochs - settings.weight_epochs)
    return settings.model_copy(update={"alpha_lr": TRAVEL / num_steps})


def make_alpha_optimizer(
    alphas: Sequence[Tensor], settings: SearchSettings
) -> torch.optim.Optimizer:
    """Return the optimizer of the alphas; its steps can be recorded as a CUDA graph."""
    lr = settings.alpha_lr
    assert lr != "auto", "resolve_alpha_lr comes first"
    if settings.alpha_update == "exponentiated":
        return ExponentiatedGradient(alphas, lr)
    return torch.optim.Adam(
        alphas,
        lr=lr,
        betas=BETAS,
        weight_decay=settings.alpha_weight_decay,
        capturable=alphas[0].device.type == "cuda",
    )


class ExponentiatedGradient(torch.optim.Optimizer):
    """Descent on the simplex of the operation weights of each edge, theta (GAEA, Li et al. 2021).

    A step is ``theta <- normalise(max(theta * exp(-lr * g), 1e-5))``. The alphas are the logarithm
    of theta, so their softmax is theta. There is no momentum, no decay and no state.

    Args:
        alphas: [edges, operations] each; set to equal weights.
        lr: as above.
    """

    def __init__(self, alphas: Sequence[Tensor], lr: float) -> None:
        super().__init__(alphas, {"lr": lr})
        with torch.no_grad():
            for alpha in alphas:
                alpha.fill_(-math.log(alpha.shape[-1]))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the alphas; their ``.grad`` is that of theta, not that of the alphas."""
        (group,) = self.param_groups
        for alpha in group["params"]:
            moved = alpha.log_softmax(-1) - group["lr"] * alpha.grad
            alpha.copy_(moved.clamp_min(math.log(MIN_OP_WEIGHT)).log_softmax(-1))
