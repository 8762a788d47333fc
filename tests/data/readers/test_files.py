"""Finding and reading files despite links, permissions and sizes."""

from pathlib import Path

import pytest

from skelnas.data.readers.files import find_files, read_bytes
from skelnas.errors import InputError


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
