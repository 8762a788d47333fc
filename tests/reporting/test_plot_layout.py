"""Pictures of layouts: every joint has a place, and the places are those of a body."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skelnas.data.readers.layouts import LAYOUTS, find_layout
from skelnas.data.sides import find_mirrored_joints
from skelnas.reporting.plot_layout import draw_layout, place
from skelnas.reporting.plot_style import PALETTE

BODIES = sorted(LAYOUTS.keys() - {"mediapipe-hands21", "fpha21", "shrec22"})


@pytest.mark.parametrize("name", LAYOUTS)
def test_joints_have_places_apart(name: str) -> None:
    points = [place(joint) for joint in LAYOUTS[name].layout.joints]
    assert len(set(points)) == len(points)


@pytest.mark.parametrize("name", BODIES)
def test_places_are_those_of_a_standing_body_that_faces_the_viewer(name: str) -> None:
    joints = LAYOUTS[name].layout.joints
    points = np.array([place(joint) for joint in joints])
    mirrored = points[find_mirrored_joints(joints)]
    np.testing.assert_allclose(points, mirrored * (-1, 1))
    height = dict(zip(joints, points[:, 1], strict=True))
    chain = [height[joint] for joint in ("shoulder_left", "hip_left", "knee_left")]
    assert chain == sorted(chain, reverse=True)
    lengths = [np.linalg.norm(points[a] - points[b]) for a, b in LAYOUTS[name].layout.bones]
    assert max(lengths) < 60  # centimetres: no bone joins parts that are far from each other


def test_left_and_right_are_drawn_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "layout.png"
    draw_layout("penn13", find_layout("penn13"), path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    body = pixels[:, : pixels.shape[1] // 2]
    columns = {
        kind: np.argwhere((body == [*bytes.fromhex(PALETTE[kind][0][1:])]).all(axis=2))[:, 1].mean()
        for kind in ("first", "second")
    }
    assert columns["first"] < columns["second"]  # its right is on the left
