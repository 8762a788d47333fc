"""Zip archives are read like folders, and bad ones are refused."""

import copy
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from skelnas.data.prepare import prepare
from skelnas.data.readers.archives import MAX_RATIO, Archive
from skelnas.data.readers.files import find_files, read_bytes
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def pack(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_members_are_found_and_read(tmp_path):
    root = pack(tmp_path / "a.zip", [("x/2.txt", b"two"), ("1.txt", b"one"), ("x/3.csv", b"3")])
    assert find_files(root, ".txt") == [root / "1.txt", root / "x" / "2.txt"]
    assert find_files(root / "x", ".txt") == [root / "x" / "2.txt"]
    assert read_bytes(root / "x" / "2.txt") == b"two"
    assert message(read_bytes, root / "no.txt").endswith("there is no such file in the archive")
    assert message(read_bytes, tmp_path / "no.txt").endswith("No such file or directory")


def test_members_stay_below_the_archive(tmp_path):
    """Names that point outside the archive are resolved inside, as when unpacking."""
    (tmp_path / "secret.txt").write_text("secret")
    absolute = str(tmp_path / "secret.txt")
    names = ["../secret.txt", absolute, "./b//c.txt"]
    root = pack(tmp_path / "a.zip", [(name, b"inside") for name in names])
    assert find_files(root, ".txt") == [
        root / "b" / "c.txt",
        root / "secret.txt",
        root / absolute.lstrip("/"),
    ]
    assert {read_bytes(path) for path in find_files(root, ".txt")} == {b"inside"}


def test_files_added_by_macos_are_ignored(tmp_path):
    root = pack(tmp_path / "a.zip", [("x/1.txt", b""), ("__MACOSX/x/._1.txt", b"")])
    assert find_files(root, ".txt") == [root / "x" / "1.txt"]


def test_archives_in_a_folder_without_clips_are_searched(tmp_path):
    for number in "12":
        pack(tmp_path / f"{number}.zip", [(f"{number}.txt", b"")])
    assert [path.name for path in find_files(tmp_path, ".txt")] == ["1.txt", "2.txt"]
    (tmp_path / "3.txt").touch()
    assert [path.name for path in find_files(tmp_path, ".txt")] == ["3.txt"]


def test_a_changed_archive_is_reopened(tmp_path):
    root = pack(tmp_path / "a.zip", [("1.txt", b"one")])
    assert read_bytes(root / "1.txt") == b"one"
    pack(root, [("1.txt", b"another")])
    assert read_bytes(root / "1.txt") == b"another"


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_damaged_members_are_refused(tmp_path):
    root = pack(tmp_path / "a.zip", [("1.txt", b"one"), ("2.txt", b"two")], zipfile.ZIP_STORED)
    flip(root, root.read_bytes().index(b"one"))
    expected = f"{root / '1.txt'}: cannot be read from the archive: Bad CRC-32"
    assert message(read_bytes, root / "1.txt").startswith(expected)
    assert read_bytes(root / "2.txt") == b"two"


@pytest.mark.parametrize("num_bytes", [0, 10, 60])
def test_damaged_archives_are_bad_input(tmp_path, num_bytes):
    root = pack(tmp_path / "a.zip", [("1.txt", b"one")])
    root.write_bytes(root.read_bytes()[:num_bytes])
    assert message(find_files, root, ".txt").startswith(f"{root}: expected a zip archive: ")
    assert message(Ntu(root).catalogue).startswith(f"{root}: expected a zip archive: ")


def directory(path):
    return path.read_bytes().index(b"PK\x01\x02")


def test_encrypted_members_are_refused(tmp_path):
    root = pack(tmp_path / "a.zip", [("1.txt", b"one")])
    flip(root, directory(root) + 8)
    assert "it is encrypted, expected an archive without a password" in message(
        read_bytes, root / "1.txt"
    )


def test_unsupported_compression_is_refused(tmp_path):
    root = pack(tmp_path / "a.zip", [("1.txt", b"one")], zipfile.ZIP_LZMA)
    assert message(read_bytes, root / "1.txt").endswith("expected deflate: unpack the archive")


def test_zip_bombs_are_refused_before_reading(tmp_path, monkeypatch):
    root = pack(tmp_path / "a.zip", [("1.txt", bytes(3 << 20)), ("2.txt", bytes(1000))])
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was read"))
    found = message(read_bytes, root / "1.txt")
    assert f"expected at most {MAX_RATIO} times as many: it looks like a zip bomb" in found
    assert message(read_bytes, root / "1.txt", 1000).endswith(
        "3,145,728 bytes when unpacked, expected at most 1,000"
    )


def test_archives_whose_files_overlap_are_refused(tmp_path):
    root = tmp_path / "a.zip"
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr("1.txt", bytes(1000))
        for number in range(2, 4):
            member = copy.copy(archive.getinfo("1.txt"))
            member.filename = f"{number}.txt"
            archive.filelist.append(member)
    size = root.stat().st_size
    assert message(read_bytes, root / "1.txt") == (
        f"{root}: its files take 3,000 bytes, more than the archive's {size:,}: they overlap, "
        "which looks like a zip bomb"
    )


def test_members_larger_than_declared_are_refused(tmp_path):
    root = pack(tmp_path / "a.zip", [("1.txt", bytes(10_000))])
    data = bytearray(root.read_bytes())
    for offset in (22, directory(root) + 24):
        data[offset : offset + 4] = struct.pack("<I", 100)
    root.write_bytes(data)
    assert "cannot be read from the archive: Bad CRC-32" in message(read_bytes, root / "1.txt")


def test_large_files_pipes_and_devices_are_refused_before_reading(tmp_path):
    path = tmp_path / "large.skeleton"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # a sparse file
    assert message(read_bytes, path).endswith("2,147,483,648 bytes, expected at most 67,108,864")
    pipe = tmp_path / "clips.npz"
    os.mkfifo(pipe)
    for read, path in ((read_bytes, pipe), (Archive, pipe), (read_bytes, Path("/dev/zero"))):
        assert message(read, path) == f"{path}: expected a file, found a device or a pipe"


# Sources


def archive_of(folder, path):
    return Path(shutil.make_archive(str(path), "zip", folder.parent, folder.name))


@pytest.mark.parametrize(
    ("make", "name", "count"),
    [(Ntu, "ntu-raw", 33), (Kinetics, "kinetics-skeleton", 8)],
)
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real clips in {SHARED}")
def test_an_archive_and_its_folder_give_the_same_cache(tmp_path, make, name, count):
    archive = archive_of(SHARED / name, tmp_path / name)
    reports = [
        prepare(make(root), tmp_path / f"{number}.h5", workers=number)
        for number, root in enumerate((SHARED / name, archive), start=1)
    ]
    assert [report.clips for report in reports] == [count, count]
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_nw_ucla_in_an_archive(tmp_path):
    clip = {"skeletons": np.ones((2, 20, 3)).tolist(), "label": 7}
    names = ("all_sqe/a08_s10_e00_v03.json", "notes.json")
    source = NwUcla(pack(tmp_path / "ucla.zip", [(name, json.dumps(clip)) for name in names]))
    (item,) = source.catalogue().items
    assert source.read(item).label == 6


def test_endings_count_in_any_case(tmp_path):
    """In a folder and in an archive, and the file with a lower ending is the first of two."""
    names = ["S001C001P001R001A001", "S001C001P002R001A001", "S001C001P003R001A001"]
    files = [f"{names[0]}.SKELETON", f"{names[0]}.skeleton", f"{names[1]}.Skeleton"]
    files.append(f"{names[2]}.skeleton")
    for file in files:
        (tmp_path / file).write_text("1")
    archive = pack(tmp_path / "a.ZIP", [(file, b"1") for file in files])
    for root in (tmp_path, archive):
        catalogue = Ntu(root).catalogue()
        assert catalogue.items == [root / file for file in files[1:]]
        assert [name for name, _ in catalogue.skipped] == files[:1]


def test_nw_ucla_with_upper_case_endings(tmp_path):
    clip = json.dumps({"skeletons": np.ones((2, 20, 3)).tolist(), "label": 7})
    names = ("a08_s10_e00_v03.json", "a08_s10_e00_v03.JSON", "a08_s10_e01_v03.JSON")
    source = NwUcla(pack(tmp_path / "ucla.zip", [(name, clip) for name in names]))
    catalogue = source.catalogue()
    assert [source.read(item).name for item in catalogue.items] == [name[:15] for name in names[1:]]
    assert [name for name, _ in catalogue.skipped] == [names[1]]


def test_a_second_member_of_the_same_name_is_skipped(tmp_path):
    name = "S001C001P001R001A001.skeleton"
    with pytest.warns(UserWarning, match="Duplicate name"):
        root = pack(tmp_path / "a.zip", [(name, b"1"), (name, b"2")])
    catalogue = Ntu(root).catalogue()
    assert catalogue.items == [root / name]
    assert len(catalogue.skipped) == 1
    assert read_bytes(root / name) == b"1"
