"""The table of layouts: counts, indices and sides that their sources document."""

from __future__ import annotations

import pytest

from skelnas.data.readers.base import find_layout_problem
from skelnas.data.readers.layouts import LAYOUTS, find_layout
from skelnas.data.sides import find_mirrored_joints
from skelnas.errors import InputError

HANDS = {"mediapipe-hands21", "fpha21", "shrec22"}
"""A single hand has no sides."""

NUM_JOINTS = {
    "coco17": 17,
    "coco-wholebody": 133,
    "halpe26": 26,
    "openpose18": 18,
    "openpose25": 25,
    "openpose25b": 25,
    "openpose67": 67,
    "mpii16": 16,
    "penn13": 13,
    "mediapipe33": 33,
    "mediapipe-hands21": 21,
    "fpha21": 21,
    "shrec22": 22,
    "kinect-v1": 20,
    "kinect-v2": 25,
    "azure-kinect": 32,
    "h36m17": 17,
    "smpl24": 24,
}

DOCUMENTED = {
    "coco17": {0: "nose", 3: "ear_left", 9: "wrist_left", 12: "hip_right", 16: "ankle_right"},
    "coco-wholebody": {
        16: "ankle_right",
        17: "big_toe_left",
        22: "heel_right",
        31: "chin",  # point 8 of the face
        53: "nose_tip",  # 30
        59: "eye_outer_right",  # 36
        71: "mouth_outer_right",  # 48
        90: "lip_lower_inside_right",  # 67
        91: "hand_root_left",
        95: "thumb_tip_left",
        112: "hand_root_right",
        132: "pinky_tip_right",
    },
    "halpe26": {16: "ankle_right", 17: "head", 18: "neck", 19: "hip", 21: "big_toe_right"},
    "openpose18": {1: "neck", 4: "wrist_right", 8: "hip_right", 11: "hip_left", 17: "ear_left"},
    "openpose25": {8: "hip_mid", 9: "hip_right", 15: "eye_right", 19: "big_toe_left"},
    "openpose25b": {4: "ear_right", 9: "wrist_left", 17: "neck", 18: "head", 19: "big_toe_left"},
    "openpose67": {24: "heel_right", 25: "hand_root_left", 46: "hand_root_right"},
    "mpii16": {0: "ankle_right", 6: "pelvis", 9: "head", 10: "wrist_right", 15: "wrist_left"},
    "penn13": {0: "head", 1: "shoulder_left", 12: "ankle_right"},
    "mediapipe33": {1: "eye_inner_left", 7: "ear_left", 10: "mouth_right", 15: "wrist_left"}
    | {20: "index_right", 23: "hip_left", 29: "heel_left", 32: "foot_index_right"},
    "mediapipe-hands21": {0: "wrist", 4: "thumb_tip", 8: "index_finger_tip", 20: "pinky_tip"},
    "fpha21": {1: "thumb_cmc", 5: "pinky_mcp", 8: "thumb_tip", 9: "index_finger_pip"}
    | {20: "pinky_tip"},
    "shrec22": {1: "palm", 5: "thumb_tip", 6: "index_finger_mcp", 21: "pinky_tip"},
    "kinect-v1": {0: "spine_base", 3: "head", 7: "hand_left", 16: "hip_right"},
    "kinect-v2": {1: "spine_mid", 3: "head", 20: "spine_shoulder", 24: "thumb_right"},
    "azure-kinect": {0: "pelvis", 10: "thumb_left", 22: "hip_right", 26: "head", 31: "ear_right"},
    "h36m17": {0: "hip", 3: "foot_right", 6: "foot_left", 10: "head", 16: "wrist_right"},
    "smpl24": {0: "pelvis", 9: "spine_3", 15: "head", 20: "wrist_left", 23: "hand_right"},
}

FACE_PAIRS = (
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    *((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
)
FACE_MIDDLE = (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)
"""The pairs of the 68 points of a face, as all data sets of faces give them."""


def test_every_layout_is_a_tree_of_as_many_joints_as_documented() -> None:
    assert {name: len(named.layout.joints) for name, named in LAYOUTS.items()} == NUM_JOINTS
    for name, (layout, about) in LAYOUTS.items():
        assert find_layout_problem(layout) is None, name
        assert about
        assert sorted(child for child, _ in layout.bones) == sorted(
            set(range(len(layout.joints))) - {_root(layout.bones)}
        )


def _root(bones: tuple[tuple[int, int], ...]) -> int:
    """Return the joint to which all bones lead."""
    parents = dict(bones)
    roots = set()
    for joint in [*parents, *parents.values()]:
        for _ in parents:
            joint = parents.get(joint, joint)
        roots.add(joint)
    (root,) = roots
    return root


@pytest.mark.parametrize("name", LAYOUTS)
def test_joints_have_the_documented_indices(name: str) -> None:
    joints = LAYOUTS[name].layout.joints
    assert {index: joints[index] for index in DOCUMENTED[name]} == DOCUMENTED[name]


@pytest.mark.parametrize("name", sorted(LAYOUTS.keys() - HANDS))
def test_sides_pair_completely(name: str) -> None:
    joints = LAYOUTS[name].layout.joints
    for joint, other in enumerate(find_mirrored_joints(joints)):
        has_side = "left" in joints[joint] or "right" in joints[joint]
        assert (joint != other) == has_side
        assert joints[other].replace("left", "right") == joints[joint].replace("left", "right")


@pytest.mark.parametrize("name", sorted(LAYOUTS.keys() - HANDS))
def test_bones_are_the_same_on_both_sides(name: str) -> None:
    layout = LAYOUTS[name].layout
    mirrored = find_mirrored_joints(layout.joints)
    assert {(mirrored[child], mirrored[parent]) for child, parent in layout.bones} == {
        *layout.bones
    }


def test_points_of_a_face_pair_as_in_all_data_sets_of_faces() -> None:
    mirrored = find_mirrored_joints(find_layout("coco-wholebody").joints)
    found = [joint - 23 for joint in mirrored[23:91]]
    expected = {**dict(FACE_PAIRS), **{b: a for a, b in FACE_PAIRS}}
    assert found == [expected.get(joint, joint) for joint in range(68)]
    assert [joint for joint in range(68) if found[joint] == joint] == [*FACE_MIDDLE]


@pytest.mark.parametrize("name", sorted(HANDS))
def test_a_hand_has_no_sides(name: str) -> None:
    with pytest.raises(InputError, match="no joint is left or right"):
        find_mirrored_joints(find_layout(name).joints)


def test_names_are_found_in_any_case() -> None:
    assert find_layout(" COCO_WholeBody ") == find_layout("coco-wholebody")


@pytest.mark.parametrize(
    ("name", "message"),
    [("coco71", "did you mean coco17?"), ("", "'' is not a layout"), ("x" * 99, "is not a layout")],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        find_layout(name)
    assert message in str(caught.value)
    assert "smpl24" in str(caught.value.hint)
