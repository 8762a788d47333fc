"""TensorBoard's event files in the run folder; the step of an event is its epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.tensorboard import SummaryWriter

from skelnas.runtime.files import to_json
from skelnas.training.run_dir import TENSORBOARD


class Tracker:
    """Writes event files; each new one hides the epochs of earlier ones that are written again."""

    can_rewind: ClassVar[bool] = True
    hint: ClassVar[str] = "free some space, or leave out --track"

    def open(self, folder: Path, run: str | None, config: Mapping[str, Any], epoch: int) -> str:
        """Open a new event file."""
        purge = 0 if run is None else epoch + 1
        self._writer = SummaryWriter(folder / TENSORBOARD, purge_step=purge)
        if run is None:
            self._add_text("config", to_json(config), 0)
        return TENSORBOARD

    def log(self, epoch: int, values: Mapping[str, float], genotype: str | None) -> None:
        """Write the events of an epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        if genotype is not None:
            self._add_text("genotype", genotype, epoch)
        self._writer.flush()

    def _add_text(self, name: str, json: str, epoch: int) -> None:
        self._writer.add_text(name, f"```\n{json}```", epoch)

    def close(self, *, failed: bool) -> None:
        """Close the event file."""
        self._writer.close()
