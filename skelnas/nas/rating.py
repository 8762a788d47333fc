"""What is known of genotypes that were trained, and which one follows from it within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skelnas.config import TrainSettings
from skelnas.derivation import Scores
from skelnas.genotype import Genotype, from_dict
from skelnas.nas.budget import choose_genotype, find_front
from skelnas.nas.draw import draw_genotype
from skelnas.nas.predictor import Array, EdgeSpace
from skelnas.nas.proposals import Findings, learn
from skelnas.nas.target import Target, find_target
from skelnas.training.genotype_table import GenotypeTable, RatedGenotype, read_table


@dataclass(frozen=True)
class Rater:
    """Rates genotypes.

    Attributes:
        target: their space, the network and its budget.
    """

    target: Target

    @property
    def space(self) -> EdgeSpace:
        """The features of genotypes."""
        return EdgeSpace(_without_none(self.target.primitives), self.target.shape.nodes)

    def draw(self, seed: int) -> Genotype:
        """Draw a genotype at random."""
        return draw_genotype(seed, self.target.costs, self.target.budget)

    def maximise(self, scores: Mapping[str, Scores]) -> Genotype:
        """Return the genotype with the highest sum of edge scores."""
        return choose_genotype(scores, self.target.costs, self.target.budget)

    def rate(self, table: GenotypeTable) -> GenotypeTable:
        """Fill in what follows from the losses of a table.

        The choice is among the trained genotypes: the best of all predictions, being the best of
        millions, is too good.
        """
        found = learn_from(table, self.target.primitives)
        values = found.estimates.values
        front = find_front(found.predictor.edge_scores(), self.target.costs)
        zero = found.predictor.intercept
        return replace(
            table,
            estimates=(-values).tolist(),
            noise=math.sqrt(found.noise),
            deviation=found.estimates.deviation,
            chosen=int(values.argmax()),
            front=[self._rated(point.genotype, zero + point.score) for point in front],
        )

    def choose(self, table: GenotypeTable) -> RatedGenotype:
        """Choose for another budget: the best trained or, if that seems better, of all.

        The latter is the exact maximum of the predictor within the budget.
        """
        found = learn_from(table, self.target.primitives)
        best = self.maximise(found.predictor.edge_scores())
        score = float(found.predictor.predict([best])[0])
        number, estimated = found.best_trained(self._allows) or (0, -math.inf)
        identities = [genotype.identity for genotype in found.genotypes]
        if estimated >= score or best.identity in identities:
            best, score = found.genotypes[number], estimated
        return self._rated(best, score)

    def _allows(self, genotype: Genotype) -> bool:
        return self.target.budget.allows(self.target.costs.total(genotype))

    def _rated(self, genotype: Genotype, score: float) -> RatedGenotype:
        cost = self.target.costs.total(genotype)
        return RatedGenotype(genotype.to_dict(), cost.parameters, cost.macs, -score)


def choose_for(
    run: Path, config: Mapping[str, Any], training: TrainSettings, cache: Path | None
) -> Genotype:
    """Choose for other networks than those of a search by trainings, or for another budget.

    Args:
        run, config, training, cache: as for `skelnas.nas.target.find_target`.

    Raises:
        UsageError: no genotype is within the limits.
    """
    target = find_target(run, config, tuple(config["primitives"]), training, cache)
    return from_dict(Rater(target).choose(read_table(run)).genotype, "the choice")


def learn_from(table: GenotypeTable, primitives: Sequence[str]) -> Findings:
    """Learn from the genotypes of a table what operations are worth."""
    genotypes, scores = read_scores(table)
    space = EdgeSpace(_without_none(primitives), len(genotypes[0].normal))
    return learn(space, genotypes, scores)


def _without_none(primitives: Sequence[str]) -> tuple[str, ...]:
    return tuple(op for op in primitives if op != "none")


def read_scores(table: GenotypeTable) -> tuple[list[Genotype], Array]:
    """Return the trained genotypes and their scores, the negative losses, [genotypes, folds]."""
    genotypes = [from_dict(one.genotype, "the table") for one in table.genotypes]
    losses = [
        [math.nan if loss is None else loss for loss in one.losses] for one in table.genotypes
    ]
    return genotypes, -np.array(losses, dtype=np.float64).reshape(-1, len(table.folds))
