"""Settings of `skelnas bench run`."""

from __future__ import annotations

from pydantic import Field

from skelnas.config.budget import BudgetSettings
from skelnas.config.method import SPACE_HELP, FoldsBy, Space
from skelnas.config.train import SHORT_EPOCHS, TrainSettings

SET_BY_BENCH = frozenset({"seed", "hold_out", "select_epoch", "patience", "init", "freeze"})
"""Settings of a training that a benchmark sets itself, or that would make it unfair."""


class BenchSettings(TrainSettings):
    """Settings of `skelnas bench run`; those of `TrainSettings` are for each of its trainings."""

    group = "Benchmark"
    everyday = TrainSettings.everyday | {"genotypes", "seeds", "folds", "folds_by", "space", "jobs"}
    overrides = {  # short trainings of narrow networks (ours)
        "epochs": SHORT_EPOCHS,
        "layers": 6,
        "channels": 16,
        "batch_size": 32,
    }

    genotypes: int = Field(24, ge=1, le=100_000, description="Random genotypes to train.")
    seeds: int = Field(2, ge=1, le=1_000, description="Seeds to train each with, counted from 0.")
    folds: int = Field(2, ge=2, le=1_000, description="Parts to hold out, one per training.")
    folds_by: FoldsBy | None = Field(
        None,  # ours: subjects if there are enough, else clips
        description="Divide by subject, camera or clip.",
    )
    space: Space = Field("sar", description=SPACE_HELP)
    nodes: int = Field(4, ge=1, le=100, description="Intermediate nodes per cell.")  # paper
    jobs: int = Field(1, ge=1, le=1_024, description="Trainings at a time.")

    def of_trainings(self) -> TrainSettings:
        """Return the settings of the trainings, but for protocol and seed."""
        given = self.model_fields_set & TrainSettings.model_fields.keys()
        given -= SET_BY_BENCH | BudgetSettings.model_fields.keys()  # genotypes may be given, too
        return TrainSettings(**self.overrides | self.model_dump(include=given))
