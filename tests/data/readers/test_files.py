"""Finding and reading files despite links, permissions and sizes."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from skelnas.data.readers.files import (
    are_found,
    as_array,
    as_joints,
    find_files,
    read_bytes,
    read_json,
)
from skelnas.errors import InputError
from skelnas.json_text import MAX_ITEMS


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clip.txt"
    path.write_bytes(b"clip")
    return path


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_unreadable_files_are_reported(file, monkeypatch, error, expected):
    def refuse(self):
        raise error

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert message(read_bytes, file) == f"{file}: {expected}"


def test_link_loops_terminate(file):
    folder = file.parent
    (folder / "down").mkdir()
    (folder / "down" / "up").symlink_to(folder)
    (folder / "down" / "self").symlink_to(folder / "down")
    loop = folder / "loop.txt"
    loop.symlink_to(loop)
    assert find_files(folder, ".txt") == [file, loop]
    assert message(read_bytes, loop) == f"{loop}: cannot be read: Too many levels of symbolic links"


def test_broken_links_are_found_and_reported(file):
    link = file.with_name("gone.txt")
    link.symlink_to(file.with_name("nothing"))
    assert find_files(file.parent, ".txt") == [file, link]
    assert message(read_bytes, link) == f"{link}: cannot be read: No such file or directory"


def test_a_file_of_exactly_the_limit_is_read(file):
    assert read_bytes(file, 4) == b"clip"
    assert message(read_bytes, file, 3) == f"{file}: 4 bytes, expected at most 3"


XYS, XY, XYZ = ("x", "y", "score"), ("x", "y"), ("x", "y", "z")


@pytest.mark.parametrize(
    ("joint", "channels", "found"),
    [
        ((-1, -1, 0), XYS, False),
        ((0, 0, 0), XYS, False),
        ((300, 200, 0), XYS, False),
        ((300, 200, -0.1), XYS, False),
        ((300, 200, 0), ("x", "y", "Visibility"), False),
        ((0, 0, 0.4), XYS, False),
        ((-1, -1, 0.4), XYS, False),
        ((0, 7, 0.4), XYS, True),
        ((-1, 7, 0.4), XYS, True),
        ((np.nan, 7, 0.4), XYS, False),
        ((3, 7, np.nan), XYS, False),
        ((3, np.inf, 1), XYS, False),
        ((-1, -1), XY, False),
        ((0, 0), XY, False),
        ((-1, 0), XY, True),
        ((-1, -1, -1), XYZ, True),
        ((0, 0, 0), XYZ, False),
        ((0, 0, 2), XYZ, True),
        ((1, 2, 3, 0), (*XYZ, "likelihood"), False),
        ((0, 0, 0, 1), (*XYZ, "score"), False),
    ],
)
def test_one_rule_says_which_joints_were_found(joint, channels, found):
    """A joint that was not found is zero whether or not coordinates are divided by a picture."""
    assert are_found(joint, channels) == found
    for picture in (None, (640, 480)):
        assert as_joints(joint, channels, picture).any() == found


@pytest.mark.parametrize(
    "lists", [None, 7, {}, [[1], [1, 2]], [1, "2"], [True, 2.5], [[True]], [10**400], [[], {}]]
)
def test_lists_of_anything_but_numbers_are_no_array(lists):
    assert as_array(lists) is None


def test_lists_of_numbers_are_an_array_with_nan_for_null():
    np.testing.assert_array_equal(
        as_array([[1, None], [2.5, 2**70]]), [[1, np.nan], [2.5, 2.0**70]]
    )
    assert as_array([]).shape == (0,)


def test_x_and_y_become_fractions_of_the_picture():
    joints = as_joints([[160, 480, 0.5], [-1, -1, 0]], XYS, (640, 480))
    np.testing.assert_array_equal(joints, [[-0.25, 0.5, 0.5], [0, 0, 0]])


def test_json_of_millions_of_lists_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "clip.json"
    path.write_bytes(b"[" + b"[]," * MAX_ITEMS + b"[]]")
    assert "4,194,306 lists and objects with 0 keys, expected at most 4,194,304" in message(
        read_json, path
    )


@pytest.mark.skipif(os.name == "nt", reason="there, a backslash divides folders")
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_file_of_another_spelling_is_named(tmp_path, form):
    (tmp_path / "clips").mkdir()
    path = tmp_path / "clips" / unicodedata.normalize(form, "é.npy")
    path.write_bytes(b"x")
    other = unicodedata.normalize({"NFC": "NFD", "NFD": "NFC"}[form], str(path))
    for name in (other, str(path).replace("/clips/", "/clips\\"), other.replace("/é", "\\é")):
        with pytest.raises(InputError, match="No such file") as caught:
            read_bytes(Path(name))
        assert caught.value.hint == f"there is {path}, spelled with other characters"
    with pytest.raises(InputError) as caught:
        read_bytes(tmp_path / "clips" / "e.npy")
    assert caught.value.hint is None
