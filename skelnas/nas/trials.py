"""Trials: many short trainings of genotypes on one cache, side by side, each resumable.

A trial is a genotype, a protocol and a seed. Its training works in a folder of its own; once it is
scored, a small JSON file, the row, takes the folder's place. Ctrl-C loses no step, and the same
call continues.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Test
from skelnas.data.splits import note_missing_clips, split_training_part
from skelnas.errors import InputError, Interrupted, SkelnasError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import Genotype
from skelnas.runtime import files
from skelnas.runtime.console import progress
from skelnas.runtime.workers import run_all
from skelnas.training import run_dir
from skelnas.training.flip import choose_flip
from skelnas.training.train import train

SETTINGS_OF_TRIAL = frozenset({"protocol", "seed"})
"""Settings that each trial has a value of its own for."""

ROW = ".trial.json"
"""Ending of the files of finished trials."""


@dataclass(frozen=True)
class Trial:
    """A training to be scored.

    Attributes:
        name: of the genotype, for people.
        genotype: what to train.
        protocol: a protocol, or a fold such as ``xsub@subject:1/2``: the genotype learns from its
            training part and is scored on its test part.
        seed: of the training.
    """

    name: str
    genotype: Genotype
    protocol: str
    seed: int

    @property
    def key(self) -> str:
        """A file name that no other trial has."""
        parts = [json.dumps(self.genotype.to_dict(), sort_keys=True), self.protocol, self.seed]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Row:
    """A finished trial; the attributes are the keys of its file.

    Attributes:
        name, genotype, protocol, seed: of the trial; the genotype in its JSON form.
        parameters, macs: of the network; multiply-adds for one clip.
        clips: number that it was scored on.
        top1, nll: on these clips, after the last epoch: accuracy from 0 to 1, and mean negative
            log-likelihood.
        train_loss: mean of each epoch.
        minutes: that the epochs took.
        fingerprint: of the clips that it was trained on.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    genotype: dict[str, Any]
    protocol: str
    seed: int
    parameters: int
    macs: int
    clips: int
    top1: float
    nll: float
    train_loss: list[float]
    minutes: float
    fingerprint: str


def run_trials(
    cache_path: Path,
    trials: Sequence[Trial],
    settings: TrainSettings,
    folder: Path,
    jobs: int = 1,
    *,
    gpus: Sequence[int] = (),
    resume: bool = False,
    force: bool = False,
) -> list[Row]:
    """Train and score every trial that has no row yet.

    The folder is a run folder: locked, and resumed with the same settings only. The trials may
    be others on resuming; rows of trials that are not asked for stay, and are not returned.

    Args:
        cache_path: a skeleton cache.
        trials: what to train; started in this order.
        settings: of every training, but for protocol and seed. Without ``threads``, each has one.
        folder: of rows and unfinished trainings.
        jobs: trainings at a time; more than one run in processes of their own.
        gpus: numbers of the GPUs to spread the processes over; by default each sees all.
        resume: continue what is in the folder, if there is anything.
        force: discard it.

    Returns:
        A row for each trial, in the same order. It depends on neither `jobs` nor interruptions,
        but for its minutes.

    Raises:
        InputError: the cache is broken, has no such protocols, or changed since rows were made.
        UsageError: the folder holds something else, or is in use.
        DeviceError: the device is missing or out of memory, or a worker process died.
        SkelnasError: a training diverged.
        Interrupted: a signal stopped it; it can be resumed.
    """
    settings = settings.model_copy(update={"threads": settings.threads or 1})
    run_dir.check(folder, resume=resume, force=force)
    settings = _prepare(cache_path, trials, settings)
    config = {
        "verb": "trials",
        "cache": str(cache_path.resolve()),
        "settings": {k: v for k, v in settings.fixed().items() if k not in SETTINGS_OF_TRIAL},
    }
    with run_dir.start(folder, config, resume=resume, force=force):
        if force:
            _discard(folder)
        rows = {trial: row for trial in trials if (row := _read_row(folder, trial)) is not None}
        left = [trial for trial in trials if trial not in rows]
        _check_same_clips(list(rows.values()))
        work = partial(_run_trial, cache_path, settings, folder)
        environments = [{"CUDA_VISIBLE_DEVICES": str(gpu)} for gpu in gpus]
        try:
            with (
                progress("trials", len(trials)) as meter,
                closing(run_all(work, left, jobs, environments)) as finished,
            ):
                meter.advance(len(rows))
                for trial, row in finished:
                    rows[trial] = row
                    _check_same_clips(list(rows.values()))
                    meter.advance(1, f"{row.name}  {row.protocol}  top-1 {row.top1:.1%}")
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"stopped after {len(rows)} of {len(trials)} trainings",
                hint="the same command with --resume continues, also within a training",
            ) from None
    return [rows[trial] for trial in trials]


def _prepare(cache_path: Path, trials: Sequence[Trial], settings: TrainSettings) -> TrainSettings:
    """Check the protocols, and print once what concerns every training; return their settings."""
    with Cache.open(cache_path) as cache:
        for protocol in dict.fromkeys(trial.protocol for trial in trials):
            cache.nonempty_indices(protocol, Test)
            note_missing_clips(cache, protocol, split_training_part(cache, protocol, 0))
        if settings.flip:
            settings = choose_flip(settings, cache, None)
    return settings


def _run_trial(
    cache: Path, settings: TrainSettings, folder: Path, trial: Trial
) -> tuple[Trial, Row]:
    """Train and score one trial, and replace its folder by its row."""
    settings = settings.model_copy(update={"protocol": trial.protocol, "seed": trial.seed})
    model = folder / trial.key
    resume = (model / run_dir.CONFIG).exists()
    train(cache, trial.genotype, model, settings, resume=resume, force=not resume)
    machine = settings.model_dump(include={"device", "threads", "store"})
    result = evaluate(cache, model, EvaluateSettings(**machine))
    epochs = run_dir.read_lines(model / run_dir.METRICS)
    if not math.isfinite(result.metrics.nll):
        raise SkelnasError(
            f"{trial.name}, {trial.protocol}, seed {trial.seed}: scores are not finite",
            hint="the training has diverged; a smaller --lr may help",
        )
    row = Row(
        name=trial.name,
        genotype=trial.genotype.to_dict(),
        protocol=trial.protocol,
        seed=trial.seed,
        parameters=result.complexity.parameters,
        macs=result.complexity.macs,
        clips=len(result.scores),
        top1=result.metrics.top1,
        nll=result.metrics.nll,
        train_loss=[epoch["train_loss"] for epoch in epochs],
        minutes=sum(epoch["seconds"] for epoch in epochs) / 60,
        fingerprint=run_dir.read_config(model)["fingerprint"],
    )
    files.atomic_write(_row_path(folder, trial), files.to_json(files.seal(asdict(row))))
    _delete(model)
    return trial, row


def _row_path(folder: Path, trial: Trial) -> Path:
    return folder / f"{trial.key}{ROW}"


def _read_row(folder: Path, trial: Trial) -> Row | None:
    """Read the row of a finished trial; None if it is not finished."""
    path = _row_path(folder, trial)
    try:
        row = TypeAdapter(Row).validate_python(files.unseal(files.read_object(path)))
        return replace(row, name=trial.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: is not a finished training ({reason})",
            hint="delete it, and --resume trains that genotype again",
        ) from None


def _check_same_clips(rows: Sequence[Row]) -> None:
    """Check that all trainings of a protocol had the same clips."""
    if len({(row.protocol, row.fingerprint) for row in rows}) > len({r.protocol for r in rows}):
        raise InputError(
            "the cache changed: the trainings so far had other clips",
            hint="--force starts again, with all of them on the same clips",
        )


def _discard(folder: Path) -> None:
    """Delete all rows and unfinished trainings."""
    for row in folder.glob(f"*{ROW}"):
        row.unlink()
    for config in folder.glob(f"*/{run_dir.CONFIG}"):
        _delete(config.parent)


def _delete(training: Path) -> None:
    """Delete the folder of a training; files that it did not write stay."""
    run_dir.delete(training)
    (training / run_dir.LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        training.rmdir()
