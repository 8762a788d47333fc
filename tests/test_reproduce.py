"""The scripts of the paper's tables, on made-up clips in the shape of NTU RGB+D and Kinetics."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelnas.config import RECIPES
from skelnas.data.cache import CacheWriter
from skelnas.data.readers import kinetics, ntu_facts
from skelnas.data.readers.base import Layout, Recording, Test, Train
from skelnas.genotype import load

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "benchmarks" / "tables"
TINY: dict[str, str] = {
    "SEARCH": "--frames 4 --layers 3 --channels 1 --nodes 1 --order first --epochs 1 "
    "--batch-size 6 --device cpu",
    "TRAIN": "--frames 4 --epochs 1 --batch-size 12 --device cpu --threads 1",
    "CELLS": "--channels 2",
    "EVALUATE": "--device cpu --threads 1",
}


@pytest.fixture(scope="module")
def skelnas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command, quick to start many times; see `forked`."""
    socket = tmp_path_factory.mktemp("forked") / "socket"
    command = [sys.executable, str(ROOT / "tests" / "forked.py"), str(socket)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--serve"], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield shlex.join(command)
        server.kill()


def write_clips(
    path: Path, layout: Layout, classes: list[str], labels: list[int], protocols: list[str]
) -> None:
    """Write two training clips and one test clip of each class."""
    generator = np.random.default_rng(0)
    rule = {"rule": "none"}
    with CacheWriter(path, source="tiny", rule=rule, layout=layout, max_persons=2) as writer:
        for index in range(3 * len(labels)):
            shape = (1, 5, len(layout.joints), len(layout.channels))
            poses = generator.normal(index % len(labels), 1, shape).astype(np.float32)
            present = np.ones(shape[:2], dtype=bool)
            label = labels[index % len(labels)]
            writer.add(Recording(f"clip{index:03}", label, poses, present, subject=index % 4))
        part = np.where(np.arange(3 * len(labels)) < 2 * len(labels), Train, Test)
        splits = {protocol: part.astype(np.int8) for protocol in protocols}
        writer.finish(classes=classes, splits=splits, skipped=[], failed=[])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for two caches and all results; its name has a space."""
    folder = tmp_path_factory.mktemp("the tables")
    names = ntu_facts.class_names(np.arange(60, dtype=np.int32))
    labels = [0, 3, 23, 36, 45, 56]
    write_clips(folder / "ntu.h5", ntu_facts.LAYOUT, names, labels, ["xsub", "xview"])
    actions = [f"action {number}" for number in range(400)]
    write_clips(folder / "kinetics.h5", kinetics.LAYOUT, actions, [0, 399], ["official"])
    return folder


def make(folder: Path, number: int, skelnas: str, **more: str) -> list[str]:
    """Make a table; return the commands that were run."""
    cache = "kinetics.h5" if number == 4 else "ntu.h5"
    return go(folder, f"table{number}", [cache, "results"], skelnas, **more)


def go(folder: Path, script: str, arguments: list[str], skelnas: str, **more: str) -> list[str]:
    done = subprocess.run(
        ["bash", str(TABLES / f"{script}.sh"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SKELNAS": skelnas, "PYTHON": sys.executable, **TINY, **more},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    if "DRY_RUN" not in more:
        written = f"table{script.removeprefix('table')}.md"
        assert done.stdout == (folder / "results" / written).read_text()
    return [line for line in done.stderr.splitlines() if line.startswith("$ skelnas ")]


def table(folder: Path, number: int) -> list[dict[str, str]]:
    text = (folder / "results" / f"table{number}.md").read_text()
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


def evaluation(folder: Path, name: str) -> Any:
    return json.loads((folder / "results" / f"{name}.json").read_text())


def test_tables_of_ntu(folder: Path, skelnas: str) -> None:
    commands = make(folder, 2, skelnas)
    assert [command.split()[2] for command in commands] == ["search", "derive"] + 5 * [
        "train",
        "evaluate",
    ]
    rows = table(folder, 2)
    assert [row["cells"] for row in rows] == ["7", "8", "9", "10", "11"]
    assert (rows[2]["paper: top-1"], rows[2]["paper: Flops"]) == ("86.4%", "10.2G")
    for row in rows:
        found = evaluation(folder, f"xsub/sar/{row['cells']}-cells")
        assert row["top-1"] == f"{found['top1']:.1%}"
        assert row["MACs at 224x224"] == f"{found['at_input_size']['macs'] / 1e9:.2f}G"
        assert found["at_input_size"]["input_size"] == [224, 224]

    make(folder, 3, skelnas)
    rows = {row["network"]: row for row in table(folder, 3)}
    assert rows["AS-GCN"]["cross-view"] == "-"
    assert rows["HCN"]["paper: parameters"] == "2.64M"
    for name, path in (("SAR-NAS", "sar/9-cells"), ("DARTS", "darts/9-cells"), ("HCN", "hcn")):
        for column, protocol in (("cross-subject", "xsub"), ("cross-view", "xview")):
            found = evaluation(folder, f"{protocol}/{path}")
            assert rows[name][column] == f"{found['top1']:.1%}"
            assert f"{found['parameters'] / 1e6:.2f}M" in rows[name]["parameters"]

    commands = make(folder, 5, skelnas)
    assert "--space sar-no-se" in commands[0]  # the other half is in Table III
    rows = {row["action"]: row for row in table(folder, 5)}
    assert next(iter(rows)) == "drink water"
    assert rows["wipe face"]["paper: with SE"] == "88.3%"
    compared = evaluation(folder, "xview/with-and-without-se")["comparison"]["classes"]
    assert {
        row["class"] for row in compared
    } == rows.keys()  # all classes in the paper have clips here
    for row in compared:
        shown = rows[row["class"]]
        assert (shown["with SE"], shown["without SE"]) == (f"{row['a']:.1%}", f"{row['b']:.1%}")


def test_table_of_kinetics(folder: Path, skelnas: str) -> None:
    make(folder, 4, skelnas)
    rows = {row["network"]: row for row in table(folder, 4)}
    for name, path in (("SAR-NAS", "sar/9-cells"), ("Temporal Conv", "temporal-conv")):
        found = evaluation(folder, f"official/{path}")
        assert rows[name]["top-1"] == f"{found['top1']:.1%}"
        assert rows[name]["top-5"] == f"{found['top5']:.1%}"
        assert found["model"]["input_shape"] == [3, 4, 36]

    # Finished steps are not repeated; a missing table is made from the results.
    assert make(folder, 4, skelnas) == []
    (folder / "results" / "official" / "st-gcn.json").unlink()
    before = (folder / "results" / "table4.md").read_text()
    again = make(folder, 4, skelnas)
    assert [command.split()[2] for command in again] == ["train", "evaluate"]
    assert (folder / "results" / "table4.md").read_text() == before


def test_ablation_leaves_each_lever_out_once(folder: Path) -> None:
    levers = set(RECIPES["strong"]) - {"batch_size", "lr", "weight_decay", "precision"}
    arguments = ["ntu.h5", "results", "random:0", "xview"]
    commands = go(folder, "ablation", arguments, "false", DRY_RUN="1")
    trainings = [command for command in commands if command.split()[2] == "train"]
    assert len(trainings) == len(levers) + 2
    for lever in levers:
        flag = lever.replace("_", "-")
        without = [c for c in trainings if f" --{flag} " in c or f" --no-{flag} " in c]
        assert [f"/no-{flag} " in c for c in without if "/paper " not in c] == [True]


def test_ablation_of_one_operation_and_of_chosen_rows(folder: Path, skelnas: str) -> None:
    genotype = folder / "genotype.json"
    genotype.write_text(load("ntu_cs112se30").to_json())
    assert "se_connect" in genotype.read_text()
    go(folder, "ablation", ["ntu.h5", "results", "genotype.json"], skelnas, ROWS="strong no-se")
    results = folder / "results" / "ablation"
    found = {row: evaluation(folder, f"ablation/{row}") for row in ("strong", "no-se")}
    assert {path.stem for path in results.glob("*.json")} >= {"strong", "no-se"}
    names = {row: str(it["model"]["genotype"]) for row, it in found.items()}
    assert "se_connect" in names["strong"]
    assert names["strong"].replace("se_connect", "skip_connect") == names["no-se"]


@pytest.mark.parametrize("row", ["no-emma", "no-se"])  # random:0 is not a file with se_connect
def test_ablation_refuses_unknown_rows(tmp_path: Path, row: str) -> None:
    done = subprocess.run(
        ["bash", str(TABLES / "ablation.sh"), "ntu.h5", "results", "random:0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SKELNAS": "false", "ROWS": f"strong {row}"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"{row}: no row of this table; there are strong ")
    assert not list(tmp_path.iterdir())


def test_table_of_an_ablation(tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    for name, top1 in (("strong", 0.9), ("no-crop", 0.875)):
        found = {"top1": top1, "mean_class_accuracy": 0.8, "nll": 0.5}
        (tmp_path / "ablation" / f"{name}.json").write_text(json.dumps(found))
    command = [sys.executable, str(TABLES / "table.py"), "ablation", str(tmp_path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| strong | 90.0% | +0.0 | 80.0% | 0.500 |" in text
    assert "| no crop | 87.5% | -2.5 | 80.0% | 0.500 |" in text
    assert "| no ema | - | - | - | - |" in text


def test_comparison_trains_all_networks_alike(folder: Path, skelnas: str) -> None:
    arguments = ["ntu.h5", "results", "random:5", "xview"]
    everything = go(folder, "comparison", arguments, "false", DRY_RUN="1")
    trainings = [shlex.split(command) for command in everything if " train " in command]
    assert len(trainings) == 3 * 7
    assert {command[command.index("--seed") + 1] for command in trainings} == {"0", "1", "2"}

    go(folder, "comparison", arguments, skelnas, ROWS="searched random hcn", SEEDS="3 4")
    text = (folder / "results" / "tablecomparison.md").read_text()
    found = [evaluation(folder, f"comparison/random-{seed}") for seed in (3, 4)]
    (row,) = [line for line in text.splitlines() if line.startswith("| random |")]
    each = ", ".join(f"{100 * it['top1']:.1f}" for it in found)
    assert f"| 2 | {(found[0]['top1'] + found[1]['top1']) / 2:.1%} ± " in row
    assert f"({each})" in row
    assert text.count("\n| ") == 2 + 3


def test_options_of_a_row_override_options_for_all(folder: Path) -> None:
    arguments = ["ntu.h5", "results", "random:0", "xview"]
    more = {"TRAIN": "--streams joint,bone --branches --scale 0.5", "DRY_RUN": "1"}
    commands = go(folder, "ablation", arguments, "false", **more)
    last = {}
    for command in commands:
        if " train " in command:
            words = shlex.split(command)
            name = Path(words[words.index("--out") + 1]).name
            last[name] = {word: words[i + 1] for i, word in enumerate(words[:-1])}
            assert ("--no-branches" in words) == (name in ("only-joints", "no-branches"))
    assert last["only-joints"]["--streams"] == "joint"
    assert last["no-scale"]["--scale"] == "0"
    assert last["no-crop"]["--scale"] == "0.5"


def test_a_dry_run_prints_commands_and_a_failure_ends_a_table(folder: Path, tmp_path: Path) -> None:
    commands = make(folder, 3, "false", DRY_RUN="1")
    done = subprocess.run(
        ["bash", str(TABLES / "table3.sh"), "ntu.h5", str(tmp_path / "new")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SKELNAS": "false"},
    )
    assert done.returncode == 1
    assert done.stderr.count("$ skelnas") == 1
    assert not (tmp_path / "new").exists()
    assert all("results" in command for command in commands)
