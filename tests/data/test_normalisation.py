"""Origins, axes and streams of clips in which some joints are not found, that is, all zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_dataset import SPINE, augmented, body, make_clips, make_dataset, noisy, random_rotation

from skelnas.data.cache import Clips
from skelnas.data.readers.base import Layout

Clip = tuple[np.ndarray, np.ndarray]
BODY = replace(SPINE, bones=((0, 1), (2, 0), (3, 0)))
CAMERA = np.array([0.5, 0.2, 3.0])


def before_camera(frames: int = 6, persons: int = 1, seed: int = 0) -> Clip:
    """Persons of about a metre, three metres in front of the camera."""
    poses = np.random.default_rng(seed).normal(scale=0.3, size=(persons, frames, 4, 3)) + CAMERA
    return poses, np.ones((persons, frames), dtype=bool)


def joints(clips: Clips, index: int = 0, **settings: object) -> np.ndarray:
    """Clip `index` as [M, T, V, C], with a frame of the batch for each of the recording."""
    persons = int(clips.num_persons.max())
    settings = {"frames": int(clips.num_frames[index]), "center": True, "layout": BODY} | settings
    x = make_dataset(clips, persons, **settings).batch(torch.tensor([index])).x  # type: ignore[arg-type]
    return x[0].unflatten(2, (persons, 4)).permute(2, 1, 3, 0).numpy()


def test_the_origin_is_the_centre_joint_where_it_is_first_found() -> None:
    poses, present = before_camera(persons=2)
    poses[0, :3, 1] = 0
    expected = poses - poses[0, 3, 1]
    expected[0, :3, 1] = 0
    np.testing.assert_allclose(joints(make_clips((poses, present))), expected, atol=1e-6)


def test_the_origin_is_the_other_persons_centre_joint_if_the_first_persons_is_never_found() -> None:
    poses, present = before_camera(persons=2)
    poses[0, :, 1] = 0
    present[1, :2] = False
    centred = joints(make_clips((poses, present)))
    assert (centred[1, 2, 1] == 0).all()
    np.testing.assert_allclose(centred[1, 3, 1], poses[1, 3, 1] - poses[1, 2, 1], atol=1e-6)


def test_a_centre_joint_that_is_never_found_is_replaced_by_the_mean_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    poses, present = before_camera()
    poses[0, :, 1] = 0
    clips = make_clips(before_camera(seed=1), (poses, present), (poses, present))
    centred = joints(clips, 1)
    np.testing.assert_allclose(centred[0, 0].sum(axis=0), 0, atol=1e-6)
    assert (centred[0, :, 1] == 0).all()
    note = "clip1 and 1 other clip: spine_mid is never found: centred on the mean of the joints"
    assert note in capsys.readouterr().err


@pytest.mark.parametrize("frames", [slice(None), slice(1)], ids=["every frame", "first frame"])
def test_recordings_relative_to_their_centre_joint_are_complete(frames: slice) -> None:
    poses, present = before_camera(frames=20)
    poses[0, :, 1] = np.linspace(0, 0.1, 20)[:, None] + CAMERA
    poses[0, frames] -= poses[0, frames, 1][:, None]
    if frames != slice(None):
        poses[0, 1:] -= CAMERA
    poses[0, 7, 3] = 0  # elsewhere a zero stays a joint that is not found
    clips = make_clips((poses, present))
    assert np.array_equal(joints(clips, frames=39), joints(clips, frames=39, center=False))
    bones = joints(clips, streams="bone")
    np.testing.assert_allclose(bones[0, :, 0], poses[0, :, 0] - poses[0, :, 1], atol=1e-6)


def test_a_joint_that_is_not_found_stays_zero_in_all_streams() -> None:
    poses, present = before_camera()
    poses[0, 2, 0] = 0
    clips = make_clips((poses, present))
    dataset = make_dataset(clips, layout=BODY, frames=6, center=True, streams="joint,bone,motion")
    x = augmented(dataset, rotate=30, scale=0.2, shear=0.1, jitter=0.1)[0]  # [9, T, V]
    joint, bone, motion = x.unflatten(0, (3, 3))
    assert (joint[:, 2, 0] == 0).all()
    assert (bone[:, 2, [0, 2, 3]] == 0).all()  # of the joint, and of its children
    assert (motion[:, 1:3, 0] == 0).all()
    others = torch.ones(6, 4, dtype=torch.bool)
    others[2, 0] = others[:, 1] = False
    assert (joint[:, others] != 0).all()
    assert (bone[:, [0, 1, 3, 4, 5]][..., [0, 2, 3]] != 0).all()
    assert (motion[:, [0, 3, 4]] != 0).all()


def test_a_joint_is_not_interpolated_next_to_frames_without_it() -> None:
    poses, present = before_camera(frames=3)
    poses[0, 1, 2] = 0
    sampled = joints(make_clips((poses, present)), frames=9, center=False)
    expected = poses[0, [0, 0, 0, 1, 1, 1, 1, 2, 2], 2]
    np.testing.assert_allclose(sampled[0, :, 2], expected, atol=1e-6)
    np.testing.assert_allclose(sampled[0, 2, 3], poses[0, :2, 3].mean(axis=0), atol=1e-6)


def test_a_joint_that_is_not_found_changes_sides_when_mirrored() -> None:
    poses, present = before_camera()
    poses[0, 2, 2] = 0  # the left hip
    clips = make_clips((poses, present))
    dataset = make_dataset(clips, layout=BODY, frames=6, streams="joint,bone")
    plain, mirrored = dataset.batch(torch.tensor([0])).x[0], augmented(dataset, flip=1)[0]
    assert (mirrored[:, 2, 3] == 0).all()
    sign = torch.tensor([-1.0, 1, 1, -1, 1, 1])[:, None, None]
    assert torch.equal(mirrored, sign * plain[..., [0, 1, 3, 2]])


@pytest.mark.parametrize("store", ["float32", "host", "float16"])
def test_gaps_of_one_clip_do_not_change_another(store: str) -> None:
    poses, present = before_camera(frames=9, persons=2)
    present[1, 3:5] = False
    poses[:, ::2, 0] = 0
    settings = {"store": store, "streams": "joint,bone,motion", "frames": 30}
    complete = before_camera(frames=7, persons=2, seed=1)
    alone = joints(make_clips(complete), **settings)
    together = make_clips((poses, present), complete)
    assert np.array_equal(joints(together, 1, **settings), alone)
    gaps, reference = joints(together, **settings), joints(together, **settings | {"store": "auto"})
    np.testing.assert_allclose(gaps, reference, atol=2e-3)
    assert np.array_equal(gaps == 0, reference == 0)


def test_a_joint_with_a_score_is_found_even_at_zero() -> None:
    layout = Layout(BODY.joints, BODY.bones, ("x", "y", "score"), center_joint=1)
    poses, present = before_camera(frames=2)
    poses[0, 0, 1] = 0, 0, 1
    poses[0, 0, 3] = 0
    centred = joints(make_clips((poses, present)), layout=layout)
    np.testing.assert_allclose(centred[0, :, :3], poses[0, :, :3], atol=1e-6)
    assert (centred[0, 0, 3] == 0).all()


def test_alignment_takes_the_first_frame_in_which_hips_and_spine_are_found() -> None:
    poses, present = body(random_rotation(1))
    poses = np.concatenate([poses[:, [1]], poses], axis=1) + CAMERA  # bent, upright, bent
    present = np.ones((1, 3), dtype=bool)
    poses[0, 0, 2] = 0
    aligned = joints(make_clips((poses, present)), align=True)
    up, side = aligned[0, 1, 1] - aligned[0, 1, 0], aligned[0, 1, 2] - aligned[0, 1, 3]
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(side / np.linalg.norm(side), [1, 0, 0], atol=1e-6)


def test_a_body_that_is_never_whole_is_not_aligned_and_a_note_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    poses, present = before_camera()
    poses[0, ::2, 2] = poses[0, 1::2, 0] = 0
    clips = make_clips((poses, present))
    assert np.array_equal(joints(clips, align=True), joints(clips))
    assert "clip0: hips and spine are never found together: not aligned" in capsys.readouterr().err


def test_an_aligned_spine_points_up_even_where_y_grows_downwards() -> None:
    poses, present = body(random_rotation(2))
    turned = poses * [1, -1, -1]  # the same body in axes that point right, down and forwards
    up = joints(make_clips((poses, present)), align=True)
    down = joints(make_clips((turned, present)), align=True, layout=replace(BODY, y_down=True))
    np.testing.assert_allclose(down, up * [1, -1, -1], atol=1e-5)


def test_complete_clips_are_recognised_without_a_mask() -> None:
    dataset = make_dataset(make_clips(noisy()), persons=2)
    assert dataset._clips.fetch(torch.tensor([0])).found is None
