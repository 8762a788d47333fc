"""The table of a benchmark: genotypes, and their trainings by protocol and seed.

`docs/bench.md` describes the file for readers without skelnas.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter

from skelnas.errors import InputError
from skelnas.genotype import Genotype, from_dict
from skelnas.runtime import files

FORMAT = "skelnas-bench"
VERSION = 1
TABLE = "table.json"

Array = NDArray[np.float64]
Count = Annotated[int, Field(ge=0, le=10**15)]
Size = Annotated[int, Field(ge=1, le=10**15)]
Loss = Annotated[float, Field(ge=0, le=10**6)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class GenotypeEntry:
    """A genotype of the table; the attributes are the keys of the file, as below.

    Attributes:
        name: of the genotype in this table.
        kind: "random" if it was drawn, "given" if somebody chose it.
        genotype: in its JSON form.
        parameters, macs: of its network; multiply-adds for one clip.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: str
    kind: Literal["random", "given"]
    genotype: dict[str, Any]
    parameters: Size
    macs: Count


@dataclass(frozen=True)
class TrialEntry:
    """One training of a genotype.

    Attributes:
        genotype: its name.
        protocol: whose training part it learned, and whose test part it was scored on.
        seed: of the training.
        top1: accuracy after the last epoch, from 0 to 1.
        nll: mean negative log-likelihood of the same clips.
        clips: their number; None where it is not recorded, like the next two.
        train_loss: mean of each epoch.
        minutes: that the training took.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    genotype: str
    protocol: str
    seed: Count
    top1: Fraction
    nll: Loss
    clips: Count | None = None
    train_loss: list[Loss] | None = None
    minutes: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True)
class BenchTable:
    """A benchmark.

    Attributes:
        source: name of the data set.
        classes: number of its classes.
        settings: of the trainings, as `skelnas train` names them.
        versions: of the software.
        genotypes, trials: what was trained, and how it did.
        about: anything else worth knowing, such as date and machine.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    source: str
    classes: Size
    settings: dict[str, Any]
    versions: dict[str, str]
    genotypes: list[GenotypeEntry]
    trials: list[TrialEntry]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that genotypes and trials fit together; raises ValueError."""
        names = Counter(entry.name for entry in self.genotypes)
        trials = Counter((t.genotype, t.protocol, t.seed) for t in self.trials)
        for what, counts in (("genotype", names), ("trial", trials)):
            for key, count in counts.items():
                if count > 1:
                    raise ValueError(f"the {what} {key} is there {count} times")
        for trial in self.trials:
            if trial.genotype not in names:
                raise ValueError(f"a trial of {trial.genotype}, which is not among the genotypes")

    def __repr__(self) -> str:
        counts = f"{len(self.genotypes)} genotypes, {len(self.trials)} trials"
        return f"BenchTable({self.source}, {counts})"

    def grid(self, kinds: Sequence[str] = ("random", "given")) -> Grid:
        """Arrange the genotypes that were trained on every protocol with every seed.

        Args:
            kinds: of the genotypes to include.
        """
        protocols = list(dict.fromkeys(trial.protocol for trial in self.trials))
        seeds = sorted({trial.seed for trial in self.trials})
        cells = {(t.genotype, t.protocol, t.seed): t for t in self.trials}
        entries, rows = [], []
        for entry in self.genotypes:
            keys = itertools.product([entry.name], protocols, seeds)
            found = [cells[key] for key in keys if key in cells]
            if entry.kind in kinds and len(found) == len(protocols) * len(seeds) > 0:
                entries.append(entry)
                rows.append(found)
        shape = len(entries), len(protocols), len(seeds)
        return Grid(
            entries=entries,
            protocols=protocols,
            seeds=seeds,
            top1=_column((t.top1 for row in rows for t in row), shape),
            nll=_column((t.nll for row in rows for t in row), shape),
            train_loss=_curves([t.train_loss for row in rows for t in row], shape),
        )


@dataclass(frozen=True)
class Grid:
    """The trainings of G genotypes on P protocols with S seeds each.

    Attributes:
        entries: the G genotypes.
        protocols, seeds: P and S of them.
        top1, nll: [G, P, S].
        train_loss: [G, P, S, epochs]; None if it is not recorded for all.
    """

    entries: list[GenotypeEntry]
    protocols: list[str]
    seeds: list[int]
    top1: Array
    nll: Array
    train_loss: Array | None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> list[str]:
        """The name of each genotype."""
        return [entry.name for entry in self.entries]

    @property
    def parameters(self) -> Array:
        """The parameters of each genotype, [G]."""
        return np.array([entry.parameters for entry in self.entries], dtype=np.float64)

    @property
    def macs(self) -> Array:
        """The multiply-adds of each genotype, [G]."""
        return np.array([entry.macs for entry in self.entries], dtype=np.float64)

    def genotypes(self) -> list[Genotype]:
        """Parse the genotypes.

        Raises:
            InputError: one is not a genotype.
        """
        return [from_dict(entry.genotype, f"the genotype {entry.name}") for entry in self.entries]


def _column(values: Iterable[float], shape: tuple[int, ...]) -> Array:
    return np.fromiter(values, dtype=np.float64).reshape(shape)


def _curves(curves: Sequence[list[float] | None], shape: tuple[int, ...]) -> Array | None:
    recorded = [curve for curve in curves if curve]
    if len(recorded) < len(curves) or len(set(map(len, recorded))) != 1:
        return None
    return np.array(recorded, dtype=np.float64).reshape(*shape, -1)


def write_table(path: Path, table: BenchTable) -> None:
    """Write a table, one genotype or trial a line."""
    document = files.seal({"format": FORMAT, "version": VERSION, **asdict(table)})
    files.atomic_write(path, files.to_json_lines(document))


def read_table(path: Path) -> BenchTable:
    """Read a table, or that of a folder of `skelnas bench run`.

    Raises:
        InputError: it is missing, damaged or something else.
    """
    file = path / TABLE if path.is_dir() else path
    try:
        document = files.unseal(files.read_object(file))
        if document.pop("format", None) != FORMAT:
            raise ValueError(f'expected "format": "{FORMAT}"')
        if (version := document.pop("version", None)) != VERSION:
            raise ValueError(f"version {version}, expected {VERSION}")
        return TypeAdapter(BenchTable).validate_python(document)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "; ".join(str(error).splitlines()[:3])
        raise InputError(
            f"{file}: not the table of a benchmark ({reason})",
            hint="`skelnas bench run` makes one",
        ) from None
