"""Score what a search is worth on NW-UCLA without the test clips that are copies of training clips.

    skelnas prepare nw-ucla NW_UCLA_FOLDER ucla.h5
    python benchmarks/without_copies.py ucla.h5 work/ --jobs 2 --out results.json
    python benchmarks/without_copies.py ucla.h5 branches/ --branches --jobs 2 --out branches.json

All test clips of two classes are copies of training clips in the files that we have. This repeats
the final trainings of ``confirm.py nw-ucla --test`` with their genotypes and seeds, and scores each
on all test clips and on those that are not copies. It continues where it was stopped. With
``--branches``, it trains the genotypes of predict and random with a branch for each stream.

Written down before the first training was run: reported are the mean of each arm on the clips that
are not copies, and predict less each other arm with 95 % t-intervals over searches, beside the same
on all test clips. With ``--branches`` the same, of predict and random.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from confirm import EPOCHS, FINAL_SEEDS, PROTOCOLS, TRAINING, describe

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import from_dict as genotype_of
from skelnas.runtime import console
from skelnas.runtime.files import atomic_write
from skelnas.training import run_dir
from skelnas.training.train import train

ROWS = Path(__file__).parent / "results" / "confirm_nw_ucla.json"
PROTOCOL, _ = PROTOCOLS["nw-ucla"]
ARMS = ("predict", "best", "random", "twice")
BRANCHES: dict[str, Any] = {"branches": True, "streams": "joint,bone,motion"}
BRANCHED_ARMS = ("predict", "random")


def train_and_score(
    cache: Path, work: Path, trial: dict[str, Any], changes: dict[str, Any]
) -> dict[str, Any]:
    """Train one genotype as before, but for some settings, unless that is done; score it."""
    name, seed = trial["name"], trial["seed"]
    folder = work / f"{name.replace(' ', '-')}-{seed}"
    done = folder / "scored.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    kept = {"epochs": EPOCHS["nw-ucla"][1], "protocol": PROTOCOL, "seed": seed, **TRAINING}
    settings = TrainSettings(**{**kept, **changes})
    genotype = genotype_of(trial["genotype"], "rows")
    resume = (folder / run_dir.CONFIG).exists()
    with console.muted():
        train(cache, genotype, folder, settings, resume=resume, force=not resume)
        evaluation = evaluate(cache, folder, EvaluateSettings(device="cpu", threads=1))
    scores = evaluation.scores
    is_right = scores.logits.argmax(axis=1) == scores.labels  # [test clips]
    is_new = ~np.isin(scores.info.names, scores.info.copies)
    row = {
        "name": name,
        "seed": seed,
        "parameters": evaluation.complexity.parameters,
        "macs": evaluation.complexity.macs,
        "top1_before": None if changes else trial["top1"],
        "top1": float(is_right.mean()),
        "top1_new": float(is_right[is_new].mean()),
        "top1_copies": float(is_right[~is_new].mean()),
        "clips_new": int(is_new.sum()),
    }
    atomic_write(done, json.dumps(row))
    return row


def report(
    rows: list[dict[str, Any]], arms: Sequence[str], seeds: Sequence[int], num_searches: int
) -> None:
    """Print the means of all arms and their differences from predict."""
    for key, clips in (("top1", "all test clips"), ("top1_new", "without copies")):
        found = {(row["name"], row["seed"]): 100 * row[key] for row in rows}
        top1 = np.array(
            [
                [np.mean([found[f"{arm} {number}", seed] for seed in seeds]) for arm in arms]
                for number in range(num_searches)
            ]
        )  # [searches, arms]
        print(clips)
        for index, arm in enumerate(arms):
            values = ", ".join(f"{value:.1f}" for value in top1[:, index])
            line = f"  {arm}: {top1[:, index].mean():.2f} ({values})"
            print(line, f"predict less it: {describe((top1[:, 0] - top1[:, index]).tolist())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("work", type=Path, help="folder of the trainings")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--searches", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=len(FINAL_SEEDS), help="of the trainings")
    parser.add_argument("--branches", action="store_true", help="train with a branch per stream")
    parser.add_argument("--out", type=Path, help="file of the results")
    options = parser.parse_args()
    seeds = FINAL_SEEDS[: options.seeds]
    arms, changes = (BRANCHED_ARMS, BRANCHES) if options.branches else (ARMS, {})
    before = json.loads(ROWS.read_text()).values()
    trials = {(row["name"], row["seed"]): row for row in before if row.get("clips") == 464}
    chosen = [
        trials[f"{arm} {number}", seed]
        for seed in seeds
        for number in range(options.searches)
        for arm in arms
    ]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(train_and_score, options.cache, options.work, one, changes)
            for one in chosen
        ]
        rows = []
        for future in waiting:
            rows.append(future.result())
            print(json.dumps(rows[-1]), flush=True)
    report(rows, arms, seeds, options.searches)
    if options.out:
        atomic_write(options.out, "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
