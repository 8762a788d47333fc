"""Showing a run in a tracker: TensorBoard, Weights & Biases or MLflow.

A tracker gets what the files of a run folder hold, each epoch once. While it fails, the run goes
on; what is missing is sent after the next epoch, or when the run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, get_args

from skelnas.config import TrackerName
from skelnas.derivation import from_line, softmax
from skelnas.errors import InputError, SkelnasError, first_line
from skelnas.genotype import CELLS
from skelnas.runtime import files
from skelnas.runtime.console import note
from skelnas.training.run_dir import ALPHAS, METRICS, TRACKER, read_config, read_lines

SHOWN = ("verb", "cache", "settings", "training", "clips", "fingerprint", "versions")
"""What trackers show of ``config.json``."""


class Tracker(Protocol):
    """A service that shows runs. Its module is named like it, and the class ``Tracker``.

    Making one raises ImportError if its package is missing.
    """

    can_rewind: ClassVar[bool]
    """Whether epochs that are sent twice count once."""

    hint: ClassVar[str]
    """What to do if a run cannot be opened."""

    def open(self, folder: Path, run: str | None, config: Mapping[str, Any], epoch: int) -> str:
        """Begin a run, or go on with one.

        Args:
            folder: the run folder.
            run: what this returned when the run began; None to begin one.
            config: settings, versions and what else describes the run.
            epoch: the last one that is not computed again; -1 for none.

        Returns:
            The id of the run.
        """

    def log(self, epoch: int, values: Mapping[str, float], genotype: str | None) -> None:
        """Add to an epoch: numbers by name, and the genotype of a search as JSON."""

    def close(self, *, failed: bool) -> None:
        """Send the rest and end the run, which may be opened again."""


class Tracking:
    """Keeps a tracker up to date with the files of a run folder.

    Args:
        name: of the tracker.
        folder: the run folder.
        primitives: ids of the candidate operations, if the run is a search.

    Raises:
        SkelnasError: the tracker's package is not installed.
    """

    def __init__(self, name: TrackerName, folder: Path, primitives: Sequence[str] = ()) -> None:
        try:
            self._tracker: Tracker = import_module(f"{__name__}.{name}").Tracker()
        except ImportError as error:
            raise SkelnasError(
                f"--track {name} needs the package {name} ({error})",
                hint=f'pip install "skelnas[{name}]"',
            ) from None
        self._name = name
        self._folder = folder
        self._primitives = primitives
        self._run: str | None = None
        self._sent: dict[str, int] = {}

    def open(self, epoch: int) -> None:
        """Begin the run, or go on with the folder's, and send what is missing.

        Args:
            epoch: the last one that is not computed again; -1 for none.

        Raises:
            SkelnasError: the tracker refuses.
        """
        state = _read_state(self._folder)
        known = state if state.get("tracker") == self._name else {}
        config = {k: v for k, v in read_config(self._folder).items() if k in SHOWN}
        try:
            self._run = self._tracker.open(self._folder, known.get("run"), config, epoch)
        except Exception as error:  # those of any package, of any server
            raise SkelnasError(
                f"--track {self._name}: {first_line(error)}", hint=self._tracker.hint
            ) from error
        self._sent = dict(known.get("sent", {}))
        if self._tracker.can_rewind:
            self._sent = {file: min(sent, epoch) for file, sent in self._sent.items()}
        self.update()

    def update(self) -> None:
        """Send the epochs that were logged since the last time."""
        try:
            for file in (METRICS, ALPHAS):
                self._send(file)
        except Exception as error:
            note(f"--track {self._name}: {first_line(error)}; the next epoch tries again")
        state = {"tracker": self._name, "run": self._run, "sent": self._sent}
        files.atomic_write(self._folder / TRACKER, files.to_json(state))

    def _send(self, file: str) -> None:
        path = self._folder / file
        for record in read_lines(path) if path.exists() else []:  # only a search has alphas
            if (epoch := record["epoch"]) > self._sent.get(file, -1):
                self._tracker.log(epoch, *self._describe(record, file))
                self._sent[file] = epoch

    def _describe(
        self, record: Mapping[str, Any], file: str
    ) -> tuple[dict[str, float], str | None]:
        """Return the numbers of a line by name, and the genotype of a line of alphas."""
        if file == METRICS:
            numbers = {k: v for k, v in record.items() if isinstance(v, int | float)}
            return {_tag(k): float(v) for k, v in numbers.items() if k != "epoch"}, None
        values = {}
        for cell in CELLS:
            weights = [softmax(edge) for edge in record[cell]]
            for op, column in zip(self._primitives, zip(*weights, strict=True), strict=True):
                # The name "share" is what earlier event files have.
                values[f"{cell}_share/{op}"] = sum(column) / len(column)
        return values, from_line(record, self._primitives).to_json()

    def close(self, *, failed: bool) -> None:
        """End the run; it may be opened again."""
        if self._run is None:
            return
        try:
            self._tracker.close(failed=failed)
        except Exception as error:
            note(f"--track {self._name}: {first_line(error)}")


def find_tracker(folder: Path) -> TrackerName | None:
    """Return the tracker of the run in a folder, or None.

    Raises:
        InputError: the file that says so is damaged.
    """
    name = _read_state(folder).get("tracker")
    return cast(TrackerName, name) if name in get_args(TrackerName) else None


def _read_state(folder: Path) -> dict[str, Any]:
    """Return the tracker, the run's id and the last epoch sent of each file; or nothing."""
    path = folder / TRACKER
    try:
        state = files.read_object(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({error})", hint="without it, a new run is tracked"
        ) from None
    sent, run = state.get("sent"), state.get("run")
    if isinstance(run, str) and isinstance(sent, dict) and _are_integers(sent.values()):
        return state
    raise InputError(
        f"{path}: expected a tracker, a run and epochs", hint="without it, a new run is tracked"
    )


def _are_integers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _tag(name: str) -> str:
    """Turn ``train_loss`` into ``loss/train``: trackers group by what is before the slash."""
    prefix, _, kind = name.rpartition("_")
    return f"{kind}/{prefix}" if prefix else kind
