"""The ``README.md`` of a model folder: what the model is, how good, and what it cannot do.

Written when a training ends, in the form of a model card of the Hugging Face Hub: a head in YAML,
then Markdown. Results are added by ``skelnas evaluate --card``. They are kept in one line of the
head, ``model-index: [...]``, which is JSON (and so YAML), and shown as a table of the text; the
rest of the text is left as it is, so that it can be edited.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.evaluation.scores import Scores
from skelnas.genotype import from_dict
from skelnas.models.branches import parts
from skelnas.models.complexity import measure
from skelnas.reporting.plot_cells import draw_cells
from skelnas.runtime import files
from skelnas.runtime.console import note
from skelnas.training import run_dir
from skelnas.training.saved_model import Model, ModelCard, load_model

BEGIN, END = "<!-- results of skelnas -->", "<!-- end of results -->"
_INDEX = re.compile(r"^model-index: (\[.*\])$", re.MULTILINE)

MEASURES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean per class",
    "chance": "chance",
    "nll": "negative log-likelihood",
    "ece": "calibration error",
}
"""What results are given of: name in an evaluation, and in words."""


def add(text: str, scores: Scores, source: str) -> str:
    """Return a card with results; those on the same part of the same protocol are replaced.

    Args:
        text: of a card that has a place for them.
        scores: of the model.
        source: of the data set.
    """
    index = _find_index(text)
    result = _describe(scores, source)
    kept = [one for one in index[0]["results"] if one["dataset"] != result["dataset"]]
    index[0]["results"] = sorted([*kept, result], key=lambda one: json.dumps(one["dataset"]))
    text = _INDEX.sub(lambda _: f"model-index: {json.dumps(index)}", text, count=1)
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{_table(index[0]['results'])}\n\n{END}{tail}"


def has_place(text: str) -> bool:
    """Say whether a card still has what results are kept in."""
    begin, end = text.find(BEGIN), text.find(END)
    return 0 <= begin < end and _find_index(text) is not None


def _find_index(text: str) -> Any:
    """Return the results so far, in the form of the Hub; None if they are not what was written."""
    found = _INDEX.search(text)
    try:
        index = json.loads(found[1]) if found else []
        _table(index[0]["results"])
    except (ValueError, TypeError, LookupError):
        return None
    return index


def _describe(scores: Scores, source: str) -> dict[str, Any]:
    """Return results in the form of the Hub."""
    about, found = scores.about, scores.to_dict()
    dataset = {"type": source, "name": source, "config": about.protocol, "split": about.part}
    measures = [{"type": "clips", "name": "clips", "value": len(scores)}]
    for name, words in MEASURES.items():
        kind = "accuracy" if name == "top1" else name
        measures.append({"type": kind, "name": words, "value": round(found[name], 6)})
    task = {"type": "skeleton-based-action-recognition"}
    return {"task": task, "dataset": dataset, "metrics": measures}


def _table(results: list[dict[str, Any]]) -> str:
    """Show results as a table."""
    names = ["protocol", "part", "clips", *MEASURES.values()]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for result in results:
        values = {measure["name"]: measure["value"] for measure in result["metrics"]}
        cells = [result["dataset"]["config"], result["dataset"]["split"], f"{values['clips']:,}"]
        for name, words in MEASURES.items():
            cells.append(f"{values[words]:.4f}" if name == "nll" else f"{values[words]:.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
        config = run_dir.read_config(path)
        last = run_dir.read_lines(path / run_dir.METRICS)[-1]
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


README = "README.md"
_OF = re.compile(r"<!-- skelnas card of ([0-9a-f]{8}) -->")


@dataclass(frozen=True)
class _Folder:
    """A model folder as its card sees it.

    Attributes:
        path: the folder.
        model: what is in it.
        code: CRC-32 of its file, by which a card knows whose it is.
        text: its card, or "" if there is none yet.
    """

    path: Path
    model: Model
    code: str
    text: str

    @classmethod
    def read(cls, path: Path) -> _Folder:
        model = load_model(path)
        readme = path / README
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        return cls(path, model, f"{zlib.crc32((path / run_dir.MODEL).read_bytes()):08x}", text)

    @property
    def is_foreign(self) -> bool:
        """Whether there is a README that skelnas did not write."""
        return bool(self.text) and not _OF.search(self.text)

    @property
    def is_current(self) -> bool:
        """Whether there is a card, and of these very weights."""
        found = _OF.search(self.text)
        return found is not None and found[1] == self.code


def write_card(path: Path) -> None:
    """Write the card of a model folder, unless it has one of these weights.

    A README that skelnas did not write stays, and a note says so. The picture of the cells needs
    matplotlib; without it there is none.
    """
    folder = _Folder.read(path)
    if folder.is_current:
        return
    if folder.is_foreign:
        note(f"{path / README}: is not of skelnas, and stays as it is")
        return
    text = make_text(path, folder.model, has_picture=_draw(folder))
    files.atomic_write(path / README, f"{text}\n<!-- skelnas card of {folder.code} -->\n")


def check_card(path: Path) -> None:
    """Check that results can be added to the card of a folder, before they are computed.

    Raises:
        InputError: there is no model.
        UsageError: it is no folder, or its README has no place for results.
    """
    if not path.is_dir():
        raise UsageError(
            f"{path}: has no card, which is a file of a model folder",
            hint="give the folder, or leave --card out",
        )
    folder = _Folder.read(path)
    if folder.is_foreign:
        raise UsageError(
            f"{path / README}: is not of skelnas, so nothing is written to it",
            hint=f"move it away, and --card writes a {README} of its own",
        )
    if folder.is_current and not has_place(folder.text):
        raise UsageError(
            f"{path / README}: has no place for results any more",
            hint="see `Model folder` in docs/formats.md, or remove it: --card writes a new one",
        )


def add_results(path: Path, scores: Scores) -> None:
    """Put the results of an evaluation into the card of a folder, which is written if need be.

    Results on the same part of the same protocol are replaced.

    Raises:
        InputError, UsageError: as `check_card`.
    """
    check_card(path)
    write_card(path)
    folder = _Folder.read(path)
    text = add(folder.text, scores, folder.model.card.source)
    files.atomic_write(path / README, text)


def _draw(folder: _Folder) -> bool:
    """Draw the cells beside the card, if there are cells and what draws them is installed."""
    genotype = folder.model.card.genotype
    if genotype is None:
        return False
    try:
        draw_cells(from_dict(genotype, "the model's genotype"), folder.path / PICTURE)
    except SkelnasError as error:
        note(f"{README} has no picture of the cells: {error}")
        return False
    return True
