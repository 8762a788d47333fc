"""Fine-tuning: what a training takes over from a trained model, and whether it can."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import Parameter

from skelnas.config import ClipSettings, TrainSettings
from skelnas.data.cache import Cache, Clips
from skelnas.data.matching import Match, compare_units, match_origins, origin_of, rename_joints
from skelnas.data.readers.base import Layout, Test, Train
from skelnas.data.readers.unlabelled import Origin
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype, from_dict
from skelnas.models.branches import AnyNetwork, parts
from skelnas.runtime.console import note
from skelnas.runtime.files import HUB_PREFIX
from skelnas.training.card import Initial, ModelCard, note_unknown_facts
from skelnas.training.hub import fetch
from skelnas.training.saved_model import Model, load_model
from skelnas.training.trained_clips import find_overlap
from skelnas.training.transfer import fit_weights, note_channels, order_like_model

FIXED = ("channels", "layers", "input_norm", "branches", "streams")
"""Settings that are those of the model: its weights fit no others."""


def load_initial(path: str) -> Model:
    """Load the model to start from, by its path or its name on the Hugging Face Hub.

    Raises:
        InputError: it is broken, or its normalisation is folded into the convolutions.
    """
    model = load_model(fetch(path) if path.startswith(HUB_PREFIX) else path)
    if model.card.folded:
        raise InputError(
            f"{path}: an export, whose normalisation can no longer learn",
            hint="--init takes the model folder that it was exported from",
        )
    return model


def architecture_of(card: ModelCard) -> Genotype | str:
    """Return the genotype of a model, or the name of its baseline."""
    return card.baseline or from_dict(card.genotype, "the model's genotype")


def adopt_settings(
    settings: TrainSettings, architecture: Genotype | str, card: ModelCard
) -> TrainSettings:
    """Return the settings with the model's for the network and, unless given, for the clips.

    Raises:
        UsageError: another network was asked for.
    """
    if architecture != architecture_of(card):
        raise UsageError(
            f"--init {settings.init}: has another architecture than was asked for",
            hint="leave out --genotype and --model to keep the model's architecture",
        )
    of_clips = card.make_clip_settings()
    of_model = {name: getattr(of_clips, name) for name in ClipSettings.model_fields}
    of_model["branches"] = card.branches
    if card.baseline is None:
        of_model |= {name: getattr(card, name) for name in ("channels", "layers", "input_norm")}
    for name in FIXED:
        value = of_model.get(name, getattr(settings, name))
        if settings.is_given(name) and getattr(settings, name) != value:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"--init {settings.init}: has {option} {value}, not {getattr(settings, name)}",
                hint=f"leave out {option}",
            )
    return settings.model_copy(
        update={name: value for name, value in of_model.items() if not settings.is_given(name)}
    )


def match_cache(cache: Cache, settings: TrainSettings, card: ModelCard) -> tuple[Match, Origin]:
    """Return how the clips of a cache become those of the model, or of a network for its own.

    Raises:
        InputError: they have other units, or joints of which the model knows too few.
    """
    origin = card.find_origin(rename_joints(cache.layout, card.joints))
    match = match_origins(origin_of(cache), origin)
    if not match.is_layout_equal and card.layout is not None:
        match, origin = _match_other_layout(cache, settings, card, card.layout)
    if match.mismatches:
        raise InputError(
            f"{cache.path}: does not fit --init {settings.init}: {'; '.join(match.mismatches)}",
            hint="`skelnas inspect` shows what is in a cache; a model can be fine-tuned on the "
            "joints and channels that it knows",
        )
    for text in match.notes:
        note(f"{cache.path}: {text}")
    note_unknown_facts(card, f"--init {settings.init}")
    _note_known_test_clips(cache, settings, card)
    return match, origin


def _note_known_test_clips(cache: Cache, settings: TrainSettings, card: ModelCard) -> None:
    train, test = (cache.indices(settings.protocol, part) for part in (Train, Test))
    overlap = find_overlap(cache, test, train, card.trained_clips)
    if overlap is not None and overlap.num_trained:
        note(
            f"--init {settings.init}: was trained on {overlap.num_trained:,} of the {len(test):,} "
            f"test clips of {settings.protocol}, so scores on them will be too high"
        )
    elif overlap is None and card.source == cache.source and card.protocol != settings.protocol:
        note(
            f"--init {settings.init}: was trained on {card.protocol} of {card.source}, so it may "
            f"know test clips of {settings.protocol}"
        )


def _match_other_layout(
    cache: Cache, settings: TrainSettings, card: ModelCard, layout: Layout
) -> tuple[Match, Origin]:
    """Return how the joints of a cache are ordered for what a model knows of them, see `transfer`.

    Args:
        cache: with other joints or channels than the model's.
        settings: name the model.
        card: of the model.
        layout: that of the card.
    """
    where, data = f"--init {settings.init}", cache.layout
    order = order_like_model(data, card, where)
    note_channels(data, layout, where)
    joints = [data.joints[joint] for joint in order]
    origin = replace(origin_of(cache), layout=rename_joints(data, joints))
    return Match(order, list(range(len(data.channels)))), origin


def check_clips(clips: Clips, origin: Origin, settings: TrainSettings, card: ModelCard) -> None:
    """Compare the units of clips, in the order of the model, with those that it learned from.

    Raises:
        InputError: they must be in other units.
    """
    if card.input_norm and has_other_layout(origin.layout, card):
        return  # the units of each joint are measured again
    certain, possible = compare_units(clips, origin.layout, card.person_size, card.score_size)
    if certain:
        raise InputError(f"the clips do not fit --init {settings.init}: {'; '.join(certain)}")
    for text in possible:
        note(f"--init {settings.init}: {text}")
    if clips.num_persons.max() > origin.max_persons:
        note(f"--init {settings.init}: takes the first {origin.max_persons} persons of a clip")


def has_other_layout(layout: Layout, card: ModelCard) -> bool:
    """Return whether joints or channels are others than those that a model records."""
    recorded = card.layout
    return recorded is not None and (layout.joints, layout.channels) != (
        recorded.joints,
        recorded.channels,
    )


def take_over(network: AnyNetwork, initial: Model, card: ModelCard, path: str) -> None:
    """Copy the weights of a model into a network, and say which.

    The classifier is taken over only if the classes are the same.

    Args:
        network: newly made, of the same architecture.
        initial: the model to start from.
        card: of the network.
        path: of the model, for messages.
    """
    has_same_classes = card.classes == initial.card.classes
    state, num_new = initial.network.state_dict(), 0
    if card.layout is not None and has_other_layout(card.layout, initial.card):
        state, num_new = fit_weights(state, initial.card, card)
    taken = {
        name: value for name, value in state.items() if has_same_classes or not _is_classifier(name)
    }
    network.load_state_dict({**network.state_dict(), **taken})
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    num_taken = sum(size for name, size in sizes.items() if name in taken) - num_new
    ending = "" if has_same_classes else f"; the classifier of {len(card.classes)} classes is new"
    note(f"train: {num_taken:,} of {sum(sizes.values()):,} parameters are from {path}{ending}")


def freeze_trunk(network: AnyNetwork) -> dict[str, Parameter]:
    """Let only the classifiers learn, and return their parameters by name."""
    learned = {}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_is_classifier(name))
        if _is_classifier(name):
            learned[name] = parameter
    return learned


def fix_statistics(network: AnyNetwork) -> None:
    """Let all but the classifiers compute as in evaluation: statistics stay, nothing is dropped."""
    for part in parts(network):
        for child in part.children():
            child.train(child is part.classifier)


def describe(initial: Model) -> Initial:
    """Return what a model card records of the model that a training started from."""
    return Initial(initial.card.source, initial.card.protocol, initial.checksum())


def _is_classifier(name: str) -> bool:
    """Return whether a tensor of a network is part of a classifier."""
    return "classifier" in name.split(".")
