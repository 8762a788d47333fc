"""MATLAB's files: numbers and texts, whatever their type, and nothing larger than the file says."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skelnas.data.readers import mat
from skelnas.data.readers.base import Layout
from skelnas.data.readers.clip_files import read_clip, read_poses
from skelnas.data.readers.expected import Expected
from skelnas.data.readers.mat import read_mat
from skelnas.errors import InputError

KINDS = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}


def element(kind, content, order="<", small=False):
    if small and len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    padding = b"\0" * (-len(content) % 8)
    return struct.pack(f"{order}II", kind, len(content)) + content + padding


def matrix(name, array, order="<", small=False, mat_class=6, flags=0, shape=None):
    """A variable as MATLAB writes it: flags, shape, name, numbers in column order."""
    if isinstance(array, str):
        mat_class, kind, shape = 4, 16, (1, len(array))
        content = array.encode()
    else:
        kind, shape = KINDS[array.dtype.str[1:]], array.shape if shape is None else shape
        content = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    parts = (
        element(6, struct.pack(f"{order}II", mat_class | flags, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name.encode(), order, small),
        element(kind, content, order, small),
    )
    return element(14, b"".join(parts), order)


def file(*variables, order="<", compress=False):
    mark = b"IM" if order == "<" else b"MI"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark
    if compress:
        packed = [zlib.compress(variable) for variable in variables]
        variables = [struct.pack(f"{order}II", 15, len(data)) + data for data in packed]
    return header + b"".join(variables)


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def write(folder, data, name="clip.mat"):
    path = folder / name
    path.write_bytes(data)
    return path


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_every_type_order_and_packing_gives_the_numbers(data):
    order, compress = data.draw(st.sampled_from("<>")), data.draw(st.booleans())
    expected = {}
    variables = []
    for name in data.draw(st.lists(st.sampled_from(["x", "a", "visibility"]), unique=True)):
        shape = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=4))
        dtype = data.draw(st.sampled_from(list(KINDS)))
        array = np.random.default_rng(len(name)).integers(0, 99, shape).astype(dtype)
        expected[name] = array
        variables.append(matrix(name, array, order, data.draw(st.booleans())))
    variables.append(matrix("action", "bowl", order, data.draw(st.booleans())))
    found = read_mat(file(*variables, order=order, compress=compress), "file")
    assert found.pop("action") == "bowl"
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


ARRAY = np.arange(2 * 5 * 3, dtype=float).reshape(2, 5, 3) + 1


@pytest.mark.parametrize(
    "variables",
    [
        [("poses", ARRAY)],
        [("poses", ARRAY), ("other", ARRAY + 1)],
        [("d_skel", ARRAY.transpose(1, 2, 0))],
        [("skeleton", ARRAY), ("rate", np.float64([[30]]))],
        [("skeleton", ARRAY.transpose(1, 2, 0)[..., [0, 1, 1, 1, 1]])],
        [("z", ARRAY[..., 2]), ("y", ARRAY[..., 1]), ("x", ARRAY[..., 0])],
    ],
)
def test_joints_are_found_by_name_or_shape(tmp_path, variables):
    layout = Layout(("hip", "neck", "head", "left_hand", "right_hand"))
    path = write(tmp_path, file(*(matrix(name, array) for name, array in variables)))
    poses, _ = read_poses(path, Expected(layout, 1))
    np.testing.assert_array_equal(poses[0, :2], np.float32(ARRAY))


def test_visibility_is_a_score(tmp_path):
    x, y, visible = ARRAY[..., 0], ARRAY[..., 1], (ARRAY[..., 2] > 6).astype("u1")
    parts = [matrix(*pair) for pair in (("x", x), ("y", y), ("visibility", visible))]
    clip = read_clip(write(tmp_path, file(*parts)))
    assert clip.channels == ("x", "y", "score")
    np.testing.assert_array_equal(clip.poses[0], np.stack([x, y, visible], axis=-1))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ([], "expected one array of joints, or x and y, found no arrays"),
        ([("a", ARRAY), ("b", ARRAY)], "found 'a' (2, 5, 3), 'b' (2, 5, 3)"),
        (
            [("a", ARRAY[:, :3])],
            "'a' has the shape (2, 3, 3): which axis has the numbers of a joint?",
        ),
        ([("d_\nskel", ARRAY[:, :3])], r"'d_\nskel' has the shape"),  # in one line
    ],
)
def test_joints_that_cannot_be_told_are_refused(tmp_path, variables, expected):
    path = write(tmp_path, file(*(matrix(name, array) for name, array in variables)))
    assert expected in message(read_clip, path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "expected a .mat file of MATLAB 5 to 7.2, found something else"),
        (b"MATLAB 7.3 MAT-file".ljust(512), "expected a .mat file up to MATLAB 7.2, found one of"),
        (file(matrix("a", ARRAY))[:-9], "an element of 304 bytes, of which 295 are there"),
        (file(b"abc"), "the .mat file is damaged: 3 bytes at the end"),
        (file(matrix("a", ARRAY, shape=(2, 5, 4))), "'a' has 30 numbers for the shape [2, 5, 4]"),
        (file(matrix("a", ARRAY, shape=(-2, -15))), "'a' has 30 numbers for the shape [-2, -15]"),
        (file(matrix("a", ARRAY, shape=(1,) * 9)), "a variable of 9 axes"),
        (file(matrix("a" * 101, ARRAY)), "with a name of 101 bytes"),
        (file(matrix("a", ARRAY), compress=True)[:-30], "the .mat file is damaged"),
    ],
)
def test_damaged_files_are_refused(data, expected):
    assert expected in message(read_mat, data, "file")


def test_what_is_no_array_of_numbers_is_left_out():
    others = [matrix("cell", ARRAY, mat_class=1), matrix("complex", ARRAY, flags=0x0800)]
    assert list(read_mat(file(*others, matrix("a", ARRAY)), "file")) == ["a"]


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(mat, "MAX_BYTES", 1 << 16)
    bomb = file(*[matrix("a", np.zeros((200, 20)))] * 3, compress=True)
    assert len(bomb) < 1000
    assert "more than 65,536 bytes when unpacked" in message(read_mat, bomb, "file")
