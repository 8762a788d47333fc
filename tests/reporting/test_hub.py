"""Models to and from the Hugging Face Hub, by its own client and a stand-in for its server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import huggingface_hub
import pytest
import torch
from conftest import write_tiny_cache
from hub_server import HubServer, serving
from huggingface_hub import constants
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.evaluation.clip_dataset import load_dataset
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.export import export
from skelnas.genotype import random_genotype
from skelnas.reporting.model_card import README, add_results, set_license, write_card
from skelnas.reporting.publish import push_to_hub, save_pretrained
from skelnas.training import hub
from skelnas.training.hub import from_pretrained
from skelnas.training.run_dir import MODEL
from skelnas.training.saved_model import Model, load_model
from skelnas.training.train import train

SMALL = TrainSettings(frames=6, layers=3, channels=2, epochs=1, batch_size=9, device="cpu")


@pytest.fixture(scope="module")
def trained(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "model"
    train(tiny_cache, random_genotype(0), folder, SMALL)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of a trained model for a test to change."""
    return Path(copytree(trained, tmp_path / "model"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub, as HF_ENDPOINT would name it, with an empty cache on this side."""
    with serving() as running:
        template = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield running


def assert_same(one: Model, other: Model) -> None:
    assert one.card == other.card
    weights = one.state_dict()
    assert weights.keys() == other.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in other.state_dict().items())


def test_a_model_comes_back_from_the_hub(server: HubServer, folder: Path, tiny_cache: Path) -> None:
    write_card(folder, load_model(folder))
    add_results(folder, evaluate(tiny_cache, folder, EvaluateSettings(device="cpu")).scores)
    address = push_to_hub(folder, "me/small", license="cc-by-nc-4.0")
    ((commit, files),) = server.repositories["me/small"]
    assert address == f"{server.address}/me/small/commit/{commit}"
    assert sorted(files) == [README, "cells.svg", MODEL]  # config.json has a path of this machine
    assert files[MODEL] == (folder / MODEL).read_bytes()

    model = from_pretrained("me/small")
    assert_same(model, load_model(folder))
    assert (model.revision, model.training) == (commit, False)
    assert load_model(folder).revision is None

    data = huggingface_hub.ModelCard(files[README].decode()).data
    assert (data.library_name, data.license) == ("skelnas", "cc-by-nc-4.0")
    assert data.pipeline_tag == "video-classification"
    accuracy = {result.metric_type: result for result in data.eval_results}["accuracy"]
    assert accuracy.dataset_config == "xsub"
    assert 0 <= accuracy.metric_value <= 1


def test_a_revision_stays_what_it_was(server: HubServer, folder: Path) -> None:
    push_to_hub(folder, "me/small")
    (first, _) = server.repositories["me/small"][0]
    model = load_model(folder)
    before = model.network.classifier.bias.detach().clone()
    model.network.classifier.bias.data += 1
    save_pretrained(model, folder.with_name("second"))
    push_to_hub(folder.with_name("second"), "me/small")
    (second, _) = server.repositories["me/small"][1]
    for revision, commit, shift in ((None, second, 1), (first, first, 0), ("main", second, 1)):
        loaded = from_pretrained("me/small", revision)
        assert loaded.revision == commit
        assert torch.equal(loaded.network.classifier.bias, before + shift)


def test_a_downloaded_model_needs_no_connection(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(folder, "me/small")
    revision = from_pretrained("me/small").revision
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(server.requests)
    assert from_pretrained("me/small").revision == revision
    assert from_pretrained("me/small", revision).revision == revision
    assert len(server.requests) == before
    with pytest.raises(
        InputError, match="me/other: not in the Hub's cache here, and the Hub cannot"
    ):
        from_pretrained("me/other")


def test_commands_take_a_model_of_the_hub(
    server: HubServer, folder: Path, tiny_cache: Path
) -> None:
    push_to_hub(folder, "me/small")
    ((commit, _),) = server.repositories["me/small"]
    options = ["--device", "cpu", "--json"]
    printed = []
    for model in (str(folder), "hf://me/small", f"hf://me/small@{commit}"):
        done = CliRunner().invoke(app, ["evaluate", str(tiny_cache), model, *options])
        assert done.exit_code == 0, done.output
        printed.append(json.loads(done.stdout))
    assert printed[0] == printed[1] == printed[2]
    assert f"me/small: commit {commit}" in done.stderr
    done = CliRunner().invoke(app, ["evaluate", str(tiny_cache), "hf://me/small", "--card"])
    assert isinstance(done.exception, UsageError)  # the Hub's cache is not ours to write to


def test_a_training_starts_from_a_model_of_the_hub(
    server: HubServer, folder: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    push_to_hub(folder, "me/small")
    trained = []
    for name, init in (("local", str(folder)), ("hub", "hf://me/small")):
        settings = TrainSettings(init=init, epochs=1, batch_size=9, device="cpu")
        trained.append(train(tiny_cache, random_genotype(0), tmp_path / name, settings).model)
    assert_same(*trained)
    assert trained[1].card.initial is not None


def test_a_program_that_starts_with_the_hub_says_in_two_lines_what_is_wrong(
    server: HubServer, tiny_cache: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "skelnas", "evaluate", str(tiny_cache), "hf://me/nothing"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (InputError.exit_code, "")
    assert done.stderr.splitlines() == [
        "skelnas: me/nothing: there is no such repository, or it is private",
        "  hint: `hf auth login` or HF_TOKEN says who you are",
    ]


@pytest.mark.parametrize(
    ("name", "revision", "reason"),
    [
        ("me/nothing", None, "me/nothing: there is no such repository, or it is private"),
        ("me/small", "v2", "me/small@v2: there is no such revision"),
        ("me/empty", None, "me/empty: holds no model of skelnas: there is no model.safetensors"),
        ("me/broken", None, "not a skelnas model"),
        ("me/huge", None, "me/huge: model.safetensors has 10,000,000,000 bytes, expected at most"),
        ("me/..", None, "me/..: "),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    server: HubServer, trained: Path, name: str, revision: str | None, reason: str
) -> None:
    server.commit("me/small", {MODEL: (trained / MODEL).read_bytes()})
    server.commit("me/empty", {"pytorch_model.bin": b"a pickle"})
    server.commit("me/broken", {MODEL: b"\x80\x04not safetensors"})
    if name == "me/huge":
        server.commit(name, {MODEL: b"x"})
        server.claimed_sizes[MODEL] = 10_000_000_000
    with pytest.raises(InputError, match=re.escape(reason)):
        from_pretrained(name, revision)
    assert not any("pytorch_model" in request for request in server.requests)


def test_a_local_model_is_never_looked_up(server: HubServer, folder: Path) -> None:
    assert_same(from_pretrained(folder), load_model(folder))
    assert_same(from_pretrained(str(folder / MODEL)), load_model(folder))
    for name in ("./me/small", "/me/small", "small", "a/b/c", Path("me/small")):
        with pytest.raises(InputError, match="there is no such file or folder"):
            from_pretrained(name)
    with pytest.raises(UsageError, match="this is not a model of the Hub"):
        from_pretrained(folder, "main")
    assert not server.requests


def test_a_model_that_is_broken_is_not_uploaded(server: HubServer, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"license 'MIT\\nx: y': expected a name"):
        push_to_hub(folder, "me/small", license="MIT\nx: y")
    with pytest.raises(InputError, match="Repo id must"):
        push_to_hub(folder, "not/a/name")
    (folder / MODEL).write_bytes(b"broken")
    with pytest.raises(InputError, match="not a skelnas model"):
        push_to_hub(folder, "me/small")
    assert not server.repositories


def test_a_hub_that_cannot_be_reached_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"me/small: .*Connection refused"):
        push_to_hub(folder, "me/small")


def test_a_model_of_an_own_loop_is_saved_with_its_card(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "clips.h5")
    model = load_dataset(tmp_path / "clips.h5", "train", SMALL).create_model("random:0")
    path = save_pretrained(model, tmp_path / "a" / "mine", license="mit")
    assert path == tmp_path / "a" / "mine" / MODEL
    assert_same(load_model(path.parent), model)
    text = (path.parent / README).read_text()
    assert "# mine\n" in text
    assert "license: mit\n" in text
    other = Model(model.network, replace(model.card, protocol="other"))
    save_pretrained(other, path.parent)
    text = (path.parent / README).read_text()
    assert "| protocol | other |" in text
    assert "license: unknown\n" in text


def test_an_export_to_onnx_is_not_saved_as_a_model(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="only ONNX Runtime has its weights"):
        save_pretrained(load_model(tmp_path / "model.onnx"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_training_is_not_replaced(folder: Path) -> None:
    model = load_model(folder)
    with pytest.raises(UsageError, match="holds a training, whose model is not replaced"):
        save_pretrained(model, folder)
    write_card(folder, model)
    text = (folder / README).read_text()
    (folder / README).write_text(text.replace("license: unknown\n", ""))
    with pytest.raises(UsageError, match="has no line `license: "):
        set_license(folder, "mit")


def test_without_the_extra_a_line_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SkelnasError, match="the Hugging Face Hub needs huggingface_hub") as caught:
        from_pretrained("me/small")
    assert caught.value.hint == 'pip install "skelnas[hub]"'
    assert_same(from_pretrained(folder), load_model(folder))


def test_limits_are_above_every_model_of_the_paper(trained: Path) -> None:
    assert hub.MAX_BYTES > 50 * 4 * 3_100_000 > (trained / MODEL).stat().st_size
