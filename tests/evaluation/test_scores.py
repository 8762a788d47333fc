"""Scores of named clips: files, ensembles, comparisons and mismatches."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from skelnas.errors import InputError, UsageError
from skelnas.evaluation import scores as scores_module
from skelnas.evaluation.ensemble import ensemble
from skelnas.evaluation.scores import (
    Scores,
    ScoresInfo,
    compare_scores,
    is_scores_file,
    read_scores,
    write_scores,
)

CLASSES = ["still", "wave", "pair, of two"]
NAMES = ["a", "b", "c", "ø d"]
LOGITS = np.array([[3, 0, 0], [0, 1, 0], [2, 0, 1], [0, 0, 4]], dtype=np.float32)
SCORES = Scores(ScoresInfo(NAMES, CLASSES, "xsub", "test"), LOGITS, np.array([0, 1, 2, 2]))


def shuffled(scores: Scores, order: list[int]) -> Scores:
    info = replace(scores.info, names=[scores.info.names[i] for i in order])
    return Scores(info, scores.logits[order], scores.labels[order])


def written(path: Path, scores: Scores) -> Path:
    write_scores(path, scores)
    return path


@pytest.mark.parametrize("name", ["s.npz", "s.safetensors", "S.NPZ"])
def test_scores_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, SCORES)
    first = path.read_bytes()
    back = read_scores(path)
    assert back.info == SCORES.info
    np.testing.assert_array_equal(back.logits, LOGITS)
    np.testing.assert_array_equal(back.labels, SCORES.labels)
    assert is_scores_file(path)
    write_scores(path, back)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are not UTF-8")
def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / os.fsdecode(b"r\xff") / "s.safetensors", SCORES)
    assert is_scores_file(path)
    assert read_scores(path).info == SCORES.info
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable file of scores"):
        read_scores(path)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"s\.pkl: scores cannot be written"):
        write_scores(tmp_path / "s.pkl", SCORES)
    assert list(tmp_path.iterdir()) == []


def arrays(**changes: Any) -> dict[str, Any]:
    info = {"names": NAMES, "classes": CLASSES, "protocol": "xsub", "part": "test", "version": 1}
    everything = {**info, "logits": LOGITS, "labels": SCORES.labels, **changes}
    return {name: value for name, value in everything.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"logits": None}, "logits"),
        ({"logits": LOGITS[:3]}, "logits are not float32 of 4 clips and 3 classes"),
        ({"logits": LOGITS.astype(np.float64)}, "logits are not float32"),
        ({"logits": np.full_like(LOGITS, np.nan)}, "not finite"),
        ({"labels": np.array([0, 1, 2, 3])}, "a label is not one of the classes"),
        ({"labels": np.array([0.0, 1, 2, 2])}, "labels are not int64"),
        ({"names": ["a", "b", "a", "c"]}, "'a' occurs twice"),
        ({"names": np.array(NAMES, dtype=object)}, "names.npy: expected an array of numbers"),
        ({"names": [1, 2, 3, 4]}, "valid string"),
        ({"version": 2}, "not of version 1"),
        ({"part": "training"}, "'test' or 'held-out'"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(InputError, match=r"s\.npz: not a readable file of scores") as caught:
        read_scores(path)
    assert reason in str(caught.value)
    np.savez(path, **arrays())
    assert read_scores(path).info == SCORES.info


def test_files_without_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file of scores"):
        read_scores(tmp_path / "none.npz")
    for name in ("text.npz", "text.safetensors"):
        (tmp_path / name).write_text("plain text")
        with pytest.raises(InputError, match="not a readable file of scores"):
            read_scores(tmp_path / name)
    save_file({"weight": LOGITS}, tmp_path / "model.safetensors", {"skelnas": "{}"})
    assert not is_scores_file(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=scores_module.METADATA_KEY):
        read_scores(tmp_path / "model.safetensors")
    whole = written(tmp_path / "cut.npz", SCORES).read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a readable file of scores"):
            read_scores(tmp_path / "cut.npz")


def test_an_ensemble_is_the_weighted_mean_of_probabilities_by_name(tmp_path: Path) -> None:
    other = replace(SCORES, logits=LOGITS[::-1].copy())
    order = [2, 0, 3, 1]
    one = written(tmp_path / "one.npz", SCORES)
    two = written(tmp_path / "two.safetensors", shuffled(other, order))
    together = ensemble([one, two], [3, 1])

    assert together.info == replace(SCORES.info, model="ensemble")
    np.testing.assert_array_equal(together.labels, SCORES.labels)

    def softmax(row: np.ndarray) -> list[float]:
        parts = [math.exp(value) for value in row]
        return [part / sum(parts) for part in parts]

    expected = [
        [0.75 * a + 0.25 * b for a, b in zip(softmax(x), softmax(y), strict=True)]
        for x, y in zip(LOGITS, other.logits, strict=True)
    ]
    np.testing.assert_allclose(np.exp(together.logits), expected, rtol=1e-6)
    np.testing.assert_array_equal(together.logits, ensemble([one, two], [6, 2]).logits)
    # An ensemble of a model with itself is the model.
    alone = ensemble([one, one]).metrics
    assert alone.nll == pytest.approx(SCORES.metrics.nll, rel=1e-6)
    assert alone.ece == pytest.approx(SCORES.metrics.ece, rel=1e-6)


def test_large_logits_neither_overflow_nor_underflow(tmp_path: Path) -> None:
    far = replace(SCORES, logits=LOGITS * 1000)
    path = written(tmp_path / "far.npz", far)
    assert np.isfinite(ensemble([path, path]).logits).all()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (shuffled(SCORES, [0, 1, 3]), "two.npz: has no scores of 1 clips that .*one.npz has: 'c'"),
        (
            replace(SCORES, info=replace(SCORES.info, names=["a", "b", "c", "e"])),
            "two.npz: has no scores of 1 clips that .*one.npz has: 'ø d'",
        ),
        (
            replace(SCORES, info=replace(SCORES.info, classes=["still", "walk", "pair"])),
            "its 3 classes are not the 3 of .*one.npz: class 1 is 'walk', not 'wave'",
        ),
        (
            replace(SCORES, info=replace(SCORES.info, protocol="xview")),
            "two.npz: scores of the test part of xview, but those of .*one.npz are .* of xsub",
        ),
        (replace(SCORES, labels=np.array([0, 2, 2, 2])), "clip 'b' has another true class"),
    ],
)
def test_scores_of_other_clips_are_refused(tmp_path: Path, other: Scores, message: str) -> None:
    one, two = written(tmp_path / "one.npz", SCORES), written(tmp_path / "two.npz", other)
    with pytest.raises(InputError, match=message):
        ensemble([one, two])
    with pytest.raises(InputError, match=message):
        compare_scores(SCORES, other, one, two)


def test_additional_clips_and_classes_are_named(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one.npz", shuffled(SCORES, [0, 1])), tmp_path / "two.npz"
    write_scores(two, SCORES)
    with pytest.raises(InputError, match=r"one.npz: has no scores of 2 clips that .*two.npz has"):
        ensemble([one, two])
    wide = np.hstack([LOGITS, LOGITS[:, :1]])
    more = Scores(replace(SCORES.info, classes=[*CLASSES, "run"]), wide, SCORES.labels)
    with pytest.raises(InputError, match=r"its 4 classes .* class 3 is 'run', not None"):
        ensemble([written(tmp_path / "three.npz", SCORES), written(two, more)])


def test_arrays_larger_than_the_file_can_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez_compressed(path, **arrays(logits=np.zeros((10**6, 3), np.float32)))
    with pytest.raises(InputError, match=r"s\.npz: not a readable file of scores .* zip bomb"):
        read_scores(path)


def test_weights_may_be_of_any_scale(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "a.npz", SCORES),
        written(tmp_path / "b.npz", replace(SCORES, logits=SCORES.logits[:, ::-1].copy())),
    ]
    expected = ensemble(files, [1, 1]).logits
    for weight in (1e308, 1e-300):
        assert np.array_equal(ensemble(files, [weight, weight]).logits, expected)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, math.nan], [math.inf, 1]])
def test_invalid_weights(tmp_path: Path, weights: list[float]) -> None:
    path = written(tmp_path / "one.npz", SCORES)
    with pytest.raises(UsageError, match="--weights"):
        ensemble([path, path], weights)
    with pytest.raises(UsageError, match="two or more files"):
        ensemble([path])


def test_classes_are_compared_by_the_difference(tmp_path: Path) -> None:
    # The first model is right on clips a, b and ø d, the second on a and c.
    logits = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]], dtype=np.float32)
    other = shuffled(replace(SCORES, logits=logits), [3, 2, 1, 0])
    document = compare_scores(SCORES, other, Path("a"), Path("b")).to_dict()
    assert document == {
        "with": "b",
        "top1": 0.5,
        "classes": [
            {"class": "wave", "clips": 1, "a": 1.0, "b": 0.0, "difference": 1.0},
            {"class": "still", "clips": 1, "a": 1.0, "b": 1.0, "difference": 0.0},
            {"class": "pair, of two", "clips": 2, "a": 0.5, "b": 0.5, "difference": 0.0},
        ],
    }
