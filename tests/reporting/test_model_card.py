"""The card of a model folder: written with the model, with results added on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.errors import UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import BUILT_IN
from skelnas.reporting.model_card import (
    BEGIN,
    END,
    PICTURE,
    README,
    add_results,
    check_card,
    write_card,
)
from skelnas.training.saved_model import load_model, save_model
from skelnas.training.train import train

SMALL = TrainSettings(frames=6, layers=3, channels=2, epochs=1, batch_size=9, device="cpu")


@pytest.fixture(scope="module")
def trained(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme") / "small model"
    train(tiny_cache, BUILT_IN["ntu_cs112se30"], folder, SMALL)
    write_card(folder, load_model(folder))
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder for a test to change."""
    return Path(copytree(trained, tmp_path / "small model"))


def head(text: str) -> dict[str, object]:
    """Read the front matter of a card, whose values are JSON or a word."""
    lines = text.split("---\n")[1].splitlines()
    pairs = (line.split(": ", 1) for line in lines)
    return {key: json.loads(value) if value[0] == "[" else value for key, value in pairs}


def test_a_new_card_has_no_results(trained: Path) -> None:
    text = (trained / README).read_text()
    facts = head(text)
    assert facts["library_name"] == "skelnas"
    assert facts["model-index"] == [{"name": "small model", "results": []}]
    assert "# small model\n" in text
    for words in (
        "| data set | tiny |",
        "| how it was read | rule: none |",
        "| training clips | 36 |",
        "| epochs | 1 |",
        "batch size 9",
        "clips [N, 3, 6, 10] to logits [N, 3]",
        "still, wave, pair",
        "skelnas evaluate CACHE MODEL --card",
    ):
        assert words in text
    loss = json.loads((trained / "metrics.jsonl").read_text())["train_loss"]
    assert f"| {loss:.4f}, " in text
    assert f"]({PICTURE})" in text
    assert (trained / PICTURE).read_text().startswith("<?xml")
    assert BUILT_IN["ntu_cs112se30"].to_json() in text


@pytest.mark.parametrize("source", ["manifest", "folder"])
def test_a_way_of_reading_is_not_a_data_set(model: Path, source: str) -> None:
    loaded = load_model(model)
    loaded.card = replace(loaded.card, source=source)
    (model / README).unlink()
    write_card(model, loaded)
    text = (model / README).read_text()
    assert "trained with skelnas on its author's own recordings, protocol xsub." in text
    assert "| data set | its author's own recordings |" in text


def test_evaluate_changes_the_card_only_on_request(model: Path, tiny_cache: Path) -> None:
    before = {path: path.read_bytes() for path in model.iterdir()}
    words = ["evaluate", str(tiny_cache), str(model), "--device", "cpu"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert {path: path.read_bytes() for path in model.iterdir()} == before
    assert CliRunner().invoke(app, [*words, "--card"]).exit_code == 0
    after = {path: path.read_bytes() for path in model.iterdir()}
    assert [path.name for path in after if after[path] != before[path]] == [README]


def test_results_are_in_the_front_matter_and_in_the_text(model: Path, tiny_cache: Path) -> None:
    scores = evaluate(tiny_cache, model, EvaluateSettings(device="cpu")).scores
    path = model / README
    path.write_text(path.read_text().replace("## Limits", "## Notes\n\n## Limits"))
    for _ in range(2):  # the second time they are replaced
        add_results(model, scores)
    text = path.read_text()
    assert "## Notes" in text
    (entry,) = head(text)["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {"type": "tiny", "name": "tiny", "config": "xsub", "split": "test"}
    values = {measure["name"]: measure["value"] for measure in result["metrics"]}
    assert values["clips"] == 12
    assert values["top-1"] == pytest.approx(scores.metrics.top1, abs=1e-6)
    assert "top-5" not in values  # of three classes
    assert "top-5" not in text
    assert values["negative log-likelihood"] == pytest.approx(scores.metrics.nll, abs=1e-6)
    assert f"| xsub | test | 12 | {scores.metrics.top1:.2%} |" in text
    assert text.count("| xsub | test |") == 1
    assert "None yet" not in text


def test_results_on_another_data_set_say_so(model: Path, tiny_cache: Path) -> None:
    loaded = load_model(model)
    save_model(model, loaded.network, replace(loaded.card, source="elsewhere"))
    words = ["evaluate", str(tiny_cache), str(model), "--card", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert "from the source tiny, the model was trained on elsewhere" in done.stderr
    (entry,) = head((model / README).read_text())["model-index"]
    assert entry["results"][0]["dataset"]["name"] == "tiny"


def test_held_out_clips_that_chose_the_epoch_are_optimistic(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SMALL.model_copy(update={"hold_out": 0.4, "select_epoch": True})
    result = train(tiny_cache, BUILT_IN["ntu_cs112se30"], tmp_path / "m", settings)
    write_card(tmp_path / "m", result.model)
    text = (tmp_path / "m" / README).read_text()
    assert "after epoch 1, which held-out clips chose: on these its results are optimistic" in text
    assert "at the end of training" not in text
    for part, is_noted in (("test", False), ("held-out", True)):
        capsys.readouterr()
        evaluate(tiny_cache, tmp_path / "m", EvaluateSettings(device="cpu", part=part))
        assert ("so their scores are optimistic" in capsys.readouterr().err) == is_noted


def test_a_folder_without_a_card_gets_one_with_its_results(model: Path, tiny_cache: Path) -> None:
    scores = evaluate(tiny_cache, model, EvaluateSettings(device="cpu")).scores
    for name in (README, PICTURE, "config.json", "metrics.jsonl"):
        (model / name).unlink()
    add_results(model, scores)
    text = (model / README).read_text()
    assert "| xsub | test | 12 |" in text
    assert "training clips" not in text


def test_a_card_belongs_to_its_weights(model: Path, tiny_cache: Path) -> None:
    add_results(model, evaluate(tiny_cache, model, EvaluateSettings(device="cpu")).scores)
    with_results = (model / README).read_text()
    write_card(model, load_model(model))
    assert (model / README).read_text() == with_results
    loaded = load_model(model)
    loaded.network.classifier.bias.data += 1
    save_model(model, loaded.network, loaded.card)
    write_card(model, load_model(model))
    assert "None yet" in (model / README).read_text()


def test_a_readme_that_is_not_a_card_is_not_changed(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / README).write_text("plain text")
    write_card(model, load_model(model))
    assert (model / README).read_text() == "plain text"
    assert "was not written by skelnas, and is left as it is" in capsys.readouterr().err
    with pytest.raises(UsageError, match="was not written by skelnas, so no results are added"):
        check_card(model)
    with pytest.raises(UsageError, match="so it has no card"):
        check_card(model / "model.safetensors")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("model-index", "index"),
        lambda text: text.replace('"results": []', '"results": [{}]'),
        lambda text: text.replace('"results": []', '"results": 3'),
        lambda text: text.replace("model-index: [", "model-index: [["),
        lambda text: text.replace(BEGIN, ""),
        lambda text: text.replace(END, ""),
    ],
)
def test_a_card_with_a_damaged_results_section_is_refused(
    model: Path, spoil: Callable[[str], str]
) -> None:
    path = model / README
    path.write_text(spoil(path.read_text()))
    with pytest.raises(UsageError, match="the section for results is missing or damaged"):
        check_card(model)


def test_without_matplotlib_the_card_has_no_picture(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / README).unlink()
    (model / PICTURE).unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_card(model, load_model(model))
    assert PICTURE not in (model / README).read_text()
    assert not (model / PICTURE).exists()
    assert "has no picture of the cells" in capsys.readouterr().err


def test_a_baseline_has_no_cells(tiny_cache: Path, tmp_path: Path) -> None:
    plain = TrainSettings(frames=6, epochs=1, device="cpu")
    train(tiny_cache, "temporal-conv", tmp_path / "m", plain)
    write_card(tmp_path / "m", load_model(tmp_path / "m"))
    text = (tmp_path / "m" / README).read_text()
    assert "a temporal-conv, trained with skelnas" in text
    assert "## Genotype" not in text
    assert not (tmp_path / "m" / PICTURE).exists()


def test_a_new_model_gets_the_card_of_its_file(tiny_cache: Path, tmp_path: Path) -> None:
    result = train(tiny_cache, BUILT_IN["ntu_cs112se30"], tmp_path / "m", SMALL)
    write_card(tmp_path / "m", result.model)
    text = (tmp_path / "m" / README).read_text()
    (tmp_path / "m" / README).unlink()
    write_card(tmp_path / "m", load_model(tmp_path / "m"))
    assert (tmp_path / "m" / README).read_text() == text
