"""`skelnas bench run`: cache → table of trainings."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from skelnas.config import BenchSettings
from skelnas.data.cache import Cache
from skelnas.data.splits import name_folds
from skelnas.errors import UsageError
from skelnas.genotype import Genotype
from skelnas.models.cost import CostTable
from skelnas.nas.bench.table import TABLE, BenchTable, GenotypeEntry, TrialEntry, write_table
from skelnas.nas.budget import Budget
from skelnas.nas.draw import draw_genotype
from skelnas.nas.target import Target
from skelnas.nas.trial_rows import Row, Trial
from skelnas.nas.trials import SETTINGS_OF_TRIAL, open_trials
from skelnas.primitives import candidates
from skelnas.runtime import devices, files
from skelnas.runtime.console import note
from skelnas.training import run_dir

MIN_DRAWN, DRAWN_PER_GENOTYPE = 200, 8
"""Genotypes are chosen among that many random ones, by strata of parameters."""

PER_STRATUM = 4

NO_GENOTYPES: Mapping[str, Genotype] = {}


def bench(
    cache_path: Path | str,
    out: Path | str,
    settings: BenchSettings,
    given: Mapping[str, Genotype] = NO_GENOTYPES,
    *,
    resume: bool = False,
    force: bool = False,
) -> BenchTable:
    """Train genotypes on every fold with every seed, and write what comes of it to a table.

    The folds divide the training part of the protocol; its test part is never read.

    Args:
        cache_path: a skeleton cache.
        out: folder of ``table.json``, and of a small file for each training.
        settings: see `BenchSettings`.
        given: genotypes to train besides the random ones, by name.
        resume: continue; genotypes, seeds and folds may be more than before.
        force: discard what is in the folder.

    Returns:
        The table. It depends on neither jobs nor interruptions, but for the minutes.

    Raises:
        InputError: the cache is broken, changed, or cannot be divided into the folds.
        UsageError: the folder is not empty, or was started with other settings; or there are
            fewer genotypes than asked for.
        DeviceError: the device is missing or out of memory, or a process died.
        Interrupted: stopped by a signal; can be resumed.
    """
    cache_path, out = Path(cache_path), Path(out)
    run_dir.check(out, resume=resume, force=force)
    training = settings.of_trainings()
    with Cache.open(cache_path) as cache:
        protocols = _choose_protocols(cache, settings)
        source, num_classes = cache.source, len(cache.classes)
        target = Target.of(training, cache, settings, candidates(settings.space), settings.nodes)
    drawn = draw_strata(target.costs, target.budget, settings.genotypes)
    suffix = "" if settings.space == "sar" else f":{settings.space}"
    random = {f"random:{seed}{suffix}": genotype for seed, genotype in drawn.items()}
    _check_are_others(given, random)
    chosen = {**random, **given}
    trials = [
        Trial(name, genotype, protocol, seed)
        for seed, protocol in itertools.product(range(settings.seeds), protocols)
        for name, genotype in chosen.items()
    ]
    with open_trials(
        cache_path,
        protocols,
        training,
        out,
        settings.jobs,
        planned=len(trials),
        gpus=devices.list_gpus(training) if settings.jobs > 1 else (),
        keep_going=True,
        resume=resume,
        force=force,
    ) as opened:
        if force:
            (out / TABLE).unlink(missing_ok=True)
        rows = opened.run(trials)
        table = BenchTable(
            source=source,
            classes=num_classes,
            settings=opened.settings.model_dump(exclude=set(SETTINGS_OF_TRIAL)),
            versions=files.versions(),
            genotypes=_list_genotypes(rows, given.keys()),
            trials=[_to_entry(row) for row in rows if row is not None],
        )
        write_table(out / TABLE, table)
    for trial, row in zip(trials, rows, strict=True):
        if row is None:
            note(f"bench: {trial.name} diverged on {trial.protocol} with seed {trial.seed}")
    return table


def _choose_protocols(cache: Cache, settings: BenchSettings) -> list[str]:
    """Return the folds; or, instead, protocols that were named, separated by commas."""
    named = settings.protocol.split(",")
    if len(named) > 1:
        return [cache.choose_protocol(name.strip()) for name in named]
    protocol = cache.choose_protocol(settings.protocol)
    return name_folds(cache, protocol, settings.folds, settings.folds_by)


def _check_are_others(given: Mapping[str, Genotype], random: Mapping[str, Genotype]) -> None:
    """Check that no genotype is trained twice.

    Raises:
        UsageError: one is.
    """
    names = {genotype.identity: name for name, genotype in random.items()}
    for name, genotype in given.items():
        if name in random or (known := names.setdefault(genotype.identity, name)) != name:
            twin = name if name in random else known
            raise UsageError(
                f"--genotype {name}: {twin} is trained already", hint="leave out one of them"
            )


def draw_strata(costs: CostTable, budget: Budget, count: int) -> dict[int, Genotype]:
    """Draw random genotypes whose parameters spread like those of all.

    Many are drawn, sorted by parameters and divided into strata of equal number; of each stratum
    those of the smallest seeds are taken.

    Args:
        costs: of the networks, for all operations of the space.
        budget: that all are within.
        count: of genotypes.

    Returns:
        The genotypes by the seed that draws them, smallest stratum first.

    Raises:
        UsageError: there are fewer.
    """
    drawn: dict[int, Genotype] = {}
    identities = set()
    for seed in range(max(MIN_DRAWN, DRAWN_PER_GENOTYPE * count)):
        genotype = draw_genotype(seed, costs, budget)
        if (identity := genotype.identity) not in identities:
            identities.add(identity)
            drawn[seed] = genotype
    if len(drawn) < count:
        raise UsageError(
            f"--genotypes {count}: only {len(drawn)} different ones were drawn",
            hint="ask for fewer, or allow more operations or parameters",
        )
    by_size = sorted(drawn, key=lambda seed: (costs.total(drawn[seed]).parameters, seed))
    num_strata = max(count // PER_STRATUM, 1)
    chosen: dict[int, Genotype] = {}
    for stratum in range(num_strata):
        seeds = by_size[_part(len(by_size), stratum, num_strata)]
        num_chosen = len(range(count)[_part(count, stratum, num_strata)])
        chosen |= {seed: drawn[seed] for seed in sorted(seeds)[:num_chosen]}
    left = sorted(drawn.keys() - chosen.keys())  # if few more were drawn, a stratum may lack one
    return chosen | {seed: drawn[seed] for seed in left[: count - len(chosen)]}


def _part(total: int, number: int, count: int) -> slice:
    """Return the numbers that the part `number` of `count` equal parts has."""
    return slice(total * number // count, total * (number + 1) // count)


def _list_genotypes(rows: Sequence[Row | None], given: Collection[str]) -> list[GenotypeEntry]:
    """List the genotypes that were trained, in order."""
    entries = {
        row.name: GenotypeEntry(
            row.name,
            "given" if row.name in given else "random",
            row.genotype,
            row.parameters,
            row.macs,
        )
        for row in rows
        if row is not None
    }
    return list(entries.values())


def _to_entry(row: Row) -> TrialEntry:
    return TrialEntry(
        genotype=row.name,
        protocol=row.protocol,
        seed=row.seed,
        top1=row.top1,
        nll=row.nll,
        clips=row.clips,
        train_loss=row.train_loss,
        minutes=round(row.minutes, 3),
    )
