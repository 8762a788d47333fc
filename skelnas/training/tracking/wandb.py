"""Weights & Biases: one run for each run folder, in ``WANDB_PROJECT`` or else in ``skelnas``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import wandb

from skelnas.training.tracking.names import PROJECT, run_name


class Tracker:
    """Sends epochs to W&B, or with ``WANDB_MODE=offline`` into the run folder."""

    can_rewind: ClassVar[bool] = False
    hint: ClassVar[str] = "`wandb login` logs in; WANDB_MODE=offline keeps the run in its folder"

    def open(self, folder: Path, run: str | None, config: Mapping[str, Any], epoch: int) -> str:
        """Begin or resume the run with this id."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run,
            name=run_name(folder),
            resume="allow",
            dir=folder,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),  # the console is ours
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        return str(self._run.id)

    def log(self, epoch: int, values: Mapping[str, float], genotype: str | None) -> None:
        """Log an epoch, which is the horizontal axis."""
        self._run.log({**values, "epoch": epoch})
        if genotype is not None:
            self._run.summary["genotype"] = genotype

    def close(self, *, failed: bool) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(failed))
