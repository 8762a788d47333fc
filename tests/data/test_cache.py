from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from skelnas.data.cache import Cache, CacheWriter
from skelnas.data.cache import reader as reader_module
from skelnas.data.cache import writer as writer_module
from skelnas.data.readers.base import Layout, Recording, Test, Train, Unused
from skelnas.errors import InputError, SkelnasError, UsageError

LAYOUT = Layout(
    joints=("hip", "head", "main gauche é", "手"),
    bones=((1, 0), (2, 0)),
    channels=("x", "y", "z"),
    center_joint=0,
)
CLASSES = ["wave", "jump", "跳"]
RULE = {"rule": "denoise", "threshold": 0.69754}


def recording(
    index: int, num_persons: int | None = None, num_frames: int | None = None
) -> Recording:
    rng = np.random.default_rng(index)
    num_persons = num_persons or 1 + index % 2
    num_frames = num_frames or 1 + (7 * index) % 23
    present = rng.random((num_persons, num_frames)) < 0.8
    present[0, 0] = True
    poses = rng.standard_normal((num_persons, num_frames, 4, 3)).astype(np.float32)
    poses[~present] = 0
    return Recording(f"clip-{index:03}", index % 3, poses, present, index % 5, index % 2, -1)


def recordings(count: int = 20) -> list[Recording]:
    return [recording(index) for index in range(count)]


def new_writer(out: Path) -> CacheWriter:
    return CacheWriter(out, source="fake", rule=RULE, layout=LAYOUT, max_persons=2)


def finish(writer: CacheWriter, count: int) -> None:
    parts = np.resize(np.array([Train, Test, Unused], dtype=np.int8), count)
    writer.finish(
        classes=CLASSES,
        splits={"xsub": parts, "xview": np.full(count, Test, dtype=np.int8)},
        skipped=[("missing.skeleton", "incomplete")],
        failed=[("bad\udcff.skeleton", "line 3: expected 25 joints, got\0 7")],
    )


def write(out: Path, clips: list[Recording]) -> Path:
    with new_writer(out) as writer:
        for clip in clips:
            writer.add(clip)
        finish(writer, len(clips))
    return out


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache.open(write(tmp_path / "cache.h5", recordings())) as cache:
        yield cache


def test_clips_are_read_as_written(cache: Cache) -> None:
    assert len(cache) == 20
    for index, clip in enumerate(recordings()):
        poses, present = cache.read(index)
        assert poses.dtype == np.float32
        assert present.dtype == np.bool_
        np.testing.assert_array_equal(poses, clip.poses)
        np.testing.assert_array_equal(present, clip.present)
        assert cache.clips.names[index] == clip.name
        assert cache.clips.labels[index] == clip.label
        assert cache.clips.subjects[index] == clip.subject
        assert cache.clips.cameras[index] == clip.camera
        assert cache.clips.setups[index] == -1
        assert (cache.num_persons[index], cache.num_frames[index]) == clip.present.shape


def test_metadata_is_read_as_written(cache: Cache) -> None:
    assert cache.layout == LAYOUT
    assert cache.classes == CLASSES
    assert cache.source == "fake"
    assert cache.rule == RULE
    assert cache.max_persons == 2
    assert cache.skelnas_version
    assert cache.skipped == [("missing.skeleton", "incomplete")]
    reason = "line 3: expected 25 joints, got\\x00 7"
    assert cache.failed == [("bad\\udcff.skeleton", reason)]


def test_layout_without_bones_and_center(tmp_path: Path) -> None:
    layout = Layout(joints=("a",), channels=("x", "y"))
    present = np.ones((1, 3), dtype=np.bool_)
    clip = Recording("a", 0, np.ones((1, 3, 1, 2), dtype=np.float32), present)
    out = tmp_path / "cache.h5"
    with CacheWriter(out, source="fake", rule={}, layout=layout, max_persons=1) as writer:
        writer.add(clip)
        writer.finish(classes=["a"], splits={})
    with Cache.open(out) as cache:
        assert cache.layout == layout
        assert cache.splits == {}
        assert cache.skipped == cache.failed == []


def test_indices_of_a_protocol(cache: Cache) -> None:
    assert cache.indices("xsub", Train).tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert cache.indices("xsub", Test).tolist() == [1, 4, 7, 10, 13, 16, 19]
    assert cache.indices("xview", Train).tolist() == []
    assert cache.indices("xsub", Train).dtype == np.int64
    with pytest.raises(InputError, match=r"no protocol 'xset', only: xsub, xview"):
        cache.indices("xset", Train)


@pytest.mark.parametrize("read_bytes", [1, 1000, 10**9])
@pytest.mark.parametrize("gap_bytes", [0, 500, 10**9])
def test_load_keeps_the_order_of_indices(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, read_bytes: int, gap_bytes: int
) -> None:
    monkeypatch.setattr(reader_module, "READ_BYTES", read_bytes)
    monkeypatch.setattr(reader_module, "POSES_CHUNK_BYTES", gap_bytes)
    orders = [range(20), np.random.default_rng(0).permutation(20), [19, 0, 7, 7, 0], [5], []]
    for order in orders:
        clips = cache.load(order)
        assert clips.names == [f"clip-{index:03}" for index in order]
        assert clips.poses.shape == (int((clips.num_persons * clips.num_frames).sum()), 4, 3)
        assert clips.present.shape == clips.poses.shape[:1]
        for row, index in enumerate(order):
            poses, present = cache.read(int(index))
            rows = slice(clips.starts[row], clips.starts[row] + present.size)
            np.testing.assert_array_equal(clips.poses[rows], poses.reshape(-1, 4, 3))
            np.testing.assert_array_equal(clips.present[rows], present.reshape(-1))
            assert clips.labels[row] == cache.clips.labels[index]
    assert clips.labels.dtype == clips.starts.dtype == clips.num_frames.dtype == np.int64


@pytest.mark.parametrize("index", [-1, 20])
def test_a_missing_clip_is_reported(cache: Cache, index: int) -> None:
    with pytest.raises(IndexError, match="clips are 0 to 19"):
        cache.read(index)
    with pytest.raises(IndexError, match="clips are 0 to 19"):
        cache.load([0, index])


def test_one_clip_is_one_contiguous_range_of_rows(tmp_path: Path) -> None:
    clips = recordings(5)
    out = write(tmp_path / "cache.h5", clips)
    with h5py.File(out) as file:
        start = 0
        for index, clip in enumerate(clips):
            assert file["clips/start"][index] == start
            for person, track in enumerate(clip.poses):
                first = start + person * len(track)
                np.testing.assert_array_equal(file["poses"][first : first + len(track)], track)
            start += clip.present.size
        assert file["poses"].shape == (start, 4, 3)


def test_poses_larger_than_the_write_buffer_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(tmp_path / "whole.h5", recordings(50)).read_bytes()
    monkeypatch.setattr(writer_module, "FLUSH_BYTES", 1000)
    out = write(tmp_path / "many.h5", recordings(50))
    with Cache.open(out) as cache:
        for index, clip in enumerate(recordings(50)):
            np.testing.assert_array_equal(cache.read(index)[0], clip.poses)
    assert len(whole) == out.stat().st_size


def test_equal_clips_give_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a.h5", recordings()).read_bytes()
    time.sleep(1.1)  # HDF5 keeps times in seconds
    assert write(tmp_path / "b.h5", recordings()).read_bytes() == first


def _sum_of_poses(path: str) -> float:
    with Cache.open(path) as cache:
        return float(cache.load(range(len(cache))).poses.sum())


def test_several_processes_can_read_at_once(cache: Cache) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        sums = pool.map(_sum_of_poses, [str(cache.path)] * 4)
        pool.close()
        pool.join()
    assert sums == [_sum_of_poses(str(cache.path))] * 4


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit()])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "cache.h5"

    def stopped() -> None:
        with new_writer(out) as writer:
            for clip in recordings():
                writer.add(clip)
            raise error

    with pytest.raises(type(error)):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_without_finish_leaves_the_old_cache(tmp_path: Path) -> None:
    out = write(tmp_path / "cache.h5", recordings(3))
    before = out.read_bytes()
    with new_writer(out) as writer:
        writer.add(recording(7))
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_rule_that_is_not_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        CacheWriter(
            tmp_path / "cache.h5",
            source="fake",
            rule={"threshold": float("nan")},
            layout=LAYOUT,
            max_persons=2,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_stale_temporary_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "cache.h5.tmp").write_bytes(b"left by a run that was killed")
    out = write(tmp_path / "cache.h5", recordings(3))
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_writer_leaves_no_file_that_opens(tmp_path: Path) -> None:
    out = tmp_path / "cache.h5"
    with new_writer(out) as writer:
        writer.add(recording(0))
        writer._flush()
        writer._file.flush()
        left = out.with_name("copy.h5")
        left.write_bytes(out.with_name("cache.h5.tmp").read_bytes())
    with pytest.raises(InputError, match=r"not a finished skeleton cache|damaged or cut short"):
        Cache.open(left)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SkelnasError, match=r"cannot write .*No such file or directory"):
        new_writer(tmp_path / "nowhere" / "cache.h5")


def test_a_second_writer_of_the_same_file_is_rejected(tmp_path: Path) -> None:
    out = tmp_path / "cache.h5"
    with new_writer(out) as writer:
        for clip in recordings():
            writer.add(clip)
        writer._flush()
        with pytest.raises(UsageError, match=r"another run is writing .*cache\.h5\.tmp"):
            new_writer(out)
        finish(writer, 20)
    with Cache.open(out) as cache:
        np.testing.assert_array_equal(cache.read(19)[0], recording(19).poses)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_written_to_with_a_note(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    out = write(tmp_path / "cache.h5", recordings(3))
    assert list(tmp_path.iterdir()) == [out]
    assert "cannot be locked" in capsys.readouterr().err.replace("\n", "")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_writer(tmp_path / "cache.h5") as writer:
        writer.add(recording(0))
        usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(SkelnasError, match="1 MB are left on the disk"):
            finish(writer, 1)
    assert list(tmp_path.iterdir()) == []


def bad(fault: str) -> Recording:
    clip = recording(1, num_persons=2, num_frames=6)
    poses, present = clip.poses.copy(), np.ones((2, 6), dtype=np.bool_)
    holes = present.copy()
    holes[1, 4] = False
    infinite = poses.copy()
    infinite[1, 2, 3, 0] = np.inf
    changes = {
        "negative label": {"label": -1},
        "huge label": {"label": 70_000},
        "label is no number": {"label": 0.5},
        "subject": {"subject": 2**31},
        "camera": {"camera": -2},
        "empty name": {"name": ""},
        "name": {"name": "bad\udcff"},
        "nul": {"name": "bad\0"},
        "float64": {"poses": poses.astype(np.float64)},
        "joints": {"poses": poses[:, :, :3]},
        "channels": {"poses": poses[..., :2]},
        "dimensions": {"poses": poses[0]},
        "present": {"present": present[:, :5]},
        "persons": {"poses": np.repeat(poses, 2, 0), "present": np.repeat(present, 2, 0)},
        "no persons": {"poses": poses[:0], "present": present[:0]},
        "no frames": {"poses": poses[:, :0], "present": present[:, :0]},
        "not finite": {"poses": infinite},
        "nobody": {"poses": np.zeros_like(poses), "present": np.zeros_like(present)},
        "absent": {"present": holes},
    }
    return replace(clip, **{"poses": poses, "present": present, **changes[fault]})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("negative label", r"label -1, expected a whole number from 0"),
        ("huge label", r"label 70000, expected"),
        ("label is no number", r"label 0\.5, expected"),
        ("subject", r"subject 2147483648, expected"),
        ("camera", r"camera -2, expected a whole number from -1"),
        ("empty name", r"the name is empty"),
        ("name", r"the name is empty or cannot be encoded"),
        ("nul", r"the name is empty or cannot be encoded"),
        ("float64", r"poses are float64 .* expected float32"),
        ("joints", r"shape \(2, 6, 3, 3\), expected persons x frames x 4 joints x 3 channels"),
        ("channels", r"shape \(2, 6, 4, 2\), expected"),
        ("dimensions", r"shape \(6, 4, 3\), expected"),
        ("present", r"present has the shape \(2, 5\), expected \(2, 6\)"),
        ("persons", r"4 persons, expected 1 to 2"),
        ("no persons", r"0 persons, expected 1 to 2"),
        ("no frames", r"no frames"),
        ("not finite", r"inf at person 1, frame 2, joint 3, channel 0"),
        ("nobody", r"nobody is present in any of 6 frames"),
        ("absent", r"person 1 is absent in frame 4 .*not zero"),
    ],
)
def test_a_bad_recording_is_rejected_and_the_writer_continues(
    tmp_path: Path, fault: str, reason: str
) -> None:
    out = tmp_path / "cache.h5"
    with new_writer(out) as writer:
        writer.add(recording(0))
        with pytest.raises(InputError, match=reason):
            writer.add(bad(fault))
        writer.add(recording(2))
        finish(writer, 2)
    with Cache.open(out) as cache:
        assert cache.clips.names == ["clip-000", "clip-002"]
        np.testing.assert_array_equal(cache.read(1)[0], recording(2).poses)


def test_a_duplicate_name_is_rejected(tmp_path: Path) -> None:
    with new_writer(tmp_path / "cache.h5") as writer:
        writer.add(recording(0))
        with pytest.raises(InputError, match="clip-000: an earlier file gave a clip of the same"):
            writer.add(recording(0))


@pytest.mark.parametrize(
    ("classes", "splits", "reason"),
    [
        (["wave"], {}, r"clip clip-002: label 2, but there are 1 class names"),
        (CLASSES, {"x/y": [0, 0, 0]}, r"protocol 'x/y': expected a name without a slash"),
        (CLASSES, {"": [0, 0, 0]}, r"protocol ''"),
        (CLASSES, {"xsub": [0, 0]}, r"protocol xsub: expected .* for each of 3 clips"),
        (CLASSES, {"xsub": [0, 1, 2]}, r"protocol xsub: expected 0, 1 or -1"),
    ],
)
def test_inconsistent_tables_are_rejected(
    tmp_path: Path, classes: list[str], splits: dict[str, list[int]], reason: str
) -> None:
    with new_writer(tmp_path / "cache.h5") as writer:
        for clip in recordings(3):
            writer.add(clip)
        with pytest.raises(InputError, match=reason):
            writer.finish(
                classes=classes,
                splits={name: np.array(parts, dtype=np.int8) for name, parts in splits.items()},
            )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_without_clips_is_refused(tmp_path: Path) -> None:
    with new_writer(tmp_path / "cache.h5") as writer, pytest.raises(InputError, match="no clips"):
        finish(writer, 0)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the cache .*No such file") as caught:
        Cache.open(tmp_path / "cache.h5")
    assert caught.value.exit_code == 3
    assert "skelnas prepare" in str(caught.value.hint)


def test_a_folder_is_not_a_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the cache .*directory"):
        Cache.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"PK\x03\x04 a zip file", b"x" * 5000])
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cache.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cache\.h5 is not an HDF5 file"):
        Cache.open(path)


@pytest.mark.parametrize("kind", [None, "other", 3, [1, 2], b"skelnas-cache\xff"])
def test_an_hdf5_file_of_another_kind_is_refused(tmp_path: Path, kind: object) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        if kind is not None:
            file.attrs["format"] = kind
    with pytest.raises(InputError, match="not a finished skeleton cache"):
        Cache.open(path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cache.h5", recordings(2))
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 2
    with pytest.raises(InputError, match=r"schema 2 .* reads schema 1") as caught:
        Cache.open(path)
    assert "again" in str(caught.value.hint)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "cache.h5", recordings(40)).read_bytes()
    path = tmp_path / "short.h5"
    for length in [9, 50, 200, 1000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged or cut short"):
            Cache.open(path)


@pytest.mark.parametrize(
    "damage",
    [
        "del file['clips/label']",
        "del file['poses']",
        "del file.attrs['rule']",
        "labels",
        "starts",
        "shapes",
        "rule",
    ],
)
def test_a_cache_with_inconsistent_contents_is_refused(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "cache.h5", recordings(3))
    with h5py.File(path, "a") as file:
        match damage:
            case "del file['clips/label']":
                del file["clips/label"]
            case "del file['poses']":
                del file["poses"]
            case "del file.attrs['rule']":
                del file.attrs["rule"]
            case "labels":
                file["clips/label"][0] = 3
            case "starts":
                file["clips/start"][1] = 10**12
            case "shapes":
                file["poses"].resize(1, axis=0)
            case "rule":
                file.attrs["rule"] = "{"
    with pytest.raises(InputError, match="damaged or cut short"):
        Cache.open(path)


def test_the_examples_in_the_docs_run(cache: Cache) -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("## Skeleton cache (HDF5)")[1].split("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    printed = [
        subprocess.run(
            [sys.executable, "-c", example],
            cwd=cache.path.parent,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            check=True,
        ).stdout
        for example in examples
    ]
    assert printed == [
        "clip-000 wave (1, 1, 4, 3)\n",
        f"xsub 7 test clips {cache.load(cache.indices('xsub', Test)).poses.shape}\n",
    ]
