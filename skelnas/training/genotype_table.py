"""The table of a search by trainings: what was trained, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from skelnas.errors import InputError, first_line
from skelnas.genotype import Genotype, from_dict
from skelnas.runtime import files
from skelnas.training.run_dir import TABLE


@dataclass(frozen=True)
class TrainedGenotype:
    """A genotype that was trained once for each fold; the attributes are the keys of the file.

    Attributes:
        genotype: in its JSON form.
        round: that proposed it; 0 is at random.
        parameters, macs: of its network; multiply-adds for one clip.
        losses: mean negative log-likelihood on the held-out clips of each fold; None if the
            training diverged.
        top1: accuracy there, from 0 to 1.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    genotype: dict[str, Any]
    round: int
    parameters: int
    macs: int
    losses: list[float | None]
    top1: list[float | None]

    @property
    def mean_loss(self) -> float | None:
        """Mean over the folds; None if a training diverged."""
        losses = [loss for loss in self.losses if loss is not None]
        return fmean(losses) if len(losses) == len(self.losses) else None


@dataclass(frozen=True)
class RatedGenotype:
    """A genotype with its cost and its predicted or estimated loss."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    genotype: dict[str, Any]
    parameters: int
    macs: int
    loss: float


@dataclass(frozen=True)
class GenotypeTable:
    """What a search by trainings knows after its last whole round.

    Attributes:
        folds: the protocols that genotypes were trained and scored on.
        planned: number of genotypes to train in all.
        genotypes: those that were trained, in order.
        estimates: the loss that each is estimated to have, from its own and from all others'.
        noise: standard deviation of a genotype's mean loss, as far as chance makes it.
        deviation: standard deviation of an estimate.
        chosen: number of the genotype with the lowest estimate.
        front: the genotypes with the lowest predicted loss at each number of parameters.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    folds: list[str]
    planned: int
    genotypes: list[TrainedGenotype] = field(default_factory=list)
    estimates: list[float] = field(default_factory=list)
    noise: float = 0.0
    deviation: float = 0.0
    chosen: int = 0
    front: list[RatedGenotype] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"GenotypeTable({len(self.genotypes)} genotypes of {self.planned})"

    def random_losses(self) -> list[float]:
        """Return the mean losses of the random genotypes that did not diverge."""
        losses = [one.mean_loss for one in self.genotypes if not one.round]
        return [loss for loss in losses if loss is not None]

    def choice(self) -> Genotype:
        """Return the chosen genotype."""
        return from_dict(self.genotypes[self.chosen].genotype, f"{TABLE}: chosen")


def is_by_trainings(config: Mapping[str, Any]) -> bool:
    """Return whether a run folder has a table, by its ``config.json``."""
    settings = config.get("settings")
    return (
        config.get("verb") == "search"
        and isinstance(settings, dict)
        and settings.get("method") == "predict"
    )


def write_table(folder: Path, table: GenotypeTable) -> None:
    """Write the table of a run folder, one genotype a line."""
    document = files.seal(asdict(table))
    files.atomic_write(folder / TABLE, files.to_json_lines(document))


def read_table(folder: Path) -> GenotypeTable:
    """Read the table of a run folder.

    Raises:
        InputError: it is missing, damaged or something else.
    """
    path = folder / TABLE
    try:
        document = files.unseal(files.read_object(path))
        table = TypeAdapter(GenotypeTable).validate_python(document)
        _check(table, path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no genotypes yet",
            hint="let the search continue: the same command with --resume",
        ) from None
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(
            f"{path}: is not the table of a search ({reason})",
            hint="delete it, and --resume writes it again",
        ) from None
    return table


def _check(table: GenotypeTable, path: Path) -> None:
    """Check that the parts of a table that was read fit each other; raises ValueError."""
    count = len(table.genotypes)
    if not 0 <= table.chosen < count or len(table.estimates) != count or not table.front:
        raise ValueError(
            f"{count} genotypes, of which number {table.chosen} is chosen, with "
            f"{len(table.estimates)} estimates and {len(table.front)} on the front"
        )
    for trained in table.genotypes:
        if not len(trained.losses) == len(trained.top1) == len(table.folds) > 0:
            raise ValueError(f"scores of a genotype on other than {len(table.folds)} folds")
    for genotype in [one.genotype for one in table.genotypes + table.front]:
        from_dict(genotype, str(path))
