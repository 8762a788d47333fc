"""`skelnas search --method predict`: search by short trainings; cache → run folder.

Half of the genotypes are drawn at random, and the others are proposed by a predictor that learns
from those before. Each is trained from scratch on every fold of the protocol's training part, with
a whole schedule, and scored by its loss on the clips that the fold holds out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.splits import name_folds
from skelnas.errors import Diverged, UsageError
from skelnas.genotype import Genotype
from skelnas.nas.proposals import Proposals
from skelnas.nas.rating import Rater, read_scores
from skelnas.nas.target import target_of_search
from skelnas.nas.trial_rows import Row, Trial
from skelnas.nas.trials import SETTINGS_OF_TRIAL, Trials, open_trials
from skelnas.runtime import devices
from skelnas.runtime.console import note
from skelnas.runtime.files import atomic_write, real_path
from skelnas.training import run_dir
from skelnas.training.genotype_table import GenotypeTable, TrainedGenotype, write_table

TRIALS = "trials"
"""Folder of the trainings in the run folder."""


def predictor_search(
    cache_path: Path | str,
    out: Path | str,
    settings: SearchSettings,
    training: TrainSettings | None = None,
    *,
    resume: bool = False,
    force: bool = False,
) -> GenotypeTable:
    """Search by short trainings and write a run folder, from which `derive` reads the genotype.

    The test part of the protocol is never read.

    Args:
        cache_path: a skeleton cache.
        out: the run folder.
        settings: of the search.
        training: of the trainings, where they differ from `SearchSettings.of_trainings`.
        resume: continue the search in the folder; the result is that of an uninterrupted one.
        force: discard it.

    Returns:
        The table of all genotypes, which is in the folder, too.

    Raises:
        InputError: the cache is broken, or its training part cannot be divided into the folds.
        UsageError: the folder is not empty, in use, or holds another run; or fewer than two
            genotypes are within the budget.
        DeviceError: the device is missing or out of memory.
        Interrupted: stopped by a signal; the search can be resumed.
    """
    cache_path, out = Path(cache_path), Path(out)
    training = training or TrainSettings(**settings.of_trainings())
    run_dir.check(out, resume=resume, force=force)
    with Cache.open(cache_path) as cache:
        protocol = cache.choose_protocol(settings.protocol)
        settings = settings.model_copy(update={"protocol": protocol})
        folds = name_folds(cache, protocol, settings.folds, settings.folds_by)
        target = target_of_search(settings, cache, training)
        config = {
            "verb": "search",
            "settings": settings.fixed(),
            **target.record(),
            "training": {k: v for k, v in training.fixed().items() if k not in SETTINGS_OF_TRIAL},
            "primitives": list(target.primitives),
            "classes": cache.classes,
            "layout": asdict(cache.layout),
            "cache": str(real_path(cache_path)),
        }
    with run_dir.start(out, config, resume=resume, force=force):
        search = _Search(cache_path, out, settings, training, folds, Rater(target))
        return search.run(force=force)


@dataclass(frozen=True)
class _Search:
    cache: Path
    out: Path
    settings: SearchSettings
    training: TrainSettings
    folds: list[str]
    rater: Rater

    def run(self, *, force: bool) -> GenotypeTable:
        """Train round by round; write the table after each round, and the genotype at the end."""
        proposals = Proposals(
            self.rater.space,
            self.settings.genotypes,
            self.settings.seed,
            self.rater.draw,
            self.rater.maximise,
        )
        table = GenotypeTable(self.folds, self.settings.genotypes)
        if self.training.layers < 3:
            note(
                "with fewer than 3 layers a network has no normal cell: that of a genotype is idle"
            )
        with open_trials(
            self.cache,
            self.folds,
            self.training,
            self.out / TRIALS,
            self.settings.jobs,
            planned=table.planned * len(self.folds),
            gpus=devices.list_gpus(self.training) if self.settings.jobs > 1 else (),
            keep_going=True,
            resume=not force,
            force=force,
        ) as trials:
            for number in itertools.count():
                genotypes = proposals.next_round(*read_scores(table))
                if not genotypes:
                    break
                if len(table.genotypes) + len(genotypes) < 2:
                    raise UsageError(
                        "there is a single genotype to choose from",
                        hint="a larger budget or --space leaves a choice",
                    )
                table = self._train(trials, table, genotypes, number)
                write_table(self.out, table)
        if len(table.genotypes) < table.planned:
            note(f"search: there are no more than these {len(table.genotypes)} genotypes")
        atomic_write(self.out / run_dir.CHOSEN, table.choice().to_json())
        return table

    def _train(
        self, trials: Trials, table: GenotypeTable, genotypes: Sequence[Genotype], number: int
    ) -> GenotypeTable:
        """Train the genotypes of a round, and rate all so far."""
        first = len(table.genotypes)
        how = "proposed" if number else "random"
        last = first + len(genotypes)
        numbers = f"genotype {last}" if len(genotypes) == 1 else f"genotypes {first + 1} to {last}"
        note(f"search: training {numbers} of {table.planned}, {how}")
        rows = trials.run(
            [
                Trial(f"genotype {first + index}", genotype, fold, self.settings.seed)
                for index, genotype in enumerate(genotypes, start=1)
                for fold in self.folds
            ]
        )
        trained = []
        for index, genotype in enumerate(genotypes):
            of_genotype = rows[index * len(self.folds) : (index + 1) * len(self.folds)]
            trained.append(self._summarise(genotype, number, of_genotype))
        table = replace(table, genotypes=[*table.genotypes, *trained])
        if sum(one.mean_loss is not None for one in table.genotypes) < 2:
            raise Diverged(
                f"search: of {len(table.genotypes)} genotypes fewer than two did not diverge",
                hint="a smaller lr in the file of --train-config may help",
            )
        return self.rater.rate(table)

    def _summarise(
        self, genotype: Genotype, number: int, rows: Sequence[Row | None]
    ) -> TrainedGenotype:
        """Return what was found of a genotype in its round."""
        cost = self.rater.target.costs.total(genotype)
        return TrainedGenotype(
            genotype=genotype.to_dict(),
            round=number,
            parameters=cost.parameters,
            macs=cost.macs,
            losses=[row.nll if row else None for row in rows],
            top1=[row.top1 if row else None for row in rows],
        )
