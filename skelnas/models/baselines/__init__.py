"""Networks of other authors that the paper compares with, trained and scored like ours."""

from __future__ import annotations

from skelnas.errors import UsageError
from skelnas.models.baselines.base import Baseline, Shape
from skelnas.models.baselines.hcn import HCN
from skelnas.models.baselines.st_gcn import STGCN
from skelnas.models.baselines.temporal_conv import TemporalConv

__all__ = ["BASELINES", "Baseline", "Shape", "find_baseline"]

BASELINES: dict[str, type[Baseline]] = {
    "hcn": HCN,
    "st-gcn": STGCN,
    "temporal-conv": TemporalConv,
}


def find_baseline(name: str) -> type[Baseline]:
    """Return the baseline of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in BASELINES:
        raise UsageError(f"unknown model {name!r}", hint=f"there are {', '.join(BASELINES)}")
    return BASELINES[name]
