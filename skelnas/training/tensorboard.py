"""TensorBoard event files of what a run logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.errors import SkelnasError
from skelnas.genotype import from_line, softmax
from skelnas.training.run_dir import ALPHAS, METRICS, TENSORBOARD, read_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class EventWriter:
    """Mirrors a run's logs to event files; the step of an event is its epoch.

    Args:
        run: the run folder.
        primitives: ids of the candidate operations, if the run is a search.

    Raises:
        SkelnasError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, primitives: Sequence[str] = ()) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SkelnasError(
                f"--tensorboard needs the package tensorboard ({error})",
                hint='pip install "skelnas[tensorboard]"',
            ) from None
        self._make_writer = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._run = run
        self._primitives = primitives

    def drop_epochs_after(self, epoch: int) -> None:
        """Open an event file that hides the events of epochs after this one."""
        folder = self._run / TENSORBOARD
        is_new = not any(folder.glob("*"))
        self._writer = self._make_writer(folder, purge_step=epoch + 1)
        if is_new and epoch > 0:  # earlier epochs ran without --tensorboard
            for file in (METRICS, ALPHAS):
                path = self._run / file
                for record in read_lines(path) if path.exists() else []:  # only a search has alphas
                    self.log(record, file)

    def log(self, record: Mapping[str, Any], file: str) -> None:
        """Write one line of a JSON-lines file as events."""
        if self._writer is None:
            raise RuntimeError("drop_epochs_after must be called first")
        epoch = record["epoch"]
        if file == ALPHAS:
            for cell in ("normal", "reduction"):
                weights = [softmax(edge) for edge in record[cell]]
                for op, column in zip(self._primitives, zip(*weights, strict=True), strict=True):
                    # The tag "share" is what earlier event files have.
                    self._writer.add_scalar(f"{cell}_share/{op}", sum(column) / len(column), epoch)
            genotype = from_line(record, self._primitives)
            self._writer.add_text("genotype", f"```\n{genotype.to_json()}```", epoch)
        else:
            for name, value in record.items():
                if name != "epoch" and isinstance(value, int | float):
                    self._writer.add_scalar(_tag(name), value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def _tag(name: str) -> str:
    """Turn ``train_loss`` into ``loss/train``: TensorBoard groups by what is before the slash."""
    prefix, _, kind = name.rpartition("_")
    return f"{kind}/{prefix}" if prefix else kind
