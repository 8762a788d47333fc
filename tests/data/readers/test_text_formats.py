"""Clips in text, divided by anything, with columns before the joints."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelnas.data.readers.base import Layout
from skelnas.data.readers.clip_files import read_clip, read_poses
from skelnas.data.readers.clip_tables import TextFormat
from skelnas.data.readers.expected import Expected
from skelnas.data.readers.folder import Folder
from skelnas.data.readers.layouts import find_layout
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.unlabelled import Origin, read_unlabelled
from skelnas.errors import InputError

LAYOUT = Layout(("hip", "neck", "head", "left_hand", "right_hand"))
POSES = np.random.default_rng(0).normal((0, 0, 3), 0.3, (6, 5, 3)).round(3)
ROWS = [" ".join(map(str, frame)) for frame in POSES.reshape(6, 15).tolist()]


def write(folder, text, name="clip.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value), caught.value.hint


def read(path, **text_format):
    (poses,), _ = read_poses(path, Expected(LAYOUT, 1), TextFormat(**text_format))
    return poses


def test_numpy_writes_blanks_and_its_header_as_a_comment(tmp_path):
    names = " ".join(f"{joint}_{axis}" for joint in LAYOUT.joints for axis in "xyz")
    for header in ("", names):
        file = io.StringIO()
        np.savetxt(file, POSES.reshape(6, 15), header=header)
        path = write(tmp_path, file.getvalue(), "clip.tsv")
        np.testing.assert_array_equal(read(path), np.float32(POSES))


def test_a_leading_frame_number_is_named_in_the_error_and_left_out(tmp_path):
    """As in FPHA and UTKinect."""
    path = write(tmp_path, "".join(f"  {n} \t{row} \r\n" for n, row in enumerate(ROWS, 7)))
    assert message(read, path) == (
        f"{path}: line 1: 16 columns, expected a multiple of the 5 joints",
        "if the first is a frame number or a time, give --skip-columns 1",
    )
    np.testing.assert_array_equal(read(path, skip_columns=1), np.float32(POSES))
    path.write_text(path.read_text().replace(str(POSES[1, 0, 1]), "x", 1))
    found, _ = message(lambda: read(path, skip_columns=1))
    assert found == f"{path}: line 2, column 3: expected a number, found 'x'"


def test_a_row_may_be_a_joint(tmp_path):
    """As in MSRAction3D."""
    lines = [" ".join(map(str, joint)) for joint in POSES.reshape(30, 3).tolist()]
    np.testing.assert_array_equal(read(write(tmp_path, "\n".join(lines))), np.float32(POSES))
    path = write(tmp_path, "\n".join(lines[:-1]))
    assert (
        "3 columns, expected a multiple of the 5 joints, or a row per joint, but 29"
        in message(read, path)[0]
    )


@pytest.mark.parametrize(("name", "num_skipped"), [("shrec22", 0), ("fpha21", 1)])
def test_hands_of_public_sets_are_read_as_they_come(tmp_path, name, num_skipped):
    """Rows of numbers, blanks between them and at the ends; FPHA counts frames before them."""
    layout = find_layout(name)
    hand = np.random.default_rng(1).normal((0, 0, 0.5), 0.05, (7, len(layout.joints), 3)).round(4)
    rows = [" ".join(f"{number:.6f}" for number in frame.ravel()) for frame in hand]
    counts = [f"{number:05d} " if num_skipped else "" for number in range(7)]
    for clip, part in (("1_1", "train"), ("2_1", "test")):
        text = "".join(f"{n}{row} \n" for n, row in zip(counts, rows, strict=True))
        write(tmp_path / part / "grab", text, f"{clip}.txt")
    source = Folder(tmp_path, joints=Path(name), text_format=TextFormat("", num_skipped))
    assert source.layout.channels == ("x", "y", "z")
    poses = [source.read(item).poses for item in source.catalogue().items]
    np.testing.assert_array_equal(poses, np.float32([hand[None]] * 2))
    origin = Origin("folder", layout, 1, source.rule)
    read_again = read_unlabelled(tmp_path / "test" / "grab" / "2_1.txt", origin)
    np.testing.assert_array_equal(read_again.poses, poses[1])


def test_skipped_columns_and_divider_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path, "\n".join(ROWS))
    found, _ = message(lambda: read(path, skip_columns=15))
    assert found.endswith(
        "line 1: 15 cells, expected more than the 15 that --skip-columns leaves out"
    )
    found, hint = message(lambda: read(path, delimiter="comma"))
    assert "expected frame, person or a joint and its channel" in found
    assert hint == "is that a row? --delimiter says what divides it"
    path = write(tmp_path, ROWS[0] + "\n\n" + ROWS[1])
    assert "line 3: a blank line before it" in message(read, path)[0]


def test_a_model_reads_text_as_its_clips_were(tmp_path):
    table = write(tmp_path, "path,label,split\nclip.txt,run,train\n", "clips.csv")
    clip = write(tmp_path, "\n".join(f"{n} {row}" for n, row in enumerate(ROWS)))
    joints = write(
        tmp_path, '{"joints": ["hip", "neck", "head", "left_hand", "right_hand"]}', "j.json"
    )
    source = Manifest(table, joints, text_format=TextFormat("blank", 1))
    assert source.read(clip).poses.shape == (1, 6, 5, 3)
    rule = source.rule
    assert (rule["delimiter"], rule["skip_columns"]) == ("blank", 1)
    origin = Origin("manifest", source.layout, 1, rule)
    np.testing.assert_array_equal(read_unlabelled(clip, origin).poses[0], np.float32(POSES))
    other = Origin("manifest", source.layout, 1, rule, given_skip_columns=0)
    assert (
        "16 columns, expected a multiple of the 5 joints"
        in message(read_unlabelled, clip, other)[0]
    )


CELLS = st.sampled_from(["0", "-1.5", "3e2", "nan", "NA", "null", "12"])


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_every_divider_gives_what_a_slow_reader_reads(tmp_path, data):
    divider, name = data.draw(
        st.sampled_from([(",", "comma"), (";", "semicolon"), ("\t", "tab"), (" ", "blank")])
    )
    skip, frames = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 4))
    rows = [[data.draw(CELLS) for _ in range(skip + 6)] for _ in range(frames)]
    rows[0][skip] = "0.25"  # no header
    blanks = st.sampled_from([" ", "  ", " \t"]) if divider == " " else st.sampled_from(["", " "])
    edge = blanks if data.draw(st.booleans()) else st.just("")
    lines = []
    for row in rows:
        dividers = [data.draw(blanks) if divider == " " else divider for _ in row[1:]]
        cells = [cell + end for cell, end in zip(row, [*dividers, ""], strict=True)]
        lines.append(data.draw(edge) + "".join(cells) + data.draw(edge))
    path = write(tmp_path, "\n".join(lines) + "\n")
    expected = [
        [float(cell) if cell not in ("nan", "NA", "null") else np.nan for cell in row[skip:]]
        for row in rows
    ]
    given_name = name if data.draw(st.booleans()) or "\t" in lines[0] else ""
    clip = read_clip(path, 2, TextFormat(given_name, skip))
    np.testing.assert_array_equal(clip.poses.reshape(frames, 6), expected)


@pytest.mark.parametrize("start", [0, 1, 240])
def test_a_first_column_that_counts_is_no_coordinate(tmp_path, start):
    joints = POSES.reshape(-1, 3).tolist()  # [T * V, 3]
    counts = {
        "rows": range(start, start + 30),
        "frames": [start + number // 5 for number in range(30)],
        "joints": [start + number % 5 for number in range(30)],
    }
    for what, numbers in counts.items():
        rows = zip(numbers, joints, strict=True)
        path = write(tmp_path, "".join(f"{n} {x} {y} {z}\n" for n, (x, y, z) in rows))
        found, hint = message(read, path)
        assert found == f"{path}: the first column counts {what}"
        assert hint.startswith("give --skip-columns 1; ")
        np.testing.assert_array_equal(read(path, skip_columns=1), np.float32(POSES))
    both = zip(counts["frames"], counts["joints"], joints, strict=True)
    path = write(tmp_path, "".join(f"{t} {v} {x} {y} {z}\n" for t, v, (x, y, z) in both))
    assert message(lambda: read(path, skip_columns=1))[1].startswith("give --skip-columns 2; ")
    np.testing.assert_array_equal(read(path, skip_columns=2), np.float32(POSES))


def test_a_first_column_that_counts_frames_of_one_joint(tmp_path):
    rows = [[n, *joint] for n, joint in enumerate(POSES[:, 0, :2].tolist(), 7)]
    path = write(tmp_path, "".join(f"{n} {x} {y}\n" for n, x, y in rows))
    one = Layout(("hand",), channels=("x", "y", "score"))
    with pytest.raises(InputError, match="the first column counts rows"):
        read_poses(path, Expected(one, 1))
    path.write_text("hand_x hand_y hand_score\n" + path.read_text())
    assert read_poses(path, Expected(one, 1))[0].shape == (1, 6, 1, 3)
