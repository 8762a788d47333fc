"""The history of a search or a training, read from its run folder and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.derivation import choose_epoch, entropy, from_line, softmax
from skelnas.errors import InputError, UsageError, shown
from skelnas.genotype import CELLS, Genotype, from_dict
from skelnas.training.genotype_table import GenotypeTable, is_by_trainings, read_table
from skelnas.training.run_dir import (
    ALPHAS,
    CONFIG,
    METRICS,
    TABLE,
    read_config,
    read_lines,
)
from skelnas.training.search_run import SearchRun, read_search


@dataclass(frozen=True)
class History:
    """The history of a run.

    Attributes:
        folder: the run folder.
        config: the content of its ``config.json``.
        epochs: the numbers of the finished epochs, in order.
        metrics: by name, one value for each of these epochs; NaN where there is none.
        primitives: the candidate operations of a search; empty for a training.
        alphas: by epoch (0 is the start of the search) and by cell, [edges][operations].
        genotypes: by epoch, the genotype of its alphas. A training has its genotype under 0, and
            a search by trainings the one it chose; a training of a baseline has none.
        weight_epochs: number of epochs, from the first, that train the weights only.
        table: of a search by trainings, after its first round.
    """

    folder: Path
    config: dict[str, Any]
    epochs: list[int]
    metrics: dict[str, list[float]]
    primitives: list[str]
    alphas: dict[int, dict[str, list[list[float]]]]
    genotypes: dict[int, Genotype]
    weight_epochs: int = 0
    table: GenotypeTable | None = None

    @property
    def verb(self) -> str:
        """``search`` or ``train``."""
        return str(self.config["verb"])

    @property
    def is_by_trainings(self) -> bool:
        """Whether this is a search by trainings, which has a table in place of epochs."""
        return is_by_trainings(self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run, by the names of the options."""
        return dict(self.config["settings"])

    @property
    def planned_epochs(self) -> int:
        """The number of epochs that the run is to have."""
        return int(self.settings["epochs"])

    @property
    def seconds(self) -> float:
        """The time that the epochs took, as far as they report it."""
        return sum(s for s in self.metrics.get("seconds", []) if math.isfinite(s))

    @property
    def derived_epoch(self) -> int:
        """The epoch whose genotype `skelnas derive` takes."""
        return choose_epoch(self.genotypes, self.settings.get("stop_skips"), self.weight_epochs)

    @property
    def has_alpha_curves(self) -> bool:
        """Whether there are alphas of several epochs."""
        return len(self.alphas) > 1

    def op_weights(self, cell: str) -> NDArray[np.float64]:
        """Return the softmax of a cell's alphas, [epochs, edges, operations]."""
        return np.array([[softmax(edge) for edge in line[cell]] for line in self.alphas.values()])

    def entropy(self, cell: str) -> list[float]:
        """Return the entropy of a cell's op_weights, from 0 to 1, for each epoch with alphas."""
        return [entropy(line[cell]) for line in self.alphas.values()]


def read_history(folder: Path) -> History:
    """Read a run folder or a model folder, finished or not.

    Raises:
        InputError: the folder is neither, or one of its files is broken.
    """
    config = read_config(folder)
    if config.get("verb") not in ("search", "train"):
        verb = shown(config.get("verb"))
        inner = sorted(folder.glob(f"*/{CONFIG}"))
        raise InputError(
            f"{folder}: holds no single search or training: its {CONFIG} is of {verb}",
            hint=f"give one of the {len(inner)} runs in it, such as {inner[0].parent}"
            if inner
            else "give a folder that `skelnas search --out` or `skelnas train --out` wrote",
        )
    settings = config.get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("epochs"), int):
        raise InputError(f"{folder / CONFIG}: expected settings with a number of epochs")
    if is_by_trainings(config):
        table = read_table(folder) if (folder / TABLE).exists() else None
        genotypes = {0: table.choice()} if table else {}
        return History(folder, config, [], {}, [], {}, genotypes, table=table)
    epochs, metrics = _read_metrics(folder / METRICS)
    if config["verb"] == "train":
        genotypes = _read_genotype(folder / CONFIG, config)
        return History(folder, config, epochs, metrics, [], {}, genotypes)
    search = read_search(folder, config)
    alphas = _check_alphas(folder / ALPHAS, search)
    genotypes = _read_genotypes(folder / ALPHAS, search)
    return History(
        folder,
        config,
        epochs,
        metrics,
        search.primitives,
        alphas,
        genotypes,
        search.weight_epochs,
    )


def _read_metrics(path: Path) -> tuple[list[int], dict[str, list[float]]]:
    lines = read_lines(path) if path.exists() else []
    epochs = {line["epoch"]: line for line in lines}
    names = dict.fromkeys(name for line in epochs.values() for name in line if name != "epoch")
    columns = {name: [_to_float(line.get(name)) for line in epochs.values()] for name in names}
    metrics = {name: column for name, column in columns.items() if any(map(math.isfinite, column))}
    return list(epochs), metrics


def _to_float(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return math.nan


def _check_alphas(path: Path, search: SearchRun) -> dict[int, dict[str, list[list[float]]]]:
    alphas: dict[int, dict[str, list[list[float]]]] = {}
    sizes, num_ops = set(), len(search.primitives)
    for epoch, line in search.lines.items():
        for cell in CELLS:
            try:
                values = np.array(line[cell], dtype=np.float64)
            except (KeyError, TypeError, ValueError, OverflowError):
                values = np.empty(0)
            sizes.add(values.shape)
            if values.ndim != 2 or values.shape[1] != num_ops or len(sizes) > 1:
                raise InputError(
                    f"{path}: epoch {epoch}: expected {num_ops} numbers for each edge of the "
                    f"{cell} cell, as many edges as in every other epoch"
                )
            if not np.isfinite(values).all():
                raise InputError(f"{path}: epoch {epoch}: the alphas are not all finite numbers")
            alphas.setdefault(epoch, {})[cell] = values.tolist()
    return alphas


def _read_genotypes(path: Path, search: SearchRun) -> dict[int, Genotype]:
    try:
        return {epoch: from_line(line, search.primitives) for epoch, line in search.lines.items()}
    except (InputError, IndexError, ValueError, KeyError, UsageError) as error:
        raise InputError(f"{path}: no cells can be derived from it ({error!r})") from None


def _read_genotype(path: Path, config: dict[str, Any]) -> dict[int, Genotype]:
    """Return the genotype of a training under epoch 0; nothing for a baseline."""
    config_of_model = config.get("model")
    model: dict[str, Any] = config_of_model if isinstance(config_of_model, dict) else {}
    if isinstance(model.get("baseline"), str):
        return {}
    return {0: from_dict(model.get("genotype"), str(path))}
