"""The ``README.md`` of a model folder: what the model is, how good, and what it cannot do.

It is a model card as on the Hugging Face Hub: YAML front matter, then Markdown. Training writes
it; ``skelnas evaluate --card`` adds results to it. They are kept in one line of the front matter,
``model-index: [...]``, which is JSON (and so YAML), and shown as a table in the text. The rest
of the text can be edited by hand: adding results leaves it alone.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from skelnas import json_text
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.evaluation.scores import Scores
from skelnas.genotype import Genotype, from_dict
from skelnas.models.complexity import measure
from skelnas.reporting.plot_cells import draw_cells
from skelnas.reporting.rendering import render
from skelnas.runtime import files
from skelnas.runtime.console import note
from skelnas.training import run_dir
from skelnas.training.saved_model import Model, find_model_file, load_model

README = "README.md"
PICTURE = "cells.svg"
BEGIN, END = "<!-- results of skelnas -->", "<!-- end of results -->"
NO_RESULTS = "None yet. `skelnas evaluate CACHE MODEL --card` adds them here."

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean per class",
    "chance": "always the largest class",
    "nll": "negative log-likelihood",
    "ece": "calibration error",
}
"""The metrics of a card: their keys in an evaluation, and their names in the card."""

COPIES = "copies"
"""Type of the number of scored clips that are copies of training clips."""

_CHECKSUM = re.compile(r"<!-- skelnas card of ([0-9a-f]{8}) -->")
_LICENSE = re.compile(r"^license: .*$", re.MULTILINE)
_LICENSE_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*", re.ASCII)
_INDEX = re.compile(r"^model-index: (\[.*\])$", re.MULTILINE)


def write_card(folder: Path, model: Model) -> None:
    """Write the card of a model folder, unless it already has one for these weights.

    A README that skelnas did not write is left as it is, with a note. Without matplotlib the
    card has no picture of the cells.

    Args:
        folder: the model folder; what its ``config.json`` and ``metrics.jsonl`` say is included.
        model: the model in the folder.
    """
    text = _read(folder)
    if _is_current(text, folder):
        return
    if _is_foreign(text):
        note(f"{folder / README}: was not written by skelnas, and is left as it is")
        return
    text = _make_text(folder, model)
    files.atomic_write(folder / README, f"{text}\n<!-- skelnas card of {_checksum(folder)} -->\n")


def check_card(folder: Path) -> None:
    """Check that results can be added to the card of a folder, before they are computed.

    Raises:
        InputError: the folder holds no model.
        UsageError: it is not a folder, or its README has no room for results.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: is not a model folder, so it has no card",
            hint="pass the folder, or leave out --card",
        )
    find_model_file(folder)
    text = _read(folder)
    if _is_foreign(text):
        raise UsageError(
            f"{folder / README}: was not written by skelnas, so no results are added to it",
            hint=f"move it away, and --card writes a new {README}",
        )
    if _is_current(text, folder) and not _has_room_for_results(text):
        raise UsageError(
            f"{folder / README}: the section for results is missing or damaged",
            hint="see `Model folder` in docs/formats.md, or remove it: --card writes a new one",
        )


def add_results(folder: Path, scores: Scores, source: str = "") -> None:
    """Add the results of an evaluation to the card of a folder; write the card if there is none.

    Earlier results on the same part of the same protocol are replaced.

    Args:
        folder: the model folder.
        scores: the results.
        source: the data set that was scored; by default that of the training.

    Raises:
        InputError, UsageError: as for `check_card`.
    """
    check_card(folder)
    model = load_model(folder)
    write_card(folder, model)
    text = _read(folder)
    index = _parse_index(text)
    result = _describe(scores, source or model.card.source)
    others = [r for r in index[0]["results"] if r["dataset"] != result["dataset"]]
    results = sorted([*others, result], key=lambda r: json.dumps(r["dataset"]))
    index[0]["results"] = results
    text = _INDEX.sub(lambda _: f"model-index: {json.dumps(index)}", text, count=1)
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    files.atomic_write(folder / README, head + _results_section(_table(results)) + tail)


def set_license(folder: Path, license: str) -> None:
    """Change the licence that the card of a folder names.

    Raises:
        UsageError: this is not the name of a licence, or there is no place for it.
    """
    if not _LICENSE_NAME.fullmatch(license):
        raise UsageError(
            f"license {license!r}: expected a name as on the Hugging Face Hub",
            hint="such as apache-2.0, cc-by-nc-4.0, other or unknown",
        )
    text, count = _LICENSE.subn(f"license: {license}", _read(folder), count=1)
    if not count:
        raise UsageError(
            f"{folder / README}: has no line `license: ...` to change",
            hint="add one to its front matter",
        )
    files.atomic_write(folder / README, text)


def _read(folder: Path) -> str:
    """Return the README of a folder, or an empty text."""
    readme = folder / README
    if not readme.exists():
        return ""
    try:
        return files.read_text(readme)
    except (OSError, ValueError) as error:
        raise InputError(f"{readme}: cannot be read as text ({error})") from None


def _is_foreign(text: str) -> bool:
    """Return whether there is a README that skelnas did not write."""
    return bool(text) and not _CHECKSUM.search(text)


def _is_current(text: str, folder: Path) -> bool:
    """Return whether a card is about the weights in its folder."""
    found = _CHECKSUM.search(text)
    return found is not None and found[1] == _checksum(folder)


def _checksum(folder: Path) -> str:
    return f"{zlib.crc32((folder / run_dir.MODEL).read_bytes()):08x}"


def _has_room_for_results(text: str) -> bool:
    begin, end = text.find(BEGIN), text.find(END)
    return 0 <= begin < end and _parse_index(text) is not None


def _parse_index(text: str) -> Any:
    """Return the ``model-index`` of a card, or None if it is missing or damaged."""
    found = _INDEX.search(text)
    try:
        index = json_text.parse(found[1]) if found else []
        _table(index[0]["results"])
    except (ValueError, TypeError, LookupError):
        return None
    return index


def _name_data(source: str) -> str:
    """Return what to call the data of a source in a sentence."""
    return "its author's own recordings" if source in ("manifest", "folder") else source


def _describe(scores: Scores, source: str) -> dict[str, Any]:
    """Return an entry of ``results`` in the Hub's ``model-index``."""
    info, values = scores.info, scores.to_dict()
    metrics = [{"type": "clips", "name": "clips", "value": len(scores)}]
    if num_copies := len(info.copies):
        metrics.append({"type": COPIES, "name": "copies of training clips", "value": num_copies})
    for key, name in METRICS.items():
        if key == "top5" and len(info.classes) <= 5:  # always right
            continue
        kind = "accuracy" if key == "top1" else key
        metrics.append({"type": kind, "name": name, "value": round(values[key], 6)})
    return {
        "task": {"type": "skeleton-based-action-recognition"},
        "dataset": {
            "type": source,
            "name": _name_data(source),
            "config": info.protocol,
            "split": info.part,
        },
        "metrics": metrics,
    }


def _results_section(content: str) -> str:
    return f"{BEGIN}\n\n{content}\n\n{END}"


def _table(results: list[dict[str, Any]]) -> str:
    """Return results as a Markdown table."""
    kinds = {metric["type"] for result in results for metric in result["metrics"]}
    keys = [key for key in METRICS if key != "top5" or key in kinds]
    names = ["protocol", "part", "clips", *(METRICS[key] for key in keys)]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for result in results:
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        copies = f" ({values[COPIES]:,} copies of training clips)" if COPIES in values else ""
        clips = f"{values['clips']:,}{copies}"
        cells = [result["dataset"]["config"], result["dataset"]["split"], clips]
        for key in keys:
            if key == "top5" and key not in values:
                cells.append("")
                continue
            value = values["accuracy" if key == "top1" else key]
            cells.append(f"{value:.4f}" if key == "nll" else f"{value:.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _make_text(folder: Path, model: Model) -> str:
    """Return a card without results, and draw the cells that it shows."""
    card, name = model.card, files.real_path(folder).name
    tags = ["skeleton-based-action-recognition", "action-recognition"]
    genotype = None
    if card.genotype is not None:
        genotype = from_dict(card.genotype, "the model's genotype")
        tags.append("neural-architecture-search")
    return render(
        "model_card.md.jinja",
        name=name,
        tags=json.dumps(tags),
        index=json.dumps([{"name": name, "results": []}]),
        card=card,
        data=_name_data(card.source),
        persons="1 person" if card.max_persons == 1 else f"up to {card.max_persons} persons",
        facts=[(name, _escape_cell(value)) for name, value in _facts(folder, model)],
        results=_results_section(NO_RESULTS),
        genotype=genotype and genotype.to_json().rstrip(),
        picture=genotype and _draw(genotype, folder),
    )


def _facts(folder: Path, model: Model) -> list[tuple[str, str]]:
    card = model.card
    complexity = measure(model.network, card.input_shape)
    channels, frames, joints = card.input_shape
    settings = sorted(card.clip_settings.items())  # as in the file, see `ModelCard.to_dict`
    clip = ", ".join(f"{key} {json.dumps(value)}" for key, value in settings)
    rule = ", ".join(f"{key}: {value}" for key, value in sorted((card.rule or {}).items()))
    rows = [
        ("parameters", f"{complexity.parameters:,}"),
        ("multiply-adds per clip", f"{complexity.macs:,}"),
        ("input", f"{channels} channels, {frames} frames, {joints} joints of all persons"),
    ]
    if card.branches:
        count = len(card.make_clip_settings().streams.split(",")) + 1
        rows.append(("branches", f"{count}: one for each stream and one for all, logits averaged"))
    rows += [
        ("how a clip is made", clip),
        ("data set", _name_data(card.source)),
        ("how it was read", rule or "unknown"),
        ("protocol", card.protocol),
        (
            "held out of the training part",
            f"{card.hold_out.clips:,} clips" if card.hold_out else "nothing",
        ),
    ]
    if card.initial is not None:
        rows.append(("started from a model of", f"{card.initial.source}, {card.initial.protocol}"))
    if card.epoch is not None:
        rows.append(("epoch, chosen on held-out clips", str(card.epoch)))
    if card.clip_length is not None:
        rows.append(("typical training clip", f"{card.clip_length:,} frames"))
    versions = ", ".join(f"{name} {number}" for name, number in sorted(card.versions.items()))
    return [*rows, *_training_facts(folder), ("versions", versions)]


def _training_facts(folder: Path) -> list[tuple[str, str]]:
    """Return what the files of the training say, if they are in the folder."""
    try:
        config = run_dir.read_config(folder)
        last = run_dir.read_lines(folder / run_dir.METRICS)[-1]
        loss, top1 = float(last["train_loss"]), float(last["train_top1"])
    except (InputError, LookupError, TypeError, ValueError):
        return []
    settings = config.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    names = [name for name in ("recipe", "batch_size", "lr", "seed") if name in settings]
    return [
        ("training clips", str(config.get("clips"))),
        ("epochs", str(last["epoch"])),
        ("settings", ", ".join(f"{name.replace('_', ' ')} {settings[name]}" for name in names)),
        ("training loss and top-1 of the last epoch", f"{loss:.4f}, {top1:.2%}"),
    ]


def _escape_cell(text: str) -> str:
    """Return text that stays in one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _draw(genotype: Genotype, folder: Path) -> str | None:
    """Draw the cells next to the card; return the name of the picture if that worked."""
    try:
        draw_cells(genotype, folder / PICTURE)
    except SkelnasError as error:
        note(f"{README} has no picture of the cells: {error}")
        return None
    return PICTURE
