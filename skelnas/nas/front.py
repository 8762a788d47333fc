"""`skelnas derive --front`: the best genotype at every cost, beside random ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelnas.config import TrainSettings
from skelnas.genotype import EDGES_PER_NODE
from skelnas.models.cost import NetworkShape
from skelnas.nas.budget import Budget, CostName, FrontPoint, find_front, score_of
from skelnas.nas.derive import Perturbation, rank
from skelnas.nas.draw import GenotypeSampler
from skelnas.nas.target import find_target
from skelnas.training.run_dir import read_config

NUM_RANDOM = 200
"""Random genotypes drawn for each point of a front."""

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Front:
    """The genotypes that no other beats in both cost and score, beside random ones.

    Attributes:
        by: the cost.
        points: cheapest first.
        random: for each point, the `QUANTILES` of the scores of random genotypes that cost no more.
        shape: of the network.
        limit: on the cost, or None.
    """

    by: CostName
    points: list[FrontPoint]
    random: list[tuple[float, ...]]
    shape: NetworkShape
    limit: int | None

    @property
    def costs(self) -> list[int]:
        """The cost of each point."""
        return [getattr(point.cost, self.by) for point in self.points]

    def to_dict(self) -> dict[str, Any]:
        """Return the front as plain containers."""
        return {
            "by": self.by,
            "network": asdict(self.shape),
            "points": [
                {
                    **asdict(point.cost),
                    "score": point.score,
                    "random": list(random),
                    "genotype": point.genotype.to_dict(),
                }
                for point, random in zip(self.points, self.random, strict=True)
            ],
        }


def derive_front(
    run: Path,
    *,
    by: CostName = "parameters",
    epoch: int | None = None,
    keep: int = EDGES_PER_NODE,
    perturbation: Perturbation | None = None,
    cache: Path | None = None,
    training: TrainSettings | None = None,
) -> Front:
    """Derive the best genotype at every cost from a search.

    Args:
        run, epoch, keep, perturbation, cache, training: as for `skelnas.nas.derive.derive`.
        by: the cost.

    Raises:
        InputError, UsageError, DeviceError: as `skelnas.nas.derive.derive` does.
    """
    config = read_config(run)
    ranking = rank(run, config, epoch=epoch, perturbation=perturbation, cache=cache)
    target = find_target(run, config, ranking.primitives, training or TrainSettings(), cache)
    points = find_front(
        ranking.scores, target.costs, by, keep=keep, edge_scores=ranking.edge_scores
    )
    sampler = GenotypeSampler(target.costs, keep)
    random = []
    for point in points:
        budget = _limit(by, point)
        drawn = sampler.sample(budget, NUM_RANDOM, seed=0)
        scores = [score_of(genotype, ranking.scores) for genotype in drawn]
        random.append(tuple(np.quantile(scores, QUANTILES).tolist()))
    limit = target.budget.max_params if by == "parameters" else target.budget.max_macs
    return Front(by, points, random, target.shape, limit)


def _limit(by: CostName, point: FrontPoint) -> Budget:
    if by == "parameters":
        return Budget(max_params=point.cost.parameters)
    return Budget(max_macs=point.cost.macs)
