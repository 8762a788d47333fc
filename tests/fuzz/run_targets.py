"""What skelnas wrote and reads again: valid folders, and functions that read one.

The files of 0.1.0 have no checksums. The same with checksums are what is written today.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch
from folder_changes import Folder
from text_targets import OLD, Target

from skelnas.config import (
    SearchSettings,
    TrainSettings,
)
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset
from skelnas.data.splits import split_training_part
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.scores import align_scores, note_degenerate, read_scores
from skelnas.nas import repeats, resume
from skelnas.nas.derive import derive
from skelnas.nas.search import _Search, load_search_clips
from skelnas.reporting import model_card
from skelnas.reporting.facts import group_settings, heading, run_facts, shown_epochs
from skelnas.reporting.history import read_history
from skelnas.reporting.plot_curves import edge_charts, learning_curves
from skelnas.runtime import files, tensor_files
from skelnas.training import run_dir
from skelnas.training.best_epoch import BestEpoch
from skelnas.training.loop import TrainLoop
from skelnas.training.saved_model import load_model
from skelnas.training.trainer import Trainer

MAX_NUMBERS = 1_000_000
CPU = torch.device("cpu")


def search() -> Target:
    """The run folder of a search, without its checkpoint, as `derive` and `report` read it."""

    def read(folder: Path) -> Any:
        history = read_history(folder)
        run_facts(history), group_settings(history), heading(history), shown_epochs(history)
        learning_curves(history)
        derived = {}
        if history.verb == "search":
            if history.has_alpha_curves:
                edge_charts(history, "normal")
            derived["last"] = derive(folder).to_json()
            try:
                derived["no skip"] = derive(folder, max_skip=0, keep=1).to_json()
            except UsageError as error:
                derived["no skip"] = str(error)
        return derived, history.alphas, history.epochs

    names = ("config.json", "alphas.jsonl", "metrics.jsonl")
    folders = [_files(OLD / run, names) for run in ("search", "search-exact", "search-stopped")]
    folders[1] = _with_config(folders[1], lambda c: c["settings"].update(stop_skips=0))
    return Target(read, list(map(_sealed, folders)), folders, frozenset({"alphas.jsonl"}))


def comparison() -> Target:
    """The folder of `search --repeats`."""

    def read(folder: Path) -> Any:
        networks = repeats._read(folder)
        repeats._write(folder / "searched-7", networks, None)
        return derive(folder).to_json(), repr(networks)

    names = ("config.json", "repeats.json", "searched-7/config.json")
    return Target(read, old=[_files(OLD / "repeats", names)])


def resumed_alone() -> Target:
    """Runs that are resumed from their folders alone; what would resume them is left out."""

    def describe(*arguments: Any, **options: Any) -> None:
        calls.append(repr((arguments[3:], options)))

    calls: list[str] = []
    functions = dict.fromkeys(("search", "train", "predictor_search", "cross_validate"), describe)

    def read(folder: Path) -> Any:
        calls.clear()
        try:
            with patch.multiple(resume, **functions):
                resume.resume(folder)
        except InputError as error:
            if "the cache " not in str(error):  # that is another file
                raise
        return calls

    def use_cache(config: Any) -> None:
        config["cache"] = str(OLD / "cache.h5")

    def make_folds(config: Any) -> None:
        use_cache(config)
        model = config.pop("model")
        config |= {"verb": "folds", "protocols": ["fold1"], "architecture": model["genotype"]}

    def predict(config: Any) -> None:
        use_cache(config)
        config["settings"] = SearchSettings(method="predict").fixed()
        config["training"] = {"lr": 0.1}

    names = ("config.json",)
    search, cells = _files(OLD / "search-stopped", names), _files(OLD / "cells-stopped", names)
    folds = _with_config(cells, make_folds)
    seeds = [_with_config(folder, use_cache) for folder in (search, cells)]
    seeds += [_with_config(search, predict), {**folds, "fold1/config.json": cells["config.json"]}]
    return Target(read, old=seeds)


def _resume(make: Callable[[Path], TrainLoop], run: str) -> Target:
    folder = OLD / run
    names = [path.name for path in folder.iterdir()]
    loop = make(folder)
    config = json.loads((folder / "config.json").read_text())

    def read(folder: Path) -> Any:
        config["cache"] = "cache.h5"
        if isinstance(loop, Trainer) and loop.best is not None:
            loop.best = BestEpoch(loop.network)
            loop.states = {**loop.states, "best": loop.best}
        loop.epoch = loop.step = 0
        with run_dir.start(folder, config, resume=True, force=False) as opened:
            loop.run_dir = opened
            loop._restore_all_ranks()
            state = loop._state_tensors()
            position = (loop.epoch, loop.step, loop._count)
            if isinstance(loop, Trainer) and loop.epoch:
                loop.load_result()
        return tensor_files._checksum(state), position, repr(getattr(loop, "genotypes", None))

    seed = _files(folder, names)
    sealed = frozenset({"alphas.jsonl", "checkpoint.safetensors"})
    return Target(read, [_sealed(seed)], [seed], sealed, batch=300)


def resumed_search() -> Target:
    """A search that is resumed: its run folder with the checkpoint."""

    def make(folder: Path) -> TrainLoop:
        chosen = SearchSettings(**json.loads((folder / "config.json").read_text())["settings"])
        with Cache.open(OLD / "cache.h5") as cache:
            clips = load_search_clips(cache, chosen, CPU)
        return _Search(None, chosen, clips, None)  # type: ignore[arg-type]

    return _resume(make, "search-stopped")


def _make_trainer(folder: Path) -> TrainLoop:
    config = json.loads((folder / "config.json").read_text())
    chosen = TrainSettings(**config["settings"])
    card = load_model(folder.with_name(folder.name.removesuffix("-stopped"))).card
    with Cache.open(OLD / "cache.h5") as cache:
        part = split_training_part(cache, chosen.protocol, chosen.hold_out)
        dataset, held_out = (
            Dataset(cache.load(clips), cache.layout, cache.max_persons, chosen, CPU, chosen.store)
            if len(clips) else None for clips in (part.train, part.held_out)
        )  # fmt: skip
    assert dataset is not None
    return Trainer(None, chosen, dataset, card, held_out if chosen.select_epoch else None)  # type: ignore[arg-type]


def resumed_training() -> Target:
    """A training that is resumed, with an average and a best epoch."""
    return _resume(_make_trainer, "cells-stopped")


def resumed_branches() -> Target:
    """A training of several branches that is resumed."""
    return _resume(_make_trainer, "branches-stopped")


def models() -> Target:
    """The file of a model, as everything that uses one reads it."""

    def read(folder: Path) -> Any:
        model = load_model(folder)
        card, shape = model.card, model.card.input_shape
        facts = json.dumps(card.to_dict(), sort_keys=True)
        try:
            card.find_origin()
        except InputError:
            assert card.layout is None
        card.make_clip_settings()
        if shape[0] * shape[1] * shape[2] < MAX_NUMBERS:
            with torch.no_grad():
                logits = model(torch.zeros(1, *shape))
            assert logits.shape == (1, len(card.classes))
        weights = sum(map(torch.Tensor.numel, model.network.state_dict().values()))
        assert shape[0] * shape[1] * shape[2] < 1e9, "an input of gigabytes"
        assert weights < 1e8
        return facts, tensor_files._checksum(model.network.state_dict())

    old = [{"model.safetensors": (OLD / run / "model.safetensors").read_bytes()}
           for run in ("cells", "branches")]  # fmt: skip
    old.append({"model.safetensors": (OLD / "fused.safetensors").read_bytes()})
    sealed = frozenset({"model.safetensors"})
    return Target(read, list(map(_sealed, old)), old, sealed, batch=300)


def cards() -> Target:
    """The README of a model, to which results are added."""
    scores = read_scores(OLD / "scores.npz")

    def read(folder: Path) -> Any:
        with patch.object(model_card, "draw_cells"):  # it takes longer than all else
            model_card.add_results(folder, scores)
            model_card.add_results(folder, scores)
        return (folder / "README.md").read_text()

    seed = _files(OLD / "cells", ("README.md", "config.json", "metrics.jsonl", "model.safetensors"))
    return Target(read, old=[seed], names=("README.md", "config.json", "metrics.jsonl"), batch=100)


def scores() -> Target:
    """Files of scores, of both formats."""

    def read(folder: Path) -> Any:
        (path,) = list(folder.glob("scores.*")) or [folder / "scores.npz"]
        found = read_scores(path)
        note_degenerate(found)
        align_scores(found, found, path, path)
        document = json.dumps(found.to_dict())
        found.confusion_csv()
        return document, repr(found.info), found.logits.tobytes(), found.labels.tobytes()

    npz = {"scores.npz": (OLD / "scores.npz").read_bytes()}
    old = {"scores.safetensors": (OLD / "scores.safetensors").read_bytes()}
    sealed = frozenset({"scores.npz", "scores.safetensors"})
    return Target(read, [npz, _sealed(old)], [npz, old], sealed, batch=1000)


def _files(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def _with_config(folder: Folder, change: Callable[[Any], object]) -> dict[str, bytes]:
    config = json.loads(folder["config.json"])
    change(config)
    return {**folder, "config.json": json.dumps(config).encode()}


def _sealed(folder: Folder) -> dict[str, bytes]:
    """Return a folder with the checksums that are written today."""
    return {name: _seal(name, content) for name, content in folder.items()}


def _seal(name: str, content: bytes) -> bytes:
    if name == "alphas.jsonl":
        lines = [files.seal(json.loads(line)) for line in content.splitlines()]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()
    if not name.endswith(".safetensors"):
        return content
    size = int.from_bytes(content[:8], "little")
    metadata: Mapping[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    ((key, facts),) = metadata.items()
    return tensor_files.to_bytes(safetensors.torch.load(content), key, json.loads(facts))


TARGETS: dict[str, Callable[[], Target]] = {
    "search": search,
    "repeats": comparison,
    "resumed-alone": resumed_alone,
    "resumed-search": resumed_search,
    "resumed-training": resumed_training,
    "resumed-branches": resumed_branches,
    "model": models,
    "card": cards,
    "scores": scores,
}
