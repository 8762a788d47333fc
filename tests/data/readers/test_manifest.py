"""Recordings of a manifest: the table, the file of joints and the protocols."""

import json
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.cli.recording_options import parse_numbers
from skelnas.data.cache import Cache
from skelnas.data.matching import match_origins
from skelnas.data.prepare import prepare
from skelnas.data.readers import manifest
from skelnas.data.readers.base import ClipTable, Test, Train, Unused, check_recording
from skelnas.data.readers.layouts import LAYOUTS, find_layout
from skelnas.data.readers.manifest import Manifest, read_manifest
from skelnas.data.readers.manifest_table import Stretch, find_table
from skelnas.data.readers.skeleton_file import Skeleton, read_skeleton
from skelnas.data.readers.unlabelled import Origin, read_unlabelled
from skelnas.errors import InputError, UsageError
from skelnas.reporting.plot_layout import place

HEADER = "path,label,subject,camera,split"


@pytest.fixture
def folder(tmp_path):
    """Three clips of two joints, in a subfolder."""
    (tmp_path / "clips").mkdir()
    for name, value in (("a", 1), ("b", 2), ("c", 3)):
        np.save(tmp_path / "clips" / f"{name}.npy", np.full((4, 2, 3), value, np.float32))
    return tmp_path


def table(folder, *lines, header=HEADER, name="clips.csv"):
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    read_manifest.cache_clear()
    manifest._find_layout.cache_clear()
    find_table.cache_clear()
    return path


LINES = ("clips/a.npy,wave,3,1,train", "clips/b.npy,run,4,2,test", "clips/c.npy,wave,5,2,")


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def read_all(source):
    recordings = [source.read(item) for item in source.catalogue().items]
    for recording in recordings:
        check_recording(recording, source.layout, source.max_persons)
    return recordings


def clip_table(recordings):
    facts = ("label", "subject", "camera", "setup")
    columns = [np.array([getattr(r, fact) for r in recordings], np.int32) for fact in facts]
    return ClipTable([recording.name for recording in recordings], *columns)


def splits(source):
    found = source.splits(clip_table(read_all(source)))
    return {protocol: parts.tolist() for protocol, parts in found.items()}


# The table


def test_clips_are_in_the_order_of_the_table_with_their_metadata(folder):
    source = Manifest(table(folder, LINES[2], *LINES[:2]))
    third, first, second = read_all(source)
    assert (first.name, first.subject, first.camera, first.setup) == ("clips/a", 3, 1, -1)
    assert [clip.label for clip in (first, second, third)] == [1, 0, 1]
    assert source.classes(np.int32([0])) == ["run", "wave"]
    assert first.poses.shape == (1, 4, 2, 3)
    np.testing.assert_array_equal(second.poses, 2)
    assert splits(source) == {"official": [Unused, Train, Test]}


def test_numbers_as_labels_are_class_indices(folder):
    lines = [line.replace("wave", "3").replace("run", "0") for line in LINES]
    source = Manifest(table(folder, *lines))
    assert [clip.label for clip in read_all(source)] == [3, 0, 3]
    assert source.classes(np.int32([])) == ["class 0", "class 1", "class 2", "class 3"]


def test_names_blank_metadata_and_protocols_of_the_table(folder):
    path = table(
        folder,
        "clips/a.npy,wave,one,,7,TRAIN,test",
        "clips/b.npy,run,,,,,train",
        header="Path,Label,name,subject,setup,split,split_folds-1",
    )
    source = Manifest(path)
    first, second = read_all(source)
    assert (first.name, first.subject, first.setup) == ("one", -1, 7)
    assert (second.name, second.setup) == ("clips/b", -1)
    assert splits(source) == {"official": [Train, Unused], "folds-1": [Test, Train]}


def test_protocols_by_subject_and_camera(folder):
    source = Manifest(table(folder, *LINES), test_subjects=(3, 5), test_cameras=(2,))
    assert splits(source) == {
        "official": [Train, Test, Unused],
        "xsub": [Test, Train, Test],
        "xview": [Train, Test, Test],
    }
    assert source.rule["test_subjects"] == [3, 5]


def test_shares_and_folds_are_added_to_the_protocols_of_the_table(folder):
    source = Manifest(table(folder, *LINES), test_share=0.3, folds=2, split_seed=1)
    assert list(splits(source)) == ["official", "random", "fold1", "fold2"]
    assert source.rule["split_seed"] == 1
    assert "test_share=" not in repr(source)


def test_impossible_protocols_are_refused(folder):
    path = table(folder, "clips/a.npy,wave,", header="path,label,subject")
    source = Manifest(path, test_subjects=(3,))
    assert "no clip has the subject 3 to test on" in message(source.catalogue)
    path = table(folder, "clips/a.npy,wave,3,train", header="path,label,subject,split_xsub")
    assert "the table already has a column split_xsub" in message(source.catalogue)
    path = table(folder, "clips/a.npy,wave", header="path,label")
    assert "nothing says which clips are for training" in message(Manifest(path).catalogue)
    assert Manifest(table(folder, *LINES), test_subjects=(3,)).catalogue().items


@pytest.mark.parametrize(
    ("header", "lines", "expected"),
    [
        (HEADER, [], "line 1: expected a clip in each line below, found 0"),
        ("path,name", ["a.npy,a"], "line 1: expected a column 'label'"),
        ("path,label,age", ["a.npy,1,2"], "line 1, column 3: unknown column 'age'"),
        ("path,label,split_", ["a.npy,1,2"], "line 1, column 3: unknown column 'split_'"),
        ("path,label,label", ["a.npy,1,2"], "line 1, column 3: a second column 'label'"),
        (HEADER, ["a.npy,1,1,1"], "line 2: expected 5 cells, found 4"),
        (HEADER, [",1,1,1,"], "line 2, column path: expected the path of a clip, found nothing"),
        (HEADER, [".,1,1,1,"], "line 2, column path: expected the path of a clip, found '.'"),
        (HEADER, ["a.npy,,1,1,"], "line 2, column label: expected a class name, or a class index"),
        (HEADER, ["a.npy,NaN,1,1,"], "line 2, column label: expected a class name, or a class"),
        (HEADER, ["a.npy,-1,1,1,"], "line 2, column label: expected a class index from 0 to 65535"),
        (HEADER, ["a.npy,65536,1,1,"], "line 2, column label: expected a class index from 0 to"),
        (HEADER, ["a.npy,1,x,1,"], "line 2, column subject: expected a whole number from 0, or "),
        (HEADER, ["a.npy,1,1,2.0,"], "column camera: expected a whole number from 0, or nothing, "),
        (HEADER, ["a.npy,1,1,1,val"], "line 2, column split: expected train, test or nothing, "),
        (HEADER, ["a.npy,1,,,", "", "a.npy,2,,,"], "line 4: the name 'a' is already in line 2"),
        (
            HEADER + ",name",
            ["a.npy,1,,,,x", "a.npy,2,,,,y"],
            "line 3: the clip 'a.npy' is already in line 2",
        ),
        (
            HEADER + ",name",
            ["a.npy,1,,,,x", "b.npy,2,,,,x"],
            "line 3: the name 'x' is already in line 2",
        ),
        (
            HEADER + ",name",
            ["a.npy,1,,,,x", "b/../a.npy,2,,,,y"],
            "line 3: the clip 'b/../a.npy' is already in line 2",
        ),
        (
            HEADER,
            ["a\u0301.npy,1,,,", "\u00e1.npy,2,,,"],
            "the name '\u00e1' is already in",
        ),
        (
            HEADER,
            ["a.npy,Wave,,,", "b.npy,run,,,", "c.npy,wave,,,"],
            "line 4, column label: expected 'Wave' as in line 2, or another class, found 'wave'",
        ),
        (
            HEADER,
            ["a.npy,stand  up,,,", "b.npy,stand up,,,"],
            "column label: expected 'stan",
        ),
    ],
)
def test_bad_tables_are_refused_with_line_and_column(tmp_path, header, lines, expected):
    path = table(tmp_path, *lines, header=header)
    found = message(Manifest(path).catalogue)
    assert found.startswith(f"{path}: ")
    assert expected in found


def test_a_table_with_crlf_semicolons_and_byte_order_mark(folder):
    path = table(folder)
    text = "\r\n".join([HEADER, *LINES]).replace(",", ";")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [clip.label for clip in read_all(Manifest(path))] == [1, 0, 1]


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        ("a\u0301.npy", "\u00e1.npy"),
        ("\u00e1.npy", "a\u0301.npy"),
        ("a.npy", "clips\\a.npy"),
        ("\u00e1.npy", "clips\\a\u0301.npy"),
    ],
)
def test_paths_in_another_unicode_form_or_with_backslashes_are_found(folder, on_disk, in_table):
    np.save(folder / "clips" / on_disk, np.full((4, 2, 3), 2.0))
    file = in_table if "\\" in in_table else f"clips/{in_table}"
    (recording,) = read_all(Manifest(table(folder, f"{file},wave,3,1,train")))
    assert recording.poses.any()
    assert "\\" not in recording.name


# Clips


def test_absent_persons_and_unknown_joints(folder):
    poses = np.ones((2, 3, 2, 3))
    poses[0, 1] = 0
    poses[1, 2] = np.nan
    poses[1, 0, 0, 1] = np.inf
    np.save(folder / "clips" / "a.npy", poses)
    (recording, *_) = read_all(Manifest(table(folder, *LINES), persons=2))
    assert recording.present.tolist() == [[True, False, True], [True, True, False]]
    assert not recording.poses[1, 0, 0].any()
    assert recording.poses[1, 0, 1].all()


def test_joints_and_channels_of_the_header_are_kept_and_compared(folder):
    clips = folder / "clips"
    (clips / "a.csv").write_text("hip_x,hip_y,head_x,head_y\n1,2,3,4\n")
    (clips / "b.csv").write_text("Head_Y,Head_X,foot_x,foot_y\n1,2,3,4\n")
    (clips / "c.csv").write_text("hip_u,hip_w,head_u,head_w\n1,2,3,4\n")
    source = Manifest(table(folder, *(line.replace("npy", "csv") for line in LINES)))
    assert (source.layout.joints, source.layout.channels) == (("hip", "head"), ("x", "y"))
    first, second, third = source.catalogue().items
    assert source.read(first).poses.tolist() == [[[[1, 2], [3, 4]]]]
    expected = f"{second}: expected the joints hip, head, found Head, foot"
    assert message(source.read, second) == expected
    assert message(source.read, third) == f"{third}: expected the channels x, y, found u, w"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 3, 3), "3 joints of 3 numbers, expected 2 of 3 as in the first clip"),
        ((4, 2, 2), "2 joints of 2 numbers, expected 2 of 3 as in the first clip"),
        ((2, 4, 2, 3), "2 persons in 4 frames, expected 1 to 1 persons and a frame; see --persons"),
        ((0, 2, 3), "1 persons in 0 frames, expected 1 to 1 persons"),
    ],
)
def test_clips_of_another_shape_are_refused(folder, shape, expected):
    np.save(folder / "clips" / "b.npy", np.ones(shape))
    source = Manifest(table(folder, *LINES))
    item = source.catalogue().items[1]
    assert message(source.read, item).startswith(f"{item}: {expected}")


def test_joints_come_from_the_first_clip_that_can_be_read(folder):
    (folder / "clips" / "a.npy").write_bytes(b"")
    (folder / "clips" / "c.npy").unlink()
    report = prepare(Manifest(table(folder, *LINES)), folder / "own.h5")
    assert [reason.partition(":")[0] for _, reason in report.failed] == [
        "expected an .npy array, which begins with b'\\x93NUMPY'",
        "cannot be read",
    ]
    with Cache.open(folder / "own.h5") as cache:
        assert cache.clips.names == ["clips/b"]
        assert cache.layout.joints == ("joint_0", "joint_1")


def test_if_no_clip_can_be_read_the_first_is_reported(folder):
    source = Manifest(table(folder, "x.npy,1,,,", "y.npy,1,,,"))
    assert message(lambda: source.layout) == (
        f"{folder / 'x.npy'}: cannot be read: No such file or directory"
    )


def test_a_clip_that_is_a_loop_of_links_is_reported(folder):
    loop = folder / "clips" / "a.npy"
    loop.unlink()
    loop.symlink_to(loop)
    source = Manifest(table(folder, *LINES))
    assert "Too many levels of symbolic links" in message(source.read, loop)


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may read everything")
def test_a_clip_without_read_permission_is_reported(folder):
    path = folder / "clips" / "a.npy"
    path.chmod(0)
    assert "Permission denied" in message(Manifest(table(folder, *LINES)).read, path)


# The file of joints


def joints(folder, content, name="joints.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


FULL = {
    "joints": ["hip", "head"],
    "bones": [["head", "hip"]],
    "center": "hip",
    "channels": ["x", "y"],
    "picture": [100, 50],
    "y_down": False,
    "frame_rate": 25,
}


def test_joints_in_json_and_toml(tmp_path):
    expected = Skeleton(("hip", "head"), ((1, 0),), 0, ("x", "y"), (100.0, 50.0), False, 25.0)
    assert read_skeleton(joints(tmp_path, FULL)) == expected
    toml = "\n".join(f"{key} = {json.dumps(value)}" for key, value in FULL.items())
    assert read_skeleton(joints(tmp_path, toml, "joints.toml")) == expected
    numbers = {**FULL, "bones": [[1, 0]], "center": 0}
    assert read_skeleton(joints(tmp_path, numbers)) == expected


def test_joints_give_the_layout_and_pictures_the_scale(folder):
    poses = np.array([[[50, 50], [100, 25]], [[0, 0], [25, 0]]])
    np.save(folder / "clips" / "a.npy", poses)
    source = Manifest(table(folder, LINES[0]), joints(folder, FULL))
    assert source.layout.joints == ("hip", "head")
    assert (source.layout.bones, source.layout.center_joint) == (((1, 0),), 0)
    assert (source.layout.y_down, source.layout.frame_rate) == (False, 25)
    (recording,) = read_all(source)
    assert recording.poses.tolist() == [[[[0, 0.5], [0.5, 0]], [[0, 0], [-0.25, -0.5]]]]
    assert source.rule["coordinates"].startswith("x / 100 - 0.5, y / 50 - 0.5")


def test_rows_without_a_header_need_the_file_of_joints(folder):
    (folder / "clips" / "a.csv").write_text("1,2,3,9\n5,6,7,8\n")
    path = table(folder, "clips/a.csv,wave,1,1,train")
    source = Manifest(path, joints(folder, {"joints": ["hip", "head"]}))
    assert source.layout.channels == ("x", "y")
    assert read_all(source)[0].poses.shape == (1, 2, 2, 2)


POINTS = np.random.default_rng(0).uniform(-1, 1, (4, 17, 2))
PIXELS = 200 * POINTS + 300
SCORES = np.random.default_rng(1).uniform(0.1, 1, (4, 17, 1))
DEPTHS = np.random.default_rng(2).uniform(2, 3, (4, 17, 1))


def own(folder, *numbers, **options):
    """Return a source of one clip that is stored as an array without names."""
    np.save(folder / "clips" / "a.npy", np.concatenate(numbers, axis=-1))
    return Manifest(table(folder, LINES[0]), **options)


@pytest.mark.parametrize(
    ("numbers", "channels", "reason"),
    [
        ((PIXELS,), "x y", "2 numbers a joint"),
        ((POINTS, DEPTHS), "x y z", "the third number of a joint is 2"),
        ((PIXELS, SCORES), "x y score", "the third number of a joint is 0.1"),
        ((POINTS, POINTS[..., :1], SCORES), "x y z score", "the fourth 0.1"),
    ],
)
def test_channels_without_names_are_told(folder, capsys, numbers, channels, reason):
    source = own(folder, *numbers)
    assert source.catalogue().items
    (_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"channels {channels.replace(' ', ', ')}: ")
    assert reason in line
    assert source.layout.channels == tuple(channels.split())
    np.testing.assert_allclose(read_all(source)[0].poses[0], np.concatenate(numbers, -1), 1e-6)


@pytest.mark.parametrize(
    "numbers", [(SCORES, SCORES, SCORES), (PIXELS, SCORES, SCORES, SCORES), (POINTS, SCORES)]
)
def test_where_channels_stay_open_the_flag_settles_it(folder, capsys, numbers):
    source = own(folder, *numbers)
    count = sum(part.shape[-1] for part in numbers)
    found = message(source.catalogue)
    assert f"nothing says what the {count} numbers of a joint are: " in found
    names = ("x", "y", "score", "a", "b")[:count]
    source = own(folder, *numbers, channels=names)
    assert source.catalogue().items
    assert "channels" not in capsys.readouterr().err
    assert source.layout.channels == names
    assert read_all(source)


def test_numbers_unlike_the_named_layout_are_refused(folder):
    found = message(own(folder, POINTS, DEPTHS, joints=Path("coco17")).catalogue)
    assert found.endswith("like z, but the layout has x, y, score")


def test_a_header_may_have_other_channels_if_they_are_listed(folder):
    (folder / "clips" / "a.csv").write_text("hip_time,hip_y,hip_x\n3,2,1\n")
    clips = table(folder, LINES[0].replace("npy", "csv"))
    assert "found x, y, time" in message(lambda: Manifest(clips).layout)
    source = Manifest(clips, channels=("x", "y", "time"))
    assert read_all(source)[0].poses.tolist() == [[[[1, 2, 3]]]]


def test_channels_of_the_command_override_those_of_the_file(folder):
    named = joints(folder, {"joints": [f"j{i}" for i in range(17)], "channels": ["x", "y", "z"]})
    source = own(folder, PIXELS, SCORES, joints=named)
    assert read_all(source)[0].poses.any()
    assert source.layout.channels == ("x", "y", "z")
    source = own(folder, PIXELS[..., ::-1], SCORES, joints=named, channels=("y", "x", "score"))
    assert source.rule["channels"] == ["y", "x", "score"]
    np.testing.assert_array_equal(
        read_all(source)[0].poses[0], np.concatenate([PIXELS, SCORES], -1).astype(np.float32)
    )


def test_a_clip_unlike_the_others_is_refused(folder):
    for name, numbers in (("b", (POINTS, DEPTHS)), ("c", (POINTS, DEPTHS))):
        np.save(folder / "clips" / f"{name}.npy", np.concatenate(numbers, axis=-1))
    np.save(folder / "clips" / "a.npy", np.concatenate([PIXELS, SCORES], axis=-1))
    source = Manifest(table(folder, *LINES), joints=Path("coco17"), channels=())
    assert source.layout.channels == ("x", "y", "score")
    _, second, _ = source.catalogue().items
    assert "like z and not a score" in message(source.read, second)
    assert Manifest(table(folder, *LINES), channels=("x", "y", "z")).read(second).poses.any()


def test_a_layout_by_name_gives_joints_bones_and_the_direction_of_y(folder):
    source = own(folder, PIXELS, SCORES, joints=Path("coco17"), picture=(640, 480))
    layout = find_layout("coco17")
    assert source.layout == layout
    assert source.rule["picture"] == [640, 480]
    expected = PIXELS[0, 0] / (640, 480) - 0.5
    np.testing.assert_allclose(read_all(source)[0].poses[0, 0, 0, :2], expected, 1e-6)
    in_3d = own(folder, POINTS, DEPTHS, joints=Path("coco17"), channels=("x", "y", "z"))
    assert (in_3d.layout.y_down, in_3d.layout.bones) == (False, layout.bones)
    for name in ("mediapipe33", "azure-kinect"):
        layout = find_layout(name)
        np.save(folder / "clips" / "a.npy", np.full((2, len(layout.joints), 3), -2.0))
        source = Manifest(table(folder, LINES[0]), joints=Path(name))
        assert (source.layout.y_down, source.layout.center_joint) == (True, layout.center_joint)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("coco71", "did you mean coco17?"), ("coco17.json", "cannot be read: No such file")],
)
def test_unknown_layouts_are_refused(folder, name, expected):
    assert expected in message(lambda: Manifest(table(folder, *LINES), Path(name)).layout)


def test_the_names_of_a_layout_match_any_usual_spelling_in_a_header(folder):
    joints = find_layout("coco17").joints
    spelled = [f"{joint.partition('_')[2]}_{joint.partition('_')[0]}".upper() for joint in joints]
    header = ",".join(f"{joint.strip('_')}_{axis}" for joint in reversed(spelled) for axis in "xy")
    clip = folder / "clips" / "a.csv"
    clip.write_text(f"{header}\n{','.join(map(str, range(1, 35)))}\n")
    source = Manifest(table(folder, LINES[0].replace("npy", "csv")), joints=Path("coco17"))
    (recording,) = read_all(source)
    np.testing.assert_array_equal(
        recording.poses[0, 0], np.arange(1, 35).reshape(17, 2)[::-1].astype(np.float32)
    )


def standing(name, count=6):
    """Return frames [T, V, 2] of a body that stands, moves a little and is seen in pixels."""
    points = np.array([place(joint) for joint in find_layout(name).joints])
    noise = np.random.default_rng(0).normal(0, 2, (count, *points.shape))
    return 300 + 100 * (np.array([1, -1]) * points + noise) / 60


@pytest.mark.parametrize("name", LAYOUTS)
def test_joints_in_the_order_of_another_layout_are_noted(folder, capsys, name):
    layout = find_layout(name)
    for other in [key for key in LAYOUTS if len(find_layout(key).joints) == len(layout.joints)]:
        source = own(folder, standing(name), joints=Path(other), channels=("x", "y"))
        assert source.catalogue().items
        err = capsys.readouterr().err
        # Between COCO's joints the bones of h36m17 are as short; fingers lie as close as phalanges.
        if other in (name, "h36m17") or {name, other} == {"mediapipe-hands21", "fpha21"}:
            assert "another order" not in err
        else:
            assert f"With --joints {name}, bones would be " in err


def test_joints_of_an_unlikely_layout_are_not_proposed(folder, capsys):
    own(folder, standing("openpose25b")).catalogue()
    assert "those of openpose25b, give --joints openpose25b" in capsys.readouterr().err
    own(folder, standing("coco17")[:, :16]).catalogue()
    assert "--joints mpii16" in capsys.readouterr().err
    own(folder, 0 * standing("openpose25") - 1).catalogue()
    assert "openpose25 or openpose25b or kinect-v2" in capsys.readouterr().err


def test_joints_without_names_are_told(folder, capsys):
    own(folder, POINTS, DEPTHS).catalogue()
    assert "if they are those of coco17 or h36m17, give --joints coco17" in capsys.readouterr().err


def test_a_single_number_a_joint_is_refused(folder):
    """Of 17, so that there are layouts whose bones might be measured."""
    found = message(own(folder, POINTS[..., :1]).catalogue)
    assert "1 number" in found or "the channels x, y" in found, found


def test_channels_are_sorted_and_their_order_in_arrays_is_stored(folder):
    np.save(folder / "clips" / "a.npy", [[[0.5, 25, 100], [0, -1, -1]]])
    content = {"joints": ["hip", "head"], "channels": ["Conf", "Y", "x"], "picture": [100, 50]}
    source = Manifest(table(folder, LINES[0]), joints(folder, content))
    assert source.layout.channels == ("x", "y", "score")
    assert source.rule["channels"] == ["score", "y", "x"]
    (recording,) = read_all(source)
    assert recording.poses.tolist() == [[[[0.5, 0, 0.5], [0, 0, 0]]]]
    origin = Origin("manifest", source.layout, 1, source.rule)
    np.testing.assert_array_equal(
        read_unlabelled(folder / "clips" / "a.npy", origin).poses, recording.poses
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"joints": []}, "expected an object with a list of names under 'joints'"),
        ({"joints": ["hip", 3]}, "expected 'joints' to be a list of names"),
        ({"joints": ["hip", "hip"]}, "'joints' has 'hip' twice"),
        ({"joints": ["hip", "Hip"]}, "'joints' has 'Hip' twice"),
        ({"names": []}, "unknown key 'names', expected joints, bones, center, channels, picture"),
        ({"bones": [["hip", "head"], ["head", "hip"]]}, "the bones of 'hip' go in a circle"),
        ({"bones": [["hip", "head"], [0, 1]]}, "two bones of the child 'hip', expected one"),
        (
            {"channels": ["score", "conf"]},
            "'channels' are score, conf: expected x and y among them",
        ),
        ({"channels": ["x", "z"]}, "'channels' are x, z: expected x and y among them"),
        ({"channels": ["x", "y", "c", "conf"]}, "'channels' are x, y, c, conf: two are the same"),
        ({"y_down": 1}, "expected 'y_down' to be true or false, found 1"),
        ({"frame_rate": 0}, "expected 'frame_rate' to be frames per second, found 0"),
        ({"frame_rate": True}, "expected 'frame_rate' to be frames per second, found True"),
        ({"bones": [["head"]]}, "expected 'bones' to be a list of pairs, [child, parent]"),
        ({"bones": [["head", "foot"]]}, "'foot' is not a joint, expected one of hip, head"),
        ({"bones": [[0, 2]]}, "'2' is not a joint"),
        ({"bones": [["hip", 0]]}, "a bone from 'hip' to itself"),
        ({"center": "foot"}, "'foot' is not a joint"),
        ({"center": True}, "'True' is not a joint"),
        ({"channels": "xy"}, "expected 'channels' to be a list of names"),
        ({"picture": [0, 50]}, "expected 'picture' to be [width, height] in pixels"),
        ({"picture": 50}, "expected 'picture' to be [width, height] in pixels"),
    ],
)
def test_bad_files_of_joints_are_refused(tmp_path, change, expected):
    path = joints(tmp_path, {**FULL, **change})
    found = message(read_skeleton, path)
    assert found.startswith(f"{path}: ")
    assert expected in found


def test_large_files_of_joints_are_refused_before_they_are_parsed(tmp_path):
    text = '{"joints": ["a", "b"], "bones": [' + "[0, 1], " * 300_000 + "[0, 1]]}"
    assert "bytes, expected at most 2,097,152" in message(read_skeleton, joints(tmp_path, text))
    text = ".".join("a" * 10_000) + " = 1"
    path = joints(tmp_path, text, "joints.toml")
    assert message(read_skeleton, path) == f"{path}: expected TOML: line 1 has more than 200 dots"
    path = joints(tmp_path, "".join(f"a{i}{'.a' * 199} = 1\n" for i in range(300)), "joints.toml")
    assert message(read_skeleton, path) == f"{path}: expected TOML: more than 50,000 dots"


def test_files_of_joints_that_are_not_json_or_toml_are_refused(tmp_path):
    assert "expected JSON: line 1, column 1" in message(read_skeleton, joints(tmp_path, "hip"))
    assert "expected TOML" in message(read_skeleton, joints(tmp_path, "hip", "joints.toml"))
    assert "expected an object" in message(read_skeleton, joints(tmp_path, "[]"))


# The command


@pytest.mark.parametrize("text", ["x", "3,", "3;5", "-1", "²", "1" * 20])
def test_invalid_numbers_are_usage_errors(text):
    with pytest.raises(UsageError, match=r"--test-subjects .*expected numbers such as 3,5"):
        parse_numbers(text, "--test-subjects")


def test_numbers_are_separated_by_commas():
    assert parse_numbers("", "--test-subjects") == ()
    assert parse_numbers("3, 05", "--test-subjects") == (3, 5)


# Archives, pictures of different sizes, and parts of recordings

XYZ = ("x", "y", "z")


def pack(folder, *files):
    path = folder / "all.zip"
    find_table.cache_clear()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(folder / file, f"set/{file}")
    return path


def test_an_archive_holds_table_clips_and_joints(folder, capsys):
    table(folder, *LINES)
    (folder / "joints.json").write_text('{"joints": ["hip", "head"], "center": "hip"}')
    files = ["clips.csv", "joints.json", *(f"clips/{name}.npy" for name in "abc")]
    source = Manifest(pack(folder, *files))
    outside = Manifest(folder / "clips.csv", folder / "joints.json")
    assert source.layout == outside.layout
    for inner, outer in zip(read_all(source), read_all(outside), strict=True):
        assert (inner.name, inner.label, inner.subject) == (outer.name, outer.label, outer.subject)
        np.testing.assert_array_equal(inner.poses, outer.poses)
    assert f"joints as in {folder / 'all.zip/set/joints.json'}" in capsys.readouterr().err
    report = prepare(source, folder / "cache.h5", workers=2)
    assert report.splits == {"official": (1, 1)}


def test_an_archive_with_no_or_two_tables_is_refused(folder):
    found = message(Manifest(pack(folder, "clips/a.npy")).catalogue)
    assert found.endswith("expected a table clips.csv in the archive, found no tables")
    other = folder / "other"
    other.mkdir()
    for name in ("x.csv", "y.csv"):
        table(other, *LINES, name=name)
    found = message(Manifest(pack(other, "x.csv", "y.csv")).catalogue)
    assert found.endswith("expected a table clips.csv in the archive, found 2 tables")


def test_each_clip_may_have_its_own_picture(folder):
    clips = [f"clips/{name}.npy,run,train,{size}" for name, size in (("a", "4,8"), ("b", "10,2"))]
    path = table(folder, *clips, header="path,label,split,width,height")
    source = Manifest(path, channels=("x", "y", "score"))
    first, second = read_all(source)
    assert first.poses[0, 0, 0].tolist() == [1 / 4 - 0.5, 1 / 8 - 0.5, 1]
    assert second.poses[0, 0, 0].tolist() == [np.float32(2 / 10 - 0.5), 2 / 2 - 0.5, 2]
    assert source.in_picture
    origin = Origin("manifest", source.layout, 1, source.rule)
    assert "whose size differed" in message(read_unlabelled, folder / "clips/a.npy", origin)
    told = replace(origin, given_picture=(4, 8))
    poses = read_unlabelled(folder / "clips/a.npy", told).poses
    np.testing.assert_array_equal(poses, first.poses)
    fixed = Origin("manifest", source.layout, 1, {**source.rule, "picture": [640, 480]})
    assert not match_origins(origin, fixed).mismatches
    pixels = {"coordinates": "as given; a joint that is not found is zero"}
    assert match_origins(origin, replace(fixed, rule=pixels)).mismatches


def test_clips_are_parts_of_recordings(folder):
    np.save(folder / "long.npy", np.arange(1, 121, dtype=np.float32).reshape(20, 2, 3))
    lines = ["long.npy,run,train,,5", "long.npy,go,test,5,12", "long.npy,go,test,12,"]
    source = Manifest(table(folder, *lines, header="path,label,split,start,end"), channels=XYZ)
    recordings = read_all(source)
    assert [recording.name for recording in recordings] == ["long_0-5", "long_5-12", "long_12-end"]
    whole = np.concatenate([recording.poses[0] for recording in recordings])
    np.testing.assert_array_equal(whole, np.load(folder / "long.npy"))
    lines = ["long.npy,run,train,0.1,0.35", "long.npy,run,train,1.5,"]
    path = table(folder, *lines, header="path,label,split,start_s,end_s")
    assert "line 2: 0.1s-0.35s needs frames per second" in message(
        Manifest(path, channels=XYZ).catalogue
    )
    first, second = read_all(Manifest(path, channels=XYZ, frame_rate=10))
    assert first.poses[0, :, 0, 0].tolist() == [7, 13, 19]  # frames 1, 2 and 3
    assert second.poses[0, :, 0, 0].tolist() == [91, 97, 103, 109, 115]
    assert Manifest(path, channels=XYZ, frame_rate=10).layout.frame_rate == 10


def test_frames_in_both_parts_of_a_protocol_are_noted(folder, capsys):
    np.save(folder / "long.npy", np.arange(1, 121, dtype=np.float32).reshape(20, 2, 3))
    lines = [
        "long.npy,run,train,train,0,0.9",
        "./long.npy,run,test,train,0.5,1.2",
        "long.npy,run,test,,1.2,",
        "clips/a.npy,run,train,test,,",
    ]
    path = table(folder, *lines, header="path,label,split,split_other,start_s,end_s")
    assert splits(Manifest(path, channels=XYZ, frame_rate=10))
    assert [line for line in capsys.readouterr().err.splitlines() if "share" in line] == [
        "official: 1 of 2 test clips share frames with training clips of the same recording, "
        "such as long_0.5s-1.2s with long_0s-0.9s"
    ]


def test_parts_of_a_recording_are_drawn_together(folder):
    lines = []
    for name in "defghi":
        np.save(folder / f"{name}.npy", np.ones((20, 2, 3), np.float32))
        lines += [f"{name}.npy,{label},{start},{start + 6}" for start, label in ((0, 0), (5, 1))]
    path = table(folder, *lines, header="path,label,start,end")
    for seed in range(3):
        source = Manifest(path, channels=XYZ, test_share=0.3, folds=3, split_seed=seed)
        for parts in splits(source).values():
            assert parts[::2] == parts[1::2]
            assert parts.count(Test) == 4


@pytest.mark.parametrize(
    ("stretch", "name"),
    [
        (Stretch(10000.02, 10000.04, True), "10000.02s-10000.04s"),
        (Stretch(1e6, 1000001.0, False), "1000000-1000001"),
        (Stretch(0.1, math.inf, True), "0.1s-end"),
    ],
)
def test_late_parts_of_long_recordings_have_names_of_their_own(stretch, name):
    assert str(stretch) == name


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 30), st.booleans())
def test_frames_of_a_stretch_are_those_whose_time_is_in_it(start, length, rate, in_seconds):
    unit = rate if in_seconds else 1
    stretch = Stretch(start / unit, (start + length) / unit, in_seconds)
    inside = [frame for frame in range(10) if start <= frame < start + length]
    if start + length > 10:
        with pytest.raises(InputError, match="the recording has 10, 0 to 9"):
            stretch.find_frames(10, rate)
    else:
        assert list(stretch.find_frames(10, rate)) == inside


KINDS = ("recording.csv", "recording.json", "recording")


def write_recording(folder, numbers):
    """Write a recording as a table, as COCO results or as a folder; x is the number of a frame."""
    (folder / "recording").mkdir(exist_ok=True)
    for n in numbers:
        (folder / "recording" / f"frame_{n:05}.json").write_text(json.dumps([[n, 1, 1]]))
    results = [{"image_id": f"v2_{n}.jpg", "keypoints": [n, 1, 1]} for n in numbers]
    (folder / "recording.json").write_text(json.dumps(results))
    rows = ["frame,hip_x,hip_y,hip_z", *(f"{n},{n},1,1" for n in numbers)]
    (folder / "recording.csv").write_text("\n".join(rows) + "\n")


def read_stretches(folder, kind, *cells, columns="start,end", frame_rate=None):
    """Return the numbers of the frames of each stretch, None where nobody is."""
    lines = [f"{kind},run,train,{line}" for line in cells]
    path = table(folder, *lines, header=f"path,label,split,{columns}")
    channels = () if kind == "recording.json" else XYZ
    clips = read_all(Manifest(path, channels=channels, frame_rate=frame_rate))
    return [
        [int(x) if is_there else None for x, is_there in zip(xs, present, strict=True)]
        for (xs,), (present,) in ((clip.poses[..., 0, 0], clip.present) for clip in clips)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_stretches_are_of_the_numbers_that_frames_have(folder, kind):
    write_recording(folder, [n for n in range(30, 60) if n != 41])
    cells = ("40,44", "28,32", ",32", "58,", "30,60")
    found = read_stretches(folder, kind, *cells)
    assert found[0] == [40, None, 42, 43]
    assert found[1] == [None, None, 30, 31]
    assert found[2:4] == [[30, 31], [58, 59]]
    assert len(found[4]) == 30
    for cells, numbers in (("10,30", "10 to 29"), ("50,61", "50 to 60"), ("60,", "60 to 59")):
        expected = f"the clip is frames {numbers}, but the recording has 30, 30 to 59"
        assert expected in message(read_stretches, folder, kind, cells)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "at_two_seconds"), [(0, 20), (1, 21), (2, 20), (17, 20)])
def test_seconds_are_counted_from_frame_0_or_1(folder, kind, first, at_two_seconds):
    write_recording(folder, range(first, 40))
    (found,) = read_stretches(folder, kind, "2,2.3", columns="start_s,end_s", frame_rate=10)
    assert found == [at_two_seconds + n for n in range(3)]


@pytest.mark.parametrize("kind", ["recording.json", "recording"])
def test_of_every_fifth_frame_start_and_end_are_numbers_too(folder, kind):
    write_recording(folder, range(15, 60, 5))
    found = read_stretches(folder, kind, "20,31", "9,20", "45,60")
    assert found == [[20, 25, 30], [None, 15], [45, 50, 55]]
    (found,) = read_stretches(folder, kind, "1,1.2", columns="start_s,end_s", frame_rate=5)
    assert found == [25]


def test_a_stretch_far_before_its_first_person_is_refused(folder):
    write_recording(folder, range(200_000, 200_010))
    expected = "begins with frame 5, the first that is listed is 200000, expected at most 100,000"
    assert expected in message(read_stretches, folder, "recording.csv", "5,200008")


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("width", "4", "line 1: expected both columns width and height"),
        ("start,end_s", "1,2", "expected start and end in frames, or start_s and end_s in seconds"),
        ("width,height", "4,", "line 2, column height: expected a number of pixels, found nothing"),
        ("width,height", "0,4", "line 2, column width: expected a number of pixels, found '0'"),
        ("start,end", "3,3", "line 2, column end: expected more than the start, 3, found '3'"),
        ("end", "0", "line 2, column end: expected more than 0, found '0'"),
        ("start", "1.5", "line 2, column start: expected a whole number from 0, or nothing"),
        ("start_s", "-1", "line 2, column start_s: expected seconds since the recording began"),
        ("start,end", "2,5", "2-5: the clip is frames 2 to 4, but the recording has 4, 0 to 3"),
    ],
)
def test_cells_of_pictures_and_parts_are_checked(folder, header, cells, expected):
    path = table(folder, f"clips/a.npy,run,train,{cells}", header=f"path,label,split,{header}")
    source = Manifest(path, channels=XYZ)
    assert expected in message(lambda: [source.read(item) for item in source.catalogue().items])


def test_the_same_part_twice_is_refused(folder):
    lines = ["clips/a.npy,run,train,1,3"] * 2
    path = table(folder, *lines, header="path,label,split,start,end")
    assert "line 3: the name 'clips/a_1-3' is already in line 2" in message(read_manifest, path)
