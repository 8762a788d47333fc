"""Do genotypes differ by more than seeds do? Short trainings of 24 genotypes on two data sets.

    python benchmarks/genotypes.py nw-ucla NW_UCLA_FOLDER work/ --jobs 2 --out table.json
    python benchmarks/genotypes.py msrc12 MSRC12_FOLDER work12/ --jobs 2 --out table12.json

Written down before the first training was run:

- Data: NW-UCLA, cameras 1 and 2. Fold ``1to2`` learns camera 1 and is scored on camera 2, ``2to1``
  the other way round. Camera 3, the test part of the official protocol, is not read.
- MSRC-12, the training persons 1 to 5 of ``few``. Fold ``135to24`` learns persons 1, 3 and
  5 and is scored on 2 and 4, ``24to135`` the other way round. The other 25 persons are not read.
- Genotypes: ``random:0`` to ``random:199``, sorted by parameters and divided into six strata of
  equal number; of each the four of the smallest seed.
- Training: the strong recipe with 16 channels, 6 cells, 32 frames, batches of 32, 30 epochs (one
  whole cosine; 15 for MSRC-12), float32, one thread; seeds 0 and 1. 24 x 2 x 2 = 96 trainings.
- Scores: top-1 and negative log-likelihood of the last epoch.
- Reported: spread between genotypes without that of seeds and folds, spread between seeds, what is
  left of the first at equal parameters; Kendall's tau between seeds and between folds.
- Decision: if genotypes at equal parameters differ by less than 0.4 points (standard deviation),
  a search can claim size only, not accuracy.
"""

from __future__ import annotations

import argparse
import itertools
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.prepare import prepare
from skelnas.data.readers.base import Catalogue, ClipTable, Test, Train
from skelnas.data.readers.msrc12 import Msrc12
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import Genotype, load, random_genotype
from skelnas.models.cost import NetworkShape, make_cost_table
from skelnas.nas.bench.run import draw_strata
from skelnas.nas.bench.table import BenchTable, GenotypeEntry, TrialEntry, read_table, write_table
from skelnas.nas.budget import UNLIMITED
from skelnas.primitives import candidates
from skelnas.runtime.files import atomic_write, versions
from skelnas.training import run_dir
from skelnas.training.train import train

FOLDS = {"nw-ucla": ("1to2", "2to1"), "msrc12": ("135to24", "24to135")}
SEEDS = (0, 1)
NUM_GENOTYPES = 24
SETTINGS = {
    "layers": 6,
    "channels": 16,
    "frames": 32,
    "batch_size": 32,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}
EPOCHS = {"nw-ucla": 30, "msrc12": 15}


@dataclass(frozen=True)
class TwoCameras(NwUcla):
    """NW-UCLA without camera 3, with a protocol for each direction."""

    def catalogue(self) -> Catalogue:
        """List the clips of cameras 1 and 2."""
        clips = super().catalogue()
        return Catalogue([path for path in clips.items if "_v03" not in path.name], clips.skipped)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the two directions."""
        return {
            fold: np.where(clips.cameras == camera, Train, Test).astype(np.int8)
            for camera, fold in enumerate(FOLDS["nw-ucla"], start=1)
        }


@dataclass(frozen=True)
class FivePersons(Msrc12):
    """The training persons of MSRC-12's `few`, with a protocol for each direction."""

    def catalogue(self) -> Catalogue:
        """List the clips of persons 1 to 5."""
        clips = super().catalogue()
        kept = [path for path in clips.items if int(path.parent.stem[-2:]) <= 5]
        return Catalogue(kept, clips.skipped, clips.side_files)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the two directions."""
        return {
            fold: np.where(clips.subjects % 2 == odd, Train, Test).astype(np.int8)
            for odd, fold in zip((1, 0), FOLDS["msrc12"], strict=True)
        }


def make_source(data: str, raw: Path) -> TwoCameras | FivePersons:
    return TwoCameras(raw) if data == "nw-ucla" else FivePersons(raw)


def choose_genotypes() -> dict[int, Genotype]:
    """Return the genotypes by their seeds.

    Strata by the parameters of a network for NW-UCLA: the classifier adds as many to each.
    """
    sizes = {name: SETTINGS[name] for name in ("layers", "channels", "frames")}
    shape = NetworkShape(**sizes, joints=20, num_classes=10, branches=(3,))
    return draw_strata(make_cost_table(shape, candidates("sar")), UNLIMITED, NUM_GENOTYPES)


def train_one(
    cache: Path, folder: Path, epochs: int, fold: str, genotype: int, seed: int
) -> dict[str, Any]:
    """Train and score one genotype; a finished one is not repeated."""
    result = folder / f"{fold}-{genotype}-{seed}.json"
    if not result.exists():
        torch.set_num_threads(1)
        settings = TrainSettings(protocol=fold, seed=seed, epochs=epochs, **SETTINGS)
        run = result.with_suffix("")
        trained = train(cache, random_genotype(genotype), run, settings, resume=run.exists())
        scores = evaluate(cache, trained.path, EvaluateSettings(device="cpu", protocol=fold))
        row = {
            "genotype": f"random:{genotype}",
            "parameters": scores.complexity.parameters,
            "macs": scores.complexity.macs,
            "fold": fold,
            "seed": seed,
            "top1": scores.metrics.top1,
            "nll": scores.metrics.nll,
        }
        epochs_done = run_dir.read_lines(run / run_dir.METRICS)
        row["train_loss"] = [line["train_loss"] for line in epochs_done]
        row["minutes"] = round(sum(line["seconds"] for line in epochs_done) / 60, 3)
        atomic_write(result, json.dumps(row))
    row = json.loads(result.read_text())
    return dict(row)


def restore(table: BenchTable, folder: Path) -> None:
    """Write the trainings of a table to the working folder, so that they are not repeated."""
    sizes = {one.name: (one.parameters, one.macs) for one in table.genotypes}
    for trial in table.trials:
        _, _, number = trial.genotype.partition(":")
        result = folder / f"{trial.protocol}-{number}-{trial.seed}.json"
        parameters, macs = sizes[trial.genotype]
        row = {"parameters": parameters, "macs": macs, "fold": trial.protocol, **asdict(trial)}
        if not result.exists():
            atomic_write(result, json.dumps(row))


def make_table(data: str, cache: Path, rows: list[dict[str, Any]]) -> BenchTable:
    """Make the table that `skelnas bench report` reads."""
    by_name = {row["genotype"]: row for row in rows}
    genotypes = [
        GenotypeEntry(name, "random", load(name).to_dict(), row["parameters"], row["macs"])
        for name, row in by_name.items()
    ]
    columns = "genotype", "seed", "top1", "nll", "train_loss", "minutes"
    trials = [
        TrialEntry(protocol=row["fold"], **{name: row[name] for name in columns}) for row in rows
    ]
    with Cache.open(cache) as opened:
        num_classes = len(opened.classes)
    settings = {**SETTINGS, "epochs": EPOCHS[data]}
    return BenchTable(data, num_classes, settings, versions(), genotypes, trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", choices=FOLDS)
    parser.add_argument("raw", type=Path, help="folder of the recordings")
    parser.add_argument("work", type=Path, help="folder of the trainings")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--finished", action="store_true", help="train no more than there is")
    parser.add_argument("--out", type=Path, required=True, help="table to continue and write")
    options = parser.parse_args()
    folds, epochs = FOLDS[options.data], EPOCHS[options.data]
    options.work.mkdir(parents=True, exist_ok=True)
    cache = options.work / "clips.h5"
    if not cache.exists():
        prepare(make_source(options.data, options.raw), cache, workers=1)
    if options.out.exists():
        restore(read_table(options.out), options.work)
    jobs = list(itertools.product(SEEDS, folds, choose_genotypes()))
    if options.finished:
        done = {path.stem for path in options.work.glob("*-*-*.json")}
        jobs = [job for job in jobs if "{1}-{2}-{0}".format(*job) in done]
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [
            pool.submit(train_one, cache, options.work, epochs, fold, genotype, seed)
            for seed, fold, genotype in jobs
        ]
        rows = []
        for future in as_completed(waiting):
            rows.append(future.result())
            ordered = sorted(rows, key=lambda row: (row["seed"], row["fold"], row["genotype"]))
            write_table(options.out, make_table(options.data, cache, ordered))


if __name__ == "__main__":
    main()
