"""Counterparts of joints on the other side, by names as in real skeletons."""

from __future__ import annotations

import pytest

from skelnas.data.sides import find_mirrored_joints, standard_name
from skelnas.errors import InputError

MEDIAPIPE = (
    *("NOSE", "LEFT_EYE_INNER", "LEFT_EYE", "RIGHT_EYE_INNER", "RIGHT_EYE", "LEFT_EAR"),
    *("RIGHT_EAR", "MOUTH_LEFT", "MOUTH_RIGHT", "LEFT_FOOT_INDEX", "RIGHT_FOOT_INDEX"),
)
PAIRS = {
    "MediaPipe": MEDIAPIPE,
    "MediaPipe in lower case": tuple(name.lower().replace("_", " ") for name in MEDIAPIPE),
    "COCO": ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_hip", "right_hip"),
    "OpenPose": ("Nose", "RShoulder", "LShoulder", "MidHip", "LBigToe", "RBigToe", "REar", "LEar"),
    "SMPL": ("Pelvis", "L_Hip", "R_Hip", "Torso", "L_Collar", "R_Collar", "Chest"),
    "Kinect": ("SpineBase", "HandTipLeft", "ThumbRight", "HandTipRight", "ThumbLeft"),
    "Human3.6M": ("Hip", "RHip", "LHip", "RKnee", "LKnee", "Thorax", "LeftFoot", "RightFoot"),
    "CMU": ("root", "lhipjoint", "rhipjoint", "lowerback", "rtoes", "ltoes", "lradius", "rradius"),
    "Vicon": ("LFHD", "RFHD", "C7", "CLAV", "LSHO", "RSHO", "RBAK"),
    "Xsens": ("L5", "L3", "T12", "RightUpperLeg", "LeftUpperLeg"),
    "Mixamo": ("mixamorig:Hips", "mixamorig:LeftUpLeg", "mixamorig:RightUpLeg"),
    "3ds Max": ("Bip01 Pelvis", "Bip01 L Thigh", "Bip01 R Thigh"),
    "inside": ("hip", "hand_left_tip", "hand_right_tip", "all_clear", "upright"),
    "others": ("leftWrist", "rightWrist", "right-eye", "left-eye", "knee.l", "knee.r"),
    "joined": ("lefthip", "righthip", "SHOULDERLEFT", "SHOULDERRIGHT", "lelbow", "relbow"),
    "case": ("Left_hand", "right_Hand"),
    "spellings": (
        *("LEFT_SHOULDER", "RIGHT_SHOULDER", "ELBOW_LEFT", "ELBOW_RIGHT", "LWrist", "RWrist"),
        *("leftHip", "rightHip", "l_knee", "r_knee", "foot_left_tip", "foot_right_tip"),
        *("L Eye", "R Eye", "ear-L", "ear-R", "Toe.Left", "Toe.Right", "l.heel", "r.heel"),
    ),
}
SIDELESS = {
    *("NOSE", "nose", "Nose", "MidHip", "Pelvis", "Torso", "Chest", "SpineBase", "Hip", "Thorax"),
    *("root", "lowerback", "C7", "CLAV", "RBAK", "L5", "L3", "T12", "mixamorig:Hips"),
    *("Bip01 Pelvis", "hip", "all_clear", "upright"),
}


@pytest.mark.parametrize("joints", PAIRS.values(), ids=PAIRS)
def test_every_joint_with_a_side_has_a_counterpart(joints: tuple[str, ...]) -> None:
    mirrored = find_mirrored_joints(joints)
    assert [mirrored[other] for other in mirrored] == list(range(len(joints)))
    for joint, other in enumerate(mirrored):
        assert (joint == other) == (joints[joint] in SIDELESS), joints[joint]
        assert len(joints[joint]) - len(joints[other]) in (-1, 0, 1)


@pytest.mark.parametrize(
    ("joints", "unpaired"),
    [
        ("hand_left hand_right hip_left knee_right", "hip_left, knee_right have"),
        ("LShoulder RShoulder LElbow", "LElbow has"),
        ("lhip rhip lknee", "lknee has"),
        ("lefthand foot_l foot_r", "lefthand has"),
        ("hand_left HAND_LEFT hand_right", "hand_left has"),
    ],
)
def test_joints_without_a_counterpart_are_named(joints: str, unpaired: str) -> None:
    with pytest.raises(InputError, match=f"mirrored: {unpaired} no counterpart"):
        find_mirrored_joints(joints.split())


@pytest.mark.parametrize("joints", ["a b c", "left right", "joint_0 joint_1", "leg rear neck L5"])
def test_names_without_sides_are_refused(joints: str) -> None:
    with pytest.raises(InputError, match="no joint is left or right"):
        find_mirrored_joints(joints.split())


@pytest.mark.parametrize(
    "spellings",
    [
        "left_wrist LEFT_WRIST WRIST_LEFT wrist_left LWrist leftWrist l_wrist wrist.L lwrist",
        "right_big_toe RBigToe big_toe_right BIG_TOE_R r-big-toe bigToeRight",
        "hand_left_tip HandTipLeft left_hand_tip HAND_TIP_LEFT",
        "spine_base SpineBase SPINE_BASE spine-base",
        "head Head HEAD",
        "t\u00eate te\u0302te T\u00cate T\u00caTE TE\u0302TE",
    ],
)
def test_spellings_of_a_joint_have_one_standard_name(spellings: str) -> None:
    assert len(set(map(standard_name, spellings.split()))) == 1


def test_different_joints_have_different_standard_names() -> None:
    for joints in PAIRS.values():
        assert len(set(map(standard_name, joints))) == len(joints)
