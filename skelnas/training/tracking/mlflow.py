"""MLflow: one run for each run folder, in ``MLFLOW_EXPERIMENT_NAME`` or else in ``skelnas``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from skelnas.training.tracking.names import PROJECT, run_name

MAX_PARAM_LENGTH = 500
"""What every version of MLflow takes."""

GENOTYPE = "genotype.json"


class Tracker:
    """Sends epochs to the store that ``MLFLOW_TRACKING_URI`` names."""

    can_rewind: ClassVar[bool] = False
    hint: ClassVar[str] = "MLFLOW_TRACKING_URI names a server; a local database needs all of mlflow"

    def open(self, folder: Path, run: str | None, config: Mapping[str, Any], epoch: int) -> str:
        """Begin a run, whose parameters are the settings, or go on with one."""
        self._client = MlflowClient()
        if run is not None:
            self._client.update_run(run, status="RUNNING")
            self._run = run
            return run
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._run = str(self._client.create_run(number, run_name=run_name(folder)).info.run_id)
        params = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in _flatten(config)]
        self._client.log_batch(self._run, params=params)
        return self._run

    def log(self, epoch: int, values: Mapping[str, float], genotype: str | None) -> None:
        """Log an epoch as a step, and the genotype as an artifact, the last one."""
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)
        if genotype is not None:
            self._client.log_text(self._run, genotype, GENOTYPE)

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "KILLED" if failed else "FINISHED")


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``settings.lr`` and the like, with their values as text."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
