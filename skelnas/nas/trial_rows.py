"""Trials and their rows: what is to be trained and scored, and what was found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from skelnas.errors import InputError, first_line
from skelnas.genotype import Genotype
from skelnas.runtime import files

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


def write_row(folder: Path, trial: Trial, row: Row) -> None:
    """Write the row of a finished trial."""
    files.atomic_write(_row_path(folder, trial), files.to_json(files.seal(asdict(row))))


def _row_path(folder: Path, trial: Trial) -> Path:
    return folder / f"{trial.key}{ROW}"


def read_row(folder: Path, trial: Trial) -> Row | None:
    """Read the row of a finished trial; None if it is not finished."""
    path = _row_path(folder, trial)
    try:
        row = TypeAdapter(Row).validate_python(files.unseal(files.read_object(path)))
        return replace(row, name=trial.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(
            f"{path}: is not a finished training ({reason})",
            hint="delete it, and --resume trains that genotype again",
        ) from None
