"""Resume a run from what its folder says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from skelnas.config import SearchSettings, TrainSettings, count_weight_epochs
from skelnas.data.cache import Cache
from skelnas.errors import DeviceError, InputError, UsageError, first_line, shown
from skelnas.evaluation.cross_validation import cross_validate
from skelnas.genotype import Genotype, from_dict
from skelnas.nas.predictor_search import TRIALS, predictor_search
from skelnas.nas.search import search
from skelnas.runtime import distributed, files
from skelnas.training import run_dir
from skelnas.training.genotype_table import GenotypeTable
from skelnas.training.saved_model import Model
from skelnas.training.tracking import find_tracker
from skelnas.training.train import TrainedModel, train

AnySettings = TypeVar("AnySettings", SearchSettings, TrainSettings)
ADAPTED = ("lr", "flip")
"""Settings that a training adapts to its network and its clips, unless they are given."""

COMMANDS = {"trials": "`skelnas bench run`", "repeats": "`skelnas search --repeats`"}
"""Those that wrote the folders of several runs, by verb."""

Result = TrainedModel | GenotypeTable | dict[str, Any] | None


def resume(
    folder: Path | str,
    *,
    epochs: int | None = None,
    after_train: Callable[[Path, Model], object] | None = None,
) -> Result:
    """Resume a search, a training or a cross-validation, as ``--resume`` with all its options does.

    More epochs are taken where every step so far is that of a run which was longer from the
    start: at a constant learning rate, without warm-up and dropped edges.

    Args:
        folder: of the run.
        epochs: go on until this one; None for that of the run.
        after_train: called with each model folder and its trained model.

    Returns:
        What `train`, `predictor_search` or `cross_validate` returns; None for `search`.

    Raises:
        InputError: the folder holds no run, or its cache is missing or broken.
        UsageError: the run has trainings of its own that only its command knows, is in use, or
            cannot take more epochs.
        DeviceError, Interrupted: see the functions above.
    """
    folder = Path(folder)
    config = run_dir.read_config(folder)
    verb, cache = config.get("verb"), config.get("cache")
    if verb not in ("train", "search", "folds"):
        raise UsageError(
            f"{folder}: {COMMANDS.get(str(verb), shown(verb))} cannot be resumed from its folder "
            "alone",
            hint="repeat the original command with --resume",
        )
    if not isinstance(cache, str):
        raise InputError(f"{folder / run_dir.CONFIG}: expected a cache, found {shown(cache)}")
    Cache.open(Path(cache)).close()
    if verb == "search":
        return _resume_search(folder, Path(cache), config, epochs)
    settings = _read_settings(TrainSettings, folder, config, "settings")
    architecture = _read_architecture(folder, config)
    options: dict[str, Any] = {"resume": True, "track": find_tracker(folder)}
    if verb == "train":
        with _prolonged(folder, config, settings, epochs) as settings:
            trained = train(Path(cache), architecture, folder, settings, **options)
        if after_train is not None:
            after_train(folder, trained.model)
        return trained
    _refuse_epochs(folder, epochs)
    settings = _as_given(settings, folder / "fold1")
    options["track"] = find_tracker(folder / "fold1")
    protocols = config.get("protocols")
    if not isinstance(protocols, list):
        raise InputError(f"{folder / run_dir.CONFIG}: expected protocols, a list of names")
    return cross_validate(
        Path(cache),
        architecture,
        folder,
        settings,
        count=len(protocols),
        after_train=after_train,
        **options,
    )


def _resume_search(
    folder: Path, cache: Path, config: dict[str, Any], epochs: int | None
) -> GenotypeTable | None:
    settings = _read_settings(SearchSettings, folder, config, "settings")
    training = None
    if "training" in config:
        shared = settings.of_trainings()
        training = _read_settings(TrainSettings, folder, config, "training", shared)
    if settings.method == "predict":
        _refuse_epochs(folder, epochs)
        training = training and _as_given(training, folder / TRIALS)
        return predictor_search(cache, folder, settings, training, resume=True)
    with _prolonged(folder, config, settings, epochs) as settings:
        search(cache, folder, settings, training=training, resume=True, track=find_tracker(folder))
    return None


def _read_settings(
    model: type[AnySettings],
    folder: Path,
    config: Mapping[str, Any],
    key: str,
    otherwise: Mapping[str, Any] = MappingProxyType({}),
) -> AnySettings:
    """Read the settings of a run, all of which count as given; `otherwise` has some of them."""
    try:
        return model(**{**otherwise, **config[key]})
    except (KeyError, TypeError, ValidationError) as error:
        reason = first_line(error)
        raise InputError(f"{folder / run_dir.CONFIG}: unexpected {key} ({reason})") from None


def _read_architecture(folder: Path, config: Mapping[str, Any]) -> Genotype | str:
    """Return the genotype or the name of the baseline that is trained."""
    origin = str(folder / run_dir.CONFIG)
    found = config.get("architecture")  # of a cross-validation
    if (model := config.get("model")) and isinstance(model, dict):
        found = model.get("baseline") or model.get("genotype")
    return found if isinstance(found, str) else from_dict(found, origin)


def _as_given(settings: TrainSettings, training: Path) -> TrainSettings:
    """Return settings of which only those count as given that trainings did not adapt.

    Args:
        settings: as recorded before a training adapted them to its clips and its network.
        training: a folder that records how they were adapted; it may not exist yet.
    """
    if (training / run_dir.CONFIG).exists():
        config = run_dir.read_config(training)
        adapted = _read_settings(TrainSettings, training, config, "settings").model_dump()
        is_given = {name: adapted.get(name) == getattr(settings, name) for name in ADAPTED}
    else:
        is_given = {
            name: getattr(settings, name) != settings.recipe_value(name) for name in ADAPTED
        }
    settings.model_fields_set.difference_update(n for n in ADAPTED if not is_given[n])
    return settings


@contextmanager
def _prolonged(
    folder: Path, config: dict[str, Any], settings: AnySettings, epochs: int | None
) -> Iterator[AnySettings]:
    """Record more epochs in the folder; take them back if the run inside the context is refused.

    Yields:
        The settings with more epochs.

    Raises:
        UsageError: there are no more, or the steps so far would have been others; or another run
            is using the folder.
    """
    if epochs is None or epochs == settings.epochs:
        yield settings
        return
    longer = _with_epochs(folder, config, settings, epochs)
    recorded = {**config, "settings": {**config["settings"], "epochs": epochs}}
    if isinstance(longer, TrainSettings):
        names = recorded["settings"]
        recorded["beside_recipe"] = [name for name in longer.recipe_deviations() if name in names]
    with distributed.joined(settings.rank_timeout):
        distributed.run_on_first(partial(_write_config, folder, recorded))
    try:
        yield longer
    except (UsageError, InputError, DeviceError):
        logged = folder / run_dir.METRICS
        is_longer = logged.exists() and len(run_dir.read_lines(logged)) > settings.epochs
        if distributed.is_first() and not is_longer:
            _write_config(folder, config)
        raise


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    with run_dir.RunDir(folder):
        files.atomic_write(folder / run_dir.CONFIG, files.to_json(config))


def _with_epochs(
    folder: Path, config: Mapping[str, Any], settings: AnySettings, epochs: int
) -> AnySettings:
    """Return settings with more epochs, after checking that the steps so far would be the same."""
    if epochs < settings.epochs:
        raise UsageError(
            f"--epochs {epochs}: {folder} has {settings.epochs}, and takes only more",
            hint="leave it out to go on as planned",
        )
    used = {k: v for k, v in settings.model_dump().items() if k in config["settings"]}
    if moving := _follow_length(used, epochs):
        raise UsageError(
            f"--epochs {epochs}: {folder} cannot be prolonged: the number of epochs, "
            f"{settings.epochs} from the start, determines {', '.join(moving)}",
            hint=f"start again with --epochs {epochs}; a run whose --lr-min equals its --lr"
            + (", with --warmup 0 and --drop-path 0," if "drop_path" in used else "")
            + " can be prolonged",
        )
    return settings.model_copy(update={"epochs": epochs})


def _follow_length(settings: Mapping[str, Any], epochs: int) -> list[str]:
    """Return the options because of which a longer run differs from its first step on."""
    found = [] if settings["lr"] == settings["lr_min"] else ["--lr-min"]
    found += [
        f"--{name.replace('_', '-')}"
        for name in ("warmup", "drop_path", "steer")
        if settings.get(name)
    ]
    share = settings.get("weights_first", 0)
    if count_weight_epochs(share, epochs) != count_weight_epochs(share, settings["epochs"]):
        found.append("--weights-first")
    return found


def _refuse_epochs(folder: Path, epochs: int | None) -> None:
    if epochs is not None:
        raise UsageError(
            f"--epochs {epochs}: {folder} holds several trainings, which cannot be prolonged",
            hint="leave it out",
        )
