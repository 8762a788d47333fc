"""Tables of clips: headers are never frames, frames are never lost, columns are found by name."""

import io
import json

import numpy as np
import pytest

from skelnas.data.readers.base import Layout
from skelnas.data.readers.clip_files import read_clip, read_poses
from skelnas.data.readers.expected import Expected, to_poses
from skelnas.data.readers.stream_frames import parse_frame
from skelnas.errors import InputError

JOINTS = ("hip", "hand_left", "hand_right")
LAYOUT = Layout(JOINTS, center_joint=0)
NAMES = [f"{joint}_{axis}" for joint in JOINTS for axis in "xyz"]
POSES = np.random.default_rng(0).normal((0, 0, 3), 0.3, (6, 3, 3)).round(3)
ROWS = [",".join(map(str, frame)) for frame in POSES.reshape(6, 9).tolist()]


def write(folder, lines, name="clip.csv"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def read(folder, lines):
    poses, _ = read_poses(write(folder, lines), Expected(LAYOUT, 2))
    return poses


def refusal(folder, lines, layout=LAYOUT):
    path = write(folder, lines)
    with pytest.raises(InputError) as caught:
        read_poses(path, Expected(layout, 2))
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def count(start=0, number=9):
    return ",".join(map(str, range(start, start + number)))


def indexed(rows=ROWS, start=0):
    return [f"{number},{row}" for number, row in enumerate(rows, start)]


# Headers


@pytest.mark.parametrize(
    "lines",
    [
        ROWS,
        [count(), *ROWS],
        [count(1), *ROWS],
        [",".join(f"{column}.0" for column in range(9)), *ROWS],
        ["," + count(), *indexed()],
        ["," + count(1), *indexed(start=1)],
        ["index," + count(), *indexed(start=40)],
        ["Unnamed: 0," + count(), *indexed()],
        ["frame," + count(), *indexed()],
        [",".join(["", *NAMES]), *indexed()],
        [",".join(["index", *NAMES]), *indexed()],
        [",".join(["", "Unnamed: 0", *NAMES]), *indexed(indexed())],
        [",".join(["", "frame", *NAMES]), *indexed(indexed())],
        [",".join([*NAMES, ""]), *(row + "," for row in ROWS)],
        [",".join(NAMES).upper(), *ROWS],
        ["# " + ",".join(NAMES), *ROWS],
        ["# " + count(), *ROWS],
    ],
)
def test_headers_are_no_frames_and_row_numbers_no_joints(tmp_path, lines):
    np.testing.assert_array_equal(read(tmp_path, lines), POSES[None].astype(np.float32))


@pytest.mark.parametrize("index", [False, True])
def test_a_second_header_of_joined_files_is_no_frame(tmp_path, index):
    header = ["," + count()] if index else [count()]
    lines = indexed() if index else ROWS
    text = refusal(tmp_path, [*header, *lines[:3], *header, *lines[3:]])
    assert "line 5: the header of line 1 again" in text


def test_whole_numbers_below_a_header_of_numbers(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 900, (4, 3, 3))
    lines = [",".join(map(str, frame)) for frame in pixels.reshape(4, 9)]
    np.testing.assert_array_equal(read(tmp_path, [count(), *lines])[0], pixels)
    np.testing.assert_array_equal(read(tmp_path, lines)[0], pixels)
    assert "may be a header or a frame" in refusal(tmp_path, [count(1), *lines])


def test_a_first_row_without_persons_is_an_absent_frame(tmp_path):
    layout = Layout(("a", "b"), channels=("x", "y", "score"))
    rows = ["0.5,0.25,0.7,0.1,0.2,0.9", "0.4,0.25,0.7,0.1,0.2,0.9"]
    for first in ("-1,-1,0,-1,-1,0", "0,0,0,0,0,0", "-1,-1,-1,-1,-1,-1", ",,,,,"):
        _, present = read_poses(write(tmp_path, [first, *rows]), Expected(layout, 1))
        assert present.tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    "first",
    [
        *(count(10), "0,0,0,1,1,1,2,2,2", "0,1,2,0,1,2,0,1,2", "3,1,4,1,5,9,2,6,5"),
        *("0,0.1,0.2,1,1.1,1.2,2,2.1,2.2", "," + count(3, 8), ",".join("1" * 9)),
    ],
)
def test_a_first_row_unlike_all_others_is_refused(tmp_path, first):
    text = refusal(tmp_path, [first, *ROWS])
    assert "clip.csv: line 1: " in text
    assert text.endswith("... may be a header or a frame")


@pytest.mark.parametrize("first", ["0,0,0,0,0,0,0,0,0", ",,,,,,,,", ",0.1,2,0.5,0.5,3,1,1,1"])
def test_a_first_frame_in_which_joints_are_lost_is_a_frame(tmp_path, first):
    poses = read(tmp_path, [first, *ROWS])
    assert poses.shape[1] == 7
    assert not poses[0, 0, 0].any()


def test_row_numbers_with_gaps_are_refused_unless_they_are_frames(tmp_path):
    lines = [row for row in indexed() if row[0] not in "23"]
    assert "line 4, column 1: expected row numbers without gaps, found 4" in refusal(
        tmp_path, [",".join(["", *NAMES]), *lines]
    )
    poses = read(tmp_path, [",".join(["Frame", *NAMES]), *lines])
    assert poses[0].any(axis=(1, 2)).tolist() == [True, True, False, False, True, True]


# Frames


LOST = POSES.copy()
LOST[1, 1] = np.nan  # a joint
LOST[2:4] = np.nan  # nobody
LOST[5, 2, 1] = np.nan  # one number
CELLS = ["", "nan", "NaN", "NA", "N/A", "#N/A", "null", "None", "<NA>"]


@pytest.mark.parametrize("unknown", CELLS)
@pytest.mark.parametrize("header", [[], [",".join(NAMES)]])
def test_a_row_of_unknown_numbers_is_an_absent_frame(tmp_path, unknown, header):
    rows = [
        ",".join(unknown if np.isnan(number) else str(number) for number in frame)
        for frame in LOST.reshape(6, 9).tolist()
    ]
    poses, present = read_poses(write(tmp_path, [*header, *rows]), Expected(LAYOUT, 1))
    assert present.tolist() == [[True, True, False, False, True, True]]
    np.testing.assert_array_equal(poses, to_poses(LOST[None], LAYOUT.channels)[0])


def test_every_format_and_a_stream_give_the_same_frames(tmp_path):
    lists = [
        [[None if np.isnan(number) else number for number in joint] for joint in frame]
        for frame in LOST.tolist()
    ]
    short = [*lists[:2], None, [], *lists[4:]]  # null and [] for nobody
    short[1][1] = None  # a joint
    np.save(tmp_path / "clip.npy", LOST)
    np.savez(tmp_path / "clip.npz", poses=LOST[None])
    for name, content in (("full", lists), ("short", short), ("object", {"poses": [short]})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    buffer = io.StringIO()
    np.savetxt(buffer, LOST.reshape(6, 9), "%.3f", ",")
    (tmp_path / "clip.csv").write_text(buffer.getvalue())
    frames = [
        parse_frame(json.dumps(frame), "line", Expected(LAYOUT, 1)).persons for frame in short
    ]
    stream = np.stack([frame[0] if len(frame) else np.full((3, 3), np.nan) for frame in frames])

    expected, present = to_poses(LOST[None], LAYOUT.channels)
    assert present.sum() == 4
    np.testing.assert_array_equal(to_poses(stream[None], LAYOUT.channels)[0], expected)
    for name in ("clip.npy", "clip.npz", "full.json", "short.json", "object.json", "clip.csv"):
        np.testing.assert_array_equal(
            read_poses(tmp_path / name, Expected(LAYOUT, 1))[0], expected, err_msg=name
        )


def test_a_frame_without_persons_has_no_person(tmp_path):
    lines = ["frame,person,hip_x,hip_y", "0,7,1.5,2", "1,,,", "2,8.0,3,4.5"]
    poses = read_clip(write(tmp_path, lines)).poses
    assert poses.shape == (2, 3, 1, 2)
    assert np.isnan(poses[:, 1]).all()
    lines[2] = "1,,5,6"
    assert "line 3, column person: expected a whole number from 0, found nothing" in refusal(
        tmp_path, lines, Layout(("hip",), channels=("x", "y"))
    )


def test_blank_lines_are_no_frames_and_refused_where_they_may_be_some(tmp_path):
    header = ",".join(NAMES)
    expected = POSES[None].astype(np.float32)
    np.testing.assert_array_equal(read(tmp_path, ["", header, *ROWS, "", ""]), expected)
    frames = [",".join(["frame", *NAMES]), *indexed()]
    np.testing.assert_array_equal(read(tmp_path, [*frames[:3], "", *frames[3:]]), expected)
    for lines in ([header, "", *ROWS], [header, *ROWS[:2], "  ", *ROWS[2:]], ["", *ROWS]):
        assert "a blank line before it, which may be a frame or not" in refusal(tmp_path, lines)
    path = tmp_path / "windows.csv"
    path.write_bytes("\r\r\n".join([header, *ROWS, ""]).encode())
    np.testing.assert_array_equal(read_poses(path, Expected(LAYOUT, 1))[0], expected)


# Names


@pytest.mark.parametrize("axes", ["xyz", "zyx", "YXZ", "yzx"])
def test_joints_and_channels_are_found_by_name(tmp_path, axes):
    order = [2, 0, 1]
    header = ",".join(f"{JOINTS[joint].title()}_{axis}" for axis in axes for joint in order)
    columns = POSES[:, order][..., ["xyz".index(axis.lower()) for axis in axes]]
    rows = columns.transpose(0, 2, 1).reshape(6, 9).tolist()  # [T, V, C] -> [T, C * V]
    poses = read(tmp_path, [header, *(",".join(map(str, row)) for row in rows)])
    np.testing.assert_array_equal(poses, POSES[None].astype(np.float32))


@pytest.mark.parametrize("score", ["score", "Confidence", "V", "likelihood"])
def test_a_picture_divides_x_and_y_whatever_their_columns(tmp_path, score):
    layout = Layout(("nose",), channels=("x", "y", "score"))
    path = write(tmp_path, [f"nose_{score},nose_Y,nose_X", "0.5,540,480", "0,-1,-1"])
    poses, present = read_poses(path, Expected(layout, 1, (1920, 1080)))
    np.testing.assert_array_equal(poses, [[[[-0.25, 0, 0.5]], [[0, 0, 0]]]])
    assert present.tolist() == [[True, False]]


def test_arrays_may_have_their_channels_in_another_order(tmp_path):
    layout = Layout(("nose",), channels=("x", "y", "score"))
    np.save(tmp_path / "clip.npy", [[[0.5, 540, 480]]])
    poses, _ = read_poses(
        tmp_path / "clip.npy", Expected(layout, 1, (1920, 1080), ("conf", "y", "x"))
    )
    np.testing.assert_array_equal(poses, [[[[-0.25, 0, 0.5]]]])
    frame, _ = parse_frame(
        "[[0.5, 540, 480]]", "line", Expected(layout, 1, channels=("conf", "y", "x"))
    )
    np.testing.assert_array_equal(frame, [[[480, 540, 0.5]]])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("hip_x,hip_y,hip_w", "expected the channels x, y, z, found x, y, w"),
        ("hip_x,hip_y,HIP_X", "column 3: a second column 'HIP_X'"),
        ("hip_c,hip_x,hip_score", "column 3: a second column 'hip_score'"),
        ("knee_x,knee_y,knee_z", "expected the joints hip, found knee"),
    ],
)
def test_unknown_names_are_refused(tmp_path, names, expected):
    assert expected in refusal(tmp_path, [names, "1,2,3.5"], Layout(("hip",)))


def test_numbers_of_every_other_frame_are_refused(tmp_path):
    header = ["frame," + ",".join(NAMES)]
    for step in (2, 33):
        frames = [f"{7 + step * number},{row}" for number, row in enumerate(ROWS)]
        text = refusal(tmp_path, [*header, *frames])
        assert text.endswith(f": the frames are {step} apart, as if there were nobody in between")
        del frames[2]
        assert f"the frames are {step} apart" in refusal(tmp_path, [*header, *frames])
    rows = zip([7, 9, 11, 12], ROWS, strict=False)
    poses = read(tmp_path, [*header, *(f"{number},{row}" for number, row in rows)])
    assert poses.any(axis=(2, 3)).tolist() == [[True, False, True, False, True, True]]


# Sizes


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a_x,a_y\n1,2" + b"\n" * (3 << 20) + b"3,4", "3,145,730 lines, expected at most"),
        (b"," * 100_000, "line 1: expected at most 65,536 cells"),
        (b"frame,a_x\n0,1\n2000000000,1\n", "expected at most 100,000 absent ones"),
        (b"a_x,a_y\n1,1e999\n", "line 2, column a_y: expected a number, found '1e999'"),
        (b"a_x,a_y\n1,2\n1e30,3\n", "expected numbers up to 1,000,000, found 1e+30"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(tmp_path, data, expected):
    path = tmp_path / "clip.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_poses(path, Expected(Layout(("a",), channels=("x", "y")), 1))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[1, true, 2]]", "found something else"),
        ("[[1, Infinity, 2]]", "expected finite numbers or null"),
        ("[[1, 1e999, 2]]", "expected finite numbers or null"),
        ("[[1, 1e30, 2]]", "expected numbers up to 1,000,000, found 1e+30"),
    ],
)
def test_numbers_that_json_does_not_have_are_refused(tmp_path, text, expected):
    layout = Layout(("hip",))
    with pytest.raises(InputError, match=r"^line: ") as caught:
        parse_frame(text, "line", Expected(layout, 1))
    assert expected in str(caught.value)
    (tmp_path / "clip.json").write_text(f"[{text}]")
    with pytest.raises(InputError, match=r"clip.json: expected (finite )?numbers"):
        read_poses(tmp_path / "clip.json", Expected(layout, 1))


def test_truth_values_in_arrays_are_refused(tmp_path):
    np.save(tmp_path / "clip.npy", np.ones((2, 1, 3), bool))
    with pytest.raises(InputError, match="expected an array of numbers, found truth values"):
        read_clip(tmp_path / "clip.npy")
