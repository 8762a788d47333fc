"""Files of text that people write, and tables: genotypes, settings, joints, trainings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from folder_changes import Folder, without_checksum

from skelnas import genotype
from skelnas.cli.commands import to_click
from skelnas.cli.config_file import make_settings, read_options
from skelnas.config import (
    EvaluateSettings,
    PredictSettings,
    SearchSettings,
    Settings,
    TrainSettings,
)
from skelnas.data.readers.skeleton_file import read_skeleton
from skelnas.errors import InputError
from skelnas.nas.bench import table as bench
from skelnas.nas.derive import derive
from skelnas.reporting.facts import group_settings, heading, run_facts, shown_epochs
from skelnas.reporting.history import read_history
from skelnas.training import genotype_table, run_dir

OLD = Path(__file__).parents[1] / "data" / "0.1.0"


@dataclass(frozen=True)
class Target:
    """A folder to break, and what reads it.

    Attributes:
        read: reads a folder and returns all that was read.
        seeds: valid folders with checksums.
        old: valid folders without any.
        sealed: names of the files whose damage is found by their checksums.
        names: of the files to change; empty for all.
        batch: inputs of one child process.
    """

    read: Callable[[Path], Any]
    seeds: Sequence[Folder] = ()
    old: Sequence[Folder] = ()
    sealed: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    batch: int = 500


def genotypes() -> Target:
    def read(folder: Path) -> Any:
        found = genotype.load(str(folder / "genotype.json"))
        assert genotype.parse(found.to_json(), "again") == found
        return found.to_json()

    texts = [
        found.to_json() for found in (genotype.random_genotype(1), *genotype.BUILT_IN.values())
    ]
    return Target(read, old=[{"genotype.json": text.encode()} for text in texts], batch=2000)


def settings() -> Target:
    models: dict[str, type[Settings]] = {
        "search": SearchSettings,
        "train": TrainSettings,
        "evaluate": EvaluateSettings,
        "predict": PredictSettings,
    }
    contexts = {name: typer.Context(to_click(name), info_name=name) for name in models}

    def read(folder: Path) -> Any:
        # Each command reads the same file; what one refuses, another may take.
        found, refusal = {}, None
        for name, model in models.items():
            try:
                values = read_options(folder / "settings.toml", contexts[name], model, name)
            except InputError as error:
                refusal = error
                continue
            fields = {key: values[key] for key in values if key in model.model_fields}
            found[name] = make_settings(model, fields).model_dump()
        if refusal and not found:
            raise refusal
        return found

    texts = [(OLD / f"{name}.toml").read_text() for name in ("search", "cells", "branches")]
    texts.append(
        '[search]\nepochs = 3\nspace = "sar"\n[train]\nlr = 0.1\nflip = 0.5\n'
        '[evaluate]\nlatency = true\ninput-size = "8x8"\n[predict]\ntop = 2\n'
    )
    return Target(read, old=[{"settings.toml": text.encode()} for text in texts], batch=1000)


def joints() -> Target:
    """The file that names joints, as JSON and as TOML."""

    def read(folder: Path) -> Any:
        (path,) = list(folder.glob("joints.*")) or [folder / "joints.json"]
        skeleton = read_skeleton(path)
        count = len(skeleton.joints)
        assert all(0 <= joint < count for bone in skeleton.bones for joint in bone)
        return repr(skeleton)

    content = {"joints": ["a", "b", "c"], "bones": [["a", "b"], [2, 1]], "center": 0,
               "picture": [640, 480], "channels": ["x", "y"], "frame_rate": 30}  # fmt: skip
    toml = 'joints = ["a", "b"]\nbones = [["a", "b"]]\ncenter = "a"\ny_down = true\n'
    seeds = [{"joints.json": json.dumps(content).encode()}, {"joints.toml": toml.encode()}]
    return Target(read, old=seeds, batch=2000)


def tables() -> Target:
    """The table of a search by trainings, and that of a benchmark."""
    shown = [genotype.random_genotype(seed).to_dict() for seed in range(3)]
    trained = [
        genotype_table.TrainedGenotype(found, 0, 1000, 2000, [1.0, None], [0.5, None])
        for found in shown
    ]
    front = [genotype_table.RatedGenotype(shown[0], 1000, 2000, 0.9)]
    table = genotype_table.GenotypeTable(
        ["a", "b"], 3, trained, [0.9, 1.0, 1.1], 0.1, 0.1, 0, front
    )
    trials = [
        bench.TrialEntry(f"g{number}", protocol, 0, 0.5, 1.0, 10, [2.0, 1.0], 3.0)
        for number in range(3)
        for protocol in ("a", "b")
    ]
    entries = [
        bench.GenotypeEntry(f"g{number}", "random", found, 1000, 2000)
        for number, found in enumerate(shown)
    ]
    config = {"verb": "search", "settings": {"method": "predict", "epochs": 1}}

    def write(folder: Path) -> None:
        (folder / run_dir.CONFIG).write_text(json.dumps(config))
        genotype_table.write_table(folder, table)
        bench.write_table(folder / bench.TABLE, bench.BenchTable("s", 3, {}, {}, entries, trials))

    def read(folder: Path) -> Any:
        found = bench.read_table(folder)
        found.grid()
        history = read_history(folder)
        run_facts(history), group_settings(history), heading(history), shown_epochs(history)
        return repr(found), repr(history.table), derive(folder).to_json()

    names = (run_dir.TABLE, bench.TABLE)
    sealed = make_folder(write, (run_dir.CONFIG, *names))
    old = {name: _unsealed(content) for name, content in sealed.items()}
    return Target(read, [sealed], [old], frozenset(names))


def make_folder(write: Callable[[Path], object], names: Sequence[str]) -> Folder:
    """Return the files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {name: Path(folder, name).read_bytes() for name in names}


def _unsealed(content: bytes) -> bytes:
    return json.dumps(without_checksum(json.loads(content))).encode()


TARGETS: dict[str, Callable[[], Target]] = {
    "genotype": genotypes,
    "settings": settings,
    "joints": joints,
    "table": tables,
}
