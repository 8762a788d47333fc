"""The three rules that choose the persons among the bodies of a clip."""

import numpy as np
import pytest

from skelnas.data.readers.bodies import Detections, choose_persons
from skelnas.errors import InputError

RULES = ("denoise", "energy", "first")
STANDING = np.float32([[x, y, 3] for x in (-0.2, 0, 0.2) for y in (-0.8, 0, 0.8)])
"""Nine joints, 0.4 m wide and 1.6 m high."""
CHAIR = STANDING[:, [1, 0, 2]]


def track(body_id, frames, shape=STANDING, swing=0.1, x=0.0):
    """One body in some frames, as (frame, id, joints), moving sideways by `swing`."""
    return [
        (frame, body_id, shape + np.float32([x + swing * np.sin(frame), 0, 0])) for frame in frames
    ]


def detect(num_frames, *tracks):
    """Detections of several tracks, by frame and then in the order of the tracks."""
    rows = sorted(
        (row for body in tracks for row in body), key=lambda row: row[0]
    )  # stable, to preserve the order of the tracks
    frames = np.array([row[0] for row in rows], np.int64)
    slots = np.arange(len(rows)) - np.searchsorted(frames, frames)
    ids = np.array([row[1] for row in rows], np.int64)
    joints = np.array([row[2] for row in rows], np.float32).reshape(-1, *STANDING.shape)
    return Detections(num_frames, frames, slots, ids, joints)


def joints_of(one):
    return np.array([joints for _, _, joints in one])


@pytest.mark.parametrize("rule", RULES)
def test_one_person_is_one_person(rule):
    only = track(5, range(20))
    poses, present = choose_persons(detect(20, only), rule, "clip")
    assert poses.dtype == np.float32
    assert present.dtype == np.bool_
    np.testing.assert_array_equal(poses, joints_of(only)[None])
    assert present.shape == (1, 20)
    assert present.all()


@pytest.mark.parametrize("rule", RULES)
def test_two_people_are_two_persons_and_absence_is_zero(rule):
    one, other = track(5, range(40)), track(6, range(12, 40), swing=0.05, x=1)
    poses, present = choose_persons(detect(40, one, other), rule, "clip")
    assert present.sum(axis=1).tolist() == [40, 28]
    assert not present[1, :12].any()
    np.testing.assert_array_equal(poses[0], joints_of(one))
    np.testing.assert_array_equal(poses[1, 12:], joints_of(other))
    assert not poses[1, :12].any()


@pytest.mark.parametrize("rule", RULES)
def test_a_clip_without_a_body_is_bad_input(rule):
    for detections in (detect(9), detect(9, track(5, range(9), shape=0 * STANDING, swing=0))):
        with pytest.raises(InputError, match=r"^clip: no body in any frame$"):
            choose_persons(detections, rule, "clip")


@pytest.mark.parametrize("rule", RULES)
def test_a_body_of_zeros_counts_as_absent(rule):
    rows = track(5, range(20))
    rows[3] = (3, 5, 0 * STANDING)
    poses, present = choose_persons(detect(20, rows), rule, "clip")
    if rule == "denoise":
        np.testing.assert_array_equal(poses[0], np.delete(joints_of(rows), 3, axis=0))
    else:
        assert np.flatnonzero(~present[0]).tolist() == [3]
        assert not poses[0, 3].any()


# denoise


def test_denoise_drops_frames_without_a_person():
    one, short = track(5, [*range(2, 10), *range(12, 20)]), track(6, [10, 24], swing=3)
    poses, present = choose_persons(detect(25, one, short), "denoise", "clip")
    np.testing.assert_array_equal(poses, joints_of(one)[None])
    assert present.all()


def test_denoise_drops_bodies_of_eleven_frames_or_fewer():
    one = track(5, range(30))
    for length, persons in ((11, 1), (12, 2)):
        short = track(6, range(length), swing=2)
        poses, _ = choose_persons(detect(30, short, one), "denoise", "clip")
        assert len(poses) == persons


def test_denoise_keeps_short_bodies_if_there_are_no_others():
    poses, _ = choose_persons(detect(5, track(5, range(5))), "denoise", "clip")
    assert poses.shape[:2] == (1, 5)
    both = detect(5, track(5, range(5)), track(6, range(5), x=1))
    assert len(choose_persons(both, "denoise", "clip")[0]) == 2


def test_denoise_drops_a_wide_body_even_if_it_comes_first_and_moves_the_most():
    person, chair = track(6, range(30)), track(5, range(30), CHAIR, swing=2)
    poses, present = choose_persons(detect(30, chair, person), "denoise", "clip")
    np.testing.assert_array_equal(poses, joints_of(person)[None])
    assert present.all()


@pytest.mark.parametrize(("num_wide", "persons"), [(69, 2), (70, 1)])
def test_denoise_allows_a_fraction_of_implausible_frames(num_wide, persons):
    """A body is dropped if the fraction is 0.69754 or more."""
    person = track(6, range(100))
    other = track(5, range(num_wide), CHAIR) + track(5, range(num_wide, 100))
    assert len(choose_persons(detect(100, person, other), "denoise", "clip")[0]) == persons


def test_a_frame_is_plausible_up_to_a_width_of_eight_tenths():
    just = STANDING * np.float32([3.2, 1, 1])  # 1.28 m wide, 1.6 m high
    person = track(6, range(30), swing=0)
    for widening, persons in ((0.999, 2), (1.001, 1)):
        other = track(5, range(30), just * np.float32([widening, 1, 1]), swing=0)
        assert len(choose_persons(detect(30, person, other), "denoise", "clip")[0]) == persons


def test_denoise_keeps_implausible_bodies_if_there_are_no_others():
    """For example, two persons lying down; they are ranked by their motion in all frames."""
    still, moving = track(5, range(30), CHAIR), track(6, range(30), CHAIR, swing=1)
    poses, _ = choose_persons(detect(30, still, moving), "denoise", "clip")
    np.testing.assert_array_equal(poses, [joints_of(moving), joints_of(still)])


def test_denoise_ranks_by_motion_in_plausible_frames():
    """Body 5 moves more, but only while it is wide."""
    calm = track(5, range(20)) + track(5, range(20, 30), CHAIR, swing=3)
    lively = track(6, range(30), swing=0.5)
    poses, _ = choose_persons(detect(30, calm, lively), "denoise", "clip")
    np.testing.assert_array_equal(poses, [joints_of(lively), joints_of(calm)])


def test_denoise_keeps_the_two_bodies_with_the_largest_motion():
    tracks = [track(body, range(30), swing=body) for body in (1, 3, 2)]
    poses, _ = choose_persons(detect(30, *tracks), "denoise", "clip")
    np.testing.assert_array_equal(poses, [joints_of(tracks[1]), joints_of(tracks[2])])


def test_denoise_joins_the_tracks_of_one_person():
    """The tracker lost one of two people for three frames and found them under a new id."""
    before, after = track(5, range(20), swing=0.5), track(9, range(23, 50), swing=0.3)
    other = track(6, range(50), swing=0.4, x=1)
    poses, present = choose_persons(detect(50, before, other, after), "denoise", "clip")
    assert np.flatnonzero(~present[0]).tolist() == [20, 21, 22]
    np.testing.assert_array_equal(poses[0, :20], joints_of(before))
    np.testing.assert_array_equal(poses[0, 23:], joints_of(after))
    np.testing.assert_array_equal(poses[1], joints_of(other))


def test_denoise_joins_any_number_of_tracks():
    pieces = [track(body, range(20 * body, 20 * body + 15)) for body in range(4)]
    poses, present = choose_persons(detect(80, *pieces), "denoise", "clip")
    assert present.shape == (1, 60)
    np.testing.assert_array_equal(poses[0], np.concatenate([*map(joints_of, pieces)]))


def test_denoise_does_not_join_tracks_that_share_a_frame():
    pieces = track(5, range(20)), track(6, range(19, 40))
    assert len(choose_persons(detect(40, *pieces), "denoise", "clip")[0]) == 2


def test_denoise_uses_the_first_of_two_bodies_with_the_same_id():
    first, second = track(5, range(20)), track(5, range(20), x=3)
    poses, _ = choose_persons(detect(20, first, second), "denoise", "clip")
    np.testing.assert_array_equal(poses, joints_of(first)[None])


# energy and first


def test_energy_follows_slots_and_not_ids():
    """In the last ten frames slot 0 has another id; no frame is dropped."""
    calm = track(5, range(10), swing=0.1) + track(7, range(20, 30), swing=0.1)
    lively = track(6, [*range(10), *range(20, 30)], swing=1, x=1)
    poses, present = choose_persons(detect(30, calm, lively), "energy", "clip")
    assert present.shape == (2, 30)
    assert np.flatnonzero(~present[0]).tolist() == [*range(10, 20)]
    np.testing.assert_array_equal(poses[0, present[0]], joints_of(lively))
    np.testing.assert_array_equal(poses[1, present[1]], joints_of(calm))


def test_energy_considers_four_slots_and_first_considers_two():
    tracks = [track(slot, range(9), swing=slot) for slot in range(5)]
    clip = detect(9, *tracks)
    poses, _ = choose_persons(clip, "energy", "clip")
    np.testing.assert_array_equal(poses, [joints_of(tracks[3]), joints_of(tracks[2])])
    poses, _ = choose_persons(clip, "first", "clip")
    np.testing.assert_array_equal(poses, [joints_of(tracks[0]), joints_of(tracks[1])])


def test_first_does_not_reject_false_bodies():
    person, chair = track(6, range(30)), track(5, range(30), CHAIR)
    poses, _ = choose_persons(detect(30, chair, person), "first", "clip")
    np.testing.assert_array_equal(poses, [joints_of(chair), joints_of(person)])


# joints that are not found


def without(one, joint, frames):
    """A track whose joint is not found in some frames."""
    lost = np.float32(np.arange(len(STANDING)) != joint)[:, None]  # [V, 1]
    return [(t, body, joints * lost if t in frames else joints) for t, body, joints in one]


@pytest.mark.parametrize("rule", ["denoise", "energy"])
def test_joints_that_are_not_found_are_no_motion(rule):
    """At the sensor, 3 m away, such a joint would outweigh any motion."""
    calm = without(track(5, range(30), swing=0.1), 4, range(0, 30, 3))
    lively = track(6, range(30), swing=0.5)
    poses, _ = choose_persons(detect(30, calm, lively), rule, "clip")
    np.testing.assert_array_equal(poses, [joints_of(lively), joints_of(calm)])


def test_joints_that_are_not_found_are_no_extent():
    """A person 2 m beside the axis of the sensor is not 2 m wide, nor is a chair made tall."""
    person = without(track(6, range(30), x=2), 4, range(30))
    chair = without(track(5, range(30), CHAIR + np.float32([0, 3, 0]), swing=2), 4, range(30))
    poses, _ = choose_persons(detect(30, chair, person), "denoise", "clip")
    np.testing.assert_array_equal(poses, joints_of(person)[None])
