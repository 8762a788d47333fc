"""Protocols made for recordings that come without: complete, apart by subject, alike by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.data.readers.base import ClipTable, Test, Train, Unused
from skelnas.data.readers.division import Division, find_shared_frames
from skelnas.errors import InputError, UsageError

WHERE = Path("clips.csv")


def clips(labels, subjects=None, cameras=None) -> ClipTable:
    labels = np.array(labels, np.int32)
    unknown = np.full(len(labels), -1, np.int32)
    subjects = unknown if subjects is None else np.array(subjects, np.int32)
    cameras = unknown if cameras is None else np.array(cameras, np.int32)
    return ClipTable(
        [f"c{index}" for index in range(len(labels))], labels, subjects, cameras, unknown
    )


def test_a_share_by_subject_keeps_subjects_and_classes_together() -> None:
    table = clips(np.arange(400) % 4, np.arange(400) // 40)
    (parts,) = Division(test_share=0.3).split(table).values()
    tested = set(table.subjects[parts == Test])
    assert len(tested) == 3
    assert tested.isdisjoint(table.subjects[parts == Train])
    assert np.bincount(table.labels[parts == Test]).tolist() == [30, 30, 30, 30]
    assert not (parts == Unused).any()


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_two_subjects_make_two_parts(share: float) -> None:
    table = clips([0, 1] * 5, [1] * 4 + [2] * 6)
    parts = Division(test_share=share).split(table)["random"]
    assert set(parts) == {Train, Test}


def test_a_share_of_clips_is_drawn_class_by_class(capsys: pytest.CaptureFixture[str]) -> None:
    table = clips([0] * 50 + [1] * 10 + [2] * 5 + [3])
    parts = Division(test_share=0.2).split(table)["random"]
    assert np.bincount(table.labels[parts == Test], minlength=4).tolist() == [10, 2, 1, 0]
    assert "subjects are not known" in capsys.readouterr().err
    other = Division(test_share=0.2, seed=1).split(table)["random"]
    assert (other != parts).any()
    assert (Division(test_share=0.2).split(table)["random"] == parts).all()


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_any_share_of_clips_leaves_a_training_clip_of_each_class(labels, share, seed) -> None:
    if max(np.bincount(labels)) < 2:
        return
    table = clips(labels)
    parts = Division(test_share=share, seed=seed).split(table)["random"]
    assert (parts == Test).any()
    assert set(table.labels[parts == Train]) == set(labels)
    for label, count in enumerate(np.bincount(labels)):
        tested = np.count_nonzero(parts[table.labels == label] == Test)
        assert tested <= max(1, np.ceil(share * count))


@pytest.mark.parametrize("by_subject", [True, False])
def test_each_clip_is_tested_in_one_fold(by_subject: bool) -> None:
    subjects = np.repeat(np.arange(7), 12)
    table = clips(np.arange(84) % 3, subjects if by_subject else None)
    splits = Division(folds=4).split(table)
    assert list(splits) == ["fold1", "fold2", "fold3", "fold4"]
    tested = np.stack([parts == Test for parts in splits.values()])  # [folds, clips]
    assert (tested.sum(0) == 1).all()
    assert tested.any(axis=1).all()
    for fold in tested:
        per_class = np.bincount(table.labels[fold], minlength=3)
        assert np.ptp(per_class) <= 1
        assert set(subjects[fold]).isdisjoint(subjects[~fold]) == by_subject


def test_a_clip_of_unknown_subject_divides_all_by_clip() -> None:
    table = clips([0, 1] * 10, [*range(19), -1])
    assert all((parts == Test).sum() == 4 for parts in Division(folds=5).split(table).values())


@pytest.mark.parametrize(
    ("subjects", "reason"),
    [(None, "subjects are not known"), ([7] * 60, "there is one subject only")],
)
def test_without_subjects_a_recording_stays_in_one_part(subjects, reason, capsys) -> None:
    table, recordings = clips(np.arange(60) % 3, subjects), np.repeat(np.arange(10), 6)
    splits = Division(test_share=0.2, folds=5).split(table, recordings)
    for parts in splits.values():
        tested = set(recordings[parts == Test])
        assert len(tested) == 2
        assert tested.isdisjoint(recordings[parts == Train])
    lines = capsys.readouterr().err.splitlines()
    assert f"by recording, because {reason}; 2 of 10 for testing, 20%" in lines[0]
    assert f"--folds 5: by recording, because {reason}" in lines[1]
    with pytest.raises(InputError, match="there are 10 recordings, each of which stays"):
        Division(folds=11).check(WHERE, table, recordings=recordings)


def test_subjects_come_before_recordings() -> None:
    table, recordings = clips([0, 1] * 20, np.arange(40) % 4), np.repeat(np.arange(10), 4)
    division = Division(test_share=0.3, folds=3)
    for name, parts in division.split(table, recordings).items():
        np.testing.assert_array_equal(parts, division.split(table)[name])


@pytest.mark.parametrize("recordings", [np.arange(40), np.zeros(40, np.int64)])
def test_clips_of_a_recording_each_or_of_one_are_drawn_by_clip(recordings) -> None:
    table, division = clips([0, 1] * 20), Division(test_share=0.3, folds=3)
    for name, parts in division.split(table, recordings).items():
        np.testing.assert_array_equal(parts, division.split(table)[name])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Train, Test, Unused]),
            st.integers(0, 2),
            st.sampled_from([-np.inf, 0, 1, 2, 3]),
            st.sampled_from([4, 5, 6, np.inf]),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_shared_frames_are_those_of_a_slow_comparison(rows) -> None:
    parts, recordings = (np.array([row[column] for row in rows]) for column in (0, 1))
    spans = np.array([(row[2] + row[4], row[3] + row[4]) for row in rows], float)
    expected = {
        (test, train)
        for test in range(len(rows))
        for train in range(len(rows))
        if parts[test] == Test
        and parts[train] == Train
        and recordings[test] == recordings[train]
        and max(spans[test, 0], spans[train, 0]) < min(spans[test, 1], spans[train, 1])
    }
    found = find_shared_frames(parts.astype(np.int8), recordings, spans)
    assert set(found) == {test for test, _ in expected}
    assert set(found.items()) <= expected


@pytest.mark.parametrize(
    ("division", "table", "expected"),
    [
        (Division(folds=4), clips([0, 1] * 3, [1, 2, 3] * 2), "at most --folds 3"),
        (Division(folds=4), clips([0, 1, 0]), "--folds 4: there are 3 clips"),
        (Division(test_share=0.2), clips([0, 1, 2]), "each class has a single clip"),
        (Division(test_subjects=(9,)), clips([0], [1]), "no clip has the subject 9"),
        (Division(), clips([0]), "nothing says which clips"),
    ],
)
def test_what_cannot_be_divided_is_refused(division, table, expected) -> None:
    with pytest.raises(InputError, match=expected):
        division.check(WHERE, table)


def test_names_of_the_table_are_not_used_twice() -> None:
    with pytest.raises(InputError, match="already has a column split_fold2"):
        Division(folds=2).check(WHERE, clips([0, 1]), ["fold2"])
    Division().check(WHERE, clips([0]), ["official"])


@pytest.mark.parametrize(
    "division", [Division(test_share=1.0), Division(test_share=-0.1), Division(folds=1)]
)
def test_impossible_numbers_are_refused(division: Division) -> None:
    with pytest.raises(UsageError, match="expected"):
        division.check(WHERE, clips([0, 1] * 4))


def test_the_rule_records_what_was_asked_for() -> None:
    assert Division().rule == {"test_subjects": [], "test_cameras": []}
    rule = Division(test_share=0.2, folds=3, seed=7).rule
    assert (rule["test_share"], rule["folds"], rule["split_seed"]) == (0.2, 3, 7)
