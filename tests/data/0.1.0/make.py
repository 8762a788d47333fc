"""Make the files of this folder. Run once, by skelnas 0.1.0; it works with no other version.

    git worktree add ../v010 6f989ff
    PYTHONPATH=../v010 OMP_NUM_THREADS=1 python tests/data/0.1.0/make.py

Later versions must read these files, and resume these runs to the same bits; see
`tests/test_formats_0_1_0.py`. All clips are made up.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

import formats
from formats import run

FOLDER = Path(__file__).parent
JOINTS = ("spine", "head", "hand_left", "hand_right")
BODY = np.array([[0, 0, 3], [0, 0.5, 3], [-0.4, 0.2, 3], [0.4, 0.2, 3]])
CLASSES = ("still", "wave", "pair")

STEPS = {"search": 3, "search-exact": 4, "cells": 4, "branches": 4}
"""After how many steps a run is stopped: in its second epoch."""


def make() -> None:
    os.chdir(FOLDER)
    torch.set_num_threads(1)
    remove_old()
    write_raw()
    prepare()
    for name, command in formats.RUNS.items():
        run(f"{command} --out {name}")
        with stop_after(STEPS[name]):
            run(f"{command} --out {name}-stopped", 130)
        if name == "search":
            run("derive search --out genotype.json")
    run(f"{formats.REPEATS} --out repeats")
    use_models()
    expected = {
        "outputs": {name: formats.read_output(line) for name, line in formats.OUTPUTS.items()},
        "torchscript": {"metadata": formats.read_torchscript_metadata(Path("cells.pt"))},
        "files": {name: formats.list_files(Path(name)) for name in [*formats.RUNS, "repeats"]},
        "baselines": {name: make_baseline(name) for name in formats.BASELINES},
    }
    shutil.copytree("cells", "card")
    run(f"{formats.EVALUATE} card --card")
    expected["card"] = {"results": formats.read_card_results(Path("card"))}
    write_expected(expected)
    tidy()


def remove_old() -> None:
    for path in FOLDER.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix in (".h5", ".json", ".npz", ".safetensors"):
            path.unlink()


def write_raw() -> None:
    """Write 24 clips of 3 classes and 4 subjects; the class is a frequency of a hand."""
    Path("raw").mkdir()
    rng = np.random.default_rng(0)
    header = ["frame", "person", *(f"{joint}_{axis}" for joint in JOINTS for axis in "xyz")]
    clips = []
    for number in range(24):
        label, frames = number % 3, int(rng.integers(4, 8))
        poses = np.tile(BODY, (frames, 1 + label // 2, 1, 1))
        poses[:, :, 3, 1] += np.sin((label + 1) * np.arange(frames)[:, None] / 2 + number)
        poses += rng.normal(0, 0.02, poses.shape)
        poses[:, 1:] += 1
        rows = [
            [frame, person, *(f"{value:.3f}" for value in joints.ravel())]
            for frame, persons in enumerate(poses)
            for person, joints in enumerate(persons)
        ]
        write_csv(Path(f"raw/{number:02}.csv"), [header, *rows])
        clips.append([f"{number:02}.csv", CLASSES[label], 1 + number // 6, 1 + number % 2])
    write_csv(Path("raw/clips.csv"), [["path", "label", "subject", "camera"], *clips])
    skeleton = {
        "joints": JOINTS,
        "bones": [["head", "spine"], ["hand_left", "head"], ["hand_right", "head"]],
        "center": "spine",
    }
    Path("raw/joints.json").write_text(json.dumps(skeleton) + "\n")
    formats.set_raw_times(FOLDER)


def write_csv(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def prepare() -> None:
    """Prepare both caches, and leave the journal of a run that did not end."""
    run(f"{formats.PREPARE} cache.h5 --compress")
    run(f"{formats.PREPARE} float16.h5 --compress --float16")
    with formats.broken_clip():
        run(f"{formats.PREPARE} stopped.h5 --compress --strict", 3)


def stop_after(steps: int) -> ExitStack:
    """Ask the next run to stop, as Ctrl-C does, after this many steps."""
    from skelnas.runs import StopFlag  # it is there in 0.1.0

    class Countdown(StopFlag):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return self.asked >= steps

    stack = ExitStack()
    stack.enter_context(patch("skelnas.job.stop_on_signal", lambda: nullcontext(Countdown())))
    return stack


def use_models() -> None:
    run("export cells --format safetensors-fused --out fused.safetensors")
    run("export cells --format torchscript --out cells.pt")
    for suffix in ("npz", "safetensors"):
        run(f"{formats.EVALUATE} cells --scores scores.{suffix}")


def make_baseline(name: str) -> dict[str, object]:
    """Describe a baseline, and what 0.1.0 makes of made-up weights: the file is too large."""
    run(f"{formats.TRAIN_BASELINE} --model {name} --out {name}")
    model = formats.read(Path(name, "model.safetensors"))
    tensors = formats.describe_tensors(Path(name, "model.safetensors"))
    metadata = {key: json.dumps(value) for key, value in model["metadata"].items()}
    save_file(formats.make_tensors(tensors), "made-up.safetensors", metadata)
    return {
        "metadata": model["metadata"],
        "tensors": tensors,
        "metrics": formats.read(Path(name, "metrics.jsonl")),
        "evaluate": formats.read_output(f"{formats.EVALUATE} made-up.safetensors"),
    }


def write_expected(expected: dict[str, dict[str, object]]) -> None:
    """Write ``expected.json``, a line for each entry of an entry."""
    blocks = []
    for name, entries in expected.items():
        lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    Path("expected.json").write_text("{" + ",\n".join(blocks) + "}\n")


def tidy() -> None:
    """Remove what is too large, or of this machine."""
    for name in (*formats.BASELINES, "card"):
        shutil.rmtree(name)
    for name in formats.RUNS:
        Path(name, "checkpoint.safetensors").unlink()
    shutil.rmtree("repeats/random-7")
    for name in ("README.md", "metrics.jsonl", "model.safetensors", "checkpoint.safetensors"):
        Path("repeats/searched-7", name).unlink()
    for name in ("cells.pt", "made-up.safetensors", "repeats/seed-7/checkpoint.safetensors"):
        Path(name).unlink()
    for path in (*FOLDER.rglob(".lock"), *FOLDER.rglob("cells.svg")):
        path.unlink()
    for path in FOLDER.rglob("config.json"):
        config = json.loads(path.read_text())
        config["cache"] = "cache.h5"  # it was the absolute path
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    make()
