"""NTU RGB+D: files, catalogue and protocols."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.data.readers.base import ClipTable, Test, Train, Unused, check_recording
from skelnas.data.readers.files import packaged_names
from skelnas.data.readers.ntu import LAYOUT, Ntu
from skelnas.data.readers.ntu_file import _parse_in_bulk, parse, parse_by_line
from skelnas.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared"
REAL = SHARED / "data" / "ntu-raw"
FACTS = SHARED / "facts"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real clips in {REAL}")

REST = "0 0 0 0 0 0 0 0 2"
ARRAYS = ("frames", "slots", "bodies", "joints")


def joint_line(point):
    return " ".join([*map(str, point), REST])


def body_lines(body_id=7, points=None):
    points = np.arange(75).reshape(25, 3) / 8 if points is None else points
    return [f"{body_id} 0 1 1 1 1 0 0.02764709 -0.05745083 2", "25", *map(joint_line, points)]


def file_lines(frames):
    """The lines of a file with the given bodies in each frame; a body is a list of lines."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines += [str(len(bodies)), *(line for body in bodies for line in body)]
    return lines


def file_bytes(frames, line_end="\r\n"):
    return "".join(line + line_end for line in file_lines(frames)).encode()


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def outcome(read, data):
    try:
        detections = read(data, "file")
    except InputError as error:
        return str(error)
    return detections.num_frames, *(getattr(detections, name).tolist() for name in ARRAYS)


# Reading


@pytest.mark.parametrize("line_end", ["\n", "\r\n", " \n", " \t\r\n"])
@pytest.mark.parametrize("read", [parse, parse_by_line])
def test_reads_bodies_by_frame(read, line_end):
    far = np.arange(75).reshape(25, 3) / 8 + 100
    data = file_bytes([[body_lines(7)], [], [body_lines(8, far), body_lines(7)]], line_end)
    detections = read(data, "file")
    assert detections.num_frames == 3
    assert detections.frames.tolist() == [0, 2, 2]
    assert detections.slots.tolist() == [0, 0, 1]
    assert detections.bodies.tolist() == [7, 8, 7]
    near = far - 100
    np.testing.assert_array_equal(detections.joints, np.float32([near, far, near]))


def test_ordinary_files_are_parsed_in_bulk():
    assert _parse_in_bulk(file_bytes([[body_lines()]])) is not None
    assert _parse_in_bulk(file_bytes([[body_lines()]]).rstrip()) is not None


@pytest.mark.parametrize("end", ["", "\n\n", "\r\n \r\n", "   "])
def test_blanks_at_the_end_are_allowed(end):
    data = "\n".join(file_lines([[body_lines()]])).encode() + end.encode()
    assert outcome(parse, data) == outcome(parse, file_bytes([[body_lines()]]))


@pytest.mark.parametrize("number", ["NaN", "nan", "inf", "-Infinity", "1e999"])
def test_a_joint_that_is_not_finite_becomes_zero_without_dropping_its_body(number):
    points = [["1", "2", "3"] for _ in range(25)]
    points[4][1] = number
    detections = parse(file_bytes([[body_lines(7, points)]]), "file")
    assert detections.joints.shape == (1, 25, 3)
    assert detections.joints[0, 4].tolist() == [0, 0, 0]
    assert detections.joints[0, 5].tolist() == [1, 2, 3]


def test_ids_keep_all_their_digits():
    data = file_bytes([[body_lines(72057594037931781), body_lines(72057594037931782)]])
    assert parse(data, "file").bodies.tolist() == [72057594037931781, 72057594037931782]


PLAIN = st.decimals(-1000, 1000, allow_nan=False, places=7).map(str)
SPELLINGS = st.one_of(
    PLAIN,
    st.floats(width=32).map(repr),
    st.floats().map(repr),
    st.integers(-(10**18), 10**18).map(str),
    st.from_regex(r"[+-]{0,2}[0-9]{0,3}\.?[0-9]{0,18}(E-?[0-9]{0,3})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", ".5", "5.", "-.5", ".", "-", "1.2.3", "1-2", "1_0", "0x1", "é"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PLAIN, min_size=75, max_size=75))
def test_numbers_parsed_in_bulk_equal_those_of_float(numbers):
    data = file_bytes([[body_lines(7, np.reshape(numbers, (25, 3)))]])
    expected = np.float32([float(number) for number in numbers])
    np.testing.assert_array_equal(_parse_in_bulk(data).joints.ravel(), expected)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_parse_equals_parsing_by_line(data):
    """With numbers in every notation, irregular blanks, and a few changed bytes."""
    points = [["0.25", "-1.5", "3.75"] for _ in range(25)]
    for spelling in data.draw(st.lists(SPELLINGS, max_size=4)):
        points[data.draw(st.integers(0, 24))][data.draw(st.integers(0, 2))] = spelling
    frames = [[body_lines()], [], [body_lines(9, points), body_lines()]]
    text = "\r\n".join(file_lines(frames)).encode() + b"\r\n"
    for _ in range(data.draw(st.integers(0, 2))):
        begin = data.draw(st.integers(0, len(text)))
        end = begin + data.draw(st.sampled_from([0, 0, 1, 2, 30, len(text)]))
        new = data.draw(
            st.sampled_from([b"", b" ", b"\n", b"\r\n ", b"2", b"-", b".", b"E", b"\0", b"nan"])
        )
        text = text[:begin] + new + text[end:]
    assert outcome(parse, text) == outcome(parse_by_line, text)


@needs_real_files
def test_parse_equals_parsing_by_line_on_real_files():
    for path in sorted(REAL.glob("*.skeleton"))[::4]:
        data = path.read_bytes()
        assert _parse_in_bulk(data) is not None, path.name
        assert outcome(parse, data) == outcome(parse_by_line, data), path.name


# Bad files


def changed(number, line):
    """A file of two frames with one line replaced; lines are numbered from 1."""
    lines = file_lines([[body_lines()], [body_lines()]])
    lines[number - 1] = line
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "line 1: expected the number of frames, found the end of the file"),
        (b"\r\n \n", "line 1: expected the number of frames, found the end of the file"),
        (b"0\n", "line 1: expected 1 to 100,000 frames, found '0'"),
        (b"100001\n" + 100_001 * b"0\n", "line 1: expected 1 to 100,000 frames, found '100001'"),
        (b"-1\n", "line 1: expected the number of frames, found '-1'"),
        (b"1.5\n0\n", "line 1: expected the number of frames, found '1.5'"),
        (b"9" * 30, "line 1: expected the number of frames, found '" + "9" * 30 + "'"),
        (b'{"data": []}', "line 1: expected the number of frames, found '{\"data\": []}'"),
        (b"PK\x03\x04\xff", r"line 1: expected the number of frames, found 'PK\x03\x04\xff'"),
        (b"2\n0\n", "line 3: expected the number of bodies in frame 2 of 2, found the end"),
        (b"1\n\n0\n", "line 2: expected the number of bodies in frame 1 of 1, found a blank line"),
        (b"1\n0\n0\n", "line 3: expected the end of the file after 1 frames, found '0'"),
        (changed(1, "1"), "line 30: expected the end of the file after 1 frames, found '1'"),
        (changed(2, "2"), "line 30: expected id and 9 numbers of body 2 in frame 1 of 2, found"),
        (changed(2, "many"), "line 2: expected the number of bodies in frame 1 of 2, found 'many'"),
        (changed(3, "7 0 1"), "line 3: expected id and 9 numbers of body 1 in frame 1 of 2"),
        (changed(3, "7.5 " + REST), "line 3: expected id and 9 numbers of body 1 in frame 1 of 2"),
        (changed(3, "9" * 19 + " " + REST), "line 3: expected id and 9 numbers of body 1"),
        (changed(4, "20"), "line 4: expected 25 joints of body 1 in frame 1 of 2, found '20'"),
        (changed(5, "1 2 3"), "line 5: expected 12 numbers of joint 1 of body 1 in frame 1 of 2"),
        (changed(6, "1 x 3 " + REST), "line 6: expected 12 numbers of joint 2 of body 1"),
        (changed(6, "1 . 3 " + REST), "line 6: expected 12 numbers of joint 2 of body 1"),
        (changed(6, "1 2 3 4 5 6 7 8 9 10 11 ?"), "line 6: expected 12 numbers of joint 2"),
        (changed(57, joint_line("123") + " 4"), "line 57: expected 12 numbers of joint 25 of body"),
        (file_bytes([[body_lines()]])[:700], "expected 12 numbers of joint"),
        (file_bytes([[body_lines()]]) + b"\0" * 64, "line 30: expected the end of the file"),
    ],
)
def test_bad_files_are_refused_with_the_line(data, expected):
    found = message(parse, data, "clip.skeleton")
    assert found.startswith("clip.skeleton: line ")
    assert expected in found
    assert "\n" not in found
    assert len(found) < 300


# The folder


@pytest.fixture
def folder(tmp_path):
    """Clips in a subfolder; one is listed as missing and two have other names."""
    (tmp_path / "nturgb+d_skeletons").mkdir()
    names = ("S017C003P008R002A060", "S001C002P005R002A008", "S001C001P001R001A001", "notes")
    for name in (*names, "S001C001P001R001A121"):
        path = tmp_path / "nturgb+d_skeletons" / f"{name}.skeleton"
        path.write_bytes(file_bytes([[body_lines()]] * 2))
    (tmp_path / "readme.txt").write_text("no clip")
    return tmp_path


def test_catalogue_sorts_by_name_and_lists_skipped_files(folder):
    catalogue = Ntu(folder).catalogue()
    assert [path.stem for path in catalogue.items] == [
        "S001C001P001R001A001",
        "S017C003P008R002A060",
    ]
    assert catalogue.skipped == [
        ("S001C001P001R001A121.skeleton", "the action 121 is not 001 to 120"),
        ("S001C002P005R002A008.skeleton", "its skeletons are missing or incomplete"),
        ("notes.skeleton", "the name is not SsssCcccPpppRrrrAaaa"),
    ]
    assert len(Ntu(folder, keep_missing=True).catalogue().items) == 3


def test_catalogue_follows_links_but_not_loops(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("links") / "root"
    root.symlink_to(folder)
    inner = folder / "nturgb+d_skeletons"
    (inner / "loop").symlink_to(folder)
    (inner / "S002C001P001R001A001.skeleton").symlink_to(inner / "S001C001P001R001A001.skeleton")
    names = [path.stem[:4] for path in Ntu(root).catalogue().items]
    assert names == ["S001", "S002", "S017"]


def test_a_second_file_of_the_same_name_is_skipped(folder):
    copy = folder / "S001C001P001R001A001.skeleton"
    copy.write_bytes(b"")
    catalogue = Ntu(folder).catalogue()
    assert len(catalogue.items) == 2
    reasons = [reason for _, reason in catalogue.skipped if "second" in reason]
    assert len(reasons) == 1


def test_a_folder_without_clips_is_bad_input(tmp_path):
    assert "there is no such folder" in message(Ntu(tmp_path / "no").catalogue)
    assert "expected files such as" in message(Ntu(tmp_path).catalogue)
    (tmp_path / "notes.skeleton").write_text("")
    assert "1 files were skipped: the name is not" in message(Ntu(tmp_path).catalogue)
    assert "it is not a folder" in message(Ntu(tmp_path / "notes.skeleton").catalogue)


def test_a_folder_that_cannot_be_listed_is_bad_input(folder, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", scandir)
    assert message(Ntu(folder).catalogue) == f"{folder}: cannot be listed: Permission denied"


def test_metadata_come_from_the_name(folder):
    source = Ntu(folder)
    recording = source.read(source.catalogue().items[1])
    check_recording(recording, source.layout, source.max_persons)
    assert recording.name == "S017C003P008R002A060"
    assert (recording.label, recording.subject) == (59, 8)
    assert (recording.camera, recording.setup) == (3, 17)
    assert recording.poses.shape == (1, 2, 25, 3)


def test_errors_name_the_file(folder):
    path = folder / "S001C001P001R001A001.skeleton"
    assert message(Ntu(folder).read, path).startswith(f"{path}: cannot be read: No such file")
    path.write_bytes(b"1\n0\n")
    assert message(Ntu(folder).read, path) == f"{path}: no body in any frame"
    assert "expected a name such as" in message(Ntu(folder).read, folder / "notes.skeleton")
    path.unlink()
    path.mkdir()
    assert message(Ntu(folder).read, path) == f"{path}: cannot be read: Is a directory"


# Facts about the dataset


def test_layout_is_a_tree_of_all_joints():
    assert len(LAYOUT.joints) == len(set(LAYOUT.joints)) == 25
    assert len(LAYOUT.bones) == len({child for child, _ in LAYOUT.bones}) == 24
    assert LAYOUT.joints[LAYOUT.center_joint] == "spine_mid"
    left = {(LAYOUT.joints[a], LAYOUT.joints[b]) for a, b in LAYOUT.bones}
    mirrored = {
        tuple(
            name.replace("left", "?").replace("right", "left").replace("?", "right")
            for name in bone
        )
        for bone in left
    }
    assert left == mirrored


def test_classes_are_60_or_120():
    source = Ntu(Path("unused"))
    sixty = source.classes(np.int32([0, 59]))
    assert len(sixty) == len(set(sixty)) == 60
    assert (sixty[0], sixty[49], sixty[59]) == (
        "drink water",
        "punching/slapping other person",
        "walking apart from each other",
    )
    assert len(set(source.classes(np.int32([0, 60])))) == 120


def clip_table(names):
    numbers = np.array([[int(name[i : i + 3]) for i in (1, 5, 9, 17)] for name in names], np.int32)
    setups, cameras, subjects, actions = numbers.T
    return ClipTable(names, actions - 1, subjects, cameras, setups)


def counts(split):
    return tuple(int(np.count_nonzero(split == part)) for part in (Train, Test))


def all_names(file):
    if not (FACTS / file).is_file():
        pytest.skip(f"no list of names in {FACTS / file}")
    return gzip.decompress((FACTS / file).read_bytes()).decode().split()


@pytest.mark.parametrize(
    ("file", "protocol", "before", "after"),
    [
        ("ntu60-clips.txt.gz", "xsub", (40320, 16560), (40091, 16487)),
        ("ntu60-clips.txt.gz", "xview", (37920, 18960), (37646, 18932)),
        ("ntu120-clips.txt.gz", "xsub", (40320, 16560), (40091, 16487)),
        ("ntu120-clips.txt.gz", "xview", (37920, 18960), (37646, 18932)),
        ("ntu120-clips.txt.gz", "xsub120", (63360, 51120), (63026, 50919)),
        ("ntu120-clips.txt.gz", "xset", (54720, 59760), (54468, 59477)),
    ],
)
def test_splits_have_the_published_numbers_of_clips(file, protocol, before, after):
    names = all_names(file)
    missing = set(packaged_names("ntu_missing.txt"))
    source = Ntu(Path("unused"))
    assert counts(source.splits(clip_table(names))[protocol]) == before
    complete = [name for name in names if name not in missing]
    assert counts(source.splits(clip_table(complete))[protocol]) == after


def test_clips_of_ntu60_have_only_its_two_protocols():
    clips = clip_table(["S001C001P001R001A001", "S001C002P003R001A060"])
    splits = Ntu(Path("unused")).splits(clips)
    assert {name: split.tolist() for name, split in splits.items()} == {
        "xsub": [Train, Test],
        "xview": [Test, Train],
    }


def test_later_clips_are_unused_in_the_protocols_of_ntu60():
    clips = clip_table(["S001C002P001R001A001", "S018C002P045R001A061", "S019C001P044R001A120"])
    splits = Ntu(Path("unused")).splits(clips)
    assert {name: split.tolist() for name, split in splits.items()} == {
        "xsub": [Train, Unused, Unused],
        "xview": [Train, Unused, Unused],
        "xsub120": [Train, Train, Test],
        "xset": [Test, Train, Test],
    }


# Real clips


@needs_real_files
def test_all_real_clips_are_read():
    source = Ntu(REAL)
    catalogue = source.catalogue()
    assert len(catalogue.items) == 33
    for item in catalogue.items:
        recording = source.read(item)
        check_recording(recording, source.layout, source.max_persons)
        assert recording.present.all(), item.name


@needs_real_files
@pytest.mark.parametrize("action", [24, 25, 28])
def test_false_bodies_of_real_clips_are_dropped(action):
    path = REAL / f"S001C001P001R001A{action:03}.skeleton"
    detections = parse(path.read_bytes(), path.name)
    assert len(set(detections.bodies.tolist())) == 2
    recording = Ntu(REAL).read(path)
    assert len(recording.poses) == 1
    width, height, _ = np.ptp(recording.poses[0], axis=1).T
    assert np.mean(width < height) > 0.9


@needs_real_files
@pytest.mark.parametrize("action", [50, 51, 52, 53, 54, 55, 58])
def test_two_people_in_real_clips_are_two_persons(action):
    for path in REAL.glob(f"*A{action:03}.skeleton"):
        assert len(Ntu(REAL).read(path).poses) == 2, path.name
