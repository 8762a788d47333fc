"""The text of a card, with a place for results."""

from __future__ import annotations

import json
from pathlib import Path

from skelnas import runs
from skelnas.errors import InputError
from skelnas.genotype import from_dict
from skelnas.model_folder import Model, ModelCard
from skelnas.models.branches import parts
from skelnas.models.complexity import measure
from skelnas.readme.results import BEGIN, END

PICTURE = "cells.svg"
NO_RESULTS = "None yet. `skelnas evaluate CACHE MODEL --card` writes them here."


def make_text(path: Path, model: Model, *, has_picture: bool) -> str:
    """Write the card of a folder.

    Args:
        path: the folder, whose config.json and metrics.jsonl are read if they are there.
        model: what is in it.
        has_picture: whether `PICTURE` is there.
    """
    card, name = model.card, path.resolve().name
    tags = ["skeleton-based-action-recognition", "action-recognition"]
    tags += [] if card.baseline else ["neural-architecture-search"]
    network = card.baseline or f"network of {card.layers} cells"
    persons = "1 person" if card.max_persons == 1 else f"up to {card.max_persons} persons"
    head = [
        "---",
        "library_name: skelnas",
        f"tags: {json.dumps(tags)}",
        f"model-index: {json.dumps([{'name': name, 'results': []}])}",
        "---",
    ]
    parts = [
        f"# {name}",
        f"Names one of {len(card.classes)} actions in a recording of {len(card.joints)} joints of "
        f"{persons}: a {network}, trained by skelnas on {card.source}, protocol {card.protocol}.",
        "## Use",
        "```bash\nskelnas predict MODEL RECORDING...\n```",
        "```python\nimport skelnas\n\nmodel = skelnas.load_model(MODEL)\n```",
        f"`MODEL` is this folder. `model` is a module of PyTorch: clips "
        f"[N, {', '.join(map(str, card.input_shape))}] to logits [N, {len(card.classes)}]; "
        "`model.card` says the classes and how clips are made of a recording.",
        "## Facts",
        _facts(path, model),
        "## Results",
        "At the end of the training: nothing was chosen by the clips that are scored here.",
        f"{BEGIN}\n\n{NO_RESULTS}\n\n{END}",
        *_cells(card, has_picture),
        "## Classes",
        ", ".join(card.classes),
        "## Limits",
        _limits(card, persons),
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(parts) + "\n"


def _facts(path: Path, model: Model) -> str:
    card = model.card
    complexity = measure(model.network, card.input_shape)
    channels, frames, joints = card.input_shape
    clip = ", ".join(f"{key} {json.dumps(value)}" for key, value in card.clip_settings.items())
    rule = ", ".join(f"{key}: {value}" for key, value in (card.rule or {}).items())
    held_out = f"{card.hold_out.clips:,} clips" if card.hold_out else "nothing"
    rows = [
        ("parameters", f"{complexity.parameters:,}"),
        ("multiply-adds a clip", f"{complexity.macs:,}"),
        ("input", f"{channels} channels, {frames} frames, {joints} joints of all persons"),
        *_branches(model),
        ("how a clip is made", clip),
        ("data set", card.source),
        ("how it was read", rule or "not known"),
        ("protocol", card.protocol),
        ("held out of the training part", held_out),
        *_epoch(card),
        *_training(path),
        ("versions", ", ".join(f"{name} {number}" for name, number in card.versions.items())),
    ]
    lines = (f"| {name} | {_cell(value)} |" for name, value in rows)
    return "\n".join(["| | |", "|---|---|", *lines])


def _branches(model: Model) -> list[tuple[str, str]]:
    if not model.card.branches:
        return []
    count = len(parts(model.network))
    return [("branches", f"{count}: one for each stream and one for all, logits averaged")]


def _epoch(card: ModelCard) -> list[tuple[str, str]]:
    if card.epoch is None:
        return []
    return [("epoch, chosen by what was held out", str(card.epoch))]


def _training(path: Path) -> list[tuple[str, str]]:
    """Return what the files of the run say, if they are there."""
    try:
        config = runs.read_config(path)
        last = runs.read_lines(path / runs.METRICS)[-1]
        loss, top1 = float(last["train_loss"]), float(last["train_top1"])
    except (InputError, LookupError, TypeError, ValueError):
        return []
    asked = config.get("settings")
    asked = asked if isinstance(asked, dict) else {}
    chosen = ("recipe", "batch_size", "lr", "seed")
    words = (f"{name.replace('_', ' ')} {asked[name]}" for name in chosen if name in asked)
    return [
        ("clips learned from", str(config.get("clips"))),
        ("epochs", str(last["epoch"])),
        ("settings", ", ".join(words)),
        ("training loss and top-1 of the last epoch", f"{loss:.4f}, {top1:.2%}"),
    ]


def _cells(card: ModelCard, has_picture: bool) -> list[str]:
    if card.genotype is None:
        return []
    picture = f"![Both cells: nodes, and the operations between them]({PICTURE})"
    genotype = from_dict(card.genotype, "the model's genotype")
    text = f"```json\n{genotype.to_json().rstrip()}\n```"
    return ["## Genotype", *([picture] if has_picture else []), text]


def _limits(card: ModelCard, persons: str) -> str:
    lines = (
        f"It always names one of its {len(card.classes)} classes, also where nobody does any of "
        "them.",
        f"It has learned from {card.source} only: other cameras, places, ages or ways of finding "
        "joints may be beyond it.",
        f"It takes the joints {', '.join(card.joints[:4])}... in this order, of {persons}.",
        "Its probabilities are a softmax, not a promise: the calibration error says how far off "
        "they are.",
        "The data set has a licence of its own, which may limit what the model is used for.",
    )
    return "\n".join(f"- {line}" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
