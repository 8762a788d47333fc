"""Persons are followed as they moved, and as a slow reading of the rule follows them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.data.readers.tracking import track

XYS = ("x", "y", "score")


def body(x, y=0.0, size=10.0, score=1.0):
    """A person of four joints around a point, of this width and height."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2 + [x, y]
    return np.column_stack([corners, np.full(4, score)])


def frames_of(*persons):
    return [np.array(frame).reshape(-1, 4, 3) for frame in persons]


def lefts(poses):
    """The x of the first joint of each person [M, T]."""
    return poses[:, :, 0, 0]


def test_persons_keep_their_places_when_the_order_changes():
    frames = frames_of(*([body(t), body(100 - t)][:: 1 if t % 2 else -1] for t in range(6)))
    found = sorted(lefts(track(frames, XYS, 2)).tolist())
    assert found == [[t - 5 for t in range(6)], [95 - t for t in range(6)]]


def test_the_longest_tracks_are_chosen_and_of_equal_ones_the_larger():
    frames = frames_of(
        *([body(0, size=5), body(100), *([body(200)] if t else [])] for t in range(4))
    )
    assert lefts(track(frames, XYS, 1)).tolist() == [[95] * 4]
    assert lefts(track(frames, XYS, 2))[:, 0].tolist() == [95, -2.5]
    np.testing.assert_array_equal(lefts(track(frames, XYS, 9))[2], [np.nan, 195, 195, 195])


def test_a_person_who_jumps_or_is_lost_for_long_is_another():
    far = frames_of([body(0), body(100)], [body(8), body(100)], [body(0), body(100)])
    assert lefts(track(far, XYS, 3)).shape == (3, 3)
    near = frames_of([body(0), body(100)], [body(7), body(100)])
    assert lefts(track(near, XYS, 3)).shape == (2, 2)
    for num_lost, num_persons in ((29, 2), (30, 3)):
        gap = [[body(100)]] * num_lost
        lost = frames_of([body(0), body(100)], *gap, [body(0), body(100)])
        assert len(track(lost, XYS, 9)) == num_persons


def test_a_clip_with_one_person_a_frame_is_that_person():
    frames = frames_of([body(0)], [], [body(1000)], [body(0, score=0)])
    np.testing.assert_array_equal(lefts(track(frames, XYS, 2)), [[-5, np.nan, 995, np.nan]])


def test_half_a_person_does_not_take_the_place_of_the_whole():
    half = body(1)
    half[2:] = 0
    other = body(1)
    other[:2] = 0
    frames = frames_of([body(0)], [other, half], [body(2)])
    poses = track(frames, XYS, 1)
    assert np.isfinite(poses).all()
    assert lefts(poses)[0, [0, 2]].tolist() == [-5, -3]


def test_nobody_is_one_person_who_is_never_seen():
    poses = track([np.empty((0, 4, 3))] * 3, XYS, 2)
    assert poses.shape == (1, 3, 4, 3)
    assert np.isnan(poses).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 25), st.booleans())
def test_persons_apart_are_followed_as_they_moved(seed, num_persons, num_frames, is_3d):
    rng = np.random.default_rng(seed)
    channels = ("x", "y", "z", "score") if is_3d else XYS
    steps = rng.uniform(-5, 5, (num_persons, num_frames, 1, len(channels))).cumsum(axis=1)
    truth = rng.uniform(-50, 50, (num_persons, 1, 5, len(channels)))
    truth[:, :, :2] = [[-50], [50]]  # all persons measure 141 or more
    truth = truth + steps.clip(-20, 20)  # [M, T, V, C]
    truth[..., 0] += 1000 * np.arange(num_persons)[:, None, None]
    truth[..., -1] = rng.uniform(0.1, 1, truth.shape[:-1])
    truth[:, :, 2:][rng.random((num_persons, num_frames, 3)) < 0.5] = 0
    seen = rng.random((num_persons, num_frames)) < rng.uniform(0.5, 1, (num_persons, 1))
    seen[:2, 0] = True  # not one person a frame
    frames = [rng.permutation(truth[seen[:, frame], frame]) for frame in range(num_frames)]

    poses = track(frames, channels, num_persons)
    counts = [int(np.isfinite(person).all(axis=(1, 2)).sum()) for person in poses]
    assert counts == sorted(counts, reverse=True)
    assert sorted(counts) == sorted(count for count in seen.sum(axis=1).tolist() if count)
    for person in poses:
        is_here = np.isfinite(person).all(axis=(1, 2))
        assert any(
            np.array_equal(is_here, mask) and np.array_equal(person[is_here], moved[is_here])
            for mask, moved in zip(seen, truth, strict=True)
        )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40), st.integers(1, 3))
def test_any_persons_are_followed_by_the_rule(seed, most, num_frames, max_persons):
    """Persons who come close, cross, lose joints and vanish."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(num_frames):
        count = rng.integers(0, most + 1)
        persons = rng.normal(0, 30, (count, 1, 3)) + rng.normal(0, 20, (count, 4, 3))
        persons[..., 2] = 0.5
        persons[rng.random(persons.shape[:2]) < 0.3] = 0
        frames.append(persons)
    poses = track(frames, XYS, max_persons)
    expected = slow_track(frames, max_persons)
    np.testing.assert_array_equal(poses, expected)


def slow_track(frames, max_persons):
    """The rule, read slowly: [M, T, V, C]."""
    frames = [[person for person in frame if person[:, 2].any()] for frame in frames]
    is_single = all(len(frame) <= 1 for frame in frames)
    tracks = []  # lists of (frame, person)
    for number, frame in enumerate(frames):
        pairs = []
        for index, one in enumerate(tracks):
            last_frame, last = one[-1]
            for order, person in enumerate(frame):
                apart = slow_distance(last, person)
                limit = 0.5 * max(slow_size(last), slow_size(person))
                if is_single or (number - last_frame <= 30 and apart <= limit):
                    pairs.append((apart, index, order))
        continued = {}
        for _, index, order in sorted(pairs):
            if index not in continued.values() and order not in continued:
                continued[order] = index
        for order, person in enumerate(frame):
            if order in continued:
                tracks[continued[order]].append((number, person))
            else:
                tracks.append([(number, person)])
    sizes = [np.median([slow_size(person) for _, person in one]) for one in tracks]
    ranked = sorted(range(len(tracks)), key=lambda index: (-len(tracks[index]), -sizes[index]))
    poses = np.full((max(1, min(max_persons, len(tracks))), len(frames), 4, 3), np.nan)
    for place, index in enumerate(ranked[:max_persons]):
        for number, person in tracks[index]:
            poses[place, number] = person
    return poses


def slow_distance(one, other):
    both = [joint for joint in range(len(one)) if one[joint, 2] > 0 and other[joint, 2] > 0]
    if both:
        return np.mean([np.hypot(*(one[joint, :2] - other[joint, :2])) for joint in both])
    centers = [
        np.mean([joint[:2] for joint in pose if joint[2] > 0], axis=0) for pose in (one, other)
    ]
    return np.hypot(*(centers[0] - centers[1]))


def slow_size(person):
    found = [joint for joint in person if joint[2] > 0]
    return np.hypot(*(max(j[axis] for j in found) - min(j[axis] for j in found) for axis in (0, 1)))
