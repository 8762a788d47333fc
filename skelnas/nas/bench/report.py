"""`skelnas bench report`: table → what it says of genotypes, seeds, predictors and searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype
from skelnas.nas.bench.replay import NUM_REPLAYS, Replay, check_can_replay, replay, sum_edges
from skelnas.nas.bench.statistics import Estimate, measure_ranks, measure_spread
from skelnas.nas.bench.table import Array, BenchTable, Grid, read_table
from skelnas.nas.derive import rank
from skelnas.runtime.console import note
from skelnas.training import run_dir

MIN_GENOTYPES = 4
"""Fewer say nothing about genotypes in general."""


@dataclass(frozen=True)
class Score:
    """A genotype in a report.

    Attributes:
        name, kind, parameters, macs: as in the table.
        top1, nll: means over protocols and seeds.
        error: standard error of `top1`, from how seeds differ in general; None for a single seed.
        on_front: whether none of its kind has fewer parameters and a higher top-1.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    top1: float
    nll: float
    error: float | None
    on_front: bool


@dataclass(frozen=True)
class BenchReport:
    """What a table says.

    Attributes:
        source: name of the data set.
        protocols, seeds: that every genotype was trained with.
        left_out: names of genotypes that were not trained with all of them.
        minutes: that all trainings took; None if not recorded.
        genotypes: the others, smallest first.
        spread: of the random genotypes, see `measure_spread`.
        ranks: Kendall's tau of the random genotypes, see `measure_ranks`.
        replays: of searches among the random genotypes.
    """

    source: str
    protocols: list[str]
    seeds: list[int]
    left_out: list[str]
    minutes: float | None
    genotypes: list[Score]
    spread: dict[str, dict[str, Estimate]]
    ranks: dict[str, Estimate]
    replays: list[Replay]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain containers, for JSON."""
        return asdict(self)


def report(
    table: BenchTable,
    *,
    replays: int | None = None,
    runs: Sequence[Path] = (),
    others: Sequence[Path] = (),
) -> BenchReport:
    """Report on a table.

    Args:
        table: of a benchmark.
        replays: of each search and number of trainings; 0 for none. None for `NUM_REPLAYS`, or
            a note if the table is too small.
        runs: run folders of searches, whose ranking is compared with the table's.
        others: other tables of the same genotypes, such as with shorter trainings, likewise.

    Raises:
        InputError: the table has too few genotypes, a search other operations than these, or
            another table not all of them.
        UsageError: replays are asked for, and the table is too small.
    """
    everything, random = table.grid(), table.grid(["random"])
    if len(random) < MIN_GENOTYPES:
        raise InputError(
            f"the table has {len(random)} random genotypes that were trained on all protocols "
            f"with all seeds, expected {MIN_GENOTYPES} or more",
            hint="let `skelnas bench run` finish: the same command with --resume",
        )
    if replays is None:
        replays = _choose_num_replays(random)
    genotypes = random.genotypes()
    scores = {str(run): score_by_search(run, genotypes) for run in runs}
    scores |= {str(other): score_by_table(other, genotypes) for other in others}
    complete = set(everything.names)
    minutes = [trial.minutes for trial in table.trials if trial.minutes is not None]
    return BenchReport(
        source=table.source,
        protocols=everything.protocols,
        seeds=everything.seeds,
        left_out=[entry.name for entry in table.genotypes if entry.name not in complete],
        minutes=sum(minutes) if len(minutes) == len(table.trials) else None,
        genotypes=_list_scores(everything),
        spread=measure_spread(random),
        ranks=measure_ranks(random, scores),
        replays=replay(random, replays) if replays else [],
    )


def _choose_num_replays(grid: Grid) -> int:
    try:
        check_can_replay(grid)
    except UsageError as error:
        note(f"no replays: {error}")
        return 0
    return NUM_REPLAYS


def score_by_search(run: Path, genotypes: Sequence[Genotype]) -> Array:
    """Score genotypes by a search: the sum of what it ranks their operations by, [G].

    Alphas rank by their weights, a search by trainings by what it predicts.

    Raises:
        InputError: the folder holds no search, or one without an operation of the genotypes.
    """
    scores = rank(run, run_dir.read_config(run)).scores
    try:
        return np.array([sum_edges(genotype, scores) for genotype in genotypes])
    except (KeyError, IndexError) as error:
        raise InputError(
            f"{run}: its search had other operations or nodes than the table: {error}",
            hint="give a search of the same --space and --nodes",
        ) from None


def score_by_table(path: Path, genotypes: Sequence[Genotype]) -> Array:
    """Score genotypes by another table: the negative held-out loss there, [G].

    Raises:
        InputError: it lacks some of them.
    """
    grid = read_table(path).grid()
    identities = [genotype.identity for genotype in grid.genotypes()]
    losses = dict(zip(identities, grid.nll.mean((1, 2)), strict=True))
    missing = sum(genotype.identity not in losses for genotype in genotypes)
    if missing:
        raise InputError(
            f"{path}: lacks {missing} of the {len(genotypes)} random genotypes of the table",
            hint="`skelnas bench run` with the same --genotypes, --space and sizes trains the same",
        )
    return np.array([-losses[genotype.identity] for genotype in genotypes])


def _list_scores(grid: Grid) -> list[Score]:
    """Return the genotypes with their scores, smallest first."""
    top1, nll = grid.top1.mean((1, 2)), grid.nll.mean((1, 2))
    error = None
    if len(grid.seeds) > 1:
        count = len(grid.seeds) * len(grid.protocols)
        error = float(np.sqrt(grid.top1.var(2, ddof=1).mean() / count))
    best: dict[str, float] = {}
    scores = []
    order = sorted(range(len(grid)), key=lambda n: (grid.entries[n].parameters, -top1[n]))
    for number in order:
        entry, value = grid.entries[number], float(top1[number])
        on_front = value > best.get(entry.kind, -1.0)
        best[entry.kind] = max(value, best.get(entry.kind, -1.0))
        scores.append(
            Score(
                entry.name,
                entry.kind,
                entry.parameters,
                entry.macs,
                value,
                float(nll[number]),
                error,
                on_front,
            )
        )
    return scores
