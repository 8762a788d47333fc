"""Do genotypes differ by more than seeds do? Short trainings of 24 genotypes on two data sets.

    python benchmarks/genotypes.py nw-ucla NW_UCLA_FOLDER work/ --jobs 2 --out table.json
    python benchmarks/genotypes.py msrc12 MSRC12_FOLDER work12/ --jobs 2 --out table12.json

Written down before the first training was run:

- Data: NW-UCLA, cameras 1 and 2. Fold ``1to2`` learns camera 1 and is scored on camera 2, ``2to1``
  the other way round. Camera 3, the test part of the official protocol, is not read.
- MSRC-12, the training persons 1 to 5 of ``split_few``. Fold ``135to24`` learns persons 1, 3 and
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
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.prepare import prepare
from skelnas.data.readers.base import Catalogue, ClipTable, Test, Train
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import random_genotype
from skelnas.models.network import Network
from skelnas.runtime.files import atomic_write, versions
from skelnas.training.train import train

FOLDS = {"nw-ucla": ("1to2", "2to1"), "msrc12": ("135to24", "24to135")}
SEEDS = (0, 1)
NUM_DRAWN, NUM_STRATA, NUM_PER_STRATUM = 200, 6, 4
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
NUM_BOOTSTRAPS = 2000


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
class FivePersons(Manifest):
    """The training persons of MSRC-12's `split_few`, with a protocol for each direction."""

    def catalogue(self) -> Catalogue:
        """List the clips of persons 1 to 5."""
        clips = super().catalogue()
        kept = [path for path in clips.items if int(path.name.split("_p")[1][:2]) <= 5]
        return Catalogue(kept, clips.skipped, clips.side_files)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the two directions."""
        return {
            fold: np.where(clips.subjects % 2 == odd, Train, Test).astype(np.int8)
            for odd, fold in zip((1, 0), FOLDS["msrc12"], strict=True)
        }


def make_source(data: str, raw: Path) -> TwoCameras | FivePersons:
    if data == "nw-ucla":
        return TwoCameras(raw)
    return FivePersons(raw / "clips.csv", joints=raw / "joints.json")


def count_parameters(seed: int) -> int:
    network = Network(
        random_genotype(seed),
        in_channels=3,
        num_classes=10,
        channels=SETTINGS["channels"],
        num_layers=SETTINGS["layers"],
        normalised_joints=20,
    )
    return sum(parameter.numel() for parameter in network.parameters())


def choose_genotypes() -> dict[int, int]:
    """Return the seeds of the genotypes and their parameters."""
    drawn = sorted((count_parameters(seed), seed) for seed in range(NUM_DRAWN))
    chosen: dict[int, int] = {}
    bounds = [NUM_DRAWN * stratum // NUM_STRATA for stratum in range(NUM_STRATA + 1)]
    for first, last in itertools.pairwise(bounds):
        by_seed = sorted((seed, parameters) for parameters, seed in drawn[first:last])
        chosen |= dict(by_seed[:NUM_PER_STRATUM])
    return chosen


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
        atomic_write(result, json.dumps(row))
    row = json.loads(result.read_text())
    return dict(row)


def kendall_tau(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    pairs = list(itertools.combinations(range(len(x)), 2))
    return float(sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs) / len(pairs))


def analyse(scores: NDArray[np.float64], parameters: NDArray[np.float64]) -> dict[str, float]:
    """Split the spread of scores [genotypes, folds, seeds] into its parts.

    A genotype's effect differs between folds; half of that variance is in the mean of two folds,
    and is taken from the variance between genotypes.
    """
    scores = scores - scores.mean(axis=0)  # folds and seeds differ as a whole
    means = scores.mean(axis=(1, 2))  # [genotypes]
    between_seeds = (scores[:, :, 0] - scores[:, :, 1]).var() / 2
    by_fold = scores.mean(axis=2)  # [genotypes, folds]
    between_folds = ((by_fold[:, 0] - by_fold[:, 1]) ** 2).sum() / 2 / (len(means) - 1)
    design = np.stack([np.ones(len(means)), np.log2(parameters)], axis=1)
    line, *_ = np.linalg.lstsq(design, means, rcond=None)
    rest = ((means - design @ line) ** 2).sum() / (len(means) - 2)
    return {
        "sd of seeds": float(np.sqrt(between_seeds)),
        "sd of genotypes": float(np.sqrt(max(means.var(ddof=1) - between_folds / 2, 0))),
        "sd of genotypes at equal parameters": float(np.sqrt(max(rest - between_folds / 2, 0))),
        "change with twice the parameters": float(line[1]),
        "tau between seeds": kendall_tau(scores[:, :, 0].mean(1), scores[:, :, 1].mean(1)),
        "tau between folds": kendall_tau(by_fold[:, 0], by_fold[:, 1]),
        "tau with parameters": kendall_tau(parameters, means),
    }


def summarise(
    rows: list[dict[str, Any]], folds: tuple[str, ...]
) -> dict[str, dict[str, list[float]]]:
    """Return each statistic of top-1 [points] and loss with its 95 % interval over genotypes."""
    names = list(dict.fromkeys(row["genotype"] for row in rows))
    table = np.zeros((2, len(names), len(folds), len(SEEDS)))
    parameters = np.zeros(len(names))
    for row in rows:
        index = names.index(row["genotype"])
        cell = (index, folds.index(row["fold"]), SEEDS.index(row["seed"]))
        table[:, *cell] = 100 * row["top1"], row["nll"]
        parameters[index] = row["parameters"]
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(names), (NUM_BOOTSTRAPS, len(names)))
    summary = {}
    for measure, scores in zip(("top1", "nll"), table, strict=True):
        found = analyse(scores, parameters)
        again = [analyse(scores[chosen], parameters[chosen]) for chosen in drawn]
        summary[measure] = {
            name: [
                round(value, 3),
                *np.percentile([other[name] for other in again], [2.5, 97.5]).round(3).tolist(),
            ]
            for name, value in found.items()
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", choices=FOLDS)
    parser.add_argument("raw", type=Path, help="folder of the recordings")
    parser.add_argument("work", type=Path, help="folder of the trainings")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    options = parser.parse_args()
    folds, epochs = FOLDS[options.data], EPOCHS[options.data]
    options.work.mkdir(parents=True, exist_ok=True)
    cache = options.work / "clips.h5"
    if not cache.exists():
        prepare(make_source(options.data, options.raw), cache, workers=1)
    # Strata by the parameters of a network for NW-UCLA: the classifier adds as many to each.
    jobs = itertools.product(SEEDS, folds, choose_genotypes())
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [
            pool.submit(train_one, cache, options.work, epochs, fold, genotype, seed)
            for seed, fold, genotype in jobs
        ]
        rows = [future.result() for future in waiting]
    document = {"settings": {**SETTINGS, "epochs": epochs}, "versions": versions(), "rows": rows}
    atomic_write(
        options.out, json.dumps({**document, "summary": summarise(rows, folds)}, indent=1) + "\n"
    )
    json.dump(summarise(rows, folds), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
