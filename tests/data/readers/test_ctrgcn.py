"""CTR-GCN: clips of its archives are read, and bad archives are refused."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from skelnas.data.prepare import prepare
from skelnas.data.readers.base import ClipTable, Test, Train, check_recording
from skelnas.data.readers.ctrgcn import CtrGcn, _open
from skelnas.errors import InputError

FRAMES = 6


def clips(count, seed=0):
    """Clips of alternately one and two persons, of 1 to 6 frames, padded with zeros."""
    x = np.random.default_rng(seed).standard_normal((count, FRAMES, 2, 25, 3)).astype(np.float32)
    for index, clip in enumerate(x):
        clip[1 + index % FRAMES :] = 0
        clip[:, 1] *= index % 2
    return x.reshape(count, FRAMES, 150)


def one_hot(count, classes=60):
    return np.eye(classes)[np.arange(count) % classes]


@pytest.fixture(params=[np.savez, np.savez_compressed])
def save(request, tmp_path):
    """A function that writes the archive, with some arrays changed or omitted."""

    def write(**changes):
        arrays = {
            "x_train": clips(8),
            "y_train": one_hot(8),
            "x_test": clips(3, 1),
            "y_test": one_hot(3),
            **changes,
        }
        path = tmp_path / "clips.npz"
        request.param(path, **{name: a for name, a in arrays.items() if a is not None})
        _open.cache_clear()
        return path

    return write


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_padding_is_cut_off(save):
    source = CtrGcn(save())
    items = source.catalogue().items
    assert [item.name for item in items[7:9]] == ["train_000007", "test_000000"]
    x = clips(8).reshape(8, FRAMES, 2, 25, 3)
    for index in (3, 0, 7, 5, 6):  # back and forth
        recording = source.read(items[index])
        check_recording(recording, source.layout, source.max_persons)
        persons, frames = 1 + index % 2, 1 + index % FRAMES
        expected = x[index].swapaxes(0, 1)[:persons, :frames]
        np.testing.assert_array_equal(recording.poses, expected)
        assert (recording.label, recording.subject) == (index, -1)


def test_pixels_with_scores_are_refused(save):
    x = clips(8).reshape(8, FRAMES, 2, 25, 3)
    x[2, ..., :2] *= 1000
    x[2, ..., 2] = np.abs(x[2, ..., 2]) / 10
    source = CtrGcn(save(x_train=x.reshape(8, FRAMES, 150)))
    items = source.catalogue().items
    assert "like a score and not z" in message(source.read, items[2])
    assert source.read(items[3]).poses.any()


def test_absent_frames_and_numbers_that_are_not_finite(save):
    x = clips(2).reshape(2, FRAMES, 2, 25, 3)
    x[1] = 1
    x[1, 2, 0] = 0
    x[1, 3, 1, 4, 2] = np.nan
    source = CtrGcn(save(x_train=x.reshape(2, FRAMES, 150), y_train=one_hot(2)))
    recording = source.read(source.catalogue().items[1])
    assert recording.present[0].tolist() == [True, True, False, True, True, True]
    assert not recording.poses[1, 3, 4].any()


def test_the_official_split_becomes_a_protocol(save):
    zeros = np.zeros(2, np.int32)
    splits = CtrGcn(save()).splits(ClipTable(["train_1", "test_1"], *[zeros] * 4))
    assert {name: split.tolist() for name, split in splits.items()} == {"official": [Train, Test]}


@pytest.mark.parametrize(("count", "first"), [(60, "drink water"), (120, "drink water")])
def test_60_or_120_classes_get_the_ntu_names(save, count, first):
    source = CtrGcn(save(y_train=one_hot(8, count), y_test=one_hot(3, count)))
    assert len(source.classes(np.int32([0]))) == count
    assert source.classes(np.int32([0]))[0] == first
    source = CtrGcn(save(y_train=one_hot(8, 2), y_test=one_hot(3, 2)))
    assert source.classes(np.int32([0])) == ["class 0", "class 1"]


def test_labels_not_one_hot_and_empty_clips_are_refused(save):
    labels, x = one_hot(8), clips(8)
    labels[2], labels[3, :2], x[4] = 0, 1, 0
    labels[5], labels[6], labels[7] = labels[5] * 2, -labels[6], labels[7] * np.nan
    labels[0] = labels[0] / 2
    source = CtrGcn(save(y_train=labels, x_train=x))
    items = source.catalogue().items
    for index in (0, 2, 3, 5, 6, 7):
        expected = f"{items[index]}: expected a single 1 in row {index} of y_train"
        assert message(source.read, items[index]) == expected
    assert message(source.read, items[4]) == f"{items[4]}: nobody in any of 6 frames"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"x_test": None}, "expected an array x_test, found none"),
        ({"x_train": clips(8)[:, :, :75]}, "x_train has the shape (8, 6, 75), expected at most"),
        ({"x_train": np.zeros((0, 10_001, 150))}, "x_train has the shape (0, 10001, 150)"),
        ({"x_train": np.array([{}])}, "x_train: expected an array of numbers"),
        ({"x_train": np.asfortranarray(clips(8))}, "x_train: expected 28,800 bytes, row by row"),
        ({"x_train": np.float32(1)}, "x_train: expected 4 bytes, row by row"),
        ({"y_train": one_hot(7)}, "y_train has the shape (7, 60), expected 8 x classes"),
        ({"x_train": clips(8)[:, :0]}, "x_train has the shape (8, 0, 150), expected at most"),
        ({"x_train": clips(8) > 0}, "x_train: expected numbers, found truth values"),
        ({"y_train": np.zeros((8, 65_537), "?")}, "y_train has the shape (8, 65537), expected"),
        ({"y_train": np.arange(8)}, "y_train has the shape (8,), expected 8 x classes"),
        ({"y_test": one_hot(3, 5)}, "classes, expected the same number"),
        (
            {"x_train": clips(0), "x_test": clips(0), "y_train": one_hot(0), "y_test": one_hot(0)},
            "expected clips in x_train and x_test, found none",
        ),
    ],
)
def test_wrong_arrays_are_refused_by_name(save, changes, expected):
    path = save(**changes)
    found = message(CtrGcn(path).catalogue)
    assert found.startswith(f"{path}: ")
    assert expected in found


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "clips.npz"
    assert "expected a zip archive: " in message(CtrGcn(path).catalogue)
    path.write_bytes(b"\x93NUMPY")
    assert "expected a zip archive: " in message(CtrGcn(path).catalogue)


def test_clips_that_compress_to_nothing_are_refused(tmp_path):
    """A small file could hold a million clips of zeros."""
    path = tmp_path / "clips.npz"
    x, y = np.zeros((20_000, 1, 150), "i1"), np.zeros((20_000, 1), "i1")
    np.savez_compressed(path, x_train=x, y_train=y, x_test=x, y_test=y)
    assert "it looks like a zip bomb" in message(CtrGcn(path).catalogue)


def test_a_damaged_stream_is_reported_and_not_read_again(save, monkeypatch):
    path = save()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("x_train.npy")
    if member.compress_type == zipfile.ZIP_STORED:
        pytest.skip("without compression only the clips themselves are damaged")
    data = bytearray(path.read_bytes())
    middle = member.header_offset + 100 + member.compress_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    source = CtrGcn(path)
    items = source.catalogue().items
    assert source.read(items[0]).label == 0
    assert "x_train: row 7: the array is damaged" in message(source.read, items[7])
    monkeypatch.setattr(zipfile.ZipExtFile, "seek", lambda *_: pytest.fail("searched again"))
    assert "x_train: row 7: the array is damaged" in message(source.read, items[7])


def test_only_one_clip_at_a_time_is_in_memory(tmp_path):
    path = tmp_path / "clips.npz"
    x = np.ones((200, 300, 150), np.float32)
    np.savez(path, x_train=x, y_train=one_hot(200), x_test=x[:1], y_test=one_hot(1))
    source = CtrGcn(path)
    tracemalloc.start()
    for item in source.catalogue().items:
        source.read(item)
    assert tracemalloc.get_traced_memory()[1] < x.nbytes / 10
    tracemalloc.stop()


def test_workers_give_the_same_cache(save):
    source = CtrGcn(save(x_train=clips(50), y_train=one_hot(50)))
    outs = [source.root.with_name(f"{workers}.h5") for workers in (1, 2)]
    for workers, out in enumerate(outs, start=1):
        report = prepare(source, out, workers=workers)
        assert (report.clips, report.splits) == (53, {"official": (50, 3)})
    assert outs[0].read_bytes() == outs[1].read_bytes()
