"""Joints and channels by name: in files that carry names beside an array, and in messages."""

import io
import json

import numpy as np
import pytest

from skelnas.data.readers.base import Layout
from skelnas.data.readers.clip_files import read_poses
from skelnas.data.readers.expected import Expected
from skelnas.data.readers.joint_names import describe_mismatch
from skelnas.data.readers.stream_frames import parse_frame
from skelnas.errors import InputError

LAYOUT = Layout(("hip", "hand_left", "hand_right"))
POSES = np.random.default_rng(0).normal((0, 0, 3), 0.3, (4, 3, 3)).round(3)
SHUFFLED = POSES[:, [2, 0, 1]][..., [1, 2, 0]]
NAMES = {"joints": ["RHand", "Hip", "hand_left"], "channels": ["Y", "Z", "x"]}


def write(folder, names):
    """Write the same clip with the same names as `.json` and as `.npz`; return the paths."""
    paths = [folder / "clip.json", folder / "clip.npz"]
    paths[0].write_text(json.dumps({"poses": SHUFFLED.tolist(), **names}))
    np.savez(paths[1], poses=SHUFFLED, **names)
    return paths


def test_names_beside_an_array_order_it(tmp_path):
    for path in write(tmp_path, NAMES):
        poses, _ = read_poses(path, Expected(LAYOUT, 1))
        np.testing.assert_array_equal(poses[0], POSES.astype(np.float32), err_msg=path.name)
    (tmp_path / "clip.npz").unlink()
    np.savez(tmp_path / "clip.npz", clip=SHUFFLED, **NAMES)  # the only array
    poses, _ = read_poses(tmp_path / "clip.npz", Expected(LAYOUT, 1))
    np.testing.assert_array_equal(poses[0], POSES.astype(np.float32))
    line = json.dumps({"poses": SHUFFLED[0].tolist(), **NAMES})
    np.testing.assert_array_equal(parse_frame(line, "line", Expected(LAYOUT, 1)).persons, POSES[:1])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"joints": ["hip", "head", "hand_left"]}, "found hip, head, hand_left"),
        ({"channels": ["x", "y", "c"]}, "expected the channels x, y, z, found x, y, score"),
        ({"joints": ["hip", "Hip", "hand_left"]}, "expected 3 different names under 'joints'"),
        ({"joints": ["hip", "head"]}, "expected 3 different names under 'joints'"),
        ({"channels": ["x", "y", "Y"]}, "expected 3 different names under 'channels'"),
    ],
)
def test_other_names_are_refused(tmp_path, names, expected):
    for path in write(tmp_path, names):
        with pytest.raises(InputError) as caught:
            read_poses(path, Expected(LAYOUT, 1))
        assert str(caught.value).startswith(f"{path}: ")
        assert expected in str(caught.value)
    with pytest.raises(InputError, match=r"^line: ") as caught:
        parse_frame(
            json.dumps({"poses": SHUFFLED[0].tolist(), **names}), "line", Expected(LAYOUT, 1)
        )
    assert expected in str(caught.value)


def test_what_is_no_list_of_names_says_nothing(tmp_path):
    for path in write(tmp_path, {"joints": 3, "channels": [1, 2, 3]}):
        poses, _ = read_poses(path, Expected(LAYOUT, 1))
        np.testing.assert_array_equal(poses[0], SHUFFLED.astype(np.float32))


def test_names_that_need_unpickling_are_refused(tmp_path):
    file = io.BytesIO()
    np.savez(file, poses=POSES, joints=np.array(["hip", "a", "b"], object))
    (tmp_path / "clip.npz").write_bytes(file.getvalue())
    with pytest.raises(InputError, match=r"joints\.npy: expected an array of numbers"):
        read_poses(tmp_path / "clip.npz", Expected(LAYOUT, 1))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ("a b c d e f g h", "its 8 joints include h, the model's 7 do not"),
        ("a b c d e f", "its 6 joints lack g of the model's 7"),
        ("a b c d e f h", "its 7 joints include h, the model's 7 include g"),
        ("h i j k l m n", "its 7 joints include h, i, j, k, l, m and 1 other, the model's 7 "),
        ("a b c d e f g G", "its 8 joints have names that are the same for the model's 7"),
    ],
)
def test_only_the_names_that_differ_are_listed(found, text):
    assert describe_mismatch(
        "joints", tuple(found.split()), tuple("abcdefg"), "the model's"
    ).startswith(text)


def test_a_table_names_the_joints_that_differ(tmp_path):
    layout = Layout(tuple("abcdefgh"), channels=("x", "y"))
    path = tmp_path / "clip.csv"
    path.write_text(",".join(f"{joint}_{axis}" for joint in "abcdefgz" for axis in "xy") + "\n")
    with path.open("a") as file:
        file.write(",".join(["1"] * 16))
    with pytest.raises(InputError, match="its 8 joints include z, the expected 8 include h"):
        read_poses(path, Expected(layout, 1))
    layout = Layout(tuple("abcdefgz"))
    with pytest.raises(InputError, match="expected the channels x, y, z, found x, y"):
        read_poses(path, Expected(layout, 1))
