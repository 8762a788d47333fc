"""The network that a genotype is derived for: its shape, its budget and so its costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from skelnas.config import BudgetSettings, ClipSettings, SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.derivation import Alphas, op_weights
from skelnas.errors import InputError, first_line
from skelnas.genotype import CELLS, Genotype
from skelnas.models.complexity import Complexity
from skelnas.models.cost import CostTable, NetworkShape, make_cost_table
from skelnas.nas.budget import Budget, choose_genotype
from skelnas.nas.draw import draw_genotype
from skelnas.primitives import candidates
from skelnas.runtime.console import note
from skelnas.training.run_dir import CONFIG

SIZES = ("layers", "channels", "branches", "frames", "streams")
"""Settings of `skelnas train` that decide the shape of the network."""

LIMITS = tuple(BudgetSettings.model_fields)


@dataclass(frozen=True)
class Target:
    """The network that a genotype is derived for.

    Attributes:
        sizes: the settings in `SIZES`.
        shape: of the network.
        budget: its limits.
        primitives: ids of the candidate operations.
    """

    sizes: dict[str, Any]
    shape: NetworkShape
    budget: Budget
    primitives: tuple[str, ...]

    @classmethod
    def of(
        cls,
        training: TrainSettings,
        cache: Cache,
        limits: BudgetSettings,
        primitives: tuple[str, ...],
        nodes: int,
    ) -> Target:
        """Return the network that `training` makes of a genotype, for the clips of a cache."""
        classes = len(cache.classes)
        shape = NetworkShape.of(training, cache.layout, cache.max_persons, classes, nodes)
        budget = Budget(limits.max_params, limits.max_macs)
        return cls(training.model_dump(include=set(SIZES)), shape, budget, primitives)

    @cached_property
    def costs(self) -> CostTable:
        """The costs of all operations of the space."""
        return make_cost_table(self.shape, self.primitives)

    def derive(self, normal: Alphas, reduction: Alphas) -> Genotype:
        """Derive the best genotype within the budget from alphas."""
        cells = zip(CELLS, (normal, reduction), strict=True)
        scores = {kind: op_weights(alphas, self.primitives) for kind, alphas in cells}
        return choose_genotype(scores, self.costs, self.budget)

    def find_smallest(self) -> Complexity:
        """Return the cost of the network with the fewest parameters within the budget.

        Raises:
            UsageError: none is within it.
        """
        scores = {
            kind: [{op: -cost.parameters for op, cost in ops.items()} for ops in edges]
            for kind, edges in self.costs.edges.items()
        }
        return self.costs.total(choose_genotype(scores, self.costs, self.budget))

    def record(self) -> dict[str, Any]:
        """Return what the config of a search records."""
        return {"training": self.sizes, "network": asdict(self.shape)}


def target_of_search(
    settings: SearchSettings, cache: Cache, training: TrainSettings | None
) -> Target:
    """Return the network that a search is for, after checking that one is within the budget.

    Args:
        settings: of the search.
        cache: of its clips.
        training: sizes of the network; None for the defaults, with the clips of the search.

    Raises:
        UsageError: none is.
    """
    if training is None:
        training = TrainSettings(**settings.model_dump(include=set(ClipSettings.model_fields)))
    target = Target.of(training, cache, settings, candidates(settings.space), settings.nodes)
    if settings.has_budget:
        smallest, shape = target.find_smallest(), target.shape
        note(
            f"search: budget for networks of {shape.layers} layers, {shape.channels} channels and "
            f"{shape.frames} frames; the smallest within it has {smallest.parameters:,} parameters "
            f"and {smallest.macs:,} MACs"
        )
    return target


def draw_for_training(cache: Path, training: TrainSettings, seed: int, space: str) -> Genotype:
    """Draw a random genotype whose network is within the limits of a training.

    Args:
        cache: the cache that it will be trained on.
        training: sizes of the network, and its limits.
        seed: of the random numbers.
        space: as for `skelnas.primitives.candidates`.

    Raises:
        InputError: the cache is broken.
        UsageError: no genotype is within the limits.
    """
    with Cache.open(cache) as opened:
        target = Target.of(training, opened, training, candidates(space), nodes=4)
    return draw_genotype(seed, target.costs, target.budget)


def find_target(
    run: Path,
    config: Mapping[str, Any],
    primitives: tuple[str, ...],
    training: TrainSettings,
    cache: Path | None,
) -> Target:
    """Return the network that the genotype of a search is for.

    What `training` was not given is as recorded in the run folder if the search had a budget; else
    its clips are those of the search, and its sizes the defaults, which a note tells.

    Args:
        run: the run folder.
        config: its ``config.json``.
        primitives: the candidate operations of the search.
        training: sizes of the network, and its limits.
        cache: the cache that it will be trained on; None for that of the search.

    Raises:
        InputError: the config is broken, or the cache is missing.
    """
    try:
        recorded = {name: config["settings"].get(name) for name in LIMITS}
        limits = BudgetSettings(**recorded | _given(training, LIMITS))
        clips = {name: config["settings"][name] for name in ("frames", "streams")}
        sizes = config.get("training", clips) | _given(training, SIZES)
        if cache is None and "network" in config and sizes == config["training"]:
            shape = TypeAdapter(NetworkShape).validate_python(config["network"])
            return Target(sizes, shape, Budget(limits.max_params, limits.max_macs), primitives)
        training = TrainSettings(**sizes)
        nodes = config["settings"]["nodes"]
    except (KeyError, TypeError, ValidationError) as error:
        reason = first_line(error)
        raise InputError(f"{run / CONFIG}: unexpected content ({reason})") from None
    path = cache or Path(str(config.get("cache")))
    if not path.exists():
        raise InputError(
            f"{path}: the cache of the search is missing", hint="--cache gives its new path"
        )
    with Cache.open(path) as opened:
        target = Target.of(training, opened, limits, primitives, nodes)
    shape = target.shape
    note(
        f"derive: counts a network of {shape.layers} layers, {shape.channels} channels and clips "
        f"of {shape.frames} frames and {shape.joints} joints"
    )
    return target


def _given(training: TrainSettings, names: Collection[str]) -> dict[str, Any]:
    return training.model_dump(include=training.model_fields_set & set(names))
