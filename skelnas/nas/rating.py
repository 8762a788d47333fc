"""What is known of genotypes that were trained, and which one follows from it within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skelnas.config import BudgetSettings
from skelnas.genotype import Genotype, Scores, from_dict
from skelnas.models.cost import CostTable, NetworkShape, list_nodes, make_cost_table
from skelnas.nas.budget import Budget, choose_genotype, find_front
from skelnas.nas.draw import draw_genotype
from skelnas.nas.predictor import Array, EdgeSpace
from skelnas.nas.proposals import identify, learn
from skelnas.training.genotype_table import GenotypeTable, RatedGenotype


@dataclass(frozen=True)
class Rater:
    """Rates genotypes of a space within a budget.

    Attributes:
        primitives: ids of the candidate operations.
        costs: of the networks, for all operations.
        budget: for the chosen genotype and those that are drawn.
    """

    primitives: tuple[str, ...]
    costs: CostTable
    budget: Budget

    @property
    def space(self) -> EdgeSpace:
        """The features of genotypes."""
        ops = tuple(op for op in self.primitives if op != "none")
        return EdgeSpace(ops, len(list_nodes(self.costs.edges["normal"])))

    def draw(self, seed: int) -> Genotype:
        """Draw a genotype at random."""
        return draw_genotype(seed, self.costs, self.budget)

    def maximise(self, scores: Mapping[str, Scores]) -> Genotype:
        """Return the genotype with the highest sum of edge scores."""
        return choose_genotype(scores, self.costs, self.budget)

    def rate(self, table: GenotypeTable) -> GenotypeTable:
        """Fill in what follows from the losses of a table.

        The choice is among the trained genotypes: the best of all predictions, being the best of
        millions, is too good.
        """
        found = learn(self.space, *read_scores(table))
        values = found.estimates.values
        front = find_front(found.predictor.edge_scores(), self.costs)
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
        found = learn(self.space, *read_scores(table))
        best = self.maximise(found.predictor.edge_scores())
        score = float(found.predictor.predict([best])[0])
        number, estimated = found.best_trained(self._allows) or (0, -math.inf)
        identities = [identify(genotype) for genotype in found.genotypes]
        if estimated >= score or identify(best) in identities:
            best, score = found.genotypes[number], estimated
        return self._rated(best, score)

    def _allows(self, genotype: Genotype) -> bool:
        return self.budget.allows(self.costs.total(genotype))

    def _rated(self, genotype: Genotype, score: float) -> RatedGenotype:
        cost = self.costs.total(genotype)
        return RatedGenotype(genotype.to_dict(), cost.parameters, cost.macs, -score)


def make_rater(config: Mapping[str, Any]) -> Rater:
    """Make the rater of a search by trainings from its ``config.json``."""
    settings = config["settings"]
    sizes = {**config["network"], "branches": tuple(config["network"]["branches"])}
    primitives = tuple(config["primitives"])
    budget = Budget(settings.get("max_params"), settings.get("max_macs"))
    return Rater(primitives, make_cost_table(NetworkShape(**sizes), primitives), budget)


def choose_within(
    table: GenotypeTable, config: Mapping[str, Any], limits: BudgetSettings
) -> Genotype:
    """Choose for other limits than those of a search by trainings; those that are None stay.

    Raises:
        UsageError: no genotype is within the limits.
    """
    rater = make_rater(config)
    budget = Budget(
        limits.max_params or rater.budget.max_params, limits.max_macs or rater.budget.max_macs
    )
    chosen = replace(rater, budget=budget).choose(table)
    return from_dict(chosen.genotype, "the choice")


def read_scores(table: GenotypeTable) -> tuple[list[Genotype], Array]:
    """Return the trained genotypes and their scores, the negative losses, [genotypes, folds]."""
    genotypes = [from_dict(one.genotype, "the table") for one in table.genotypes]
    losses = [
        [math.nan if loss is None else loss for loss in one.losses] for one in table.genotypes
    ]
    return genotypes, -np.array(losses, dtype=np.float64).reshape(-1, len(table.folds))
