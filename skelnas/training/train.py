"""`skelnas train`: cache and genotype, or baseline, to a model folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skelnas.config import ClipSettings, TrackerName, TrainSettings
from skelnas.data.cache import Cache, Clips
from skelnas.data.dataset import Dataset
from skelnas.data.matching import Match, find_person_size, find_score_size, origin_of
from skelnas.data.readers.base import Layout
from skelnas.data.splits import HoldOut, check_scorable, note_faults, split_training_part
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype
from skelnas.models.baselines import find_baseline
from skelnas.models.complexity import count_normalised, measure
from skelnas.models.create import find_architecture
from skelnas.runtime import devices, files
from skelnas.runtime.console import note
from skelnas.runtime.memory import explaining_network_too_large
from skelnas.training.card import ModelCard
from skelnas.training.fine_tune import (
    adopt_settings,
    check_clips,
    describe,
    load_initial,
    match_cache,
)
from skelnas.training.flip import choose_flip, warn_of_mirrored_classes
from skelnas.training.run_dir import MODEL
from skelnas.training.saved_model import Model, save_model
from skelnas.training.setup import Setup, check_normalisation, open_setup
from skelnas.training.tracking import Tracking
from skelnas.training.trained_clips import encode, join
from skelnas.training.trainer import Trainer

CARD_FIELDS_NOT_COMPARED = frozenset(
    ("layout", "rule", "clip_length", "person_size", "score_size", "versions")
)
"""Fields of the model card that follow from the clips or say how they were read."""

CELL_SETTINGS = ("channels", "layers", "drop_path", "input_norm")
"""Settings that a baseline does not have."""


@dataclass(frozen=True)
class TrainedModel:
    """What `train` returns.

    Attributes:
        path: of ``model.safetensors``.
        model: what was saved there, on the CPU and in evaluation mode.
    """

    path: Path
    model: Model

    def __repr__(self) -> str:
        return f"TrainedModel({str(self.path)!r})"


def train(
    cache_path: Path | str,
    architecture: Genotype | str,
    out: Path | str,
    settings: TrainSettings,
    *,
    resume: bool = False,
    force: bool = False,
    track: TrackerName | None = None,
) -> TrainedModel:
    """Train the network of a genotype, or a baseline, on the training part of a protocol.

    The test part is never read, and held-out clips are not learned from. The model is that of
    the last epoch, unless held-out clips choose the epoch. They are scored after each.

    Args:
        cache_path: a skeleton cache.
        architecture: a genotype, its file, ``random:SEED``, or a name of `skelnas.list_models`.
        out: the model folder.
        settings: see `TrainSettings`.
        resume: resume the run in the folder.
        force: delete the run in the folder.
        track: a tracker to show the run in.

    Raises:
        InputError: the cache is broken, has no training clips or none to score the model by,
            lacks the bones that the baseline needs, or its clips cannot be mirrored though --flip
            is given.
        UsageError: the folder is not empty or holds another run; there is no such baseline; the
            network is larger than --max-params or --max-macs; or settings contradict each other.
        DeviceError: the device is missing or out of memory.
        Interrupted: a signal stopped it; the run can be resumed.
    """
    cache_path, out = Path(cache_path), Path(out)
    architecture = find_architecture(architecture)
    _check_settings(settings)
    initial = load_initial(settings.init) if settings.init else None
    if initial is not None:
        settings = adopt_settings(settings, architecture, initial.card)
    network_fields, unused_settings = describe_network(architecture, settings)
    mirror = Tracking(track, out) if track else None
    with open_setup(cache_path, out, settings, resume=resume, force=force, mirror=mirror) as setup:
        device = setup.device
        with setup.cache as cache:
            settings = _adapt_settings(setup, architecture, cache)
            part = split_training_part(cache, settings.protocol, settings.hold_out)
            if not resume:
                check_scorable(cache, settings.protocol, part)
            note_faults(cache, settings.protocol, part)
            match, origin = Match([], []), origin_of(cache)
            if initial is not None:
                match, origin = match_cache(cache, settings, initial.card)
                network_fields["initial"] = describe(initial)
            clips = match.reorder(cache.load(part.train))
            layout, persons = origin.layout, origin.max_persons
            if initial is not None:
                check_clips(clips, origin, settings, initial.card)
            dataset = Dataset(clips, layout, persons, settings, device, settings.store)
            if settings.flip:
                warn_of_mirrored_classes(cache, dataset)
            held_out = None
            if settings.hold_out:
                others = match.reorder(cache.load(part.held_out))
                held_out = Dataset(others, layout, persons, settings, device, settings.store)
            data_fields = describe_data(
                cache, clips, layout, part.hold_out, dataset.shape, settings
            )
            card = make_card(data_fields, network_fields, cache.path)
            if cache.contents is not None:
                before = initial.card.trained_clips if initial is not None else ""
                clips_seen = join(before, encode(cache.contents[part.train]))
                card = replace(card, trained_clips=clips_seen)
        _check_budget(settings, card)
        check_normalisation(
            settings, len(dataset), lambda: count_normalised(card.make_network(), card.input_shape)
        )
        config = {
            "verb": "train",
            "settings": {k: v for k, v in settings.fixed().items() if k not in unused_settings},
            # Old names stay: this is a file format, and --resume compares it.
            "beside_recipe": [n for n in settings.recipe_deviations() if n not in unused_settings],
            "model": {k: v for k, v in card.to_dict().items() if k not in CARD_FIELDS_NOT_COMPARED},
            "clips": len(dataset),
            "fingerprint": clips.fingerprint(),
        }
        with setup.start(config) as run:
            with explaining_network_too_large("train", device):
                trainer = Trainer(run, settings, dataset, card, held_out, initial)
            with devices.explaining_compile_errors(settings.compile):
                trainer.run()
            network, epoch = trainer.load_result()
            card = replace(card, epoch=epoch)
            if run.writes:
                save_model(out, network, card)
    return TrainedModel(out / MODEL, Model(network.cpu(), card).eval())


def _check_budget(settings: TrainSettings, card: ModelCard) -> None:
    """Check that the network is within --max-params and --max-macs.

    Raises:
        UsageError: it is larger.
    """
    if not settings.has_budget:
        return
    cost = measure(card.make_network(), card.input_shape)
    for name, value, limit in (
        ("params", cost.parameters, settings.max_params),
        ("macs", cost.macs, settings.max_macs),
    ):
        if limit is not None and value > limit:
            raise UsageError(
                f"--max-{name} {limit}: the network has {value}",
                hint="fewer --channels or --layers make it smaller; `skelnas derive` and "
                "random:SEED choose genotypes within the limits",
            )


def _check_settings(settings: TrainSettings) -> None:
    """Check that no setting rules out another."""
    if settings.select_epoch and not settings.hold_out:
        raise UsageError(
            "--select-epoch chooses by held-out clips, and there are none",
            hint="--hold-out 0.2 holds out a fifth of the training part's subjects",
        )
    if settings.patience and not settings.hold_out:
        raise UsageError(
            "--patience watches the loss on held-out clips, and there are none",
            hint="--hold-out 0.2 holds out a fifth of the training part's subjects",
        )
    if settings.freeze and not settings.init:
        raise UsageError(
            "--freeze keeps the weights of a model as they are, and there is none",
            hint="--init MODEL names it",
        )
    if settings.branches and "," not in settings.streams:
        raise UsageError(
            f"--branches is for several streams, and there is one: {settings.streams}",
            hint="--streams joint,bone,motion makes three, and so four branches",
        )


def describe_network(
    architecture: Genotype | str, settings: TrainSettings
) -> tuple[dict[str, Any], set[str]]:
    """Return the network's fields of the model card, and the settings that do not apply to it.

    Raises:
        UsageError: there is no such baseline, or settings of cells are given for one.
    """
    if isinstance(architecture, Genotype):
        sizes = settings.model_dump(include={"channels", "layers", "input_norm"})
        return {"genotype": architecture.to_dict(), **sizes}, set()
    find_baseline(architecture)
    for name in CELL_SETTINGS:
        if getattr(settings, name) != settings.recipe_value(name):
            raise UsageError(
                f"--{name.replace('_', '-')} is a setting of cells, and {architecture} has none",
                hint="leave it out: a baseline has the sizes and the dropout of its paper",
            )
    return {"baseline": architecture}, set(CELL_SETTINGS)


def _adapt_settings(
    setup: Setup[TrainSettings], architecture: Genotype | str, cache: Cache
) -> TrainSettings:
    """Replace what the recipe asks for where this architecture or these clips rule it out.

    Raises:
        InputError: --flip was given, but clips cannot be mirrored.
    """
    settings = setup.settings
    if isinstance(architecture, str):
        settings = _lower_lr_if_needed(settings, architecture)
    if settings.flip:
        settings = choose_flip(settings, cache, setup.out if setup.resume else None)
    return settings


def _lower_lr_if_needed(settings: TrainSettings, baseline: str) -> TrainSettings:
    """Lower the recipe's --lr to the highest at which the baseline learns; keep a given --lr."""
    highest = find_baseline(baseline).highest_lr
    if settings.is_given("lr") or settings.lr <= highest:
        return settings
    note(f"train: --lr {highest}, because {baseline} does not learn at the recipe's {settings.lr}")
    return settings.model_copy(update={"lr": highest})


def describe_data(
    cache: Cache,
    clips: Clips,
    layout: Layout,
    hold_out: HoldOut | None,
    input_shape: tuple[int, int, int],
    settings: TrainSettings,
) -> dict[str, Any]:
    """Return the fields of the model card that describe the training clips."""
    return {
        "classes": cache.classes,
        "input_shape": input_shape,
        "joints": list(layout.joints),
        "clip_settings": settings.model_dump(include=set(ClipSettings.model_fields)),
        "source": cache.source,
        "layout": layout,
        "rule": cache.rule,
        "clip_length": round(float(np.median(clips.num_frames))),
        "person_size": find_person_size(clips, layout),
        "score_size": find_score_size(clips, layout),
        "protocol": settings.protocol,
        "hold_out": hold_out,
        "versions": files.versions(),
        "branches": settings.branches,
    }


def make_card(
    data_fields: dict[str, Any], network_fields: dict[str, Any], cache_path: Path
) -> ModelCard:
    """Describe the model of a network to be trained on clips.

    Raises:
        InputError: a baseline needs bones, and the cache has none.
    """
    baseline, bones = network_fields.get("baseline"), ()
    if baseline is not None and find_baseline(baseline).needs_bones:
        bones = data_fields["layout"].bones
        if not bones:
            raise InputError(
                f"{cache_path}: does not say which joints are joined, and {baseline} needs bones",
                hint="prepare it from a source with bones, or take another --model",
            )
    return ModelCard(bones=bones, **data_fields, **network_fields)
