"""PYSKL: splits, persons and coordinates of its pickles."""

import json
import math
import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelnas.cli.prepare_common import PrepareOptions, run_prepare
from skelnas.data.cache import Cache
from skelnas.data.prepare import prepare
from skelnas.data.readers.annotations import read_annotations
from skelnas.data.readers.base import ClipTable, Test, Train, Unused, check_recording
from skelnas.data.readers.detections import group_by_frame
from skelnas.data.readers.division import Division
from skelnas.data.readers.ntu_facts import LAYOUT as KINECT
from skelnas.data.readers.pyskl import COCO, Pyskl
from skelnas.data.readers.unlabelled import Origin, read_unlabelled
from skelnas.errors import InputError

NAMES = ("S001C002P003R001A010", "S002C001P008R001A060", "S003C003P001R002A001")


def flat(name, label=0, persons=1, **changes):
    """A clip of 2-D poses, all joints at the same point of the picture."""
    keypoint = np.tile(np.float16([480, 540]), (persons, 4, 17, 1))
    score = np.full((persons, 4, 17), 0.5, np.float16)
    facts = {"frame_dir": name, "label": label, "img_shape": (1080, 1920), "total_frames": 4}
    return {**facts, "keypoint": keypoint, "keypoint_score": score, **changes}


def deep(name, label=0, **changes):
    keypoint = np.arange(1, 2 * 4 * 75 + 1, dtype=np.float32).reshape(2, 4, 25, 3)
    return {
        "frame_dir": name,
        "label": label,
        "total_frames": 4,
        "keypoint": keypoint,
        **changes,
    }


SPLIT = {"xsub_train": [NAMES[0], NAMES[2]], "xsub_val": [NAMES[1]]}


def write(tmp_path, annotations, split=SPLIT, protocol=4):
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}, protocol))
    read_annotations.cache_clear()
    return path


def read_all(source):
    recordings = [source.read(item) for item in source.catalogue().items]
    for recording in recordings:
        check_recording(recording, source.layout, source.max_persons)
    return recordings


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_coordinates_become_relative_to_the_picture(tmp_path, protocol):
    clip = flat(NAMES[0], 9)
    clip["keypoint_score"][0, 1] = 0
    clip["keypoint"][0, 2, 3] = 0
    clip["keypoint"][0, 2, 4] = np.nan
    source = Pyskl(write(tmp_path, [clip], protocol=protocol))
    (recording,) = read_all(source)
    assert source.layout == COCO
    assert (recording.name, recording.label) == (NAMES[0], 9)
    assert (recording.setup, recording.camera, recording.subject) == (1, 2, 3)
    assert recording.poses[0, 0, 0].tolist() == [-0.25, 0, 0.5]
    assert recording.present.tolist() == [[True, False, True, True]]
    assert not recording.poses[0, 2, 3:5].any()


def test_3d_poses_are_unchanged(tmp_path):
    clip = deep(NAMES[0])
    clip["keypoint"][1, 1:] = 0
    source = Pyskl(write(tmp_path, [clip, deep("own-1")]))
    first, second = read_all(source)
    assert source.layout == KINECT
    np.testing.assert_array_equal(first.poses, clip["keypoint"])
    assert first.present.tolist() == [[True] * 4, [True, False, False, False]]
    assert (second.name, second.subject) == ("own-1", -1)


def test_pixels_with_scores_are_not_taken_for_3d_poses(tmp_path):
    scored = np.random.default_rng(0).uniform(0.1, 1, (1, 4, 25, 3))
    scored[..., :2] *= 640
    source = Pyskl(write(tmp_path, [deep(NAMES[0], keypoint=scored)]))
    (item,) = source.catalogue().items
    assert "like a score and not z" in message(source.read, item)


def test_the_two_most_confident_persons_are_chosen(tmp_path):
    clip = flat("a", persons=4)
    clip["keypoint_score"][:] = np.float16([0, 0.25, 0.75, 0.5])[:, None, None]
    (recording,) = read_all(Pyskl(write(tmp_path, [clip])))
    assert recording.poses[:, 0, 0, 2].tolist() == [0.75, 0.5]


def test_without_scores_joints_other_than_zero_count(tmp_path):
    clip = flat("a", keypoint_score=None, img_shape=None)
    clip["keypoint"] = np.full((1, 4, 17, 2), 0.75)
    clip["keypoint"][0, 0] = 0
    (recording,) = read_all(Pyskl(write(tmp_path, [clip])))
    assert recording.present.tolist() == [[False, True, True, True]]
    assert recording.poses[0, 1, 0].tolist() == [0.25, 0.25, 1]


def test_joints_that_are_not_found_are_zero_and_nobody_is_absent(tmp_path):
    clip = flat("a")
    clip["keypoint"][0, 0] = -1
    clip["keypoint"][0, 1, :2] = (np.nan, 5), (5, np.inf)
    clip["keypoint_score"][0, 1, 2:4] = np.nan, 0
    clip["keypoint"][0, 1, 4] = 0, 5  # on the edge of the picture
    (recording,) = read_all(Pyskl(write(tmp_path, [clip])))
    assert recording.present.tolist() == [[False, True, True, True]]
    assert not recording.poses[0, 1, :4].any()
    assert recording.poses[0, 1, 4].tolist() == [-0.5, np.float32(5 / 1080 - 0.5), 0.5]


def test_clips_that_do_not_fit_their_picture_are_noted(tmp_path, capsys):
    clips = [flat(name) for name in "abcd"]
    for clip, corner in zip(clips, ([1900, 1070], [1900, 1070], [2000, 1130], [1, 1]), strict=True):
        clip["keypoint"][0, 0, 3] = corner  # of a picture of 1920 x 1080
    clips[1]["img_shape"] = (1920, 1080)
    clips[3]["keypoint"] /= 1920  # fractions already
    source = Pyskl(write(tmp_path, clips, {"train": ["a", "b"], "val": ["c", "d"]}))
    run_prepare(source, tmp_path / "cache.h5", PrepareOptions())
    note = "joints do not fit the picture in 2 of 4 clips; the first, b, has x from 0.44 to 1.76"
    assert note in capsys.readouterr().err
    report = json.loads((tmp_path / "cache.h5.report.json").read_text())
    assert report["outside_picture"].keys() == {"b", "d"}


def test_what_the_format_allows_beside_the_poses(tmp_path):
    """MMAction2 counts valid frames by threshold, and leaves unknown facts None."""
    clips = [flat("a", valid={0.5: 4, 0.9: 1}), flat("b", total_frames=None, keypoint_score=None)]
    source = Pyskl(write(tmp_path, clips, {"train": ("a",), "val": ("b",), None: ["a"]}))
    assert [len(recording.present[0]) for recording in read_all(source)] == [4, 4]
    assert source.catalogue().skipped == [("split None", "its name has no train, val or test")]


def test_clips_with_ntu_names_have_ntu_classes(tmp_path):
    source = Pyskl(write(tmp_path, [flat(NAMES[0], 9)]))
    assert source.classes(np.int32([9]))[9] == "clapping"
    assert len(source.classes(np.int32([60]))) == 120
    numbered = ["class 0", "class 1", "class 2"]
    assert Pyskl(write(tmp_path, [flat("a", 2)])).classes(np.int32([2])) == numbered
    renumbered = [flat(NAMES[0], 0), flat(NAMES[1], 2)]
    assert Pyskl(write(tmp_path, renumbered)).classes(np.int32([0, 2])) == numbered


def protocols(tmp_path, split):
    source = Pyskl(write(tmp_path, [flat("a"), flat("b"), flat("c")], split))
    catalogue = source.catalogue()
    zeros = np.zeros(3, np.int32)
    splits = source.splits(ClipTable(["a", "b", "c"], zeros, zeros, zeros, zeros))
    return {name: parts.tolist() for name, parts in splits.items()}, dict(catalogue.skipped)


def test_pairs_of_splits_become_protocols(tmp_path):
    found, skipped = protocols(
        tmp_path,
        {
            "xsub_train": ["a"],
            "xsub_val": ["b"],
            "train": ["a", "b"],
            "test": ["c"],
            "train1": ["b", "b"],
            "test1": ["a", "c"],
            "cs-train": ["c"],
            "cs-test": ["b", "gone"],
        },
    )
    assert found == {
        "xsub": [Train, Test, Unused],
        "official": [Train, Train, Test],
        "split1": [Test, Train, Test],
        "cs": [Unused, Test, Train],
    }
    assert skipped == {
        "split train1": "1 of its entries are repeated",
        "split cs": "1 of its clips have no annotation",
    }


def test_splits_without_a_counterpart_are_skipped(tmp_path):
    found, skipped = protocols(
        tmp_path,
        {
            "train": ["a"],
            "val": ["b"],
            "test": ["c"],
            "all": ["a"],
            "xset_train": ["a"],
            7: ["b"],
            "train_": ["b"],
        },
    )
    assert found == {"official": [Train, Unused, Test]}
    assert skipped == {
        "split val": "official has a test part",
        "split all": "its name has no train, val or test",
        "split train_": "train is that part of official, too",
        "split 7": "its name has no train, val or test",
        "split xset_train": "its other half is missing",
    }


def test_annotations_without_a_unique_name_are_skipped(tmp_path):
    source = Pyskl(write(tmp_path, [flat("a"), flat("a"), {"label": 1}, 7]))
    catalogue = source.catalogue()
    assert [item.name for item in catalogue.items] == ["a"]
    assert [what for what, _ in catalogue.skipped][:3] == [
        "annotation 2",
        "annotation 3",
        "annotation 4",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": -1}, "expected 'label' to be 0 to 65535, found -1"),
        ({"label": "run"}, "expected 'label' to be 0 to 65535, found 'run'"),
        ({"label": None}, "expected 'label' to be 0 to 65535, found None"),
        ({"label": True}, "expected 'label' to be 0 to 65535, found True"),
        ({"label": np.bool_(1)}, "expected 'label' to be 0 to 65535, found True"),
        ({"label": 1.0}, "expected 'label' to be 0 to 65535, found 1.0"),
        ({"keypoint": None}, "expected an array under 'keypoint', found None"),
        ({"keypoint": np.ones((1, 4, 17, 2), "?")}, "'keypoint', found truth values"),
        ({"keypoint": np.ones((1, 4, 18, 2))}, "'keypoint' has the shape (1, 4, 18, 2), expected"),
        ({"keypoint": np.ones((4, 17, 2))}, "'keypoint' has the shape (4, 17, 2), expected"),
        ({"keypoint": np.ones((1, 4, 25, 3))}, "expected persons x 4 frames x 17 joints x"),
        ({"total_frames": 5}, "expected persons x 5 frames x 17 joints"),
        ({"total_frames": [[[[[]]]]]}, "expected persons x [[[[...]]]] frames x 17 joints"),
        ({"keypoint_score": np.ones((1, 4, 18))}, "'keypoint_score' (1, 4, 18), 'keypoint'"),
        ({"keypoint_score": [1]}, "expected an array under 'keypoint_score'"),
        ({"keypoint": np.zeros((1, 4, 17, 2))}, "nobody in any of 4 frames"),
        ({"keypoint": np.zeros((0, 4, 17, 2)), "keypoint_score": None}, "nobody in any of 4"),
        ({"img_shape": None}, "expected 'img_shape' to be (height, width) in pixels, found None"),
        ({"img_shape": (True, 9)}, "expected 'img_shape' to be (height, width) in pixels, found"),
        ({"img_shape": (0, 1920)}, "expected 'img_shape' to be (height, width) in pixels"),
        ({"img_shape": "large"}, "expected 'img_shape' to be (height, width) in pixels"),
    ],
)
def test_bad_annotations_are_refused_by_name(tmp_path, changes, expected):
    source = Pyskl(write(tmp_path, [flat("a"), flat("b", **changes)]))
    item = source.catalogue().items[1]
    found = message(source.read, item)
    assert found.startswith(f"{item}: ")
    assert expected in found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "expected annotations with a 'frame_dir', found none"),
        (7, "expected a dictionary with the keys 'split' and 'annotations', a list of annotations"),
        ({"clips": 1}, "expected a dictionary with the keys 'split' and 'annotations', a list"),
        ([flat("a")], "nothing says which of its 1 annotations are for testing"),
        ({"annotations": [flat("a")]}, "nothing says which of its 1 annotations are for testing"),
        ({"split": {"train": ["a"]}, "annotations": [flat("a")]}, "expected splits such as xsub_"),
        ({"split": {}, "annotations": {}}, "expected a list of 'annotations' and a dictionary"),
        ({"split": {}, "annotations": []}, "expected annotations with a 'frame_dir', found none"),
        ({"split": {}, "annotations": [flat("a")]}, "expected splits such as xsub_train and"),
        (
            {"split": {"train": "a", "val": ["a"]}, "annotations": [flat("a")]},
            "expected split 'train' to be a list of names",
        ),
        (
            {"split": {"train": ["a"], "val": ["a"]}, "annotations": [flat("a")]},
            "clip 'a' is in both parts of 'official'",
        ),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, expected):
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps(content))
    assert message(Pyskl(path).catalogue).startswith(f"{path}: {expected}")


def test_clips_may_share_scores_but_not_all_of_a_large_array(tmp_path):
    score = np.ones((1, 4, 17), np.float16)
    path = write(tmp_path, [flat(name, keypoint_score=score) for name in NAMES])
    assert len(read_all(Pyskl(path))) == 3
    keypoint = np.ones((1, 20_000, 17, 2), np.float16)
    path = write(tmp_path, [flat(f"{number}", keypoint=keypoint) for number in range(100)])
    found = message(Pyskl(path).catalogue)
    assert found.startswith(f"{path}: clips of 136,")
    assert found.endswith("have the same array")


def test_unknown_joints_are_refused(tmp_path):
    source = Pyskl(write(tmp_path, [flat("a", keypoint=np.ones((1, 4, 9, 2)))]))
    assert "as many joints as 17 in 2-D, 25 in 3-D" in message(lambda: source.layout)


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps({})[:-1]])
def test_files_that_are_not_pickles_are_refused(tmp_path, data):
    path = tmp_path / "clips.pkl"
    path.write_bytes(data)
    assert message(Pyskl(path).catalogue).startswith(f"{path}: expected a pickle of PYSKL: ")
    assert "cannot be read: No such file" in message(Pyskl(tmp_path / "no.pkl").catalogue)


def test_a_pipe_is_refused(tmp_path):
    """To open it would wait for a writer."""
    os.mkfifo(tmp_path / "clips.pkl")
    found = message(Pyskl(tmp_path / "clips.pkl").catalogue)
    assert found.endswith("clips.pkl: expected a file, found a device or a pipe")


# Lists, two files, and poses in files of their own


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content))
    read_annotations.cache_clear()
    return path


def test_two_lists_are_the_parts_of_a_protocol(tmp_path):
    train = write_pickle(tmp_path / "train.pkl", [flat("a"), flat("b", 1), flat("a")])
    test = write_pickle(tmp_path / "val.pkl", {"split": {}, "annotations": [flat("c")]})
    source = Pyskl(train, test)
    assert [recording.name for recording in read_all(source)] == ["a", "b", "c"]
    assert source.catalogue().skipped == [("train.pkl: annotation 3", "a second one named a")]
    report = prepare(source, tmp_path / "cache.h5", workers=1)
    assert report.splits == {"official": (2, 1)}
    found = message(Pyskl(train, write_pickle(tmp_path / "other.pkl", [flat("b")])).catalogue)
    assert found == f"{tmp_path / 'other.pkl'}: clip 'b' is also in {train}"
    whole = write(tmp_path, [flat("d")], {"train": ["d"], "val": ["a"]})
    assert "says itself which clips are for testing" in message(Pyskl(whole, test).catalogue)


def test_a_list_is_divided_if_that_is_asked_for(tmp_path, capsys):
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps([flat(f"clip{n}", n % 2) for n in range(8)]))
    read_annotations.cache_clear()
    source = Pyskl(path, division=Division(test_share=0.25, folds=2))
    report = prepare(source, tmp_path / "own.h5", workers=1)
    assert report.splits == {"random": (6, 2), "fold1": (4, 4), "fold2": (4, 4)}
    assert "--folds 2: by clip, because subjects are not known" in capsys.readouterr().err
    with Cache.open(tmp_path / "own.h5") as cache:
        assert cache.rule["folds"] == 2
    assert "--folds 9: there are 8 clips" in message(
        Pyskl(path, division=Division(folds=9)).catalogue
    )
    assert repr(source) == repr(Pyskl(path))


def test_a_single_annotation_is_a_recording(tmp_path):
    origin = Origin("pyskl", COCO, 2, {})
    clip = flat("a")
    (expected,) = read_all(Pyskl(write(tmp_path, [clip])))
    single = write_pickle(tmp_path / "one.pkl", clip)
    several = write_pickle(tmp_path / "list.pkl", [flat("b"), clip])
    del clip["frame_dir"], clip["label"]
    nameless = write_pickle(tmp_path / "nameless.PKL", clip)
    for path in (single, several / "a", nameless):
        np.testing.assert_array_equal(read_unlabelled(path, origin).poses, expected.poses)
    assert "expected a single annotation, found 2" in message(read_unlabelled, several, origin)
    assert "found no annotation of this" in message(read_unlabelled, several / "c", origin)


def detections(name, frames, joints, **changes):
    """An annotation of MMAction2's Kinetics, and the joints of its detections [D, 17, 3]."""
    facts = {"frame_dir": name, "label": 3, "img_shape": (320, 640), "total_frames": 300}
    return {**facts, "frame_inds": np.int16(frames), "valid": {0.5: 2}, **changes}, joints


@pytest.mark.parametrize("file", ["a.pkl", "a.npy", "sub/b.pkl"])
def test_poses_in_files_of_their_own(tmp_path, file):
    joints = np.random.default_rng(0).uniform(1, 300, (4, 17, 3)).astype(np.float16)
    joints[..., 2] = [[0.5], [0.75], [1], [0.25]]
    clip, joints = detections("a", [7, 7, 9, 10], joints)
    poses = tmp_path / "poses"
    (poses / "sub").mkdir(parents=True)
    if file == "sub/b.pkl":
        clip["raw_file"] = f"/../{file}"
    if file.endswith("npy"):
        np.save(poses / file, joints)
    else:
        write_pickle(poses / file, joints)
    split = {"train": ["a"], "val": ["b"]}
    path = write(tmp_path, [clip, detections("b", [1], joints[:1])[0]], split)
    source = Pyskl(path, poses_folder=poses)
    recording = source.read(path / "a")
    assert source.layout == COCO
    assert recording.present.tolist() == [[True, False, True, True], [True, False, False, False]]
    expected = joints.astype(float) / [640, 320, 1] - [0.5, 0.5, 0]
    np.testing.assert_array_equal(recording.poses[0, [0, 2, 3]], np.float32(expected[[0, 2, 3]]))
    np.testing.assert_array_equal(recording.poses[1, 0], np.float32(expected[1]))
    assert f"no 'keypoint', and no file with its poses, as {poses / 'b.pkl'}" in message(
        source.read, path / "b"
    )
    assert "or a file of poses for each, such as" in message(lambda: Pyskl(path).layout)


@pytest.mark.parametrize(
    ("frames", "shape", "expected"),
    [
        ([1, 2], (3, 17, 3), "(3, 17, 3) of float64 for (2,) 'frame_inds'"),
        ([1, 2], (2, 17, 4), "(2, 17, 4) of float64"),
        ([], (0, 17, 3), "(0, 17, 3) of float64 for (0,)"),
        ([-1, 2], (2, 17, 3), "'frame_inds' from -1 to 2"),
        ([0, 2**30], (2, 17, 3), "1 persons in 1,073,741,825 frames of 17 joints"),
    ],
)
def test_detections_that_fit_no_frames_are_refused(tmp_path, frames, shape, expected):
    clip, joints = detections("a", [], np.ones(shape), frame_inds=np.array(frames, np.int64))
    path = write(tmp_path, [{**clip, "keypoint": joints}], {"train": ["a"], "val": ["b"]})
    assert expected in message(Pyskl(path).read, path / "a")


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(2, 3))
def test_detections_are_grouped_as_one_by_one(frames, channels):
    joints = np.random.default_rng(1).uniform(1, 9, (len(frames), 5, channels))
    keypoint, score = group_by_frame(joints, np.array(frames), "clip")
    slots = {frame: [joints[i] for i, f in enumerate(frames) if f == frame] for frame in frames}
    assert keypoint.shape[:2] == (
        max(map(len, slots.values())),
        max(frames) - min(frames) + 1,
    )
    for person, frame in np.ndindex(keypoint.shape[:2]):
        persons = slots.get(frame + min(frames), [])
        pose = persons[person] if person < len(persons) else np.zeros((5, 3))
        np.testing.assert_array_equal(keypoint[person, frame], pose[:, :2])
        expected = pose[:, 2] if pose.shape[1] == 3 else np.ones(5)
        np.testing.assert_array_equal(score[person, frame], expected)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_malicious_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, [flat("a"), Malicious()])
    assert "it names posix:system, expected containers" in message(Pyskl(path).catalogue)
    assert list(tmp_path.iterdir()) == [path]


def test_workers_give_the_same_cache(tmp_path):
    clips = [flat(f"{index:02}", index % 3, 1 + index % 2) for index in range(40)]
    split = {"train": [clip["frame_dir"] for clip in clips[:30]], "val": ["35"]}
    clips[7]["label"] = None
    source = Pyskl(write(tmp_path, clips, split))
    for workers in (1, 2):
        report = prepare(source, tmp_path / f"{workers}.h5", workers=workers)
        assert (report.clips, report.splits) == (39, {"official": (29, 1)})
    with Cache.open(tmp_path / "1.h5") as one, Cache.open(tmp_path / "2.h5") as two:
        assert one.clips.names == two.clips.names
        np.testing.assert_array_equal(one.read(3)[0], two.read(3)[0])


# A slow reader, to compare with


def read_slowly(clip):
    """The persons of a clip in 2-D, joint by joint, as (total score, poses, present)."""
    height, width = clip["img_shape"] or (1, 1)
    scores = clip["keypoint_score"]
    persons = []
    for person, frames in enumerate(clip["keypoint"].tolist()):
        poses, present, total = [], [], 0.0
        for t, joints in enumerate(frames):
            pose = []
            for v, (x, y) in enumerate(joints):
                score = 1.0 if scores is None else float(scores[person, t, v])
                is_found = (x, y) not in ((0, 0), (-1, -1)) and score > 0
                if is_found and all(map(math.isfinite, (x, y, score))):
                    pose.append((x / width - 0.5, y / height - 0.5, score))
                    total += score
                else:
                    pose.append((0.0, 0.0, 0.0))
            poses.append(pose)
            present.append(any(joint[2] for joint in pose))
        if any(present):
            persons.append((total, poses, present))
    return sorted(persons, key=lambda person: -person[0])


COORDINATES = st.sampled_from([0, -1, 3, 640, 700.5, float("nan"), float("inf")])
SCORES = st.sampled_from([0, -1, 0.25, 0.5, 1, float("nan")])


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_persons_equal_those_of_a_slow_reader(tmp_path, data):
    num_persons, num_frames = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    points = np.array(data.draw(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1)))
    keypoint = rng.choice(points, (num_persons, num_frames, 17))
    scores = np.array(data.draw(st.lists(SCORES, min_size=1)))
    score = rng.choice(scores, keypoint.shape[:3]) if data.draw(st.booleans()) else None
    clip = flat("a", keypoint=keypoint, keypoint_score=score, total_frames=None)
    source = Pyskl(write(tmp_path, [clip]))
    (item,) = source.catalogue().items
    persons = read_slowly(clip)
    if not persons:
        assert "nobody in any" in message(source.read, item)
        return
    (recording,) = read_all(source)
    _, poses, present = zip(*persons[:2], strict=True)
    np.testing.assert_array_equal(recording.poses, np.float32(poses))
    np.testing.assert_array_equal(recording.present, present)
