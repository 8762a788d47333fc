"""What is a search worth? Searched networks against random ones of the same size and cost.

    skelnas prepare nw-ucla NW_UCLA_FOLDER ucla.h5
    python benchmarks/confirm.py nw-ucla ucla.h5 work/ --jobs 2 --rows rows.json
    python benchmarks/confirm.py nw-ucla ucla.h5 work/ --jobs 2 --rows rows.json --test

The first command searches; the second, run once and at the end, trains what was found on the whole
training part and scores it on the test part. Finished trainings are kept in the file of ``--rows``,
from which either command continues in an empty folder.

Written down before the first training was run:

- Data: NW-UCLA `xview`, folds by camera; MSRC-12 `few` (persons 1 to 5 train), folds by subject.
- Networks: 6 cells, 16 channels, 32 frames; at most 200,000 parameters.
- Trainings of a search: the strong recipe, batches of 32, 20 epochs (12 for MSRC-12), one whole
  cosine, on each of two folds of the training part.
- Arms, for each of the independent searches 0, 1, ... (their seeds):
  - predict: ``search --method predict`` with 16 genotypes (8 random, 8 proposed).
  - best of 16: the lowest mean loss of 16 random genotypes within the budget, at the same cost;
    the first 8 are those of predict, so that the two arms differ by what they do then.
  - random: two genotypes of 190,000 to 200,000 parameters.
  - twice: two random genotypes of 380,000 to 400,000 parameters.
- Final trainings: 30 epochs (20 for MSRC-12) on the whole training part, seeds 0 and 1 (each for
  one of two random genotypes, which vary more than one does); top-1 of the last epoch on the test
  part, mean of the two.
- Searches: as many as the time allows, at least 6 on NW-UCLA and 4 on MSRC-12.
- Reported: the mean of each arm, and differences with 95 % t-intervals over searches: predict
  less random (reach: 1 point, and the interval excludes 0), predict less twice (reach: within 1
  point), predict less best of 16 (reach: not below 0 by more than the interval).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.genotype import Genotype
from skelnas.genotype import from_dict as genotype_of
from skelnas.nas.budget import Budget
from skelnas.nas.draw import GenotypeSampler
from skelnas.nas.predictor_search import TRIALS, predictor_search
from skelnas.nas.rating import Rater
from skelnas.nas.target import Target, target_of_search
from skelnas.nas.trial_rows import ROW, Trial
from skelnas.nas.trials import run_trials
from skelnas.runtime.files import atomic_write
from skelnas.runtime.seed import random_seed
from skelnas.training import run_dir
from skelnas.training.genotype_table import GenotypeTable

PROTOCOLS = {"nw-ucla": ("xview", "camera"), "msrc12": ("few", "subject")}
EPOCHS = {"nw-ucla": (20, 30), "msrc12": (12, 20)}
NUM_GENOTYPES, NUM_RANDOM = 16, 8
MAX_PARAMS = 200_000
FINAL_SEEDS = (0, 1)
SIZE: dict[str, Any] = {"layers": 6, "channels": 16, "frames": 32}
TRAINING: dict[str, Any] = {
    **SIZE,
    "batch_size": 32,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}
MAX_DRAWS = 20_000

Arms = dict[str, list[list[Genotype]]]
"""The genotypes to train at last: of each arm, search and final seed."""

T_QUANTILES = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
"""97.5 % of Student's t by degrees of freedom."""


class Store:
    """The rows of all trainings, and the settings of their folders, in one file."""

    def __init__(self, path: Path, work: Path, cache: Path) -> None:
        self.path, self.work, self.cache = path, work, cache

    def restore(self) -> None:
        """Write what the working folder lacks."""
        if not self.path.exists():
            return
        for name, document in json.loads(self.path.read_text()).items():
            path = self.work / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.name == run_dir.CONFIG:
                    document["cache"] = str(self.cache.resolve())
                atomic_write(path, json.dumps(document))

    def save(self) -> None:
        """Write the file, a line for each training."""
        lines = []
        for path in sorted([*self.work.rglob(f"*{ROW}"), *self.work.rglob(run_dir.CONFIG)]):
            if path.parent.name == TRIALS or path.parent.parent == self.work:
                document = json.loads(path.read_text())
                document.pop("cache", None)
                lines.append(f"{json.dumps(str(path.relative_to(self.work)))}: ")
                lines[-1] += json.dumps(document)
        atomic_write(self.path, "{\n" + ",\n".join(lines) + "\n}\n")


def search(
    data: str, cache: Path, work: Path, seed: int, jobs: int
) -> tuple[GenotypeTable, Target]:
    """Run one search; continue if it was begun."""
    protocol, by = PROTOCOLS[data]
    settings = SearchSettings(
        method="predict",
        protocol=protocol,
        folds_by=by,
        genotypes=NUM_GENOTYPES,
        max_params=MAX_PARAMS,
        seed=seed,
        jobs=jobs,
        epochs=EPOCHS[data][0],
        **{key: value for key, value in TRAINING.items() if key in SearchSettings.model_fields},
    )
    table = predictor_search(cache, work / f"search-{seed}", settings, resume=True)
    with Cache.open(cache) as opened:
        return table, target_of_search(settings, opened, TrainSettings(**settings.of_trainings()))


def best_random(
    data: str, cache: Path, work: Path, seed: int, jobs: int, table: GenotypeTable, target: Target
) -> Genotype:
    """Return the best of the search's random genotypes and as many as it proposed."""
    shared = [genotype_of(one.genotype, "table") for one in table.genotypes[:NUM_RANDOM]]
    rater = Rater(target)
    more = [rater.draw(random_seed(seed, 99, i)) for i in range(NUM_GENOTYPES - NUM_RANDOM)]
    settings = TrainSettings(epochs=EPOCHS[data][0], **TRAINING)
    trials = [
        Trial(f"random {index}", genotype, fold, seed)
        for index, genotype in enumerate(more)
        for fold in table.folds
    ]
    rows = run_trials(cache, trials, settings, work / f"random-{seed}", jobs, resume=True)
    losses = [one.mean_loss or np.inf for one in table.genotypes[:NUM_RANDOM]]
    losses += np.reshape([row.nll for row in rows], (-1, len(table.folds))).mean(axis=1).tolist()
    return [*shared, *more][int(np.argmin(losses))]


def random_of_size(target: Target, seed: int, low: int, high: int) -> list[Genotype]:
    """Draw a genotype with that many parameters, the lower limit excluded, for each final seed."""
    sampler = GenotypeSampler(target.costs)
    found: list[Genotype] = []
    for part in range(MAX_DRAWS // 1000):
        drawn = sampler.sample(Budget(high), 1000, random_seed(seed, high, part))
        found += [one for one in drawn if target.costs.total(one).parameters > low]
        if len(found) >= len(FINAL_SEEDS):
            return found[: len(FINAL_SEEDS)]
    raise SystemExit(f"too few genotypes of {low} to {high} parameters in {MAX_DRAWS} draws")


def describe(differences: Sequence[float]) -> str:
    """Return the mean with its 95 % interval."""
    count = len(differences)
    mean = float(np.mean(differences))
    if count - 1 not in T_QUANTILES:
        return f"{mean:+.2f}"
    half = T_QUANTILES[count - 1] * float(np.std(differences, ddof=1)) / count**0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", choices=PROTOCOLS)
    parser.add_argument("cache", type=Path)
    parser.add_argument("work", type=Path, help="folder of the trainings")
    parser.add_argument("--searches", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--rows", type=Path, required=True, help="file of finished trainings")
    parser.add_argument("--test", action="store_true", help="train and score what was found")
    options = parser.parse_args()
    data, cache, work, jobs = options.data, options.cache, options.work, options.jobs
    work.mkdir(parents=True, exist_ok=True)
    store = Store(options.rows, work, cache)
    store.restore()
    arms: Arms = {name: [] for name in ("predict", "best", "random", "twice")}
    try:
        for seed in range(options.searches):
            table, target = search(data, cache, work, seed, jobs)
            store.save()
            arms["predict"].append([table.choice()] * len(FINAL_SEEDS))
            best = best_random(data, cache, work, seed, jobs, table, target)
            arms["best"].append([best] * len(FINAL_SEEDS))
            arms["random"].append(random_of_size(target, seed, 190_000, 200_000))
            arms["twice"].append(random_of_size(target, seed, 380_000, 400_000))
            store.save()
        if options.test:
            score(data, cache, work, jobs, arms)
    finally:
        store.save()


def score(data: str, cache: Path, work: Path, jobs: int, arms: Arms) -> None:
    """Train all that was found on the whole training part; print top-1 on the test part."""
    settings = TrainSettings(epochs=EPOCHS[data][1], **TRAINING)
    protocol, _ = PROTOCOLS[data]
    trials = [
        Trial(f"{arm} {number}", genotypes[number][index], protocol, seed)
        for number in range(len(arms["predict"]))
        for index, seed in enumerate(FINAL_SEEDS)
        for arm, genotypes in arms.items()
    ]
    rows = run_trials(cache, trials, settings, work / "final", jobs, resume=True)
    shape = (len(arms["predict"]), len(FINAL_SEEDS), len(arms))
    top1 = 100 * np.array([row.top1 for row in rows]).reshape(shape).mean(
        axis=1
    )  # [searches, arms]
    parameters = np.array([row.parameters for row in rows]).reshape(shape).mean(axis=(0, 1))
    for index, arm in enumerate(arms):
        values = ", ".join(f"{value:.1f}" for value in top1[:, index])
        print(f"{arm}: {top1[:, index].mean():.2f} ({values}), {parameters[index]:,.0f} parameters")
    for index, arm in enumerate(arms):
        if index:
            print(f"predict less {arm}: {describe((top1[:, 0] - top1[:, index]).tolist())}")


if __name__ == "__main__":
    main()
