"""MSRC-12, UTD-MHAD and Penn Action as they are downloaded, with their official protocols."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_mat import file, matrix

from skelnas.data.prepare import prepare
from skelnas.data.readers.base import Test, Train, check_recording
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.manifest_table import find_table, read_manifest
from skelnas.data.readers.msrc12 import Msrc12
from skelnas.data.readers.penn_action import PennAction
from skelnas.data.readers.unlabelled import Origin, read_unlabelled
from skelnas.data.readers.utd_mhad import ORDER, UtdMhad
from skelnas.errors import InputError

REAL = Path(__file__).parents[4] / "shared" / "data"
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="needs the real recordings in ../shared/data"
)


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def read_all(source):
    recordings = [source.read(item) for item in source.catalogue().items]
    for recording in recordings:
        check_recording(recording, source.layout, source.max_persons)
    return {recording.name: recording for recording in recordings}


# MSRC-12


def write_msrc12(folder, name, points, num_frames=100):
    """A recording at 30 frames per second whose first coordinate counts the frames."""
    table = np.zeros((num_frames, 81))
    table[:, 0] = 5e9 + 33_333 * np.arange(num_frames)
    table[:, 1::4], table[:, 4::4] = 1 + np.arange(num_frames)[:, None], 1
    table[:, 4] = 0  # the first joint is not tracked
    np.savetxt(folder / f"{name}.csv", table, "%.6f")
    ticks = [round((table[frame, 0] * 49875 - 49875 / 2) / 1000) for frame, _ in points]
    lines = [f"{tick};G{gesture}  Duck" for tick, (_, gesture) in zip(ticks, points, strict=True)]
    (folder / f"{name}.tagstream").write_text("\n".join(["XQPCTick;Tag", *lines, ""]))


def test_clips_are_cut_around_action_points(tmp_path):
    write_msrc12(tmp_path, "P1_2_12A_p05", [(10, 12), (40, 2), (95, 2)])
    write_msrc12(tmp_path, "P1_1_2_p02", [(70, 1)])
    source = Msrc12(tmp_path)
    clips = read_all(source)
    frames = {name: clip.poses[0, :, 1, 0] - 1 for name, clip in clips.items()}
    assert {name: (found[0], found[-1]) for name, found in frames.items()} == {
        "P1_1_2_p02_00": (10, 90),
        "P1_2_12A_p05_00": (0, 30),
        "P1_2_12A_p05_01": (10, 60),
        "P1_2_12A_p05_02": (40, 99),
    }
    assert [clip.label for clip in clips.values()] == [0, 11, 1, 1]
    assert [clip.subject for clip in clips.values()] == [2, 5, 5, 5]
    assert not clips["P1_1_2_p02_00"].poses[:, :, 0].any()
    report = prepare(source, tmp_path / "cache.h5", workers=1)
    assert report.splits == {"xsub": (3, 1), "few": (4, 0)}
    whole = read_unlabelled(tmp_path / "P1_1_2_p02.csv", Origin("msrc12", source.layout, 1, {}))
    assert whole.poses.shape == (1, 100, 20, 3)


def test_endings_of_msrc12_may_be_in_capitals(tmp_path):
    for name in ("P1_1_2_p07", "P1_1_2_p08"):
        write_msrc12(tmp_path, name, [(70, 1)])
    (tmp_path / "P1_1_2_p07.csv").rename(tmp_path / "P1_1_2_p07.CSV")
    (tmp_path / "P1_1_2_p07.tagstream").rename(tmp_path / "P1_1_2_p07.TAGSTREAM")
    assert list(read_all(Msrc12(tmp_path))) == ["P1_1_2_p07_00", "P1_1_2_p08_00"]
    origin = Origin("msrc12", Msrc12(tmp_path).layout, 1, {})
    assert read_unlabelled(tmp_path / "P1_1_2_p07.CSV", origin).poses.shape == (1, 100, 20, 3)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True).map(sorted))
def test_cuts_equal_those_of_a_slow_rule(tmp_path, points):
    write_msrc12(tmp_path, "P1_1_2_p01", [(point, 2) for point in points])
    source = Msrc12(tmp_path)
    for number, point in enumerate(points):
        recording = source.read(tmp_path / f"P1_1_2_p01.csv/{number:02}")
        before = points[number - 1] if number else 0
        inside = [frame for frame in range(100) if point - 60 <= frame <= point + 20]
        expected = [frame for frame in inside if frame >= before]
        assert (recording.poses[0, :, 1, 0] - 1).tolist() == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("7;G13 Fly", "line 1: expected at most 1000 tags such as 124301238039;G12 Kick, found"),
        ("XQPCTick;Tag\n7 G1 Start", "line 2: expected at most 1000 tags"),
        (None, "P1_1_2_p01.tagstream: cannot be read"),
        ("", "expected files such as P1_1_10_p06.csv, each with its tags"),
    ],
)
def test_tags_that_are_none_are_named(tmp_path, tags, expected):
    write_msrc12(tmp_path, "P1_1_2_p01", [])
    path = tmp_path / "P1_1_2_p01.tagstream"
    path.unlink() if tags is None else path.write_text(tags)
    assert expected in message(Msrc12(tmp_path).catalogue)


def test_rows_of_another_length_are_refused(tmp_path):
    write_msrc12(tmp_path, "P1_1_2_p01", [(3, 1)])
    path = tmp_path / "P1_1_2_p01.csv"
    path.write_text("1 2 3\n" + path.read_text())
    found = message(Msrc12(tmp_path).read, path / "00")
    assert found.startswith(f"{path}: line 1: expected 81 numbers divided by blanks, a time and 4")


# UTD-MHAD and Penn Action


def test_utd_mhad_reorders_joints_and_trains_on_odd_subjects(tmp_path):
    array = np.random.default_rng(0).normal(0, 1, (20, 3, 4))
    for subject in (1, 2, 3):
        path = tmp_path / f"a27_s{subject}_t1_skeleton.mat"
        path.write_bytes(file(matrix("d_skel", array)))
    (tmp_path / "a28_s1_t1_skeleton.mat").write_bytes(b"")
    source = UtdMhad(tmp_path)
    clips = read_all(source)
    assert [(name, clip.label, clip.subject) for name, clip in clips.items()] == [
        (f"a27_s{subject}_t1", 26, subject) for subject in (1, 2, 3)
    ]
    head = source.layout.joints.index("head")
    np.testing.assert_array_equal(clips["a27_s1_t1"].poses[0, :, head], np.float32(array[0].T))
    assert source.catalogue().skipped == [
        ("a28_s1_t1_skeleton.mat", "the name is not aA_sS_tT_skeleton")
    ]
    assert len(source.classes(np.int32([0]))) == 27
    assert prepare(source, tmp_path / "c.h5", workers=1).splits == {"xsub": (2, 1)}
    path.write_bytes(file(matrix("d_skel", array[:19])))
    assert "'d_skel' of 20 joints x 3 x frames, found the shape (19, 3, 4)" in message(
        source.read, path
    )


def test_a_table_of_utd_mhads_files_names_their_joints(tmp_path):
    array = np.random.default_rng(0).normal(0, 1, (20, 3, 4))
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    path.write_bytes(file(matrix("d_skel", array)))
    (tmp_path / "clips.csv").write_text(f"path,label,split\n{path.name},wave,train\n")
    source = Manifest(tmp_path / "clips.csv", Path("kinect-v1"), channels=("x", "y", "z"))
    np.testing.assert_array_equal(source.read(path).poses, UtdMhad(tmp_path).read(path).poses)


def penn_clip(train=1, action="squat", visible=1.0, **changes):
    variables = {
        "action": action,
        "x": np.full((3, 13), 160.0),
        "y": np.full((3, 13), 60.0),
        "visibility": np.full((3, 13), visible),
        "train": np.float64([[train]]),
        "dimensions": np.float64([[240, 320, 3]]),
    }
    return file(*(matrix(*pair) for pair in (variables | changes).items()))


def test_penn_action_names_the_part_of_each_clip(tmp_path):
    (tmp_path / "labels").mkdir()
    for number, train in ((1, -1), (2, 1), (3, 1)):
        (tmp_path / f"labels/000{number}.mat").write_bytes(penn_clip(train))
    (tmp_path / "labels/0004.mat").write_bytes(penn_clip(0))
    source = PennAction(tmp_path)
    report = prepare(source, tmp_path / "cache.h5", workers=1)
    assert report.splits == {"official": (2, 1)}
    assert "expected 'train' to be 1 or -1" in report.failed[0].reason
    recording = source.read(tmp_path / "labels/0001.mat")
    assert source.classes(np.int32([0]))[recording.label] == "squat"
    assert recording.poses[0, 0, 0].tolist() == [0, -0.25, 1]


def test_a_clip_without_visible_joints_has_those_that_are_marked(tmp_path):
    x, y = np.full((3, 13), 160.0), np.full((3, 13), 60.0)
    x[:, 5], y[:, 5] = 1, 1
    path = tmp_path / "0001.mat"
    path.write_bytes(penn_clip(visible=0.0, x=x, y=y))
    poses = PennAction(tmp_path).poses(path)[0]
    assert np.flatnonzero(poses[0, 0, :, 2] == 0).tolist() == [5]


def test_a_signalling_nan_is_no_warning(tmp_path):
    visible = np.ones((3, 13))
    visible.view(np.uint64)[0, 4] = 0x7FF0_0000_0000_0001
    path = tmp_path / "0001.mat"
    path.write_bytes(penn_clip(visibility=visible))
    poses = PennAction(tmp_path).poses(path)[0]
    assert np.flatnonzero(~poses[0, 0].any(axis=1)).tolist() == [4]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"action": "fly"}, "expected an 'action' such as bowl, found 'fly'"),
        ({"x": np.ones((3, 12))}, "expected 'x' of frames x 13, found the shape (3, 12)"),
        ({"y": np.ones((2, 13))}, "'x', 'y' and 'visibility' have the shapes [(3, 13), (2, 13)"),
        ({"dimensions": np.float64([[0, 9]])}, "expected 'dimensions', height and width, found"),
        ({"dimensions": np.float64([[9, 3e-317]])}, "expected 'dimensions', height and width"),
    ],
)
def test_bad_clips_of_penn_action_are_refused(tmp_path, changes, expected):
    path = tmp_path / "0001.mat"
    path.write_bytes(penn_clip(**changes))
    assert expected in message(PennAction(tmp_path).read, path)


# Real samples, beside arrays that others made from the same recordings


@needs_real
@pytest.mark.parametrize(
    ("source", "archive"),
    [
        (Msrc12(REAL / "samples/msrc12-text"), "msrc12/msrc12.zip"),
        (UtdMhad(REAL / "samples/mat/utd-mhad"), "utd/utd.zip"),
        (PennAction(REAL / "samples/mat/penn-action"), "penn/penn.zip"),
    ],
    ids=["msrc12", "utd-mhad", "penn-action"],
)
def test_real_samples_equal_their_arrays(source, archive):
    num_compared = 0
    with zipfile.ZipFile(REAL / archive) as packed:
        for item in source.catalogue().items:
            recording = source.read(item)
            if not recording.present.any():
                continue  # a recording in which nobody is tracked
            data = packed.read(f"clips/{recording.name}.npy")
            array = np.load(io.BytesIO(data)).reshape(recording.poses.shape)
            if source.name == "utd-mhad":
                array = array[:, :, ORDER]
            if source.name == "penn-action":
                array = np.where(array[..., 2:] > 0, array, 0)
            tolerance = 2e-3 if array.dtype == np.float16 else 1e-6
            np.testing.assert_allclose(recording.poses, array, rtol=0, atol=tolerance)
            num_compared += 1
    assert num_compared >= 2


@needs_real
@pytest.mark.parametrize(
    ("archive", "protocol", "sizes"),
    [
        ("msrc12/msrc12.zip", "odd", [3104, 3117]),
        ("utd/utd.zip", "odd", [431, 430]),
        ("penn/penn.zip", "official", [1258, 1068]),
    ],
)
def test_real_archives_need_no_unpacking(archive, protocol, sizes):
    source = Manifest(REAL / archive)
    items = source.catalogue().items
    split = source.splits(read_manifest(find_table(source.root)).clips())[protocol]
    assert [np.count_nonzero(split == part) for part in (Train, Test)] == sizes
    for item in items[:: len(items) // 20]:
        check_recording(source.read(item), source.layout, source.max_persons)
