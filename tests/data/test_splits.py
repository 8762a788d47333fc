"""Halves and hold-outs: complete, disjoint and reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_cache
from numpy.typing import ArrayLike

from skelnas.data.cache import Cache, FoldsBy
from skelnas.data.readers.base import Test, Train
from skelnas.data.splits import (
    TrainingPart,
    halve,
    name_folds,
    note_faults,
    split_training_part,
)
from skelnas.errors import InputError


def split(path: Path, fraction: float, subjects: ArrayLike | None = None) -> TrainingPart:
    """Hold out a fraction of a cache, whose clips are of these subjects instead of its own."""
    with Cache.open(path) as cache:
        if subjects is not None:
            cache.clips.subjects[:] = subjects
        part = split_training_part(cache, "xsub", fraction)
        assert sorted([*part.train, *part.held_out]) == list(cache.indices("xsub", Train))
    return part


@pytest.mark.parametrize("by_subject", [False, True])
def test_halves_are_disjoint_and_complete(by_subject: bool) -> None:
    subjects = np.arange(20, dtype=np.int32) % 5
    first, second = halve(subjects, 7, by_subject=by_subject)
    assert sorted([*first, *second]) == list(range(20))
    assert (len(first), len(second)) == ((12, 8) if by_subject else (10, 10))
    assert set(subjects[first]).isdisjoint(subjects[second]) == by_subject
    again, _ = halve(subjects, 7, by_subject=by_subject)
    np.testing.assert_array_equal(again, first)
    others = [halve(subjects, seed, by_subject=by_subject)[0].tolist() for seed in range(5)]
    assert len(set(map(tuple, others))) > 1


def test_one_clip_or_one_subject_cannot_be_halved() -> None:
    with pytest.raises(InputError, match="cannot be halved: 1 clips of 1 subjects"):
        halve(np.zeros(1, np.int32), 0, by_subject=False)
    with pytest.raises(InputError, match="cannot be halved: 9 clips of 1 subjects"):
        halve(np.zeros(9, np.int32), 0, by_subject=True)


@pytest.mark.parametrize("subjects", [[-1] * 6, [-1, 0, 1, 2, 3, 4]])
def test_clips_of_unknown_subjects_are_not_halved_by_subject(subjects: list[int]) -> None:
    with pytest.raises(InputError, match="by subject: the subject of some clips is not known"):
        halve(np.array(subjects, np.int32), 0, by_subject=True)
    first, second = halve(np.array(subjects, np.int32), 0, by_subject=False)
    assert len(first) == len(second) == 3


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.3, 1), (0.6, 2), (0.99, 2)])
def test_all_clips_of_some_subjects_are_held_out(
    tiny_cache: Path, fraction: float, count: int
) -> None:
    part = split(tiny_cache, fraction)
    assert part.hold_out is not None
    assert part.hold_out.subjects is not None
    assert len(part.hold_out.subjects) == count
    assert part.hold_out.clips == len(part.held_out) == 12 * count
    with Cache.open(tiny_cache) as cache:
        held_out = set(cache.clips.subjects[part.held_out].tolist())
        assert held_out == set(part.hold_out.subjects)
        assert held_out.isdisjoint(cache.clips.subjects[part.train].tolist())
    assert split(tiny_cache, fraction).hold_out == part.hold_out


def test_nothing_is_held_out_by_default(tiny_cache: Path) -> None:
    part = split(tiny_cache, 0)
    assert len(part.held_out) == 0
    assert part.hold_out is None


@pytest.mark.parametrize("subjects_known", ["none", "one", "some"])
def test_clips_are_held_out_if_subjects_are_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subjects_known: str
) -> None:
    write_tiny_cache(tmp_path / "c.h5")
    subjects = {"none": -1, "one": 4, "some": np.arange(48) % 3 - 1}[subjects_known]
    part = split(tmp_path / "c.h5", 0.25, subjects)
    assert "subjects are not known" in capsys.readouterr().err
    assert part.hold_out is not None
    assert part.hold_out.subjects is None
    assert part.hold_out.clips == 9
    assert split(tmp_path / "c.h5", 0.25, subjects).hold_out == part.hold_out


def test_the_hold_out_depends_on_the_clips(tmp_path: Path) -> None:
    hold_outs = []
    for number in (48, 42):
        write_tiny_cache(tmp_path / "c.h5", num_clips=number)
        hold_outs.append(split(tmp_path / "c.h5", 0.3).hold_out)
    assert hold_outs[0] != hold_outs[1]


def test_nothing_can_be_held_out_of_a_tiny_part(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "c.h5", only=Test)
    with pytest.raises(InputError, match="the training part of xsub has no clips"):
        split(tmp_path / "c.h5", 0.5)
    write_tiny_cache(tmp_path / "c.h5", num_clips=1)
    with pytest.raises(InputError, match="the only training clip of xsub"):
        split(tmp_path / "c.h5", 0.5)


def notes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    labels: list[int],
    parts: list[int],
    classes: tuple[str, ...] = ("still", "wave", "pair"),
    fraction: float = 0,
) -> str:
    """The notes on a cache of clips of these labels, in these parts, of as many subjects."""
    write_tiny_cache(tmp_path / "c.h5", num_clips=len(labels))
    with Cache.open(tmp_path / "c.h5") as cache:
        cache.classes = list(classes)
        cache.clips.labels[:] = labels
        cache.clips.subjects[:] = np.arange(len(labels))
        cache.splits["xsub"] = np.array(parts, np.int8)
        note_faults(cache, "xsub", split_training_part(cache, "xsub", fraction))
    return capsys.readouterr().err


def test_a_task_that_lacks_nothing_has_no_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert notes(tmp_path, capsys, [0, 1, 2] * 3, [Train] * 6 + [Test] * 3) == ""


def test_a_single_class_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = notes(tmp_path, capsys, [0] * 4, [Train, Train, Train, Test], ("still",))
    assert "all training clips are of one class" in text


def test_a_protocol_without_test_clips_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = notes(tmp_path, capsys, [0, 1, 2] * 3, [Train] * 9)
    assert text.splitlines() == [
        "xsub has no test clips: a model of it can be scored by --hold-out alone"
    ]


def test_classes_that_a_part_lacks_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [0, 0, 1, 2, 0, 3]
    parts = [Train] * 4 + [Test] * 2
    classes = ("still", "wave", "pair", "jump", "sit")
    assert notes(tmp_path, capsys, labels, parts, classes).splitlines() == [
        "xsub: 1 of 5 classes ('jump') has no training clips, and cannot be recognised",
        "xsub: 1 of 5 classes ('sit') has no clips at all",
        "xsub: 2 of 5 classes ('wave', 'pair') have a single training clip",
        "xsub: 2 of 5 classes ('wave', 'pair') have no test clips",
    ]


def test_classes_that_are_held_out_as_a_whole_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = notes(tmp_path, capsys, [0] * 9 + [1, 2, 1, 2], [Train] * 11 + [Test] * 2, fraction=0.9)
    assert "has no training clips" in text or "have no training clips" in text


def test_names_of_many_classes_are_not_all_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = tuple("abcdefgh")
    text = notes(tmp_path, capsys, [0, 1, 2] * 3, [Train] * 6 + [Test] * 3, classes)
    assert text == "xsub: 5 of 8 classes ('d', 'e', 'f', ...) have no clips at all\n"


@pytest.mark.parametrize("by", ["subject", "camera", "clip"])
def test_each_training_clip_is_held_out_in_one_fold(tiny_cache: Path, by: FoldsBy) -> None:
    with Cache.open(tiny_cache) as cache:
        cache.clips.cameras[:] = np.arange(48) % 5
        names = name_folds(cache, "xsub", 3, by)
        assert names == [f"xsub@{by}:{number}/3" for number in (1, 2, 3)]
        train = cache.indices("xsub", Train)
        held_out = [cache.indices(name, Test) for name in names]
        assert sorted(np.concatenate(held_out)) == train.tolist()
        for name, clips in zip(names, held_out, strict=True):
            learned = cache.indices(name, Train)
            assert sorted([*clips, *learned]) == train.tolist()
            if by != "clip":
                groups = cache.clips.subjects if by == "subject" else cache.clips.cameras
                assert not set(groups[clips]) & set(groups[learned])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_folds_have_equally_many_clips_of_each_class(tiny_cache: Path, count: int) -> None:
    with Cache.open(tiny_cache) as cache:
        labels = cache.clips.labels
        names = name_folds(cache, "xsub", count, "clip")
        counts = [np.bincount(labels[cache.indices(name, Test)], minlength=3) for name in names]
        assert np.ptp(counts, axis=0).max() <= 1
        assert np.ptp(np.sum(counts, axis=1)) <= 1


def test_groups_are_put_together_so_that_classes_are_even(tiny_cache: Path) -> None:
    with Cache.open(tiny_cache) as cache:
        # Subjects 0 and 1 have only classes 0 and 1; 2 and 3 all of class 2 and nothing else.
        cache.clips.subjects[:] = np.where(
            cache.clips.labels == 2, 2 + np.arange(48) // 3 % 2, np.arange(48) // 3 % 2
        )
        for name in name_folds(cache, "xsub", 2):
            assert len(set(cache.clips.subjects[cache.indices(name, Test)])) == 2
            assert set(cache.clips.labels[cache.indices(name, Train)]) == {0, 1, 2}


def test_folds_are_by_clip_where_subjects_are_too_few_or_unknown(tiny_cache: Path) -> None:
    with Cache.open(tiny_cache) as cache:
        assert name_folds(cache, "xsub", 3)[0] == "xsub@subject:1/3"
        assert name_folds(cache, "xsub", 4)[0] == "xsub@clip:1/4"
        with pytest.raises(InputError, match="no 4 folds of xsub by subject: 3 subjects"):
            name_folds(cache, "xsub", 4, "subject")
        with pytest.raises(InputError, match="by camera: the camera of some clips is not known"):
            name_folds(cache, "xsub", 2, "camera")
        cache.clips.subjects[:] = -1
        assert name_folds(cache, "xsub", 2)[0] == "xsub@clip:1/2"


@pytest.mark.parametrize(
    "name", ["xsub@subject:0/2", "xsub@subject:3/2", "xsub@subject:1/1", "xsub@age:1/2", "xsub@1/2"]
)
def test_what_is_no_fold_is_no_protocol(tiny_cache: Path, name: str) -> None:
    with Cache.open(tiny_cache) as cache, pytest.raises(InputError, match="has no protocol"):
        cache.indices(name, Train)
