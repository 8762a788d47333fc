import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from skelnas.data.readers.base import ClipTable, Test, Train
from skelnas.data.readers.bodies import MAX_WIDTH_TO_HEIGHT, MIN_TRACK_FRAMES, choose_persons
from skelnas.data.readers.files import packaged_names
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.ntu_file import parse, parse_by_line
from skelnas.data.readers.simulation.kinematics import ANGLES, SKELETON, mirror, pose, scale_body
from skelnas.data.readers.simulation.motions import ACTIONS, sides
from skelnas.data.readers.synthetic import SUBJECTS, Synthetic, clip_names, write_raw
from skelnas.errors import InputError, UsageError

NUM_ACTIONS = len(ACTIONS)
"""Clips in one round, in which every action occurs once."""
TWO_PERSONS = {action.number for action in ACTIONS if action.partner is not None}
AVERAGE = scale_body(dict.fromkeys([bone.part for bone in SKELETON], 1.0))


def names_of(num_clips):
    return [str(name) for name in clip_names(num_clips)]


def action_of(name):
    return int(name[-3:])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with six rounds of all actions, and the paths of its files."""
    folder = tmp_path_factory.mktemp("raw")
    return folder, write_raw(folder, num_clips=6 * NUM_ACTIONS)


@pytest.fixture(scope="module")
def recordings():
    """Twelve rounds of all actions: every subject once."""
    source = Synthetic(num_clips=12 * NUM_ACTIONS)
    return [source.read(item) for item in source.catalogue().items]


# The table of actions


def test_actions_have_their_names_in_ntu():
    names = packaged_names("ntu_classes.txt")
    assert [action.meaning for action in ACTIONS] == [names[a.number - 1] for a in ACTIONS]
    assert all(action.number <= 60 for action in ACTIONS)


def test_every_row_of_a_motion_moves_something():
    rows = {*ANGLES, "left arm inward", "right arm inward", "jump"}
    for action in ACTIONS:
        for part in filter(None, (action.performer, action.partner)):
            for row in part:
                assert set(sides(row)) <= rows, f"{action.meaning}: {row}"


def test_no_two_actions_have_the_same_motion():
    progress = np.linspace(0, 1, 50)
    played = [
        {name: curve(progress, 1.0) for row, curve in part.items() for name in sides(row)}
        for part in (
            action.performer for action in ACTIONS if not action.meaning.startswith("walk")
        )
    ]
    poses = [pose(AVERAGE, angles) for angles in played]
    for index, one in enumerate(poses):
        for other in poses[:index]:
            assert np.abs(one - other).max() > 0.15


# The body


def test_pose_keeps_the_length_of_every_bone():
    rng = np.random.default_rng(0)
    angles = {name: rng.uniform(-90, 90, 20) for name in [*ANGLES, "left arm inward"]}
    joints = pose(AVERAGE, angles)
    for bone in SKELETON:
        length = np.linalg.norm(joints[:, bone.joint] - joints[:, bone.parent], axis=-1)
        np.testing.assert_allclose(length, np.linalg.norm(bone.offset), rtol=1e-9)


@pytest.mark.parametrize(
    ("row", "joint", "axis", "sign"),
    [
        ("left arm forward", 7, 2, +1),
        ("left arm spread", 7, 0, +1),
        ("right arm spread", 11, 0, -1),
        ("right elbow", 11, 2, +1),
        ("trunk bend", 3, 2, +1),
        ("trunk lean", 3, 0, +1),
        ("left leg apart", 14, 0, +1),
    ],
)
def test_angles_move_their_joints_in_the_right_direction(row, joint, axis, sign):
    joints = pose(AVERAGE, {row: np.array([0.0, 40.0])})
    around_pelvis = joints - joints[:, :1]
    assert sign * (around_pelvis[1, joint, axis] - around_pelvis[0, joint, axis]) > 0.1


@pytest.mark.parametrize(("side", "elbow", "wrist"), [("left", 5, 6), ("right", 9, 10)])
def test_arm_inward_points_a_bent_forearm_across_the_body(side, elbow, wrist):
    bent = {f"{side} elbow": np.full(2, 90.0), f"{side} arm inward": np.array([0.0, 90.0])}
    joints = pose(AVERAGE, bent)
    forearm = joints[:, wrist] - joints[:, elbow]
    np.testing.assert_allclose(forearm[0], [0, 0, 0.24], atol=1e-9)
    np.testing.assert_allclose(forearm[1], [-0.24 if side == "left" else 0.24, 0, 0], atol=1e-9)


def test_the_lower_foot_stands_on_the_floor_and_does_not_slide():
    """Swinging one leg does not move the standing foot; a jump lifts both."""
    lift = np.linspace(0, 60, 30)
    joints = pose(AVERAGE, {"right thigh": lift, "right knee": lift})
    feet = joints[:, [14, 15]]
    assert np.ptp(feet[12:, :, [0, 2]], axis=0).max() < 0.01
    np.testing.assert_allclose(joints[:, :, 1].min(axis=1), 0, atol=1e-9)
    jumping = pose(AVERAGE, {"jump": np.array([0.0, 0.3])})
    np.testing.assert_allclose(jumping[:, :, 1].min(axis=1), [0, 0.3])


def test_walking_moves_the_body_forward():
    (action,) = (action for action in ACTIONS if action.number == 59)
    progress = np.linspace(0, 1, 80)
    angles = {
        name: curve(progress, 1.0) for row, curve in action.performer.items() for name in sides(row)
    }
    joints = pose(AVERAGE, angles)
    assert joints[-1, 0, 2] - joints[0, 0, 2] > 0.7
    assert np.abs(joints[:, 0, 0]).max() < 0.1


def test_mirror_swaps_sides_and_is_its_own_inverse():
    joints = pose(AVERAGE, {"left arm spread": np.array([30.0]), "right knee": np.array([50.0])})
    same = pose(AVERAGE, {"right arm spread": np.array([30.0]), "left knee": np.array([50.0])})
    np.testing.assert_allclose(mirror(joints), same, atol=1e-12)
    np.testing.assert_array_equal(mirror(mirror(joints)), joints)


# The order of the clips


def test_clip_names_are_official_and_unique():
    names = names_of(2000)
    assert all(re.fullmatch(r"S\d{3}C00[123]P\d{3}R00[12]A\d{3}", name) for name in names)
    assert len(set(names)) == len(names)
    assert names_of(100) == names[:100]


@pytest.mark.parametrize("num_clips", [1, 16, 23, 32, 100, 500])
def test_every_prefix_of_the_clips_is_balanced(num_clips):
    names = names_of(num_clips)
    for part, values in ((slice(16, 20), NUM_ACTIONS), (slice(8, 12), len(SUBJECTS))):
        counts = Counter(name[part] for name in names)
        difference = max(counts.values()) - min(counts.values())
        assert difference <= (1 if values == NUM_ACTIONS else NUM_ACTIONS)


def test_all_clips_of_a_block_are_different():
    """72 rounds: every subject, action, camera and replication."""
    shown = Counter(name[4:] for name in names_of(72 * NUM_ACTIONS))
    assert len(shown) == NUM_ACTIONS * 12 * 3 * 2


@pytest.mark.parametrize("protocol", ["xsub", "xview"])
def test_two_rounds_fill_both_parts_of_a_protocol(protocol):
    names = names_of(2 * NUM_ACTIONS)
    facts = np.array([[int(name[i : i + 3]) for i in (17, 9, 5, 1)] for name in names], np.int32).T
    split = Synthetic(len(names)).splits(ClipTable(names, facts[0] - 1, *facts[1:]))[protocol]
    assert Counter(split.tolist()) == {Train: NUM_ACTIONS, Test: NUM_ACTIONS}


# The source


def test_reading_is_deterministic_and_independent_of_order():
    source = Synthetic(num_clips=40, seed=3)
    items = source.catalogue().items
    again = Synthetic(num_clips=7, seed=3)
    one, other = source.read(items[5]), again.read(again.catalogue().items[5])
    np.testing.assert_array_equal(one.poses, other.poses)
    different = Synthetic(num_clips=40, seed=4).read(items[5])
    assert different.poses.shape != one.poses.shape or (different.poses != one.poses).any()


def test_clips_equal_those_read_from_raw_files(raw):
    folder, paths = raw
    ntu, synthetic = Ntu(folder), Synthetic(len(paths))
    assert {path.stem for path in paths} == {item.name for item in synthetic.catalogue().items}
    for item in synthetic.catalogue().items:
        ours, theirs = synthetic.read(item), ntu.read(folder / f"{item}.skeleton")
        np.testing.assert_array_equal(ours.poses, theirs.poses)
        np.testing.assert_array_equal(ours.present, theirs.present)
        facts = ("name", "label", "subject", "camera", "setup")
        assert [getattr(ours, fact) for fact in facts] == [getattr(theirs, fact) for fact in facts]


def test_raw_files_are_parsed_alike_in_bulk_and_by_line(raw):
    for path in raw[1][:8]:
        data = path.read_bytes()
        fast, slow = parse(data, "raw"), parse_by_line(data, "raw")
        np.testing.assert_array_equal(fast.joints, slow.joints)
        lines = data.decode("ascii").splitlines()
        assert {len(line.split()) for line in lines} == {1, 10, 12}


def test_raw_files_do_not_depend_on_the_number_of_clips(raw, tmp_path):
    (path,) = write_raw(tmp_path / "new folder", num_clips=1)
    assert path.read_bytes() == (raw[0] / path.name).read_bytes()


def test_metadata_come_from_the_name():
    source = Synthetic(1)
    recording = source.read(Path("S101C002P003R001A058"))
    assert (recording.label, recording.subject, recording.camera, recording.setup) == (
        57,
        3,
        2,
        101,
    )


def test_lengths_vary(recordings):
    lengths = [recording.poses.shape[1] for recording in recordings]
    assert 30 <= min(lengths) < 70 < 100 < max(lengths) <= 150


def test_two_person_actions_have_two_persons(recordings):
    for recording in recordings:
        assert len(recording.poses) == (2 if action_of(recording.name) in TWO_PERSONS else 1)


def test_persons_stand_in_front_of_the_camera(recordings):
    for recording in recordings:
        depth = recording.poses[recording.present][:, 0, 2]
        assert 1.5 < depth.min() < depth.max() < 5


def test_bones_keep_their_length_but_for_noise(recordings):
    """The median deviation of a bone from its median length stays within the noise."""
    for recording in recordings:
        for person, present in zip(recording.poses, recording.present, strict=True):
            seen = person[present]
            for bone in SKELETON[:4]:
                length = np.linalg.norm(seen[:, bone.joint] - seen[:, bone.parent], axis=-1)
                assert np.median(np.abs(length - np.median(length))) < 0.01


def test_subjects_differ_in_size(recordings):
    def shin(recording):
        return np.median(
            np.linalg.norm(recording.poses[0, :, 13] - recording.poses[0, :, 14], axis=-1)
        )

    by_subject = {}
    for recording in recordings:
        if action_of(recording.name) not in TWO_PERSONS:
            by_subject.setdefault(recording.subject, []).append(shin(recording))
    means = np.array([np.mean(values) for values in by_subject.values()])
    within = np.mean([np.std(values) for values in by_subject.values()])
    assert len(means) == 12
    assert np.std(means) > 3 * within


def test_actions_can_be_distinguished_on_new_subjects(recordings):
    """Nearest class mean of heights over time: far better than chance, and not perfect."""

    def features(recording):
        first = recording.poses[0]
        frames = np.linspace(0, len(first) - 1, 16).round().astype(int)
        height = first[frames, :, 1] - first[0, 0, 1]
        reach = np.linalg.norm(first[frames][:, [7, 11]] - first[frames][:, :1], axis=-1)
        return np.concatenate([height.ravel(), reach.ravel(), [2.0 * len(recording.poses)]])

    x = np.array([features(recording) for recording in recordings])
    labels = np.array([recording.label for recording in recordings])
    is_train = np.isin([recording.subject for recording in recordings], [1, 2, 4, 5, 8, 9])
    classes = np.unique(labels)
    means = np.array([x[is_train & (labels == label)].mean(axis=0) for label in classes])
    nearest = np.linalg.norm(x[~is_train][:, None] - means, axis=-1).argmin(axis=1)
    accuracy = np.mean(classes[nearest] == labels[~is_train])
    assert len(classes) == NUM_ACTIONS
    assert 0.6 < accuracy < 0.98


# The faults of the sensor


def test_furniture_is_detected_as_a_body_and_denoise_drops_it(raw):
    clips_with_furniture = 0
    for path in raw[1]:
        seen = parse(path.read_bytes(), path.name)
        extent = np.ptp(seen.joints, axis=1)
        wide = extent[:, 0] > MAX_WIDTH_TO_HEIGHT * extent[:, 1]
        for body in np.unique(seen.bodies):
            mine = seen.bodies == body
            if mine.sum() >= MIN_TRACK_FRAMES and wide[mine].all():
                clips_with_furniture += 1
                poses, _ = choose_persons(seen, "denoise", path.name)
                assert not np.isin(seen.joints[mine][0], poses).all()
                assert len(poses) == (2 if action_of(path.stem) in TWO_PERSONS else 1)
    assert clips_with_furniture >= 3


def test_bodies_and_joints_are_lost_occasionally(raw):
    clips = [parse(path.read_bytes(), path.name) for path in raw[1]]
    assert any(len(set(clip.frames.tolist())) < clip.num_frames for clip in clips)
    assert any((clip.joints == 0).all(axis=-1).any() for clip in clips)
    one_person = [
        clip
        for path, clip in zip(raw[1], clips, strict=True)
        if action_of(path.stem) not in TWO_PERSONS
    ]
    assert any(
        len(set(clip.bodies.tolist())) > 1 and not (clip.slots > 0).any() for clip in one_person
    ), "no body came back under another id"


# What a user can get wrong


@pytest.mark.parametrize("kwargs", [{"num_clips": 0}, {"num_clips": 5, "seed": -1}])
def test_impossible_requests_are_refused(kwargs, tmp_path):
    with pytest.raises(UsageError):
        Synthetic(**kwargs)
    with pytest.raises(UsageError):
        write_raw(tmp_path, **kwargs)


@pytest.mark.parametrize(
    "name", ["S101C001P001R001A001", "S001C001P001R001A006", "S101C004P001R001A006", "clip"]
)
def test_unknown_clips_are_refused(name):
    with pytest.raises(InputError, match=name):
        Synthetic(1).read(Path(name))
