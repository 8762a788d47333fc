"""JSON of pose estimators and folders of frames are read as a slow reader does, or refused."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.data.readers.archives import ENDING
from skelnas.data.readers.base import Layout
from skelnas.data.readers.clip_files import read_clip, read_poses
from skelnas.data.readers.expected import Expected
from skelnas.data.readers.frames import number_files
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.stream_frames import parse_frame
from skelnas.errors import InputError

XYS = ("x", "y", "score")


def message(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    return f"{caught.value} ({caught.value.hint})"


def write(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_frames(folder, frames, name="cam1_{:012d}_keypoints.json"):
    for number, frame in frames.items():
        write(folder / name.format(number), frame)
    return folder


def openpose(*persons):
    return {"version": 1.3, "people": [{"pose_keypoints_2d": person} for person in persons]}


def pose(num_joints=25, x=100.0):
    return [n for joint in range(num_joints) for n in (x + joint, 2 * joint + 1, 0.5)]


def points(num_joints=3, *, keys=("x", "y", "z", "visibility"), names=()):
    joints = [
        {key: round(joint + index / 10 + 0.1, 3) for index, key in enumerate(keys)}
        for joint in range(num_joints)
    ]
    for joint, name in zip(joints, names, strict=False):
        joint["name"] = name
    return {"keypoints": joints}


# Folders of frames


def test_a_folder_of_openpose_frames_is_a_clip(tmp_path):
    lost = pose(x=104.0)
    lost[3:6] = 0, 0, 0
    frames = {9: openpose(pose()), 10: openpose(), 12: openpose(lost)}
    clip = read_clip(write_frames(tmp_path / "clip", frames))
    assert clip.channels == XYS
    assert clip.joints == find_layout("openpose25").joints
    assert clip.layout == "openpose25"
    assert clip.poses.shape == (1, 4, 25, 3)
    np.testing.assert_array_equal(clip.poses[0, [0, 3], 1], [[101, 3, 0.5], [0, 0, 0]])
    assert np.isnan(clip.poses[0, 1:3]).all()
    poses, present = read_poses(tmp_path / "clip", Expected(find_layout("openpose25"), 1))
    assert present.tolist() == [[True, False, False, True]]
    assert not poses[0, 3, 1].any()


@pytest.mark.parametrize(("num_joints", "layout"), [(18, "openpose18"), (25, "openpose25")])
def test_the_number_of_joints_tells_the_model_of_openpose(tmp_path, num_joints, layout):
    folder = write_frames(tmp_path / "clip", {0: openpose(pose(num_joints))})
    assert read_clip(folder).layout == layout


def test_the_other_order_of_25_joints_is_read_if_it_is_asked_for(tmp_path):
    folder = write_frames(tmp_path / "clip", {0: openpose(pose())})
    for name in ("openpose25", "openpose25b"):
        poses, _ = read_poses(folder, Expected(find_layout(name), 1))
        np.testing.assert_array_equal(poses[0, 0].ravel(), pose())
    kinect = replace(find_layout("kinect-v2"), channels=XYS)
    assert "include spine_base, spine_mid" in message(read_poses, folder, Expected(kinect, 1))


@pytest.mark.parametrize("name", ["openpose25", "openpose25b"])
def test_two_orders_of_25_joints_are_told_apart_by_their_bones(tmp_path, name):
    layout = find_layout(name)
    parents = dict(layout.bones)
    (root,) = set(range(25)) - parents.keys()
    body, angles = np.full((25, 2), 500.0), np.zeros(25)
    for _ in range(25):  # limbs go straight from the root, in all directions
        for child, parent in layout.bones:
            angles[child] = child if parent == root else angles[parent] + 0.2 * (-1) ** child
            body[child] = body[parent] + 20 * np.array(
                [np.cos(angles[child]), np.sin(angles[child])]
            )
    numbers = np.column_stack([body, np.full(25, 0.5)]).ravel().tolist()
    folder = write_frames(tmp_path / "clip", {0: openpose(numbers)})
    clip = read_clip(folder)
    assert (clip.layout, clip.joints) == (name, layout.joints)
    read_poses(folder, Expected(layout, 1))
    other = {"openpose25": "openpose25b", "openpose25b": "openpose25"}[name]
    assert "its 25 joints include h" in message(read_poses, folder, Expected(find_layout(other), 1))


def test_hands_are_read_for_the_layout_that_has_them(tmp_path):
    hand = [7.0, 8, 0.25] * 21
    frames = {n: openpose(pose()) for n in range(2)}
    frames[1]["people"][0] |= {"hand_left_keypoints_2d": [], "hand_right_keypoints_2d": hand}
    folder = write_frames(tmp_path / "clip", frames)
    assert read_clip(folder).notes == (
        "the joints of hands are left out; --joints openpose67 reads them",
    )
    clip = read_clip(folder, 67)
    assert clip.joints == find_layout("openpose67").joints
    assert clip.notes == ()
    assert not clip.poses[0, 0, 25:].any()
    assert not clip.poses[0, 1, 25:46].any()
    np.testing.assert_array_equal(clip.poses[0, 1, 46:], np.reshape(hand, (21, 3)))


@pytest.mark.parametrize("ending", ["json", "npy"])
@pytest.mark.parametrize("shape", [(6,), (3, 2), (1, 3, 2), (2, 3, 2)])
def test_arrays_a_frame_are_joined(tmp_path, ending, shape):
    frames = np.random.default_rng(0).normal(0, 1, (12, *shape)).round(3)
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(frames):  # 10.npy comes after 9.npy
        if ending == "npy":
            np.save(tmp_path / "clip" / f"{number}.npy", frame)
        else:
            write(tmp_path / "clip" / f"{number}.json", frame.tolist())
    expected = frames.reshape(12, -1, 3, 2).swapaxes(0, 1)
    for known in ({"num_joints": 3}, {"num_channels": 2}):
        np.testing.assert_array_equal(read_clip(tmp_path / "clip", **known).poses, expected)


@pytest.mark.parametrize(
    "frames",
    [
        [openpose(pose()), openpose(), openpose(pose(x=104.0), pose(x=500.0))],
        [points(), {"keypoints": []}, None, points()["keypoints"]],
        [[[1, 2], [3, 4], [5, 6]], [], [[[1, 2], [3, 4], None], [[7, 8], [9, 10], [11, 12]]]],
        [[1, 2, 3, 4, 5, 6], {"poses": [[1, 2], [3, 4], [5, 6]]}],
    ],
)
def test_a_file_with_a_line_a_frame_is_read_like_a_folder_of_frames(tmp_path, frames):
    folder = write_frames(tmp_path / "clip", dict(enumerate(frames)))
    lines = "\ufeff" + "\r\n\n".join(map(json.dumps, frames)) + "\n"
    (tmp_path / "clip.jsonl").write_text(lines, encoding="utf-8")
    found, expected = (
        read_clip(path, num_channels=2, max_persons=2) for path in (tmp_path / "clip.jsonl", folder)
    )
    np.testing.assert_array_equal(found.poses, expected.poses)
    assert found.joints == expected.joints
    assert found.channels == expected.channels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "nobody is in any of 0 frames"),
        ("[[1, 2]]\n\n[[1, 2}", "expected a frame as JSON in each line: line 3, column 7"),
        ('[[1, 2]]\n{"keypoints": 7}', "clip.jsonl, line 2: keypoints: expected a list"),
        ("[[1, 2]]\n[[1, 2], [3]]", "clip.jsonl, line 2: expected a frame of numbers"),
        ("[[1, 2]]\n" + json.dumps(points()), "frame 0 is an array and frame 1 a list of persons"),
    ],
)
def test_lines_that_are_no_frames_are_refused_with_their_number(tmp_path, text, expected):
    assert expected in message(read_clip, write(tmp_path / "clip.jsonl", text), num_channels=2)


def test_names_beside_the_array_of_a_frame_are_read(tmp_path):
    names = {"joints": ["head", "hip"], "channels": ["Y", "x"]}
    frames = [{"poses": [[1, 2], [3, 4]], **names}, None, {"poses": [[5, 6], [7, 8]], **names}]
    folder = write_frames(tmp_path / "clip", dict(enumerate(frames)))
    file = write(tmp_path / "clip.jsonl", "\n".join(map(json.dumps, frames)))
    for clip in (read_clip(folder), read_clip(file)):
        assert clip.joints == ("head", "hip")
        assert clip.channels == ("y", "x")
        np.testing.assert_array_equal(clip.poses[0, ::2], [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"joints": ["hip", "head"]}, "frame 1: other names of joints than in frame 0"),
        ({"joints": ["head", "hip", "toe"]}, "line 2: expected 2 different names under 'joints'"),
        ({}, "frame 1: other names of joints than in frame 0"),
    ],
)
def test_frames_of_other_names_are_refused(tmp_path, names, expected):
    first = {"poses": [[1, 2], [3, 4]], "joints": ["head", "hip"]}
    second = {"poses": [[5, 6], [7, 8]], **names}
    path = write(tmp_path / "clip.jsonl", f"{json.dumps(first)}\n{json.dumps(second)}")
    assert expected in message(read_clip, path)


def test_a_folder_in_an_archive_is_read_like_one_on_the_disk(tmp_path):
    folder = write_frames(tmp_path / "clip", {n: openpose(pose(x=n)) for n in range(3)})
    path = tmp_path / f"clips{ENDING}"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"wave/clip/{file.name}")
    found = read_clip(path / "wave" / "clip").poses
    np.testing.assert_array_equal(found, read_clip(folder).poses)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=12, unique=True),
    st.sampled_from(["{}.json", "{:05d}.json", "cam01.{:04d}.json", "7_{:012d}_keypoints.json"]),
    st.randoms(use_true_random=False),
)
def test_files_are_sorted_by_the_number_that_differs(tmp_path_factory, numbers, form, random):
    folder = tmp_path_factory.mktemp("a")
    paths = [folder / form.format(number) for number in numbers]
    random.shuffle(paths)
    found = number_files(folder, paths)
    assert [path.name for path in found.values()] == [form.format(n) for n in sorted(numbers)]
    if len(numbers) > 1:
        assert list(found) == sorted(numbers)


def test_equal_steps_between_frames_have_no_gaps(tmp_path):
    by_five = {n: [[n, 1.0]] for n in (0, 5, 10, 20)}
    poses = read_clip(write_frames(tmp_path / "a", by_five)).poses
    np.testing.assert_array_equal(poses[0, :, 0, 0], [0, 5, 10, np.nan, 20])


NAMES = "expected names that differ in"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "is a folder, expected a recording or a folder with a file a frame"),
        ({"a.txt": "1", ".0.json": "1"}, "is a folder, expected a recording"),
        ({"a0.json": [[1]], "b1.json": [[1]]}, f"{NAMES} a number only, such as frame_001.json"),
        ({"a0_1.json": [[1]], "a1_2.json": [[1]]}, f"{NAMES} one number, found several"),
        ({"a1.json": [[1]], "a01.json": [[1]]}, "two files of frame 1: 'a01.json' and 'a1.json'"),
        ({"a1.json": [[1]], "a1.npy": "1"}, "expected frames of one kind"),
        ({"0.json": [1, 2]}, "0.json: 2 numbers in a row, and nothing says how many a joint has"),
        ({"0.json": [[1, 2]], "1.json": [[1]]}, "frame 1: 1 joints of 1 numbers, expected 1 of 2"),
        (
            {"0.json": [[1, 2]], "1.json": openpose(pose())},
            "frame 0 is an array and frame 1 a list",
        ),
        ({"0.json": [[1, 2]], "900000.json": [[1, 2]], "1.json": []}, "at most 100,000 missing"),
        ({"0.json": "[[1,"}, "0.json: expected JSON: line 1"),
        ({"0.json": {"a": 1}}, "0.json: expected a frame of numbers, [joints, channels]"),
        ({"0.json": [["a"]]}, "0.json: expected a frame of numbers"),
        ({"0.json": [[[[1]]]]}, "found float64 [1, 1, 1, 1]"),
        ({"0.json": None, "1.json": []}, "nobody is in any of 2 frames"),
        ({"0.npy": "1"}, "0.npy: expected an .npy array"),
        ({"0.json": {"people": 3}}, "0.json: people: expected a list of persons, found 3"),
        ({"0.json": {"people": [3]}}, "0.json: people[0]: expected a person, found 3"),
        ({"0.json": {"people": [{"a": 3}]}}, "people[0]: expected a person with 'keypoints' or"),
        ({"0.json": openpose([1, 2])}, "expected a list of x, y and score of every joint, found"),
        ({"0.json": openpose([1, 2, 3] * 15)}, "has 15 joints, expected 25 (BODY_25) or 18 (COCO)"),
        ({"0.json": openpose([1, 2, 1e7] * 25)}, "expected numbers up to 1,000,000, found 1000"),
        ({"0.json": openpose(*[pose()] * 101)}, "101 persons in a frame, expected at most 100"),
        (
            {"0.json": openpose(pose()), "1.json": openpose(pose(18))},
            "frame 1: 18 joints, expected 25 as in frame 0",
        ),
    ],
)
def test_bad_folders_are_refused_with_a_reason(tmp_path, files, expected):
    for name, content in files.items():
        write(tmp_path / "clip" / name, content)
    (tmp_path / "clip").mkdir(exist_ok=True)
    assert expected in message(read_clip, tmp_path / "clip")


def test_too_many_numbers_in_a_row_are_refused(tmp_path):
    folder = write_frames(tmp_path / "clip", {0: [1, 2, 3]})
    assert "3 numbers in a row, expected a multiple of the 2 joints" in message(
        read_clip, folder, 2
    )
    assert "a multiple of the 2 channels" in message(read_clip, folder, num_channels=2)


# Files with all frames


def test_channels_and_names_of_keypoints_are_the_files(tmp_path):
    names = ("left_wrist", "nose", "right_wrist")
    path = write(tmp_path / "clip.json", [points(names=names), {"keypoints": []}, None])
    clip = read_clip(path)
    assert (clip.joints, clip.channels) == (names, ("x", "y", "z", "score"))
    assert clip.poses.shape == (1, 3, 3, 4)
    layout = Layout(("Nose", "RIGHT_WRIST", "LWrist"), channels=("x", "y", "z", "score"))
    poses, present = read_poses(path, Expected(layout, 1))
    assert present.tolist() == [[True, False, False]]
    np.testing.assert_allclose(poses[0, 0, :, 0], [1.1, 2.1, 0.1], rtol=1e-6)


def test_keypoints_without_all_names_have_none(tmp_path):
    for names in (("a", "b"), ("a", "b", "b"), ("a", "b", "")):
        path = write(tmp_path / "clip.json", [points(names=names)])
        assert read_clip(path).joints == ()


def test_coco_results_are_grouped_by_image(tmp_path):
    def result(image, x):
        return {"image_id": image, "category_id": 1, "keypoints": pose(17, x), "score": 0.9}

    results = [result("v_12.jpg", 3), result("v_9.jpg", 1), result("v_10.jpg", 2)]
    clip = read_clip(write(tmp_path / "clip.json", results))
    assert (clip.layout, clip.channels) == ("coco17", XYS)
    np.testing.assert_array_equal(clip.poses[0, :, 0, 0], [1, 2, np.nan, 3])
    two = [result(n, x) for n in range(3) for x in (1, 900)]
    assert read_clip(write(tmp_path / "two.json", two), max_persons=2).poses.shape[0] == 2
    assert read_clip(tmp_path / "two.json").poses.shape[0] == 1


def results_of(images):
    """COCO results of a person in each image, whose x is its place in the list from 1."""
    return [{"image_id": image, "keypoints": [x, 1, 1]} for x, image in enumerate(images, start=1)]


@pytest.mark.parametrize(
    ("images", "first"),
    [
        (["00007_720p.jpg", "00009_720p.jpg", "00010_720p.jpg"], 7),
        (["cam2_0.mp4", "cam2_2.mp4", "cam2_3.mp4"], 0),
        (["video7/08.png", "video7/10.png", "video7/11.png"], 8),
        ([30, 32, 33], 30),
    ],
)
def test_images_are_numbered_by_what_differs(tmp_path, images, first):
    clip = read_clip(write(tmp_path / "clip.json", results_of(images)))
    np.testing.assert_array_equal(clip.poses[0, :, 0, 0], [1, np.nan, 2, 3])
    assert clip.numbering == (first, 1)


def test_results_of_one_image_are_one_frame(tmp_path):
    clip = read_clip(write(tmp_path / "clip.json", results_of(["00007_720p.jpg"] * 2)))
    assert clip.poses.shape == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["a_1.jpg", "b_2.jpg"], f"image_id: {NAMES} a number only, such as 'frame_001.jpg', foun"),
        (
            ["1/01.jpg", "2/02.jpg"],
            f"image_id: {NAMES} one number, found several in '1/01.jpg' and",
        ),
        (["1.jpg", "01.jpg"], "image_id: two images of frame 1: '1.jpg' and '01.jpg'"),
        ([1, "2.jpg"], "expected an 'image_id' of one kind, found 1 and '2.jpg'"),
    ],
)
def test_images_of_unclear_numbers_are_refused(tmp_path, images, expected):
    assert expected in message(read_clip, write(tmp_path / "clip.json", results_of(images)))


numbers = st.one_of(st.none(), st.just(0), st.integers(-9, 900), st.floats(-1e3, 1e3, width=32))


@settings(deadline=None, max_examples=60)
@given(
    st.data(), st.sampled_from([XYS, ("x", "y"), ("x", "y", "z"), ("x", "y", "z", "visibility")])
)
def test_keypoints_are_read_like_a_slow_reader(tmp_path_factory, data, keys):
    num_joints = data.draw(st.integers(1, 4))
    joint = st.fixed_dictionaries(dict.fromkeys(keys, numbers))
    joints = st.lists(joint, min_size=num_joints, max_size=num_joints)
    frame = st.one_of(
        st.sampled_from([None, [], {"keypoints": []}]),
        st.fixed_dictionaries({"keypoints": joints}),
        joints,
        st.lists(st.fixed_dictionaries({"keypoints": joints}), min_size=1, max_size=1),
    )
    frames = data.draw(st.lists(frame, min_size=1, max_size=5))
    frames.append({"keypoints": [dict.fromkeys(keys, 1)] * num_joints})
    folder = tmp_path_factory.mktemp("a")
    expected, expected_present = slow_clip(frames, keys, num_joints)
    layout = Layout(tuple(map(str, range(num_joints))), channels=keys)
    for path in (
        write(folder / "clip.json", frames),
        write_frames(folder / "clip", dict(enumerate(frames)), "{}.json"),
    ):
        poses, present = read_poses(path, Expected(layout, 2))
        np.testing.assert_array_equal(poses, expected)
        np.testing.assert_array_equal(present, expected_present)


def slow_clip(frames, keys, num_joints):
    """Read the frames of one person, joint by joint: [1, T, V, C] and [1, T]."""
    poses = np.zeros((1, len(frames), num_joints, len(keys)), np.float32)
    for number, frame in enumerate(frames):
        if isinstance(frame, list) and frame and "keypoints" in frame[0]:
            frame = frame[0]
        joints = frame["keypoints"] if isinstance(frame, dict) else frame
        for index, joint in enumerate(joints or []):
            values = [joint[key] for key in keys]
            coordinates = [joint[key] for key in keys if key in "xyz"]
            is_found = None not in values and any(coordinates)
            is_found = is_found and (len(coordinates) == 3 or coordinates != [-1, -1])
            score = [joint[key] for key in keys if key not in "xyz"]
            if is_found and all(value > 0 for value in score):
                poses[0, number, index] = values
    return poses, poses.any(axis=(2, 3))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            openpose(pose()),
            "the persons of one frame, expected a list of frames (if each frame has",
        ),
        (points(), "the persons of one frame"),
        (points()["keypoints"], "the persons of one frame"),
        ([points(), points(4)], "frame 1: 4 joints, expected 3 as in frame 0"),
        (
            [points(), points(keys="xy")],
            "frame 1: the channels x, y, expected x, y, z, score as in",
        ),
        (
            [points(1, names="a"), points(1, names="b")],
            "frame 1: 1 joints of other names, expected 1 as in frame 0",
        ),
        ([{"keypoints": []}], "nobody is in any of 1 frames"),
        ([{"keypoints": "a"}], "[0]: keypoints: expected a list of x, y and score"),
        ([{"keypoints": [{"x": 1, "y": 2}, {"x": 1}]}], "keypoints[1]: expected a number 'x'"),
        ([{"keypoints": [{"x": 1, "y": "2"}]}], "keypoints[0]: expected a number 'y' as in the"),
        ([{"keypoints": [{"x": 1, "y": True}]}], "keypoints[0]: expected a number 'y' as in the"),
        ([{"keypoints": [{"x": 1, "y": 10**400}]}], "expected numbers up to 1,000,000, found 1000"),
        ([{"keypoints": [{"x": 1, "y": float("inf")}]}], "expected numbers up to 1,000,000"),
        (
            [{"pose": 1}],
            "[0]: expected a person with 'keypoints' or 'pose_keypoints_2d', found 'pose'",
        ),
        ([points(), 3], "[1]: expected a person, found 3"),
        ([{"image_id": "a", "keypoints": pose(17)}], "[0]: expected an 'image_id' with the number"),
        ([{"image_id": 1, "category_id": 3, "keypoints": [1]}], "expected the category_id 1"),
        ([{"image_id": 1, "keypoints": pose(17)}, 3], "[1]: expected an 'image_id'"),
        ([{"image_id": n, "keypoints": pose(17)} for n in (1, 2, 10**9)], "missing"),
        ({"annotations": [], "images": []}, "found the keys 'annotations', 'images'"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path, content, expected):
    assert expected in message(read_clip, write(tmp_path / "clip.json", content))


def test_one_frame_in_an_array_names_the_folder(tmp_path):
    np.save(tmp_path / "0.npy", np.ones((3, 2)))
    expected = f"if it is one frame of many, give their folder: {tmp_path}"
    assert expected in message(read_clip, tmp_path / "0.npy")


# Streams


def test_a_stream_takes_the_frames_of_pose_estimators():
    layout = Layout(("b", "a"), channels=("x", "y", "z", "score"))
    line = json.dumps(points(2, names=("a", "b")))
    frame, says_who = parse_frame(line, "line 1", Expected(layout, 1))
    assert not says_who
    np.testing.assert_allclose(frame, [[[1.1, 1.2, 1.3, 1.4], [0.1, 0.2, 0.3, 0.4]]])
    assert len(parse_frame('{"people": []}', "line 1", Expected(layout, 1)).persons) == 0
    for value, expected in (
        (points(3), "line 1: 3 joints, expected 2"),
        (points(2, names=("a", "c")), "line 1: expected the joints b, a, found a, c"),
        (points(2, keys="xy"), "line 1: expected the channels x, y, z, score, found x, y"),
        ([points(2)] * 101, "line 1: 101 persons in a frame, expected at most 100"),
    ):
        assert expected in message(parse_frame, json.dumps(value), "line 1", Expected(layout, 1))
