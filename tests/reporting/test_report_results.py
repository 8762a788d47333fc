"""The report of a model: its cost, its classes and its confusions."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_report
from conftest import LAYOUT, write_tiny_cache
from test_report import SEARCH, TRAIN, Page

from skelnas.config import EvaluateSettings
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.evaluate import Evaluation, evaluate
from skelnas.evaluation.scores import Scores, ScoresInfo, write_scores
from skelnas.genotype import random_genotype
from skelnas.nas.derive import derive
from skelnas.nas.search import search
from skelnas.reporting.facts import cost_facts, shown_epochs
from skelnas.reporting.history import read_history
from skelnas.reporting.plot_style import PALETTE, blend, contrast
from skelnas.reporting.pose_layout import ClipPicture, lay_out_strip
from skelnas.reporting.report import report
from skelnas.reporting.results import find_confusions, read_results
from skelnas.reporting.svg import NUMBER_COLOURS, matrix_svg, strip_svg
from skelnas.training import run_dir
from skelnas.training.train import train


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "model"
    train(tiny_cache, random_genotype(0), out, TRAIN)
    return out


@pytest.fixture(scope="module")
def evaluation(tiny_cache: Path, model: Path) -> Evaluation:
    return evaluate(tiny_cache, model, EvaluateSettings(device="cpu"))


@pytest.fixture(scope="module")
def scores_path(evaluation: Evaluation, model: Path) -> Path:
    path = model.with_name("scores.npz")
    write_scores(path, evaluation.scores)
    return path


@pytest.fixture(scope="module")
def page(model: Path, scores_path: Path, tiny_cache: Path) -> Page:
    out = model.with_name("page.html")
    return Page(report(model, out, scores=scores_path, cache=tiny_cache))


def test_the_epoch_of_the_weights_is_named(tiny_cache: Path, tmp_path: Path) -> None:
    settings = TRAIN.model_copy(update={"hold_out": 0.3, "select_epoch": True})
    trained = train(tiny_cache, random_genotype(0), tmp_path / "model", settings)
    evaluation = evaluate(
        tiny_cache, tmp_path / "model", EvaluateSettings(device="cpu", part="held-out")
    )
    write_scores(tmp_path / "scores.npz", evaluation.scores)
    out = report(tmp_path / "model", tmp_path / "page.html", scores=tmp_path / "scores.npz")
    text = out.read_text()
    assert f"of epoch {trained.model.card.epoch}, chosen by held-out clips" in text
    assert "these clips chose the epoch of the weights" in text


def made_up(rows: list[tuple[int, list[float]]]) -> Scores:
    """Scores of clips c0, c1, ..., from the true class and the probabilities of each."""
    logits = np.log(np.array([probabilities for _, probabilities in rows], dtype=np.float32))
    info = ScoresInfo([f"c{n}" for n in range(len(rows))], ["a", "b", "c"], "xsub", "test")
    return Scores(info, logits, np.array([label for label, _ in rows]))


def test_a_page_with_scores_is_valid(page: Page) -> None:
    test_report.test_the_page_loads_and_runs_nothing(page)
    test_report.test_ids_are_unique_and_all_are_used(page)
    test_report.test_the_theme_defines_every_colour(page)
    figures = [about for name, about in page.tags if name == "svg" and "role" in about]
    assert all(about.get("aria-label") for about in figures)


def test_the_page_shows_the_numbers_of_the_evaluation(page: Page, evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    assert f"{len(evaluation.scores)} test clips of xsub" in page.texts
    for text in (f"{metrics.top1:.1%}", f"{metrics.ece:.1%}", f"{evaluation.complexity.macs:,}"):
        assert text in page.texts
    listed = re.findall(r"<span>(\w+)</span><span>([0-9.]+)%</span>", page.source)
    accuracies = dict(zip(evaluation.scores.info.classes, metrics.per_class, strict=True))
    assert {name: float(top1) for name, top1 in listed} == {
        name: round(100 * top1, 1) for name, top1 in accuracies.items() if top1 is not None
    }
    assert [float(top1) for _, top1 in listed] == sorted(float(top1) for _, top1 in listed)
    taken = np.argwhere(metrics.confusion)
    titles = re.findall(r"<title>(.*?): (\d+) of \d+ clips</title>", page.source)
    assert [int(clips) for _, clips in titles] == metrics.confusion[tuple(taken.T)].tolist()


def test_confusions_are_ranked_and_have_the_most_confident_examples() -> None:
    scores = made_up(
        [
            (0, [0.2, 0.7, 0.1]),
            (0, [0.1, 0.8, 0.1]),
            (0, [0.6, 0.2, 0.2]),
            (0, [0.8, 0.1, 0.1]),
            (1, [0.2, 0.2, 0.6]),
            (2, [0.1, 0.2, 0.7]),
            (2, [0.1, 0.1, 0.8]),
            (2, [0.2, 0.6, 0.2]),
        ]
    )
    found = find_confusions(scores)
    assert [(c.true, c.predicted, c.num_clips, c.num_true_clips) for c in found] == [
        ("b", "c", 1, 1),
        ("a", "b", 2, 4),
        ("c", "b", 1, 3),
    ]
    first, second, _ = found
    assert (second.wrong.clip, second.right) == ("c1", None)
    assert second.wrong.confidence == pytest.approx(0.8)
    assert first.right is not None
    assert first.right.clip == "c6"
    assert find_confusions(made_up([(1, [0.1, 0.8, 0.1])])) == ()


def test_the_clips_of_confusions_are_drawn(page: Page, evaluation: Evaluation) -> None:
    found = find_confusions(evaluation.scores)
    examples = [e for c in found for e in (c.wrong, c.right) if e is not None]
    assert examples
    assert page.source.count('class="strip"') == len(examples)
    for example in examples:
        assert f"{example.clip}: " in page.source


def test_a_strip_shows_known_joints_with_the_head_up() -> None:
    layout = replace(LAYOUT, joints=("spine_base", "head", "hip_left", "hip_right", "hand_left"))
    poses = np.zeros((1, 3, 5, 3), dtype=np.float32)
    poses[:, :, :, 0] = np.arange(5) + 1
    poses[:, :, 1, 1] = 1
    poses[0, 1, 4] = 0  # unknown
    strip = lay_out_strip(ClipPicture.of("clip", poses, np.ones((1, 3), bool), layout), 3)
    drawn = strip_svg(strip, "<about>")
    circles = re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)" r="(\d)', drawn)
    assert len(circles) == 3 * 5 - 1
    heads = [float(y) for _, y, radius in circles if radius == "5"]
    others = [float(y) for _, y, radius in circles if radius == "1"]
    assert len(heads) == 3
    assert max(heads) < min(others)
    assert drawn.count('class="rim"') == 3
    sides = {f'stroke="var(--{colour})"' for colour in ("first", "second", "ink")}
    assert all(drawn.count(side) == 3 for side in sides)  # right, left and trunk of each pose
    assert drawn.count("L") == 2 * (3 * 4 - 1)  # the bones, and their rims
    assert "&lt;about&gt;" in drawn
    across = [float(x) for x, _, radius in circles if radius == "5"]
    assert across == sorted(across)


def test_only_small_confusion_matrices_have_numbers() -> None:
    few = matrix_svg(["a", "b<"], np.array([[3, 1], [0, 0]]))
    assert few.count("<rect") == 2
    assert "a classified as b&lt;: 1 of 4 clips" in few
    assert 'fill-opacity="0.87"' in few  # the root of 3/4
    assert ">3</text>" in few
    many = matrix_svg([str(n) for n in range(21)], np.eye(21, dtype=np.int64))
    assert many.count("<rect") == 21
    assert ">1</text>" in many
    assert many.count(">1</text>") == 2  # the names of class 1, and no counts
    large = matrix_svg([f"class {n}" for n in range(121)], np.eye(121, dtype=np.int64))
    assert "<text" not in large
    assert "class 7 recognised: 1 of 1 clips" in large


def test_classes_without_clips_have_no_row() -> None:
    counts = np.array([[0, 0, 0, 0], [2, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    svg = matrix_svg(["predicted", "one", "absent", "two"], counts)
    assert svg.count(">absent</text>") == 0
    assert svg.count(">predicted</text>") == 1  # a column
    assert svg.count(">one</text>") == svg.count(">two</text>") == 2
    assert svg.count("<rect") == 3
    assert "one classified as predicted: 2 of 5 clips" in svg


@pytest.mark.parametrize("theme", [0, 1])
def test_numbers_in_a_matrix_can_be_read_in_both_themes(theme: int) -> None:
    for count in range(1, 101):
        svg = matrix_svg(["a", "b"], np.array([[count, 100 - count], [0, 1]]))
        square, number = (
            re.search(r'fill-opacity="([\d.]+)"', svg),
            re.search(r"--(number-\S+)\)", svg),
        )
        assert square is not None
        assert number is not None
        paper, ink = PALETTE["paper"][theme], PALETTE["deep-blue"][theme]
        background = blend(ink, paper, float(square[1]))
        assert contrast(NUMBER_COLOURS[number[1]][theme], background) >= 4.5


def test_latency_is_timed_on_request(model: Path) -> None:
    timed = dict(cost_facts(read_results(model, None, time_on="cpu")))
    assert {"Time for 1 clip", "Time for 64 clips", "Timed on"} <= timed.keys()
    assert timed["Timed on"].startswith("cpu")
    assert "Timed on" not in dict(cost_facts(read_results(model, None)))


def test_mismatched_input_is_refused(
    model: Path, scores_path: Path, tiny_cache: Path, tmp_path: Path, evaluation: Evaluation
) -> None:
    with pytest.raises(UsageError, match="--cache goes with --scores"):
        report(model, tmp_path / "r.html", cache=tiny_cache)
    scores = evaluation.scores
    other = tmp_path / "other.npz"
    write_scores(other, replace(scores, info=replace(scores.info, classes=["x", "y", "z"])))
    with pytest.raises(InputError, match=r"other\.npz: its 3 classes are not those of"):
        report(model, tmp_path / "r.html", scores=other)
    write_scores(other, replace(scores, info=replace(scores.info, names=scores.info.names[::-1])))
    with pytest.raises(InputError, match=r"has another class for clip 'clip\d+' of .*other\.npz"):
        report(model, tmp_path / "r.html", scores=other, cache=tiny_cache)
    small = tmp_path / "small.h5"
    write_tiny_cache(small, num_clips=12)
    with pytest.raises(InputError, match=r"small\.h5: has no clip 'clip\d+' of "):
        report(model, tmp_path / "r.html", scores=scores_path, cache=small)
    unfinished = Path(shutil.copytree(model, tmp_path / "unfinished"))
    (unfinished / run_dir.MODEL).unlink()
    with pytest.raises(UsageError, match="has no finished model to time"):
        report(unfinished, time_on="cpu")
    report(unfinished, scores=scores_path)


def test_a_search_that_stopped_at_skips_shows_the_derived_cells(
    tiny_cache: Path, tmp_path: Path, scores_path: Path
) -> None:
    out = tmp_path / "searched"
    search(tiny_cache, out, SEARCH)
    with pytest.raises(UsageError, match="is a search, but --scores"):
        report(out, scores=scores_path)
    skips = [line["skips"] for line in run_dir.read_lines(out / run_dir.METRICS)]
    config = json.loads((out / run_dir.CONFIG).read_text())
    lines = run_dir.read_lines(out / run_dir.ALPHAS)
    skip = config["primitives"].index("skip_connect")
    for row in lines[-1]["normal"]:
        row[skip] = 9.0
    (out / run_dir.ALPHAS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    config["settings"]["stop_skips"] = max(skips[:-1])
    (out / run_dir.CONFIG).write_text(json.dumps(config))
    history = read_history(out)
    assert history.derived_epoch == len(lines) - 2
    assert history.genotypes[history.derived_epoch] == derive(out)
    assert shown_epochs(history)[3] == "After epoch 3, the last within --stop-skips"
