from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skelnas.data.readers.base import Layout
from skelnas.errors import SkelnasError, UsageError
from skelnas.reporting.plot_skeleton import draw_animation, draw_strip
from skelnas.reporting.plot_style import PALETTE
from skelnas.reporting.pose_layout import TRUNK_COLOURS, ClipPicture, lay_out_moments

LAYOUT = Layout(joints=("hip", "head", "hand"), bones=((1, 0), (2, 1)), center_joint=0)


def clip(num_persons: int = 2, num_frames: int = 12, layout: Layout = LAYOUT):
    shape = (num_persons, num_frames, 3, len(layout.channels))
    poses = np.zeros(shape, dtype=np.float32)
    poses[..., 1] = [0.5, 1.5, 1.0]
    poses[..., 2, 0] = 0.4
    poses[..., 0] += np.arange(1, num_persons + 1)[:, None, None]
    return ClipPicture.of("a clip", poses, np.ones(shape[:2], dtype=np.bool_), layout)


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(10**6)}


def rgb(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(PALETTE[name][0][1:]))


def test_a_strip_shows_both_persons(tmp_path: Path) -> None:
    path = tmp_path / "clip.png"
    draw_strip(clip(), path)
    assert {rgb(TRUNK_COLOURS[0]), rgb(TRUNK_COLOURS[1])} <= colours(path)
    draw_strip(clip(num_persons=1), path)
    assert rgb(TRUNK_COLOURS[0]) in colours(path)
    assert rgb(TRUNK_COLOURS[1]) not in colours(path)
    assert list(tmp_path.iterdir()) == [path]


def test_limbs_have_the_colour_of_their_side(tmp_path: Path) -> None:
    path = tmp_path / "clip.png"
    joints = ("hip", "KneeLeft", "r_knee")
    for present, absent in (((1, 2), ()), ((1,), (2,)), ((2,), (1,))):
        bones = tuple((child, 0) for child in present)
        picture = clip(num_persons=1, layout=Layout(joints, bones))
        picture.points[:, :, list(absent)] = np.nan
        draw_strip(picture, path)
        sides = {1: rgb("second"), 2: rgb("first")}
        assert {sides[joint] for joint in present} <= colours(path)
        assert not {sides[joint] for joint in absent} & colours(path)


@pytest.mark.parametrize("aspect", [0.5, 3.0, 6.0, 20.0])
def test_poses_over_time_stand_at_their_moments_and_apart(aspect: float) -> None:
    picture = clip(num_frames=40)
    picture.points[:, 10:20] = np.nan
    picture.points[0, 30:, :, 0] -= 2  # two persons further apart
    moments = lay_out_moments(picture, aspect)
    assert moments is not None
    assert not set(moments.frames.tolist()) & set(range(10, 20))
    lefts, rights = (f(moments.points[..., 0], axis=(0, 2)) for f in (np.nanmin, np.nanmax))
    assert (lefts[1:] >= rights[:-1]).all()
    middles = (moments.frames + 0.5) / 40 * moments.width
    assert np.nanmedian(moments.points[..., 0], axis=(0, 2)) == pytest.approx(middles)
    assert (len(moments.frames) > 2) == (aspect == 20)


def test_there_are_no_moments_without_anybody() -> None:
    picture = clip()
    picture.points[:] = np.nan
    assert lay_out_moments(picture, 5.0) is None


def test_more_poses_make_a_wider_strip(tmp_path: Path) -> None:
    widths = []
    for num_poses in (4, 8, 40):
        draw_strip(clip(), tmp_path / "clip.png", num_poses)
        with Image.open(tmp_path / "clip.png") as picture:
            widths.append(picture.width)
    assert widths[1] == pytest.approx(2 * widths[0], abs=2)
    assert widths[2] == pytest.approx(3 * widths[0], abs=4)  # of all 12 frames


def test_equal_clips_give_equal_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_strip(clip(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_animation_has_a_picture_for_each_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    poses = np.zeros((1, 5, 3, 3), dtype=np.float32)
    poses[..., 1] = np.arange(1, 6)[:, None] + np.arange(3)
    draw_animation(ClipPicture.of("", poses, np.ones((1, 5), dtype=np.bool_), LAYOUT), path)
    with Image.open(path) as film:
        assert film.n_frames == 5
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_joints_are_not_drawn() -> None:
    poses = np.ones((2, 3, 3, 3), dtype=np.float32)
    poses[0, 1, 2] = 0
    present = np.ones((2, 3), dtype=np.bool_)
    present[1, 0] = present[0, 0] = False
    picture = ClipPicture.of("", poses, present, LAYOUT)
    assert np.isnan(picture.points[0, 1, 2]).all()
    assert np.isfinite(picture.points[0, 1, :2]).all()
    assert picture.visible_frames.tolist() == [1, 2]


@pytest.mark.parametrize("channels", [("x", "y", "z"), ("x", "y")])
@pytest.mark.parametrize("y_down", [True, False])
def test_the_layout_says_which_way_y_points(channels: tuple[str, ...], y_down: bool) -> None:
    layout = Layout(("hip", "Head"), channels=channels, y_down=y_down)
    poses = np.ones((1, 1, 2, len(channels)), np.float32)
    poses[0, 0, 1, 1] = 2
    picture = ClipPicture.of("clip", poses, np.ones((1, 1), bool), layout)
    assert picture.points[0, 0, :, 1].tolist() == ([-1, -2] if y_down else [1, 2])
    assert picture.head == 1


def test_an_animation_has_the_frame_rate_of_the_clip(tmp_path: Path) -> None:
    lengths = []
    for rate in (10.0, None):
        picture = clip(1, 3, replace(LAYOUT, frame_rate=rate))
        draw_animation(picture, tmp_path / "a.gif")
        with Image.open(tmp_path / "a.gif") as image:
            lengths.append(image.info["duration"])
    assert lengths == [100, 30]


def test_the_head_is_drawn_above_the_feet() -> None:
    flat = Layout(joints=LAYOUT.joints, channels=("x", "y", "score"))
    assert (np.diff(clip(layout=flat).points[0, 0, :2, 1]) < 0).all()
    assert (np.diff(clip().points[0, 0, :2, 1]) > 0).all()


@pytest.mark.parametrize("num_frames", [1, 2])
def test_a_clip_of_one_point_and_one_frame_is_drawn(tmp_path: Path, num_frames: int) -> None:
    layout = Layout(joints=("ball",))
    poses = np.ones((1, num_frames, 1, 3), dtype=np.float32)
    picture = ClipPicture.of("", poses, np.ones((1, num_frames), dtype=np.bool_), layout)
    draw_strip(picture, tmp_path / "a.png")
    draw_animation(picture, tmp_path / "a.gif")


def test_joints_without_x_and_y_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot draw joints with the channels angle"):
        ClipPicture.of("", np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1), np.bool_),
                 Layout(joints=("knee",), channels=("angle",)))  # fmt: skip


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    draw_strip(clip(), tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SkelnasError, match="needs matplotlib") as caught:
        draw_strip(clip(), tmp_path / "a.png")
    assert "skelnas[plot]" in str(caught.value.hint)
