"""The scores of a model on named clips: metrics, comparisons and files.

A file of scores holds `logits` [N, classes] float32, `labels` [N] int64 and a `ScoresInfo`: as
arrays of text in ``.npz``, as JSON in the metadata of ``.safetensors``. Reading either runs no
code.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter
from safetensors import SafetensorError, safe_open

from skelnas.config import ScoredPart
from skelnas.data.readers.npy import read_npz
from skelnas.errors import InputError, UsageError, shown
from skelnas.runtime import files, tensor_files
from skelnas.runtime.console import note, shell
from skelnas.training.metrics import Metrics, measure

METADATA_KEY = "skelnas-scores"
VERSION = 1
SUFFIXES = (".npz", ".safetensors")

MAX_ARRAY_BYTES = 1 << 30
"""Of an array in an ``.npz``."""


ENSEMBLE = "ensemble"
"""The model of scores that were averaged."""


@dataclass(frozen=True)
class ScoresInfo:
    """The rows and columns of scores.

    Attributes:
        names: unique names of the N clips.
        classes: class names in the order of the logits.
        protocol, part: the part of a protocol that the clips are.
        mismatches: what did not fit the model, if clips were scored nevertheless.
        copies: names of the clips with the numbers of a clip that the model was trained on.
        model: checksum of the model, `ENSEMBLE`, or empty in files of earlier versions.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    names: Annotated[list[str], Field(min_length=1)]
    classes: Annotated[list[str], Field(min_length=1)]
    protocol: str
    part: ScoredPart
    mismatches: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers, without optional ones that are empty."""
        optional = {name for name in ("mismatches", "copies", "model") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in optional}


@dataclass(frozen=True)
class Scores:
    """The scores of labelled clips.

    Attributes:
        info: names of clips and classes.
        logits: [N, classes] float32; log-probabilities for an ensemble.
        labels: [N] int64, class indices.
    """

    info: ScoresInfo
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Scores({self.summarise()})"

    def summarise(self) -> str:
        """Return what was scored, and how well, in a few words."""
        return f"{self.info.protocol} {self.info.part}, {len(self)} clips, top-1 {self.top1:.1%}"

    @property
    def top1(self) -> float:
        """The fraction of the clips that were recognised."""
        return self.metrics.top1

    @cached_property
    def metrics(self) -> Metrics:
        """Accuracy, confusion and calibration."""
        return measure(torch.from_numpy(self.logits), torch.from_numpy(self.labels))

    @property
    def chance(self) -> float:
        """The top-1 accuracy of always predicting the most frequent class."""
        return float(np.bincount(self.labels).max() / len(self))

    @property
    def top1_without_copies(self) -> float | None:
        """The top-1 accuracy on the clips that are no copies; None if all or none are."""
        is_new = ~np.isin(self.info.names, self.info.copies)
        if is_new.all() or not is_new.any():
            return None
        return float((self.logits.argmax(1) == self.labels)[is_new].mean())

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics, the protocol and the classes as plain containers, for JSON."""
        without = self.top1_without_copies
        return {
            "protocol": self.info.protocol,
            "part": self.info.part,
            "clips": len(self),
            "top1": self.metrics.top1,
            "top5": self.metrics.top5,
            "mean_class_accuracy": self.metrics.mean_class,
            "nll": self.metrics.nll,
            "ece": self.metrics.ece,
            "chance": self.chance,
            "classes": self.info.classes,
            "per_class": self.metrics.per_class,
            "confusion": self.metrics.confusion.tolist(),
            **({"mismatches": self.info.mismatches} if self.info.mismatches else {}),
            **({"copies": len(self.info.copies)} if self.info.copies else {}),
            **({} if without is None else {"top1_without_copies": without}),
        }

    def confusion_csv(self) -> str:
        """Return the confusion matrix as CSV, with true classes as rows."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["true class", *self.info.classes])
        for name, counts in zip(self.info.classes, self.metrics.confusion.tolist(), strict=True):
            rows.writerow([name, *counts])
        return text.getvalue()


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities of logits [..., classes], in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def note_degenerate(scores: Scores) -> None:
    """Print what makes an accuracy say less than it seems to: few classes, or no choice at all."""
    classes, counts = scores.info.classes, np.bincount(scores.labels)
    occurring = np.flatnonzero(counts)
    if len(classes) == 1:
        note(f"the only class is {shown(classes[0])}, so every accuracy is 100 %")
    elif len(occurring) == 1:
        note(
            f"all clips are of the class {shown(classes[occurring[0]])}: "
            "always predicting it is right"
        )
    elif len(occurring) < len(classes):
        missing = [name for index, name in enumerate(classes) if index not in occurring]
        names = ", ".join(map(shown, missing[:3])) + (" and others" if len(missing) > 3 else "")
        note(f"{len(missing)} of {len(classes)} classes have no clips here: {names}")


def align_scores(scores: Scores, other: Scores, path: Path, other_path: Path) -> Scores:
    """Return the other scores with their clips in the order of the first, matched by name.

    Args:
        scores, other: of the same clips, in any order.
        path, other_path: where they come from, for messages.

    Raises:
        InputError: their clips, classes or parts differ.
    """
    one, two = scores.info, other.info
    if (one.protocol, one.part) != (two.protocol, two.part):
        raise InputError(
            f"{other_path}: scores of the {two.part} part of {two.protocol}, but those of {path} "
            f"are of the {one.part} part of {one.protocol}",
            hint="score both with the same --protocol and --part of `skelnas evaluate`",
        )
    check_classes(two.classes, one.classes, other_path, path)
    _check_none_missing(set(one.names) - set(two.names), other_path, path)
    _check_none_missing(set(two.names) - set(one.names), path, other_path)
    rows = {name: row for row, name in enumerate(two.names)}
    order = np.array([rows[name] for name in one.names])
    relabelled = np.flatnonzero(other.labels[order] != scores.labels)
    if len(relabelled):
        raise InputError(
            f"{other_path}: clip {shown(one.names[relabelled[0]])} has another true class than in "
            f"{path}",
            hint="both must be of the same recordings",
        )
    return Scores(replace(two, names=one.names), other.logits[order], scores.labels)


def check_classes(
    found: Sequence[str],
    expected: Sequence[str],
    path: Path,
    other: Path,
    hint: str = "both must come from caches with the same classes in the same order",
) -> None:
    """Check that the classes of two files are the same; raise InputError with the first other."""
    if list(found) == list(expected):
        return
    pairs = zip([*found, None], [*expected, None], strict=False)
    index, (ours, theirs) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    raise InputError(
        f"{path}: its {len(found)} classes are not the {len(expected)} of {other}: "
        f"class {index} is {shown(ours)}, not {shown(theirs)}",
        hint=hint,
    )


def _check_none_missing(missing: set[str], path: Path, other: Path) -> None:
    if missing:
        first = ", ".join(shown(name) for name in sorted(missing)[:3])
        raise InputError(
            f"{path}: has no scores of {len(missing):,} clips that {other} has: {first}"
            f"{' and others' if len(missing) > 3 else ''}",
            hint="score both on the same part of the same cache",
        )


@dataclass(frozen=True)
class Comparison:
    """A comparison of two models on the same clips, class by class (Paper: Table V).

    Attributes:
        other: path of the other model or its scores.
        top1: top-1 accuracy of the other model.
        classes: name, number of clips, top-1 of the first and of the other model; sorted by their
            difference, largest first. Classes without clips are left out.
        mismatches: what did not fit the other model, see `ScoresInfo`.
    """

    other: str
    top1: float
    classes: list[tuple[str, int, float, float]]
    mismatches: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain containers, for JSON."""
        rows = [
            {"class": name, "clips": clips, "a": a, "b": b, "difference": a - b}
            for name, clips, a, b in self.classes
        ]
        mismatches = {"mismatches": self.mismatches} if self.mismatches else {}
        return {"with": self.other, "top1": self.top1, "classes": rows, **mismatches}


def compare_scores(scores: Scores, other: Scores, path: Path, other_path: Path) -> Comparison:
    """Compare scores with others of the same clips; raises as `align_scores` does."""
    aligned = align_scores(scores, other, path, other_path)
    counts = scores.metrics.confusion.sum(axis=1).tolist()
    columns = (scores.info.classes, counts, scores.metrics.per_class, aligned.metrics.per_class)
    rows = [
        (name, clips, a, b)
        for name, clips, a, b in zip(*columns, strict=True)
        if a is not None and b is not None
    ]
    rows.sort(key=lambda row: row[3] - row[2])
    return Comparison(str(other_path), aligned.metrics.top1, rows, other.info.mismatches)


def check_scores_path(path: Path) -> None:
    """Check that scores can be written to a path; raise UsageError if its suffix is wrong."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: scores cannot be written to a file of this type",
            hint=f"name a file that ends in {' or '.join(SUFFIXES)}",
        )


def write_scores(path: Path, scores: Scores) -> None:
    """Write scores to a file, atomically.

    Raises:
        UsageError: the suffix is neither ``.npz`` nor ``.safetensors``.
        SkelnasError: the file cannot be written.
    """
    check_scores_path(path)
    arrays: dict[str, NDArray[Any]] = {"logits": scores.logits, "labels": scores.labels}
    info = {"version": VERSION, **scores.info.to_dict()}
    if path.suffix.lower() == ".npz":
        file = io.BytesIO()
        arrays |= {name: np.array(value) for name, value in info.items()}
        np.savez(file, **arrays)  # type: ignore[arg-type]
        files.atomic_write(path, file.getvalue())
    else:
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        files.atomic_write(path, tensor_files.to_bytes(tensors, METADATA_KEY, info))


def is_scores_file(path: Path) -> bool:
    """Return whether a path is a file of scores, rather than a model."""
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return path.suffix.lower() == ".npz"
    try:
        with tensor_files.utf8_path(path) as opened, safe_open(opened, framework="numpy") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_scores(path: Path) -> Scores:
    """Read a file of scores.

    Raises:
        InputError: it is missing, broken, or not a file of scores of this version.
    """
    files.check_is_regular(path)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file of scores",
            hint=f"`{shell('evaluate', 'CACHE', 'MODEL', '--scores', path)}` writes it",
        )
    try:
        if path.suffix.lower() == ".npz":
            values = read_npz(path, MAX_ARRAY_BYTES)
            logits, labels = values.pop("logits"), values.pop("labels")
            info = {name: value.tolist() for name, value in values.items()}
        else:
            tensors, info = tensor_files.read(path, METADATA_KEY)
            logits, labels = tensors["logits"].numpy(), tensors["labels"].numpy()
        if info.pop("version", None) != VERSION:
            raise ValueError(f"not of version {VERSION}")
        scores = Scores(TypeAdapter(ScoresInfo).validate_python(info), logits, labels)
        _check(scores)
    except (InputError, OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = "; ".join(str(error).splitlines()[:3]).removeprefix(f"{path}: ")
        raise InputError(
            f"{path}: not a readable file of scores ({reason})",
            hint="`skelnas evaluate --scores FILE` writes one",
        ) from None
    for text in scores.info.mismatches:
        note(f"{path}: scores of clips that did not fit the model: {text}")
    return scores


def _check(scores: Scores) -> None:
    shape = len(scores.info.names), len(scores.info.classes)
    if scores.logits.dtype != np.float32 or scores.logits.shape != shape:
        raise ValueError(f"logits are not float32 of {shape[0]} clips and {shape[1]} classes")
    if scores.labels.dtype != np.int64 or scores.labels.shape != shape[:1]:
        raise ValueError(f"labels are not int64 of {shape[0]} clips")
    if not np.isfinite(scores.logits).all():
        raise ValueError("a logit is not finite")
    if scores.labels.min() < 0 or scores.labels.max() >= shape[1]:
        raise ValueError("a label is not one of the classes")
    seen: set[str] = set()
    for name in scores.info.names:
        if name in seen:
            raise ValueError(f"clip {shown(name)} occurs twice")
        seen.add(name)
