"""Northwestern-UCLA: files, names and protocol."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.data.readers.base import ClipTable, Test, Train, check_recording
from skelnas.data.readers.nw_ucla import LAYOUT, NwUcla
from skelnas.errors import InputError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "nw-ucla"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real clips in {REAL}")

POSES = (np.arange(2 * 20 * 3).reshape(2, 20, 3) / 8 + 1).tolist()


def write(path, label=7, skeletons=POSES):
    path.write_text(json.dumps({"file_name": path.stem, "skeletons": skeletons, "label": label}))
    return path


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def read_slowly(skeletons):
    """Read joint by joint: a joint that is not finite is zero, and a frame of zeros absent."""
    poses, present = [], []
    for frame in skeletons:
        joints = [joint if np.isfinite(joint).all() else [0.0, 0.0, 0.0] for joint in frame]
        poses.append(joints)
        present.append(any(number != 0 for joint in joints for number in joint))
    return np.array([poses], np.float32), np.array([present])


numbers = st.one_of(st.floats(-9, 9, width=32), st.sampled_from([0.0, float("nan"), -1e5]))
frames = st.one_of(
    st.lists(st.tuples(numbers, numbers, numbers).map(list), min_size=20, max_size=20),
    st.just([[0.0, 0.0, 0.0]] * 20),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, min_size=1, max_size=4))
def test_clips_equal_those_of_the_reference(tmp_path_factory, skeletons):
    poses, present = read_slowly(skeletons)
    folder = tmp_path_factory.mktemp("clips")
    path = write(folder / "a08_s10_e00_v03.json", skeletons=skeletons)
    if not present.any():
        assert message(NwUcla(folder).read, path)
        return
    recording = NwUcla(folder).read(path)
    np.testing.assert_array_equal(recording.poses, poses)
    np.testing.assert_array_equal(recording.present, present)


@pytest.mark.parametrize("subfolder", ["", "all_sqe"])
def test_catalogue_sorts_by_name_and_lists_skipped_files(tmp_path, subfolder):
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    for name in ("a08_s10_e00_v03", "a01_s01_e00_v01", "a07_s01_e00_v01", "labels"):
        write(folder / f"{name}.json")
    catalogue = NwUcla(tmp_path).catalogue()
    assert [path.stem for path in catalogue.items] == ["a01_s01_e00_v01", "a08_s10_e00_v03"]
    assert catalogue.skipped == [
        ("a07_s01_e00_v01.json", "there is no action 07"),
        ("labels.json", "the name is not aXX_sYY_eZZ_vWW"),
    ]


def test_a_second_file_of_the_same_name_is_skipped(tmp_path):
    (tmp_path / "copy").mkdir()
    for folder in (tmp_path, tmp_path / "copy"):
        write(folder / "a08_s10_e00_v03.json")
    catalogue = NwUcla(tmp_path).catalogue()
    assert len(catalogue.items) == len(catalogue.skipped) == 1


def test_a_folder_without_clips_is_bad_input(tmp_path):
    assert "there is no such folder" in message(NwUcla(tmp_path / "no").catalogue)
    assert "expected files such as a01_s01_e00_v01.json" in message(NwUcla(tmp_path).catalogue)


def test_metadata_come_from_the_name(tmp_path):
    source = NwUcla(tmp_path)
    recording = source.read(write(tmp_path / "a08_s10_e00_v03.json"))
    check_recording(recording, source.layout, source.max_persons)
    assert recording.name == "a08_s10_e00_v03"
    assert (recording.label, recording.subject, recording.camera) == (6, 10, 3)
    np.testing.assert_array_equal(recording.poses, np.float32([POSES]))
    assert recording.present.tolist() == [[True, True]]


def test_joints_that_are_not_finite_become_zero_and_empty_frames_absent(tmp_path):
    skeletons = [POSES[0], [[0, 0, 0]] * 20, [[float("nan"), 1, 2], *POSES[1][1:]]]
    recording = NwUcla(tmp_path).read(write(tmp_path / "a08_s10_e00_v03.json", 7, skeletons))
    assert recording.present.tolist() == [[True, False, True]]
    assert not recording.poses[0, 2, 0].any()
    assert recording.poses[0, 2, 1].all()


@pytest.mark.parametrize(
    ("skeletons", "expected"),
    [
        ([], "expected 'skeletons' to be a list of frames"),
        ({}, "expected 'skeletons' to be a list of frames"),
        ([POSES[0], POSES[1][:19]], "frame 2 of 2: expected 20 joints of 3 numbers"),
        (
            [POSES[0], [joint[:2] for joint in POSES[1]]],
            "frame 2 of 2: expected 20 joints of 3 numbers",
        ),
        ([POSES[0], 7], "frame 2 of 2: expected 20 joints of 3 numbers"),
        ([[["1", "2", "3"]] * 20], "frame 1 of 1: expected 20 joints of 3 numbers"),
        ([[[None, 2, 3]] * 20], "no body in any frame"),
        ([POSES[0], [[True, 2, 3.5]] * 20], "frame 2 of 2: expected 20 joints of 3 numbers"),
        ([POSES[0], [[10**400, 2, 3]] * 20], "frame 2 of 2: expected 20 joints of 3 numbers"),
        ([[[1, 2, float("inf")]] * 20], "expected finite numbers or null, found an infinite one"),
        ([[[0, 0, 0]] * 20], "no body in any frame"),
    ],
)
def test_bad_clips_are_refused_with_the_frame(tmp_path, skeletons, expected):
    path = write(tmp_path / "a08_s10_e00_v03.json", 7, skeletons)
    assert message(NwUcla(tmp_path).read, path) == f"{path}: {expected}"


def test_other_bad_files_are_refused(tmp_path):
    source, path = NwUcla(tmp_path), tmp_path / "a08_s10_e00_v03.json"
    found = message(source.read, write(path, label=8))
    assert found == f"{path}: expected the label 7 of action 8 in the name, found 8"
    path.write_text('{"label": 7}')
    assert "expected an object with the keys 'skeletons' and 'label'" in message(source.read, path)
    path.write_text('{"label": 7,\n "skeletons": [[')
    assert message(source.read, path).startswith(f"{path}: expected JSON: line 2, column ")
    assert "expected a name such as" in message(source.read, write(tmp_path / "labels.json"))
    assert "cannot be read: No such file" in message(source.read, tmp_path / "a01_s01_e00_v01.json")


def test_layout_is_a_tree_of_all_joints():
    assert len(LAYOUT.joints) == len(set(LAYOUT.joints)) == 20
    assert len({child for child, _ in LAYOUT.bones}) == len(LAYOUT.bones) == 19
    assert LAYOUT.joints[LAYOUT.center_joint] == "spine_mid"


def test_xview_trains_on_two_cameras_and_tests_on_the_third(tmp_path):
    cameras = np.int32([1, 2, 3])
    clips = ClipTable(["a", "b", "c"], cameras, cameras, cameras, cameras)
    splits = NwUcla(tmp_path).splits(clips)
    assert {name: split.tolist() for name, split in splits.items()} == {
        "xview": [Train, Train, Test]
    }


@needs_real_files
def test_all_real_clips_are_read_and_split_as_published():
    source = NwUcla(REAL)
    catalogue = source.catalogue()
    assert (len(catalogue.items), catalogue.skipped) == (1484, [])
    recordings = [source.read(item) for item in catalogue.items]
    for recording in recordings:
        check_recording(recording, source.layout, source.max_persons)
        assert recording.present.all()
    labels, subjects, cameras = (
        np.array([getattr(recording, fact) for recording in recordings], np.int32)
        for fact in ("label", "subject", "camera")
    )
    names = [recording.name for recording in recordings]
    split = source.splits(ClipTable(names, labels, subjects, cameras, -cameras))["xview"]
    assert Counter(split.tolist()) == {Train: 1020, Test: 464}
    assert len(source.classes(labels)) == len(set(labels.tolist())) == 10
    assert len(set(subjects.tolist())) == 10
