"""`skelnas demo`: the whole line on synthetic motions, in a few minutes on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from skelnas.data.readers.synthetic import write_raw
from skelnas.errors import SkelnasError, UsageError
from skelnas.runtime.console import err, note, out, result

ONE_THREAD = "--threads 1"
"""Two would be faster on two idle cores, and many times slower where one of them is busy."""

CLIP_FLAGS = f"--frames 24 {ONE_THREAD}"
SEARCH_FLAGS = (
    f"{CLIP_FLAGS} --layers 4 --channels 8 --epochs 4 --batch-size 16 --lr 0.05 --alpha-lr 0.01"
)
TRAIN_FLAGS = (
    f"{CLIP_FLAGS} --recipe paper --layers 6 --channels 12 --epochs 16 --batch-size 16 --lr 0.02 "
    "--drop-path 0 --rotate 15 --crop 0.7"
)
"""A search and a training cut short: far from the paper's 35 and 350 epochs. The values were chosen
with the paper's recipe."""


@dataclass(frozen=True)
class Row:
    """A line of the closing table: what `skelnas evaluate --json` said of one network."""

    name: str
    evaluation: dict[str, Any]


def demo(folder: Path, *, num_clips: int = 576, seed: int = 0) -> None:
    """Make raw recordings, run the five verbs over them and compare with a random genotype.

    Args:
        folder: where everything is kept; new or empty.
        num_clips: recordings to make; multiples of 16 hold all actions equally often.
        seed: of motions, search and training.

    Raises:
        UsageError: the folder is not empty.
        SkelnasError: one of the commands failed; its own message stands above.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty", hint="remove it, or choose another --out")
    raw, cache, run = folder / "raw", folder / "cache.h5", folder / "run"
    searched, drawn = folder / "model-searched", folder / "model-random"
    seeded = ("--seed", str(seed))

    note(f"The motions are SYNTHETIC: {num_clips} made-up recordings, written as raw NTU files ...")
    write_raw(raw, num_clips=num_clips, seed=seed)
    _run(["prepare", "ntu", str(raw), str(cache)])
    _run(["search", str(cache), "--out", str(run), *SEARCH_FLAGS.split(), *seeded])
    genotype = _run(["derive", str(run)], show=False)
    train = ["train", str(cache), *TRAIN_FLAGS.split(), *seeded, "--genotype"]
    _run([*train, "-", "--out", str(searched)], piped=f"skelnas derive {run} | ", stdin=genotype)
    _run([*train, f"random:{seed}", "--out", str(drawn)])
    rows = [
        Row(
            name,
            json.loads(_run(["evaluate", str(cache), str(model), *ONE_THREAD.split(), "--json"])),
        )
        for name, model in (("searched", searched), (f"random:{seed}", drawn))
    ]
    _print_summary(rows, folder)


def _run(
    arguments: list[str], *, piped: str = "", stdin: str | None = None, show: bool = True
) -> str:
    """Run one command as a user would, after showing it; returns its standard output."""
    if show:
        err.print(f"\n$ {piped}skelnas {' '.join(arguments)}", style="bold", soft_wrap=True)
    finished = subprocess.run(
        [sys.executable, "-m", "skelnas", *arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SkelnasError(
            f"`skelnas {arguments[0]}` failed with exit code {finished.returncode}",
            hint="its message stands above",
        )
    return finished.stdout


def _print_summary(rows: list[Row], folder: Path) -> None:
    table = Table("network", "top-1", "top-5", "parameters", "MACs a clip", title="skelnas demo")
    for row in rows:
        facts = row.evaluation
        table.add_row(
            row.name,
            f"{facts['top1']:.1%}",
            f"{facts['top5']:.1%}",
            f"{facts['parameters']:,}",
            f"{facts['macs']:,}",
        )
    facts = rows[0].evaluation
    table.add_row("chance", f"{facts['chance']:.1%}", "", "", "")
    out.print(table)
    result(
        f"{facts['clips']} test clips of subjects never trained on; the motions are synthetic, so\n"
        "these figures say that the tool works and nothing about people.\n"
        f"raw files {folder}/raw, cache {folder}/cache.h5, run {folder}/run,\n"
        f"models {folder}/model-searched and {folder}/model-random"
    )
