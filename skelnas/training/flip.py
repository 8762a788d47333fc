"""Whether training clips are mirrored, and what speaks against it."""

from __future__ import annotations

from pathlib import Path

from skelnas.config import TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset
from skelnas.data.mirrors import find_mirrored_classes, has_symmetric_classes
from skelnas.data.sides import find_mirrored_joints, split_words
from skelnas.errors import InputError
from skelnas.runtime.console import note
from skelnas.training import run_dir


def choose_flip(settings: TrainSettings, cache: Cache, resumed: Path | None) -> TrainSettings:
    """Disable the recipe's --flip where a mirrored clip may be of another class or impossible.

    A run that is resumed keeps its own. A value that is given is refused rather than changed.

    Args:
        settings: with a --flip above 0.
        cache: open.
        resumed: the folder of the run to continue, or None.

    Raises:
        InputError: --flip is given, but clips cannot be mirrored.
    """
    try:
        find_mirrored_joints(cache.layout.joints)
        _check_classes_have_no_side(cache)
    except InputError as error:
        if settings.is_given("flip"):
            raise
        note(f"train: --flip 0, because a clip cannot be mirrored ({error})")
        return settings.model_copy(update={"flip": 0.0})
    if settings.is_given("flip") or has_symmetric_classes(cache) or _is_flipped(resumed):
        return settings
    note(
        "train: --flip 0, because mirrored clips may belong to another class; if they do not, "
        f"--flip {settings.flip} mirrors some"
    )
    return settings.model_copy(update={"flip": 0.0})


def warn_of_mirrored_classes(cache: Cache, dataset: Dataset) -> None:
    """Print a note on classes that mirroring confuses, unless they are known to be symmetric.

    Args:
        cache: open.
        dataset: the training clips.
    """
    if has_symmetric_classes(cache):
        return
    for one, other in find_mirrored_classes(dataset, cache.classes):
        note(
            f"train: mirrored clips of {one!r} look like {other!r} and the other way round: "
            "--flip 0 leaves clips as they are"
        )


def _is_flipped(resumed: Path | None) -> bool:
    """Return whether the folder holds a run with --flip."""
    if resumed is None or not (resumed / run_dir.CONFIG).is_file():
        return False
    settings = run_dir.read_config(resumed).get("settings")
    return isinstance(settings, dict) and bool(settings.get("flip"))


def _check_classes_have_no_side(cache: Cache) -> None:
    for name in cache.classes:
        if {"left", "right"} & set(split_words(name)):
            raise InputError(
                f"{cache.path}: a mirrored clip of the class {name!r} would be of another class",
                hint="--flip 0 leaves clips as they are",
            )
