"""Kinetics-Skeleton: label files, folders and the choice of persons."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelnas.data.readers.base import ClipTable, Test, Train, Unused, check_recording
from skelnas.data.readers.files import packaged_names
from skelnas.data.readers.kinetics import LAYOUT, Kinetics, read_labels
from skelnas.errors import InputError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "kinetics-skeleton"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real clips in {REAL}")

OFFICIAL = packaged_names("kinetics_classes.txt")


def person(score, x=0.25):
    """A person with all joints at (x, 0.75), except for the last, which was not detected."""
    return {"pose": [x, 0.75] * 17 + [0.0, 0.0], "score": [score] * 17 + [0.0]}


def frames(*lists):
    return [{"frame_index": i, "skeleton": persons} for i, persons in enumerate(lists, start=1)]


def entry(label, index, has_skeleton=True):
    return {"has_skeleton": has_skeleton, "label": label, "label_index": index}


@pytest.fixture
def root(tmp_path):
    """Two parts with one clip each, plus clips without a skeleton and without an entry."""
    labels = {
        "train": {"one": entry("zumba", 399), "none": entry("yoga", 398, has_skeleton=False)},
        "val": {"two": entry("abseiling", 0)},
    }
    for part, entries in labels.items():
        (tmp_path / part).mkdir()
        (tmp_path / f"kinetics_{part}_label.json").write_text(json.dumps(entries))
        for clip, facts in entries.items():
            write_clip(tmp_path / part / f"{clip}.json", facts["label"], frames([person(0.5)]))
    write_clip(tmp_path / "val" / "unknown.json", "yoga", frames([person(0.5)]))
    return tmp_path


def write_clip(path, label, data):
    path.write_text(json.dumps({"data": data, "label": label, "label_index": 0}))


def read(root, data, rule="clip"):
    path = root / "train" / "one.json"
    write_clip(path, "zumba", data)
    source = Kinetics(root, rule)
    recording = source.read(path)
    check_recording(recording, source.layout, source.max_persons)
    return recording


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def left_edges(recording):
    """For each person and frame, the original x of the nose, or None."""
    return [
        [
            round(float(pose[0, 0]) + 0.5, 3) if seen else None
            for pose, seen in zip(*one, strict=True)
        ]
        for one in zip(recording.poses, recording.present, strict=True)
    ]


# Folders and label files


@pytest.mark.parametrize("prefix", ["", "kinetics_"])
def test_catalogue_lists_both_parts_and_skipped_files(root, prefix):
    for part in ("train", "val"):
        (root / part).rename(root / f"{prefix}{part}")
    catalogue = Kinetics(root).catalogue()
    assert [path.stem for path in catalogue.items] == ["one", "two"]
    assert catalogue.skipped == [
        ("none.json", "the label file says that it has no skeleton"),
        ("unknown.json", "it is not in kinetics_val_label.json"),
    ]


def test_endings_may_be_in_capitals(root):
    before = Kinetics(root).catalogue()
    for path in before.items:
        path.rename(path.with_suffix(".JSON"))
    source = Kinetics(root)
    items = source.catalogue().items
    assert items == [path.with_suffix(".JSON") for path in before.items]
    assert [source.read(item).name for item in items] == ["one", "two"]


def test_a_single_part_is_accepted(root):
    for path in sorted((root / "train").iterdir()):
        path.unlink()
    (root / "train").rmdir()
    (root / "kinetics_train_label.json").unlink()
    assert [path.stem for path in Kinetics(root).catalogue().items] == ["two"]


def test_clips_of_both_parts_are_skipped(root):
    (root / "kinetics_val_label.json").write_text(
        json.dumps({"one": entry("zumba", 399), "two": entry("abseiling", 0)})
    )
    catalogue = Kinetics(root).catalogue()
    assert [path.stem for path in catalogue.items] == ["two"]
    assert ("one.json", "it is in both label files") in catalogue.skipped


def test_splits_follow_the_parts(root):
    zeros = np.zeros(3, np.int32)
    clips = ClipTable(["two", "one", "gone"], zeros, zeros, zeros, zeros)
    splits = Kinetics(root).splits(clips)
    assert {name: split.tolist() for name, split in splits.items()} == {
        "official": [Test, Train, Unused]
    }


def relabel(root, **parts):
    for part, entries in parts.items():
        path = root / f"kinetics_{part}_label.json"
        path.write_text(json.dumps({c: entry(*facts) for c, facts in entries.items()}))
    labels = read_labels(root)
    return labels.classes, {clip: label.index for clip, label in labels.clips.items()}


def test_indices_of_the_release_give_its_400_classes(root):
    classes, labels = relabel(root, train={"one": ("zumba", 399)}, val={"two": ("abseiling", 0)})
    assert classes == OFFICIAL
    assert len(set(classes)) == 400
    assert labels == {"one": 399, "two": 0}
    assert Kinetics(root).classes(np.int32([0])) == list(OFFICIAL)


def test_label_files_with_other_classes_keep_their_indices(root):
    classes, labels = relabel(root, train={"one": ("zumba", 0)}, val={"two": ("my move", 2)})
    assert classes == ("zumba", "class 1", "my move")
    assert labels == {"one": 0, "two": 2}


def test_official_names_win_if_label_files_contradict_each_other(root):
    classes, labels = relabel(root, train={"one": ("zumba", 0)}, val={"two": ("abseiling", 0)})
    assert classes == OFFICIAL
    assert labels == {"one": 399, "two": 0}


@pytest.mark.parametrize("second", [("their move", 0), ("my move", 1)])
def test_other_names_that_contradict_each_other_are_bad_input(root, second):
    with pytest.raises(InputError, match="the label files give one class several indices"):
        relabel(root, train={"one": ("my move", 0)}, val={"two": second})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "line 1, column "),
        ("[]", "expected an object with an entry for each clip"),
        ('{"a": 1}', "clip 'a': expected an object, found 1"),
        ('{"a": {}}', "clip 'a': expected 'has_skeleton' to be true or false"),
        ('{"a": {"has_skeleton": true, "label": 1}}', "expected 'label' to be a class name"),
        (json.dumps({"a": entry("x", -1)}), "expected 'label_index' to be 0 to 9999"),
        (json.dumps({"a": entry("x", True)}), "expected 'label_index' to be 0 to 9999"),
        ('{"a": {"label": 1, "label": 2}}', "the key 'label' occurs twice in an object"),
        (json.dumps({"a": entry("x", 10**6)}), "expected 'label_index' to be 0 to 9999"),
    ],
)
def test_bad_label_files_are_bad_input(root, content, expected):
    file = root / "kinetics_val_label.json"
    file.write_text(content)
    found = message(Kinetics(root).catalogue)
    assert found.startswith(f"{file}: ")
    assert expected in found


def test_folders_without_parts_labels_or_clips_are_bad_input(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    assert "expected a folder that holds the folders train and val" in message(
        Kinetics(empty).catalogue
    )
    (root / "kinetics_train_label.json").unlink()
    assert "expected its labels in" in message(Kinetics(root).catalogue)
    (empty / "val").mkdir()
    (empty / "kinetics_val_label.json").write_text("{}")
    assert "expected clips such as" in message(Kinetics(empty).catalogue)


# Persons


def test_coordinates_are_centred_and_zero_where_the_score_is_zero(root):
    recording = read(root, frames([person(0.5)]))
    assert recording.label == 399
    assert recording.poses.shape == (1, 1, 18, 3)
    np.testing.assert_array_equal(recording.poses[0, 0, :17], np.float32([[-0.25, 0.25, 0.5]] * 17))
    np.testing.assert_array_equal(recording.poses[0, 0, 17], 0)


@pytest.mark.parametrize("point", [(0, 0), (-1, -1), (float("nan"), 1)])
def test_joints_that_are_not_found_are_zero_whatever_their_score(root, point):
    """The last joint of `person` has the score 0, and so no place either."""
    data = frames([person(0.5)])
    data[0]["skeleton"][0]["pose"][6:8] = point
    (pose,) = read(root, data).poses[:, 0]
    assert np.flatnonzero(~pose.any(axis=1)).tolist() == [3, 17]


def test_coordinates_of_an_undetected_joint_are_dropped(root):
    one = person(0.5)
    one["pose"][4:6], one["score"][2] = [0.9, 0.9], 0
    one["pose"][6:8] = [float("nan"), 0.9]
    recording = read(root, frames([one]))
    assert not recording.poses[0, 0, 2:4].any()
    assert recording.poses[0, 0, 4].any()


def test_empty_frames_are_cut_at_both_ends_and_absent_in_between(root):
    data = frames([], [], [person(0.5)], [], [person(0.5), person(0)], [person(0)], [])
    recording = read(root, data)
    assert recording.present.tolist() == [[True, False, True]]
    assert not recording.poses[0, 1].any()


def test_missing_frames_count_as_empty(root):
    data = frames([person(0.5)], [person(0.5)])
    data[1]["frame_index"] = 4
    assert read(root, data).present.tolist() == [[True, False, False, True]]


def test_clip_rule_keeps_the_slots_with_the_highest_confidence_over_the_clip(root):
    """Slot 2 is the most confident when present, but it is present only once."""
    data = frames(
        [person(0.4, 0.1), person(0.5, 0.2)],
        [person(0.4, 0.1), person(0.5, 0.2), person(0.8, 0.3)],
        [person(0.4, 0.1), person(0.5, 0.2)],
    )
    assert left_edges(read(root, data)) == [[0.2, 0.2, 0.2], [0.1, 0.1, 0.1]]


def test_frame_rule_keeps_the_persons_with_the_highest_confidence_of_each_frame(root):
    data = frames(
        [person(0.4, 0.1), person(0.5, 0.2), person(0.1, 0.4)],
        [person(0.4, 0.1), person(0.5, 0.2), person(0.8, 0.3)],
        [person(0.5, 0.1)],
        [person(0.5, 0.1), person(0.5, 0.2), person(0.5, 0.3)],
    )
    assert left_edges(read(root, data, "frame")) == [[0.2, 0.3, 0.1, 0.1], [0.1, 0.2, None, 0.2]]
    assert Kinetics(root, "frame").rule["person_rule"] == "frame"


# Bad clips


def change(**members):
    return [{**frames([person(0.5)])[0], **members}]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], "no person in any of 0 frames"),
        (frames([], [person(0)]), "no person in any of 2 frames"),
        (None, "expected an object with a list of frames under 'data'"),
        ([7], "frame 1 of 1: expected a 'frame_index' after -1, found None"),
        (change(frame_index="1"), "frame 1 of 1: expected a 'frame_index' after -1, found '1'"),
        (change(frame_index=10**6), "expected a 'frame_index' after -1, found 1000000"),
        (change(frame_index=True), "expected a 'frame_index' after -1, found True"),
        (2 * change(), "frame 2 of 2: expected a 'frame_index' after 1, found 1"),
        (change(skeleton={}), "frame 1 of 1: expected a list of persons under 'skeleton'"),
        (change(skeleton=[1]), "person 1: expected a 'pose' of 36 numbers and 18 of 'score'"),
        (change(skeleton=[person(0.5), {**person(1), "pose": [1] * 35}]), "person 2: expected"),
        (change(skeleton=[{**person(1), "score": ["1"] * 18}]), "person 1: expected"),
        (change(skeleton=[{**person(1), "score": [True] * 18}]), "person 1: expected"),
        (change(skeleton=[{**person(1), "score": [np.inf] * 18}]), "found an infinite one"),
        (change(skeleton=[{**person(1), "pose": [10**400] * 36}]), "expected numbers from 0 to 1"),
    ],
)
def test_bad_clips_are_refused_with_the_frame(root, data, expected):
    found = message(read, root, data)
    assert found.startswith(f"{root / 'train' / 'one.json'}: ")
    assert expected in found


def test_clips_that_contradict_the_label_file_are_refused(root):
    path = root / "train" / "one.json"
    write_clip(path, "yoga", frames([person(0.5)]))
    assert "expected the label 'zumba' of the label file, found 'yoga'" in message(
        Kinetics(root).read, path
    )
    write_clip(path, "9" * 1000, frames([person(0.5)]))
    assert len(message(Kinetics(root).read, path)) < 300 + len(str(path))
    assert "the clip is in no label file" in message(
        Kinetics(root).read, root / "val" / "unknown.json"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected JSON: line 1, column 1: "),
        (b'{"data": [\n{"frame_index"', "line 2, column "),
        (b'{\n"data": "\xff"}', "expected JSON: line 2: not UTF-8, found the byte 0xff"),
        (b"[" * 100_000, "expected JSON: brackets nested too deeply"),
        (b"9" * 5000, "expected JSON: Exceeds the limit"),
        (b"[]", "expected an object with a list of frames"),
    ],
)
def test_files_that_are_not_json_are_refused_with_the_line(root, content, expected):
    path = root / "train" / "one.json"
    path.write_bytes(content)
    found = message(Kinetics(root).read, path)
    assert found.startswith(f"{path}: ")
    assert expected in found


# Facts about the dataset


def test_layout_is_a_tree_of_all_joints():
    assert len(LAYOUT.joints) == len(set(LAYOUT.joints)) == 18
    assert len({child for child, _ in LAYOUT.bones}) == 17
    assert LAYOUT.channels == ("x", "y", "score")
    assert LAYOUT.center_joint is None


@needs_real_files
@pytest.mark.parametrize("rule", ["clip", "frame"])
def test_real_clips_are_read(rule):
    source = Kinetics(REAL, rule)
    catalogue = source.catalogue()
    assert len(catalogue.items) == 8
    assert catalogue.skipped == []
    for item in catalogue.items:
        recording = source.read(item)
        check_recording(recording, source.layout, source.max_persons)
        assert recording.present.shape[1] <= 300
        assert np.abs(recording.poses[..., :2]).max() < 0.6
        assert OFFICIAL[recording.label] == json.loads(item.read_bytes())["label"]


@needs_real_files
def test_real_label_file_has_the_published_number_of_clips():
    clips = [facts for facts in read_labels(REAL).clips.values() if facts.part == "val"]
    assert len(clips) == 19906
    assert sum(facts.has_skeleton for facts in clips) == 19796
    assert {facts.class_name for facts in clips} == set(OFFICIAL)


# Against a slow reference


def slow_choice(data, rule):
    """The chosen slots by frame, most confident first; None for an empty slot."""

    def confidence(person):
        return sum(np.float32(score) for score in person["score"])

    seen = {
        (frame["frame_index"], slot): confidence(person)
        for frame in data
        for slot, person in enumerate(frame["skeleton"])
        if confidence(person) > 0
    }
    frames = range(min(t for t, _ in seen), max(t for t, _ in seen) + 1) if seen else ()
    if rule == "frame":
        ranked = [sorted((-s, slot) for (t, slot), s in seen.items() if t == frame)[:2]
                  for frame in frames]  # fmt: skip
        return [[slot for _, slot in best] + [None] * (2 - len(best)) for best in ranked]
    slots = {slot for _, slot in seen}
    total = {slot: sum(s for (_, other), s in seen.items() if other == slot) for slot in slots}
    best = sorted(slots, key=lambda slot: (-total[slot], slot))[:2]
    chosen = [t for t, slot in seen if slot in best]
    return [
        [slot if (t, slot) in seen else None for slot in best]
        for t in range(min(chosen, default=0), max(chosen, default=-1) + 1)
    ]


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.lists(st.sampled_from([0, 0.125, 0.25, 0.5, 1]), max_size=4), max_size=5),
    st.sampled_from(["clip", "frame"]),
)
def test_persons_equal_those_of_the_reference(root, scores, rule):
    data = frames(*[[person(s, i / 8 + 0.125) for i, s in enumerate(row)] for row in scores])
    expected = slow_choice(data, rule)
    if not expected:
        assert "no person in any of" in message(read, root, data, rule)
        return
    found = zip(*left_edges(read(root, data, rule)), strict=True)
    expected_edges = [
        [None if slot is None else slot / 8 + 0.125 for slot in slots] for slots in expected
    ]
    assert [pair(edges) for edges in found] == [pair(edges) for edges in expected_edges]


def pair(edges):
    """Pad to two slots with None."""
    return [*edges, None][:2]
