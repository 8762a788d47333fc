"""Files of 0.1.0 are read and resumed to the same bits; files written today have the same format.

The files in `data/0.1.0` were written by 0.1.0. Where today's bytes equal those of 0.1.0,
that version can read them, too. On another machine or with another PyTorch, floats may differ by
1e-4.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from formats import (
    BASELINES,
    EVALUATE,
    OUTPUTS,
    PREPARE,
    REPEATS,
    RUNS,
    TRAIN_BASELINE,
    broken_clip,
    compare,
    describe_tensors,
    list_files,
    make_tensors,
    read,
    read_card_results,
    read_output,
    read_torchscript_metadata,
    run,
    set_raw_times,
)
from safetensors.numpy import save_file

from skelnas.training import trainer

OLD = Path(__file__).parent / "data" / "0.1.0"
EXPECTED = json.loads((OLD / "expected.json").read_text())


def drop_new_fields(model: Any) -> Any:
    """Check and remove what models of 0.1.0 do not say of the clips that they were trained on."""
    card = model["metadata"]["skelnas"]
    assert card.pop("clip_length") >= 1
    assert card.pop("person_size") > 0
    assert card.pop("score_size", 1) > 0
    assert card.pop("trained_clips")
    return model


@pytest.fixture(autouse=True)
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files of 0.1.0, as the working directory."""
    path = tmp_path / "copy"
    shutil.copytree(OLD, path)
    set_raw_times(path)
    for file in path.rglob("config.json"):
        config = {**json.loads(file.read_text()), "cache": str(path / "cache.h5")}
        file.write_text(json.dumps(config))
    monkeypatch.chdir(path)
    return path


@pytest.mark.parametrize("name", OUTPUTS)
def test_files_of_0_1_0_give_the_same_results(name: str) -> None:
    found = read_output(OUTPUTS[name])
    if name.startswith("inspect"):  # says more than 0.1.0
        assert found[0].pop("duplicates") == 0
        assert set(found[0].pop("test_clips_in_train").values()) <= {0}
        assert found[0].pop("missing_clips") == []
    compare(found, EXPECTED["outputs"][name])


@pytest.mark.parametrize("run_folder", ["search", "repeats"])
def test_the_genotype_is_the_same_to_the_byte(run_folder: str) -> None:
    assert run(f"derive {run_folder}") == (OLD / "genotype.json").read_text()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_0_1_0_resumes(copy: Path, name: str) -> None:
    run(f"{RUNS[name]} --out {name}-stopped --resume")
    assert_same_run(copy / f"{name}-stopped", name)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_writes_what_0_1_0_wrote(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = "--flip 0.5" if name == "cells" else ""  # the default of 0.1.0 for such classes
    # Running statistics started as 0 and 1, not as those of the first batch.
    monkeypatch.setattr(trainer, "first_batch", nullcontext)
    run(f"{RUNS[name]} {mirrored} --out new/{name}")
    assert_same_run(copy / "new" / name, name)


def assert_same_run(folder: Path, name: str) -> None:
    assert list_files(folder) == EXPECTED["files"][name]
    for file in read(OLD / name):
        found = read(folder / file)
        if file == "model.safetensors":
            drop_new_fields(found)
        if file == "config.json":
            found.pop(
                "layout", None
            )  # 0.1.0 did not say; a run of it that is resumed still does not
        compare(found, read(OLD / name / file))
    checkpoint = folder / "checkpoint.safetensors"
    stopped = OLD / f"{name}-stopped" / "checkpoint.safetensors"
    assert describe_tensors(checkpoint) == describe_tensors(stopped)
    assert read(checkpoint)["metadata"]["place"].keys() == read(stopped)["metadata"]["place"].keys()
    if name == "cells":
        assert (OLD / "genotype.json").read_text() in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", [*RUNS, *(f"{name}-stopped" for name in RUNS)])
def test_a_run_of_0_1_0_is_reported(copy: Path, name: str) -> None:
    run(f"report {name} --out page.html")
    assert (copy / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_repeats_of_0_1_0_resume(copy: Path) -> None:
    run(f"{REPEATS} --out repeats --resume")
    compare(read(copy / "repeats"), read(OLD / "repeats"))


def test_repeats_are_as_0_1_0_wrote_them(copy: Path) -> None:
    run(f"{REPEATS} --out new")
    assert list_files(copy / "new") == EXPECTED["files"]["repeats"]
    compare(read(copy / "new" / "repeats.json"), read(OLD / "repeats" / "repeats.json"))
    config = read(copy / "new" / "config.json")
    assert config.pop("layout")["joints"]
    compare(config, read(OLD / "repeats" / "config.json"))


def read_cache(path: Path) -> Any:
    """Read a cache of today without its two checksums that 0.1.0 did not write."""
    found = read(path)
    for name in ("/", "present"):
        del found[name]["attributes"]["crc32"]
    return found


@pytest.mark.parametrize("name", ["cache.h5", "float16.h5"])
def test_prepare_writes_what_0_1_0_wrote(copy: Path, name: str) -> None:
    options = "--compress --float16" if name == "float16.h5" else "--compress"
    run(f"{PREPARE} {name} {options} --force")
    compare(read_cache(copy / name), read(OLD / name))
    compare(read(copy / f"{name}.report.json"), read(OLD / f"{name}.report.json"))


posix = pytest.mark.skipif(os.name == "nt", reason="the journal holds POSIX paths")


@posix
def test_prepare_resumes_from_the_journal_of_0_1_0(copy: Path) -> None:
    identity = copy / "stopped.h5.parts" / "run.json"
    version = run("--version").strip()  # another one is refused
    identity.write_text(identity.read_text().replace('"0.1.0"', f'"{version}"'))
    run(f"{PREPARE} stopped.h5 --compress")
    assert read(copy / "stopped.h5.report.json")["resumed"] == 12
    compare(read_cache(copy / "stopped.h5"), read(OLD / "cache.h5"))
    assert not identity.parent.exists()


@posix
def test_prepare_leaves_a_journal_as_0_1_0_did(copy: Path) -> None:
    with broken_clip():
        run(f"{PREPARE} new.h5 --compress --strict", 3)
    compare(read(copy / "new.h5.parts"), read(OLD / "stopped.h5.parts"))


@pytest.mark.parametrize("name", ["scores.npz", "scores.safetensors"])
def test_scores_are_written_as_0_1_0_wrote_them(copy: Path, name: str) -> None:
    run(f"{EVALUATE} cells --scores new-{name}")
    found = read(copy / f"new-{name}")
    facts = found if name.endswith(".npz") else found["metadata"]["skelnas-scores"]
    assert str(facts.pop("model"))  # 0.1.0 did not say whose scores they are
    compare(found, read(OLD / name))


def test_exports_are_as_0_1_0_wrote_them(copy: Path) -> None:
    run("export cells --format safetensors-fused --out new.safetensors")
    run("export cells --format torchscript --out new.pt")
    compare(read(copy / "new.safetensors"), read(OLD / "fused.safetensors"))
    metadata = read_torchscript_metadata(copy / "new.pt")
    compare(metadata, EXPECTED["torchscript"]["metadata"])


def test_a_card_of_0_1_0_takes_results(copy: Path) -> None:
    run(f"{EVALUATE} cells --card")
    results = read_card_results(copy / "cells")
    (chance,) = (m for m in results[0]["results"][0]["metrics"] if m["type"] == "chance")
    assert chance["name"] == "always the largest class"
    chance["name"] = "chance"  # as 0.1.0 called it
    dataset = results[0]["results"][0]["dataset"]
    assert dataset["name"] == "its author's own recordings"
    dataset["name"] = "manifest"  # as 0.1.0 called it
    expected = deepcopy(EXPECTED["card"]["results"])
    metrics = expected[0]["results"][0]["metrics"]
    metrics[:] = [m for m in metrics if m["type"] != "top5"]  # 0.1.0 gave it for three classes, too
    compare(results, expected)
    assert "| xsub | test | 6 |" in (copy / "cells" / "README.md").read_text()


def test_a_card_is_as_0_1_0_expects_it(copy: Path) -> None:
    run(f"{RUNS['cells']} --out new")
    marks = r"^model-index: |<!-- results of skelnas -->|<!-- end of results -->"
    marks += r"|<!-- skelnas card of [0-9a-f]{8} -->"
    old, new = (path / "README.md" for path in (OLD / "cells", copy / "new"))
    found, expected = (re.findall(marks, p.read_text(), re.MULTILINE) for p in (new, old))
    assert len(expected) == 4
    assert found[:3] == expected[:3]
    assert len(found) == 4


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_as_in_0_1_0(copy: Path, name: str) -> None:
    old = EXPECTED["baselines"][name]
    run(f"{TRAIN_BASELINE} --model {name} --flip 0.5 --out new")  # the default of 0.1.0
    model = copy / "new" / "model.safetensors"
    tensors = describe_tensors(model)
    assert tensors == old["tensors"]
    compare(drop_new_fields(read(model))["metadata"], old["metadata"])
    compare(read(copy / "new" / "metrics.jsonl"), old["metrics"])

    metadata = {key: json.dumps(value) for key, value in old["metadata"].items()}
    save_file(make_tensors(old["tensors"]), copy / "made-up.safetensors", metadata)
    compare(read_output(f"{EVALUATE} made-up.safetensors"), old["evaluate"])
