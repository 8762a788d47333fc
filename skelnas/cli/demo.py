"""`skelnas demo`: the whole pipeline on synthetic motions, in a few minutes on two cores."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from skelnas.errors import SkelnasError, UsageError
from skelnas.runtime.console import err, note, print_table, result, shell

ONE_THREAD = "--threads 1"
"""Two are faster on two idle cores, but many times slower if one of them is busy."""

BATCH_SIZE = 16
CLIP_FLAGS = f"--frames 24 {ONE_THREAD} --batch-size {BATCH_SIZE}"
SEARCH_FLAGS = f"{CLIP_FLAGS} --layers 4 --channels 8 --lr 0.05 --alpha-lr 0.01"
TRAIN_FLAGS = (
    f"{CLIP_FLAGS} --recipe paper --layers 6 --channels 12 --lr 0.02 --drop-path 0 --rotate 15 "
    "--crop 0.7"
)
"""The values were tuned for the paper's recipe."""

SESSION = (10, 8, 9, 24, 58)
"""Clapping, sitting down, standing up, kicking, and handshaking with someone else."""
SUBJECT = 3
"""One of the test subjects of xsub, who occurs in the smallest demo."""

SEARCH_STEPS, MAX_SEARCH_EPOCHS = 36, 12
TRAIN_STEPS, MAX_TRAIN_EPOCHS = 180, 50
"""Enough to learn these motions from few clips, and no more for many; far below the paper's."""


def demo(
    folder: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Output folder, new or empty.")
    ] = Path("skelnas-demo"),
    num_clips: Annotated[
        int,
        typer.Option("--clips", min=64, help="Number of clips, best a multiple of 16."),
    ] = 576,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
) -> None:
    """Run the whole pipeline on synthetic motions in a few minutes.

    Prepares, searches, derives, trains and evaluates, and compares with a random genotype.

    Examples:
        skelnas demo
        skelnas demo --clips 128 --out small-demo
        skelnas demo --seed 1 --out second-demo
    """
    from skelnas.data.readers.synthetic import write_raw, write_session
    from skelnas.reporting.plot_style import has_matplotlib

    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty", hint="remove it, or choose another --out")
    raw, cache, run = folder / "raw", folder / "cache.h5", folder / "run"
    searched, drawn = folder / "model-searched", folder / "model-random"
    seeded = ["--seed", str(seed)]
    num_train_clips = num_clips // 2  # of which a search uses one half for w, the other for alpha
    search_epochs = _epochs(num_train_clips // 2, SEARCH_STEPS, MAX_SEARCH_EPOCHS)
    train_epochs = _epochs(num_train_clips, TRAIN_STEPS, MAX_TRAIN_EPOCHS)

    note(f"The motions are SYNTHETIC: {num_clips} made-up recordings, written as raw NTU files ...")
    write_raw(raw, num_clips=num_clips, seed=seed)
    _run(["prepare", "ntu", str(raw), str(cache)])
    _run(["search", str(cache), "--out", str(run), *SEARCH_FLAGS.split(), *search_epochs, *seeded])
    genotype = _run(["derive", str(run)], show=False)
    derive = f"{shell('derive', run)} | "
    train = ["train", str(cache), *TRAIN_FLAGS.split(), *train_epochs, *seeded, "--genotype"]
    _run([*train, "-", "--out", str(searched)], prefix=derive, stdin=genotype)
    _run([*train, f"random:{seed}", "--out", str(drawn)])
    evaluations = {
        name: json.loads(_run(["evaluate", str(cache), str(model), *ONE_THREAD.split(), "--json"]))
        for name, model in (("searched", searched), (f"random:{seed}", drawn))
    }
    session, picture = folder / "made-up-session.skeleton", folder / "session.svg"
    write_session(session, actions=SESSION, subject=SUBJECT, seed=seed)
    predict = ["predict", str(searched), str(session), "--plot", str(picture)]
    if has_matplotlib():
        _run([*predict, *ONE_THREAD.split()])
        shown = f"{picture}: a recording of a test subject, and its predicted actions"
    else:
        shown = f"for a picture: pip install 'skelnas[plot]' && {shell(*predict)}"
    _print_summary(evaluations, folder)
    result(shown)


def _epochs(num_clips: int, num_steps: int, max_epochs: int) -> list[str]:
    """Return the option for enough epochs of `num_clips` to make about `num_steps` steps."""
    steps_per_epoch = math.ceil(num_clips / BATCH_SIZE)
    return ["--epochs", str(min(max_epochs, math.ceil(num_steps / steps_per_epoch)))]


def _run(
    arguments: list[str], *, prefix: str = "", stdin: str | None = None, show: bool = True
) -> str:
    """Show a command and run it as a user would; return its standard output.

    Raises:
        SkelnasError: the command failed; it has printed its error message.
    """
    if show:
        err.print(f"\n$ {prefix}{shell(*arguments)}", style="bold", soft_wrap=True)
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
            hint="see its message above",
        )
    return finished.stdout


def _print_summary(evaluations: dict[str, dict[str, Any]], folder: Path) -> None:
    """Print one row per network; `evaluations` are documents of ``skelnas evaluate --json``."""
    table = Table("network", "top-1", "parameters", "MACs per clip", title="skelnas demo")
    for name, document in evaluations.items():
        costs = f"{document['parameters']:,}", f"{document['macs']:,}"
        table.add_row(name, f"{document['top1']:.1%}", *costs)
    facts = next(iter(evaluations.values()))
    table.add_row("always the largest class", f"{facts['chance']:.1%}", "", "")
    print_table(table)
    result(
        f"{facts['clips']} test clips of subjects not trained on. The motions are made up and "
        "easy:\nthis shows that the tool works, nothing about people, and not whether searched\n"
        "cells are better than random ones.\n"
        f"In {folder}: raw/, cache.h5, run/, model-searched/, model-random/"
    )
