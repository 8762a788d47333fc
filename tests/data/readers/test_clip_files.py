"""Arrays in files are read in every format, and bad files are refused with a reason."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skelnas.data.readers.clip_files import ENDINGS, read_clip
from skelnas.data.readers.npy import read_npy
from skelnas.errors import InputError

POSES = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def write(tmp_path, text, name="clip.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# .npy


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["f2", ">f4", "f8", "i1", "<u2", "i8", "?"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0))
    ),
    st.booleans(),
)
def test_arrays_are_read_like_numpy(array, fortran_order):
    array = np.asfortranarray(array) if fortran_order else array
    data = npy(array)
    read = read_npy(data, "file")
    np.testing.assert_array_equal(read, np.load(io.BytesIO(data)))
    assert read.dtype == array.dtype


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_changed_arrays_are_refused_or_read_like_numpy(data):
    """A few bytes of a valid file are changed."""
    text = bytearray(npy(POSES))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, 130))] = data.draw(st.integers(0, 255))
    try:
        read = read_npy(bytes(text), "file")
    except InputError:
        return
    np.testing.assert_array_equal(read, np.load(io.BytesIO(bytes(text))))


def patched(old, new):
    return npy(POSES).replace(old, new.ljust(len(old)))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "expected an .npy array, which begins with"),
        (b"frame,hip_x", "expected an .npy array, which begins with"),
        (npy(POSES)[:9], "the .npy header is damaged: EOF"),
        (npy(POSES)[:50], "the .npy header is damaged: EOF"),
        (npy(POSES)[:-1], "expected 96 bytes for the shape (4, 2, 3), found 95: it is truncated"),
        (npy(POSES) + b"1", "expected 96 bytes for the shape (4, 2, 3), found 97"),
        (patched(b"(4, 2, 3)", b"(9999999999, )"[:9]), "the .npy header is damaged"),
        (patched(b"(4, 2, 3), }", b"(99999999,)}"), "expected 399,999,996 bytes for the shape"),
        (
            npy(np.array([None, 1]), allow_pickle=True),
            "expected an array of numbers, found dtype('O')",
        ),
        (npy(np.array(["a"])), "expected an array of numbers, found dtype('<U1')"),
        (npy(np.zeros(2, [("x", "f4")])), "expected an array of numbers, found dtype([('x'"),
        (patched(b"'<f4'", b"'<f1'"), "not a valid dtype descriptor: '<f1'"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 100, "the .npy header is damaged: EOF"),
        (b"\x93NUMPY\x09\x00\x10\x00" + b" " * 100, "its version is (9, 0)"),
    ],
)
def test_files_without_an_array_of_numbers_are_refused(data, expected):
    found = message(read_npy, data, "clip.npy")
    assert found.startswith("clip.npy: ")
    assert expected in found


def test_arrays_of_one_person_gain_a_person_axis(tmp_path):
    clip = read_clip(write(tmp_path, npy(POSES), "clip.npy"))
    np.testing.assert_array_equal(clip.poses, POSES[None])
    clip = read_clip(write(tmp_path, npy(POSES[None]), "CLIP.NPY"))
    np.testing.assert_array_equal(clip.poses, POSES[None])
    assert clip.joints == clip.channels == ()


def test_wrong_shapes_and_extensions_are_refused(tmp_path):
    path = write(tmp_path, npy(POSES[0]), "clip.npy")
    expected = "an array of the shape (2, 3), expected [frames, joints, channels] or [persons, "
    assert message(read_clip, path).startswith(f"{path}: {expected}")
    path = write(tmp_path, "", "clip.dat")
    expected = f"{path}: expected a file that ends in {', '.join(ENDINGS)}"
    assert message(read_clip, path) == expected
    path = tmp_path / "none.npy"
    assert message(read_clip, path) == f"{path}: cannot be read: No such file or directory"


# .npz and .json


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    path = tmp_path / "clip.npz"
    save(path, anything=POSES)
    np.testing.assert_array_equal(read_clip(path).poses, POSES[None])
    save(path, poses=POSES, rate=np.array(30))
    np.testing.assert_array_equal(read_clip(path).poses, POSES[None])
    save(path, x=POSES, y=POSES)
    assert message(read_clip, path).endswith("or one named 'poses', found 2 arrays")


def test_npz_with_objects_or_bombs_is_refused(tmp_path):
    path = tmp_path / "clip.npz"
    np.savez(path, poses=np.array([None, 1]))
    assert "expected an array of numbers, found dtype('O')" in message(read_clip, path)
    np.savez_compressed(path, poses=np.zeros((1000, 100, 30)))
    assert "it looks like a zip bomb" in message(read_clip, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("poses.npy", b"no array")
    assert message(read_clip, path).startswith(f"{path}: poses.npy: expected an .npy array")
    path.write_bytes(b"PK")
    assert message(read_clip, path).startswith(f"{path}: expected a zip archive")


def test_json(tmp_path):
    lists = POSES.tolist()
    for content in (lists, {"poses": lists, "rate": 30}, [lists]):
        clip = read_clip(write(tmp_path, json.dumps(content), "clip.json"))
        np.testing.assert_array_equal(clip.poses, POSES[None])


def test_a_signalling_nan_is_an_unknown_number(tmp_path):
    array = np.ones((2, 1, 1), np.float32)
    array.view(np.uint32)[0] = 0x7F800001
    np.save(tmp_path / "clip.npy", array)
    poses = read_clip(tmp_path / "clip.npy").poses
    np.testing.assert_array_equal(poses, [[[[np.nan]], [[1]]]])


def test_unknown_numbers_in_json(tmp_path):
    clip = read_clip(write(tmp_path, "[[[1, null], [NaN, 2]]]", "clip.json"))
    np.testing.assert_array_equal(clip.poses, [[[[1, np.nan], [np.nan, 2]]]])


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", "7", '[[["1", "2"]]]', "[[[1, 2], [3]]]", "[[[true, false]]]"),
        *("[[[1, {}]]]", '{"poses": "x"}', "[[[null, null]]", "[" * 70 + "1" + "]" * 70),
        f"[[[{10**400}, null]]]",
    ],
)
def test_json_without_an_array_of_numbers_is_refused(tmp_path, text):
    path = write(tmp_path, text, "clip.json")
    assert message(read_clip, path).startswith(f"{path}: ")


# .csv


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_a_header(tmp_path, line_end, delimiter):
    lines = ["hip_x,hip_y,left_hand_x,left_hand_y", "1,2,3,4", "5, 6 ,,-8e0", ""]
    text = "\ufeff" + line_end.join(lines).replace(",", delimiter)
    clip = read_clip(write(tmp_path, text))
    assert (clip.joints, clip.channels) == (("hip", "left_hand"), ("x", "y"))
    np.testing.assert_array_equal(clip.poses, [[[[1, 2], [3, 4]], [[5, 6], [np.nan, -8]]]])


def test_csv_columns_may_be_in_any_order(tmp_path):
    clip = read_clip(write(tmp_path, "a_x,b_x,frame,a_y,b_y\n1,2,7,3,4\n"))
    assert (clip.joints, clip.channels) == (("a", "b"), ("x", "y"))
    np.testing.assert_array_equal(clip.poses, [[[[1, 3], [2, 4]]]])


def test_csv_with_missing_persons_and_frames(tmp_path):
    text = "frame,person,a_x,a_y\n10,3,1,1\n12,3,2,2\n10,9,3,3\n"
    poses = read_clip(write(tmp_path, text)).poses
    assert poses.shape == (2, 3, 1, 2)
    np.testing.assert_array_equal(poses[0, :, 0, 0], [1, np.nan, 2])
    np.testing.assert_array_equal(poses[1, :, 0, 0], [3, np.nan, np.nan])


def test_csv_without_a_header_needs_the_number_of_joints(tmp_path):
    path = write(tmp_path, "1,2,3,9\n5,6,7,8\n")
    np.testing.assert_array_equal(
        read_clip(path, num_joints=2).poses, [[[[1, 2], [3, 9]], [[5, 6], [7, 8]]]]
    )
    assert "line 1: expected a header such as frame,hip_x" in message(read_clip, path)
    assert "line 1: 4 columns, expected a multiple of the 3 joints" in message(read_clip, path, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a table, found an empty file"),
        ("\n , \n", "line 2: a blank line before it, which may be a frame or not"),
        ("a_x,a_y\n", "line 1: expected rows below the header, found none"),
        ("a_x,time\n1,2\n", "line 1, column 2: expected frame, person or a joint and its channel"),
        ("a_x,_y\n1,2\n", "line 1, column 2: expected frame, person or a joint and its channel"),
        ("a_x,a_x\n1,2\n", "line 1, column 2: a second column 'a_x'"),
        ("frame,person\n1,2\n", "line 1: expected columns of joints, such as hip_x,hip_y,hip_z"),
        ("a_x,a_y,b_x\n1,2,3\n", "line 1: expected a column b_y, found none"),
        ("person,a_x\n1,2\n", "line 1: expected a column frame along with person"),
        ("a_x,a_y\n1,2\n1\n", "line 3: expected 2 cells, found 1"),
        ("a_x,a_y\n1,2,3\n", "line 2: expected 2 cells, found 3"),
        ("a_x,a_y\n1,2\n1,two\n", "line 3, column a_y: expected a number, found 'two'"),
        ("a_x,a_y\n1,1_0\n", "line 2, column a_y: expected a number, found '1_0'"),
        ("frame,a_x\n1.5,1\n", "line 2, column frame: expected a whole number from 0, found '1.5'"),
        ("frame,a_x\n-1,1\n", "line 2, column frame: expected a whole number from 0, found '-1'"),
        ("frame,a_x\n3,1\n3,1\n", "line 3: frame 3 of person 0 is already in line 2"),
        ("frame,a_x\n0,1\n200000,1\n", "frames 0 to 200000, expected at most 100,000 absent ones"),
        ('a_x,a_y\n"1,2\n', "expected CSV: unexpected end of data"),
        (b"a_x,a_y\n1,\xff\n", "line 2: expected text in UTF-8, found the byte 0xff"),
        ("a_x,a_y\n1,\0\n", "line 2, column 2: expected plain text of at most 1000"),
    ],
)
def test_bad_csv_is_refused_with_line_and_column(tmp_path, text, expected):
    path = write(tmp_path, text)
    found = message(read_clip, path)
    assert found.startswith(f"{path}: ")
    assert expected in found


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_format_gives_back_the_array_written(tmp_path_factory, data):
    """With missing numbers, missing frames and shuffled columns."""
    shape = tuple(data.draw(st.integers(1, length)) for length in (2, 4, 3, 3))
    numbers = st.one_of(st.floats(allow_infinity=False, allow_nan=False), st.just(float("nan")))
    poses = data.draw(hnp.arrays(np.float64, shape, elements=numbers))
    folder = tmp_path_factory.mktemp("clip")
    lists = [
        [[[None if np.isnan(n) else n for n in joint] for joint in frame] for frame in person]
        for person in poses.tolist()
    ]
    (folder / "clip.json").write_text(json.dumps(lists))
    np.savez(folder / "clip.npz", poses=poses)

    columns = [(j, c) for j in range(shape[2]) for c in range(shape[3])]
    columns = data.draw(st.permutations(columns))
    rows = [",".join(["person", *(f"j{j}_{'xyz'[c]}" for j, c in columns), "frame"])]
    seen = np.zeros(shape[:2], bool)
    order = data.draw(st.permutations([(m, t) for m in range(shape[0]) for t in range(shape[1])]))
    for m, t in order:
        cells = ["" if np.isnan(n := poses[m, t, j, c]) else repr(float(n)) for j, c in columns]
        # The first and the last frame stay, so that the length is the same.
        if t in (0, shape[1] - 1) or data.draw(st.booleans()):
            rows.append(",".join([str(m * 5), *cells, str(t + 3)]))
            seen[m, t] = True
    (folder / "clip.csv").write_text("\n".join(rows))

    for ending in ("json", "npz"):
        np.testing.assert_array_equal(read_clip(folder / f"clip.{ending}").poses, poses)
    clip = read_clip(folder / "clip.csv")
    joints, channels = (
        [int(name[1:]) for name in clip.joints],
        ["xyz".index(c) for c in clip.channels],
    )
    expected = np.where(seen[..., None, None], poses, np.nan)[:, :, joints][..., channels]
    np.testing.assert_array_equal(clip.poses, expected)
