"""The services that can show a run."""

from __future__ import annotations

from typing import Literal

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
