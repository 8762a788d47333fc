"""Clips in folders named after classes become the same recordings as in a table."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from skelnas.data.cache import Cache
from skelnas.data.prepare import prepare
from skelnas.data.readers.base import Test, Train, Unused, check_recording
from skelnas.data.readers.folder import Folder, find_subject, read_folder
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.unlabelled import Origin, read_unlabelled
from skelnas.errors import InputError


@pytest.fixture
def root(tmp_path):
    """Two classes of two persons each: arrays, and folders of frames."""
    rng = np.random.default_rng(0)
    for name in ("wave/s01_a", "wave/s02_a", "run/s01_b", "run/s02_b"):
        clip = rng.normal(0, 1, (4, 3, 2)).round(3)
        path = tmp_path / "own" / name
        path.mkdir(parents=True)
        if "wave" in name:
            path.rmdir()
            np.save(path.with_suffix(".npy"), clip)
        else:
            for number, frame in enumerate(clip):
                (path / f"{number}.json").write_text(json.dumps(frame.ravel().tolist()))
    return tmp_path / "own"


CHANNELS = ("x", "y")


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return f"{caught.value} ({caught.value.hint})"


def test_folders_are_read_like_a_table(root, tmp_path):
    (root / "wave" / "notes.md").write_text("")
    (root / "wave" / ".DS_Store").write_text("")
    (root / "labels.json").write_text("{}")
    report = prepare(
        Folder(root, channels=CHANNELS, test_subjects=(2,)), tmp_path / "a.h5", resume=True
    )
    assert report.splits == {"xsub": (2, 2)}
    assert [file for file, _ in report.skipped] == ["labels.json", "wave/notes.md"]
    lines = [
        f"own/{clip},{clip.split('/')[0]},{find_subject(clip)}"
        for clip in ("run/s01_b", "run/s02_b", "wave/s01_a.npy", "wave/s02_a.npy")
    ]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,subject", *lines]))
    table = Manifest(tmp_path / "clips.csv", channels=CHANNELS, test_subjects=(2,))
    prepare(table, tmp_path / "b.h5")
    with Cache.open(tmp_path / "a.h5") as a, Cache.open(tmp_path / "b.h5") as b:
        assert list(a.clips.names) == ["run/s01_b", "run/s02_b", "wave/s01_a", "wave/s02_a"]
        assert list(b.clips.names) == [f"own/{name}" for name in a.clips.names]
        assert a.classes == b.classes == ["run", "wave"]
        assert a.clips.subjects.tolist() == b.clips.subjects.tolist() == [1, 2, 1, 2]
        ours, theirs = a.load(range(4)), b.load(range(4))
        np.testing.assert_array_equal(ours.poses, theirs.poses)
        origin = Origin(a.source, a.layout, a.max_persons, a.rule)
        found = read_unlabelled(root / "run" / "s01_b", origin)
        np.testing.assert_array_equal(found.poses, a.read(0)[0][:1])


def test_an_archive_is_read_like_its_folder(root, tmp_path):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for path in root.rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path))
    sources = [
        Folder(path, test_subjects=(1,), channels=CHANNELS) for path in (root, tmp_path / "own.zip")
    ]
    ours, theirs = ([source.read(item) for item in source.catalogue().items] for source in sources)
    assert [clip.name for clip in ours] == [clip.name for clip in theirs]
    for one, other in zip(ours, theirs, strict=True):
        check_recording(one, sources[0].layout, 1)
        np.testing.assert_array_equal(one.poses, other.poses)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "test"), {"train": Train, "test": Test}),
        (("Training", "val"), {"Training": Train, "val": Test}),
        (("train", "val", "test"), {"train": Train, "val": Unused, "test": Test}),
    ],
)
def test_folders_of_parts_make_a_protocol(root, tmp_path, names, expected):
    for name in names:
        shutil.copytree(root, tmp_path / "parts" / name)
    table = (
        Folder(tmp_path / "parts", channels=CHANNELS).catalogue()
        and read_folder(tmp_path / "parts").table
    )
    assert table.protocols == ("official",)
    assert table.classes == ("run", "wave")
    parts = {(entry.name.split("/")[0], entry.parts) for entry in table.entries.values()}
    assert parts == {(name, (part,)) for name, part in expected.items()}


def test_a_class_may_be_called_test(root):
    (root / "run").rename(root / "test")
    assert read_folder(root).table.classes == ("test", "wave")


def test_numbers_of_classes_are_sorted_by_value(tmp_path):
    for name in ("10", "9"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.ones((2, 3, 2)))
    table = read_folder(tmp_path).table
    assert table.classes == ("9", "10")
    assert [entry.label for entry in table.entries.values()] == [1, 0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s03_take2", 3),
        ("wave_P12.json", 12),
        ("subject-7_s2", 7),
        ("S001C002P003R002A013.json", 3),
        ("a01_s04_e00_v01", 4),
        ("P1_1_12A_p19", -1),
        ("steps3", -1),
        ("clip12", -1),
        ("s", -1),
    ],
)
def test_subjects_are_found_in_names(name, expected):
    assert find_subject(name) == expected


def test_a_frame_that_changes_is_read_again(root, tmp_path):
    source = Folder(root, channels=CHANNELS, test_subjects=(2,))
    broken = root / "run" / "s02_b" / "2.json"
    good = broken.read_text()
    broken.write_text("[1, ")
    with pytest.raises(InputError, match=r"2\.json: expected JSON"):
        prepare(source, tmp_path / "a.h5", resume=True, strict=True)
    changed = root / "run" / "s01_b" / "1.json"
    changed.write_text("[9, 9, 9, 9, 9, 9]")
    broken.write_text(good)
    prepare(source, tmp_path / "a.h5", resume=True)
    prepare(source, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_folder_without_a_split_names_what_makes_one(root):
    expected = "nothing says which clips are for training and which for testing"
    assert expected in message(Folder(root).catalogue)
    assert "--test-subjects" in message(Folder(root).catalogue)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "expected clips in folders named after classes, such as wave/clip1.json"),
        (["0.json"], "found none; the first file, 0.json, is not in the folder of a class"),
        (
            ["wave/a.avi"],
            "wave/a.avi, is not a clip, which ends in .npy, .npz, .json, .jsonl, .csv",
        ),
        (["wave/a/b/0.json"], "is too deep, expected CLASS/CLIP or CLASS/CLIP/FRAME"),
        (["wave/a.json", "Wave/b.json"], "the classes 'Wave' and 'wave', expected one"),
        (["wave/a.json", "wave/a.npy"], "have the same name, expected one"),
    ],
)
def test_bad_folders_are_refused_with_a_reason(tmp_path, files, expected):
    for file in files:
        (tmp_path / "own" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / file).write_text("[]")
    (tmp_path / "own").mkdir(exist_ok=True)
    assert expected in message(read_folder, tmp_path / "own")


def test_subjects_to_test_on_must_be_in_every_name(root):
    (root / "run" / "s02_b").rename(root / "run" / "b")
    expected = "--test-subjects needs a subject in every name, such as wave/s03_1, found 'run/b'"
    assert expected in message(Folder(root, test_subjects=(2,)).catalogue)


def test_a_folder_or_a_clip_is_no_table(root):
    assert "skelnas prepare folder reads folders" in message(Manifest(root).catalogue)
    clip = root / "wave" / "s01_a.npy"
    assert "write it below the header path,label,split" in message(Manifest(clip).catalogue)
