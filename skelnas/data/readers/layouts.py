"""Skeletons by name: the joints of common sensors, pose estimators and body models.

    find_layout("coco17").joints

A layout is written as its joints in the order of the data, each with the joint at which its bone
starts: `head:neck`. The one joint without is the root of the tree. Joints are named part_side, so
that the same joint has the same name in all layouts.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Layout
from skelnas.errors import InputError

BODY_17 = """
    nose eye_left:nose eye_right:nose ear_left:eye_left ear_right:eye_right
    shoulder_left:nose shoulder_right:nose elbow_left:shoulder_left elbow_right:shoulder_right
    wrist_left:elbow_left wrist_right:elbow_right hip_left:shoulder_left hip_right:shoulder_right
    knee_left:hip_left knee_right:hip_right ankle_left:knee_left ankle_right:knee_right
"""

BODY_18 = """
    nose:neck neck
    shoulder_right:neck elbow_right:shoulder_right wrist_right:elbow_right
    shoulder_left:neck elbow_left:shoulder_left wrist_left:elbow_left
    hip_right:shoulder_right knee_right:hip_right ankle_right:knee_right
    hip_left:shoulder_left knee_left:hip_left ankle_left:knee_left
    eye_right:nose eye_left:nose ear_right:eye_right ear_left:eye_left
"""

BODY_19 = """
    nose:neck neck:hip_mid
    shoulder_right:neck elbow_right:shoulder_right wrist_right:elbow_right
    shoulder_left:neck elbow_left:shoulder_left wrist_left:elbow_left
    hip_mid
    hip_right:hip_mid knee_right:hip_right ankle_right:knee_right
    hip_left:hip_mid knee_left:hip_left ankle_left:knee_left
    eye_right:nose eye_left:nose ear_right:eye_right ear_left:eye_left
"""

BODY_19B = """
    nose:neck eye_left:nose eye_right:nose ear_left:eye_left ear_right:eye_right
    shoulder_left:neck shoulder_right:neck elbow_left:shoulder_left elbow_right:shoulder_right
    wrist_left:elbow_left wrist_right:elbow_right hip_left:shoulder_left hip_right:shoulder_right
    knee_left:hip_left knee_right:hip_right ankle_left:knee_left ankle_right:knee_right
    neck head:neck
"""

FEET_6 = """
    big_toe_left:ankle_left small_toe_left:big_toe_left heel_left:ankle_left
    big_toe_right:ankle_right small_toe_right:big_toe_right heel_right:ankle_right
"""

HALPE_26 = """
    nose:head eye_left:nose eye_right:nose ear_left:eye_left ear_right:eye_right
    shoulder_left:neck shoulder_right:neck elbow_left:shoulder_left elbow_right:shoulder_right
    wrist_left:elbow_left wrist_right:elbow_right hip_left:hip hip_right:hip
    knee_left:hip_left knee_right:hip_right ankle_left:knee_left ankle_right:knee_right
    head:neck neck:hip hip
    big_toe_left:ankle_left big_toe_right:ankle_right
    small_toe_left:big_toe_left small_toe_right:big_toe_right
    heel_left:ankle_left heel_right:ankle_right
"""

MPII_16 = """
    ankle_right:knee_right knee_right:hip_right hip_right:pelvis
    hip_left:pelvis knee_left:hip_left ankle_left:knee_left
    pelvis thorax:pelvis neck:thorax head:neck
    wrist_right:elbow_right elbow_right:shoulder_right shoulder_right:thorax
    shoulder_left:thorax elbow_left:shoulder_left wrist_left:elbow_left
"""

PENN_13 = """
    head shoulder_left:head shoulder_right:head
    elbow_left:shoulder_left elbow_right:shoulder_right wrist_left:elbow_left
    wrist_right:elbow_right hip_left:shoulder_left hip_right:shoulder_right
    knee_left:hip_left knee_right:hip_right ankle_left:knee_left ankle_right:knee_right
"""

MEDIAPIPE_33 = """
    nose eye_inner_left:nose eye_left:eye_inner_left eye_outer_left:eye_left
    eye_inner_right:nose eye_right:eye_inner_right eye_outer_right:eye_right
    ear_left:eye_outer_left ear_right:eye_outer_right mouth_left:nose mouth_right:nose
    shoulder_left:nose shoulder_right:nose elbow_left:shoulder_left elbow_right:shoulder_right
    wrist_left:elbow_left wrist_right:elbow_right
    pinky_left:wrist_left pinky_right:wrist_right index_left:wrist_left index_right:wrist_right
    thumb_left:wrist_left thumb_right:wrist_right
    hip_left:shoulder_left hip_right:shoulder_right knee_left:hip_left knee_right:hip_right
    ankle_left:knee_left ankle_right:knee_right heel_left:ankle_left heel_right:ankle_right
    foot_index_left:heel_left foot_index_right:heel_right
"""

HAND_21 = """
    wrist thumb_cmc:wrist thumb_mcp:thumb_cmc thumb_ip:thumb_mcp thumb_tip:thumb_ip
    index_finger_mcp:wrist index_finger_pip:index_finger_mcp
    index_finger_dip:index_finger_pip index_finger_tip:index_finger_dip
    middle_finger_mcp:wrist middle_finger_pip:middle_finger_mcp
    middle_finger_dip:middle_finger_pip middle_finger_tip:middle_finger_dip
    ring_finger_mcp:wrist ring_finger_pip:ring_finger_mcp
    ring_finger_dip:ring_finger_pip ring_finger_tip:ring_finger_dip
    pinky_mcp:wrist pinky_pip:pinky_mcp pinky_dip:pinky_pip pinky_tip:pinky_dip
"""

# The bones of the palm first, then each finger from there to its tip.
FPHA_21 = """
    wrist thumb_cmc:wrist index_finger_mcp:wrist middle_finger_mcp:wrist ring_finger_mcp:wrist
    pinky_mcp:wrist thumb_mcp:thumb_cmc thumb_ip:thumb_mcp thumb_tip:thumb_ip
    index_finger_pip:index_finger_mcp index_finger_dip:index_finger_pip
    index_finger_tip:index_finger_dip
    middle_finger_pip:middle_finger_mcp middle_finger_dip:middle_finger_pip
    middle_finger_tip:middle_finger_dip
    ring_finger_pip:ring_finger_mcp ring_finger_dip:ring_finger_pip ring_finger_tip:ring_finger_dip
    pinky_pip:pinky_mcp pinky_dip:pinky_pip pinky_tip:pinky_dip
"""

SHREC_22 = """
    wrist palm:wrist thumb_cmc:wrist thumb_mcp:thumb_cmc thumb_ip:thumb_mcp thumb_tip:thumb_ip
    index_finger_mcp:palm index_finger_pip:index_finger_mcp
    index_finger_dip:index_finger_pip index_finger_tip:index_finger_dip
    middle_finger_mcp:palm middle_finger_pip:middle_finger_mcp
    middle_finger_dip:middle_finger_pip middle_finger_tip:middle_finger_dip
    ring_finger_mcp:palm ring_finger_pip:ring_finger_mcp
    ring_finger_dip:ring_finger_pip ring_finger_tip:ring_finger_dip
    pinky_mcp:palm pinky_pip:pinky_mcp pinky_dip:pinky_pip pinky_tip:pinky_dip
"""

FACE_68 = """
    jaw_right_8:jaw_right_7 jaw_right_7:jaw_right_6 jaw_right_6:jaw_right_5 jaw_right_5:jaw_right_4
    jaw_right_4:jaw_right_3 jaw_right_3:jaw_right_2 jaw_right_2:jaw_right_1 jaw_right_1:chin
    chin:lip_lower
    jaw_left_1:chin jaw_left_2:jaw_left_1 jaw_left_3:jaw_left_2 jaw_left_4:jaw_left_3
    jaw_left_5:jaw_left_4 jaw_left_6:jaw_left_5 jaw_left_7:jaw_left_6 jaw_left_8:jaw_left_7
    brow_right_5:brow_right_4 brow_right_4:brow_right_3 brow_right_3:brow_right_2
    brow_right_2:brow_right_1 brow_right_1:nose_bridge_1
    brow_left_1:nose_bridge_1 brow_left_2:brow_left_1 brow_left_3:brow_left_2
    brow_left_4:brow_left_3 brow_left_5:brow_left_4
    nose_bridge_1:nose_bridge_2 nose_bridge_2:nose_bridge_3 nose_bridge_3:nose_tip nose_tip:nose
    nostril_outer_right:nostril_inner_right nostril_inner_right:nose_base
    nose_base:nose_tip
    nostril_inner_left:nose_base nostril_outer_left:nostril_inner_left
    eye_outer_right:lid_upper_outer_right lid_upper_outer_right:lid_upper_inner_right
    lid_upper_inner_right:eye_inner_right eye_inner_right:nose_bridge_1
    lid_lower_inner_right:eye_inner_right lid_lower_outer_right:lid_lower_inner_right
    eye_inner_left:nose_bridge_1 lid_upper_inner_left:eye_inner_left
    lid_upper_outer_left:lid_upper_inner_left eye_outer_left:lid_upper_outer_left
    lid_lower_outer_left:lid_lower_inner_left lid_lower_inner_left:eye_inner_left
    mouth_outer_right:lip_upper_right_2 lip_upper_right_2:lip_upper_right_1
    lip_upper_right_1:lip_upper lip_upper:nose_base lip_upper_left_1:lip_upper
    lip_upper_left_2:lip_upper_left_1 mouth_outer_left:lip_upper_left_2
    lip_lower_left_2:lip_lower_left_1 lip_lower_left_1:lip_lower lip_lower:lip_lower_inside
    lip_lower_right_1:lip_lower lip_lower_right_2:lip_lower_right_1
    mouth_inner_right:mouth_outer_right lip_upper_inside_right:lip_upper_inside
    lip_upper_inside:lip_upper lip_upper_inside_left:lip_upper_inside
    mouth_inner_left:mouth_outer_left lip_lower_inside_left:lip_lower_inside
    lip_lower_inside:lip_upper_inside lip_lower_inside_right:lip_lower_inside
"""

# Kinect v1 calls the first three hip center, spine and shoulder center. The names of Kinect v2
# make the joints easy to find in the data of either sensor.
KINECT_V1 = """
    spine_base:spine_mid spine_mid:spine_shoulder spine_shoulder head:spine_shoulder
    shoulder_left:spine_shoulder elbow_left:shoulder_left wrist_left:elbow_left hand_left:wrist_left
    shoulder_right:spine_shoulder elbow_right:shoulder_right
    wrist_right:elbow_right hand_right:wrist_right
    hip_left:spine_base knee_left:hip_left ankle_left:knee_left foot_left:ankle_left
    hip_right:spine_base knee_right:hip_right ankle_right:knee_right foot_right:ankle_right
"""

# A hand tip hangs on its thumb, as in ST-GCN and 2s-AGCN.
KINECT_V2 = """
    spine_base:spine_mid spine_mid:spine_shoulder neck:spine_shoulder head:neck
    shoulder_left:spine_shoulder elbow_left:shoulder_left wrist_left:elbow_left hand_left:wrist_left
    shoulder_right:spine_shoulder elbow_right:shoulder_right
    wrist_right:elbow_right hand_right:wrist_right
    hip_left:spine_base knee_left:hip_left ankle_left:knee_left foot_left:ankle_left
    hip_right:spine_base knee_right:hip_right ankle_right:knee_right foot_right:ankle_right
    spine_shoulder hand_tip_left:thumb_left thumb_left:hand_left
    hand_tip_right:thumb_right thumb_right:hand_right
"""

AZURE_KINECT = """
    pelvis spine_navel:pelvis spine_chest:spine_navel neck:spine_chest
    clavicle_left:spine_chest shoulder_left:clavicle_left elbow_left:shoulder_left
    wrist_left:elbow_left hand_left:wrist_left hand_tip_left:hand_left thumb_left:wrist_left
    clavicle_right:spine_chest shoulder_right:clavicle_right elbow_right:shoulder_right
    wrist_right:elbow_right hand_right:wrist_right hand_tip_right:hand_right thumb_right:wrist_right
    hip_left:pelvis knee_left:hip_left ankle_left:knee_left foot_left:ankle_left
    hip_right:pelvis knee_right:hip_right ankle_right:knee_right foot_right:ankle_right
    head:neck nose:head eye_left:head ear_left:head eye_right:head ear_right:head
"""

H36M_17 = """
    hip hip_right:hip knee_right:hip_right foot_right:knee_right
    hip_left:hip knee_left:hip_left foot_left:knee_left
    spine:hip thorax:spine neck:thorax head:neck
    shoulder_left:thorax elbow_left:shoulder_left wrist_left:elbow_left
    shoulder_right:thorax elbow_right:shoulder_right wrist_right:elbow_right
"""

SMPL_24 = """
    pelvis hip_left:pelvis hip_right:pelvis spine_1:pelvis knee_left:hip_left knee_right:hip_right
    spine_2:spine_1 ankle_left:knee_left ankle_right:knee_right spine_3:spine_2
    foot_left:ankle_left foot_right:ankle_right neck:spine_3
    collar_left:spine_3 collar_right:spine_3 head:neck
    shoulder_left:collar_left shoulder_right:collar_right
    elbow_left:shoulder_left elbow_right:shoulder_right
    wrist_left:elbow_left wrist_right:elbow_right hand_left:wrist_left hand_right:wrist_right
"""

MAX_BONE_RATIO = 2.0
"""Longer bones than another layout's of as many joints mean that joints are in another order."""

IN_2D, IN_3D, IN_3D_SCORED = ("x", "y", "score"), ("x", "y", "z"), ("x", "y", "z", "score")


class NamedLayout(NamedTuple):
    """A layout, and whose it is in a few words."""

    layout: Layout
    about: str


def _make(
    text: str,
    channels: tuple[str, ...],
    about: str,
    center: str | None = None,
    y_down: bool | None = None,
) -> NamedLayout:
    pairs = [word.partition(":") for word in text.split()]
    joints = tuple(joint for joint, _, _ in pairs)
    bones = tuple(
        (child, joints.index(parent)) for child, (_, _, parent) in enumerate(pairs) if parent
    )
    center_joint = None if center is None else joints.index(center)
    return NamedLayout(Layout(joints, bones, channels, center_joint, y_down), about)


def _hand(side: str) -> str:
    """Return a hand that hangs on the wrist of the body; its own wrist is called hand_root."""
    words = HAND_21.replace("wrist", "hand_root").split()
    sided = [":".join(f"{joint}_{side}" for joint in word.split(":")) for word in words]
    return " ".join([f"{sided[0]}:wrist_{side}", *sided[1:]])


_HANDS = f"{_hand('left')} {_hand('right')}"

LAYOUTS = {
    "coco17": _make(BODY_17, IN_2D, "COCO: YOLO, MoveNet, MMPose"),
    "coco-wholebody": _make(BODY_17 + FEET_6 + FACE_68 + _HANDS, IN_2D, "COCO-WholeBody, DWPose"),
    "halpe26": _make(HALPE_26, IN_2D, "Halpe: AlphaPose, RTMPose", "hip"),
    "openpose18": _make(BODY_18, IN_2D, "OpenPose COCO, Kinetics", "neck"),
    "openpose25": _make(BODY_19 + FEET_6, IN_2D, "OpenPose BODY_25", "hip_mid"),
    "openpose25b": _make(BODY_19B + FEET_6, IN_2D, "OpenPose BODY_25B", "neck"),
    "openpose67": _make(BODY_19 + FEET_6 + _HANDS, IN_2D, "OpenPose BODY_25 and hands", "hip_mid"),
    "mpii16": _make(MPII_16, IN_2D, "MPII", "pelvis"),
    "penn13": _make(PENN_13, IN_2D, "Penn Action"),
    "mediapipe33": _make(MEDIAPIPE_33, IN_3D_SCORED, "MediaPipe Pose, BlazePose", y_down=True),
    "mediapipe-hands21": _make(HAND_21, IN_3D, "one hand, also of OpenPose", "wrist", y_down=True),
    "fpha21": _make(FPHA_21, IN_3D, "one hand of FPHA", "wrist", y_down=True),
    "shrec22": _make(SHREC_22, IN_3D, "one hand of SHREC'17 and DHG", "palm", y_down=True),
    "kinect-v1": _make(KINECT_V1, IN_3D, "Kinect v1, NW-UCLA, MSRC-12", "spine_mid"),
    "kinect-v2": _make(KINECT_V2, IN_3D, "Kinect v2, NTU RGB+D", "spine_mid"),
    "azure-kinect": _make(AZURE_KINECT, IN_3D, "Azure Kinect, Orbbec Femto", "pelvis", y_down=True),
    "h36m17": _make(H36M_17, IN_3D, "Human3.6M, MotionBERT", "hip", y_down=True),
    "smpl24": _make(SMPL_24, IN_3D, "SMPL body model", "pelvis"),
}
"""Layouts by name. Channels are all that the source may give, in their order."""


def find_layout(name: str) -> Layout:
    """Return the layout of a name, in any case.

    Raises:
        InputError: there is none of this name.
    """
    folded = name.strip().casefold().replace("_", "-")
    if folded in LAYOUTS:
        return LAYOUTS[folded].layout
    close = get_close_matches(folded, LAYOUTS, n=1)
    raise InputError(
        f"{name[:40]!r} is not a layout" + (f"; did you mean {close[0]}?" if close else ""),
        hint=f"expected {', '.join(LAYOUTS)}",
    )


def mean_bone_length(points: NDArray[np.float64], bones: tuple[tuple[int, int], ...]) -> float:
    """Return the mean length of bones, which is large where joints are in another order.

    It is 0 if none is known.

    Args:
        points: [n, V, D], NaN where a joint was not found.
        bones: pairs of joints.
    """
    ends = points[:, np.reshape(bones, (-1, 2))]  # [n, bones, 2, D]
    lengths = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1)  # [n, bones]
    known = lengths[np.isfinite(lengths)]
    return float(known.mean()) if len(known) else 0.0
