"""Trials: many short trainings of genotypes on one cache, side by side, each resumable.

A trial is a genotype, a protocol and a seed. Its training works in a folder of its own; once it is
scored, a small JSON file, the row, takes the folder's place. Ctrl-C loses no step, and the same
call continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Layout, Test
from skelnas.data.splits import note_faults, split_training_part
from skelnas.errors import Diverged, InputError, Interrupted, NotFinite
from skelnas.evaluation.evaluate import evaluate
from skelnas.nas.trial_rows import ROW, Row, Trial, read_row, write_row
from skelnas.runtime import files
from skelnas.runtime.console import Meter, progress
from skelnas.runtime.workers import run_all
from skelnas.training import run_dir
from skelnas.training.flip import choose_flip
from skelnas.training.train import train

SETTINGS_OF_TRIAL = frozenset({"protocol", "seed"})
"""Settings that each trial has a value of its own for."""


def run_trials(
    cache_path: Path,
    trials: Sequence[Trial],
    settings: TrainSettings,
    folder: Path,
    jobs: int = 1,
    *,
    gpus: Sequence[str] = (),
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
        gpus: names of the GPUs to spread the processes over, see `devices.list_gpus`; by default
            each sees all.
        resume: continue what is in the folder, if there is anything.
        force: discard it.

    Returns:
        A row for each trial, in the same order. It depends on neither `jobs` nor interruptions,
        but for its minutes.

    Raises:
        InputError: the cache is broken, has no such protocols, or changed since rows were made.
        UsageError: the folder holds something else, or is in use.
        DeviceError: the device is missing or out of memory, or a worker process died.
        Diverged: a training diverged.
        Interrupted: a signal stopped it; it can be resumed.
    """
    protocols = list(dict.fromkeys(trial.protocol for trial in trials))
    with open_trials(
        cache_path,
        protocols,
        settings,
        folder,
        jobs,
        gpus=gpus,
        planned=len({trial.key for trial in trials}),
        resume=resume,
        force=force,
    ) as opened:
        rows = opened.run(trials)
    return [row for row in rows if row is not None]  # all, unless failures are kept


@dataclass(frozen=True)
class Trials:
    """Trains and scores trials, in one or several rounds. Made by `open_trials`."""

    cache: Path
    settings: TrainSettings
    folder: Path
    jobs: int
    gpus: Sequence[str]
    keep_going: bool
    meter: Meter
    rows: dict[str, Row | None] = field(default_factory=dict)  # by the key of a trial
    fingerprints: dict[str, str] = field(default_factory=dict)  # of the clips of each protocol

    def run(self, trials: Sequence[Trial]) -> list[Row | None]:
        """Return the row of each trial, in the same order; None where the training diverged.

        Raises:
            see `run_trials`.
        """
        left = []
        for trial in {trial.key: trial for trial in trials}.values():  # two may differ in name only
            if (row := read_row(self.folder, trial)) is None:
                left.append(trial)
            else:
                self._add(trial, row)
                self.meter.skip()
        work = partial(_run_trial, self.cache, self.settings, self.folder, self.keep_going)
        environments = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self.gpus]
        try:
            with closing(run_all(work, left, self.jobs, environments)) as finished:
                for trial, row in finished:
                    self._add(trial, row)
                    result = "diverged" if row is None else f"top-1 {row.top1:.1%}"
                    self.meter.advance(1, f"{trial.name}  {trial.protocol}  {result}")
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"stopped after {len(self.rows)} of {self.meter.total} trainings",
                hint="the same command with --resume continues, also within a training",
            ) from None
        rows = [self.rows[trial.key] for trial in trials]
        return [
            row and replace(row, name=trial.name) for trial, row in zip(trials, rows, strict=True)
        ]

    def _add(self, trial: Trial, row: Row | None) -> None:
        self.rows[trial.key] = row
        if row and row.fingerprint != self.fingerprints.setdefault(row.protocol, row.fingerprint):
            raise InputError(
                "the cache changed: the trainings so far had other clips",
                hint="--force starts again, with all of them on the same clips",
            )


@contextmanager
def open_trials(
    cache_path: Path,
    protocols: Sequence[str],
    settings: TrainSettings,
    folder: Path,
    jobs: int = 1,
    *,
    planned: int,
    gpus: Sequence[str] = (),
    keep_going: bool = False,
    resume: bool = False,
    force: bool = False,
) -> Iterator[Trials]:
    """Open a folder for trials that follow from each other, see `run_trials`.

    Args:
        cache_path, settings, folder, jobs, gpus, resume, force: as for `run_trials`.
        protocols: of all trials.
        planned: number of trials, for the progress that is shown.
        keep_going: go on if a training diverges.
    """
    settings = settings.model_copy(update={"threads": settings.threads or 1})
    run_dir.check(folder, resume=resume, force=force)
    settings, layout = _prepare(cache_path, protocols, settings)
    config = {
        "verb": "trials",
        "cache": str(files.real_path(cache_path)),
        "layout": asdict(layout),
        "settings": {k: v for k, v in settings.fixed().items() if k not in SETTINGS_OF_TRIAL},
    }
    with (
        run_dir.start(folder, config, resume=resume, force=force, discard=[f"*{ROW}", "*/"]),
        progress("trials", planned) as meter,
    ):
        yield Trials(cache_path, settings, folder, jobs, gpus, keep_going, meter)


def _prepare(
    cache_path: Path, protocols: Sequence[str], settings: TrainSettings
) -> tuple[TrainSettings, Layout]:
    """Check the protocols, and print once what concerns every training.

    Returns:
        The settings of the trainings, and the layout of the clips.
    """
    with Cache.open(cache_path) as cache:
        for protocol in protocols:
            cache.nonempty_indices(protocol, Test)
            note_faults(cache, protocol, split_training_part(cache, protocol, 0))
        if settings.flip:
            settings = choose_flip(settings, cache, None)
        return settings, cache.layout


def _run_trial(
    cache: Path, settings: TrainSettings, folder: Path, keep_going: bool, trial: Trial
) -> tuple[Trial, Row | None]:
    """Train and score one trial; None if it diverges and others are to go on."""
    try:
        return trial, _train_and_score(cache, settings, folder, trial)
    except Diverged:
        if not keep_going:
            raise
        return trial, None


def _train_and_score(cache: Path, settings: TrainSettings, folder: Path, trial: Trial) -> Row:
    """Train and score one trial, and replace its folder by its row."""
    settings = settings.model_copy(update={"protocol": trial.protocol, "seed": trial.seed})
    model = folder / trial.key
    train(cache, trial.genotype, model, settings, **run_dir.resume_or_start(model))
    machine = settings.model_dump(include={"device", "threads", "store"})
    try:
        result = evaluate(cache, model, EvaluateSettings(**machine))
    except NotFinite:
        raise Diverged(
            f"{trial.name}, {trial.protocol}, seed {trial.seed}: scores are not finite",
            hint="the training has diverged; a smaller --lr may help",
        ) from None
    epochs = run_dir.read_lines(model / run_dir.METRICS)
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
    write_row(folder, trial, row)
    run_dir.delete(model)
    return row
