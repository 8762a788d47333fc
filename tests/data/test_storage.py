from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from test_cache import LAYOUT, RULE, finish, recording, recordings
from test_prepare import FakeSource

from skelnas.data.cache import Cache, CacheWriter, Storage, verify
from skelnas.data.prepare import prepare
from skelnas.data.readers.base import Recording
from skelnas.errors import InputError

STORAGES = [Storage(float16, compress) for float16 in (False, True) for compress in (False, True)]


def write(out: Path, clips: list[Recording], storage: Storage) -> Path:
    with CacheWriter(
        out, source="fake", rule=RULE, layout=LAYOUT, max_persons=2, storage=storage
    ) as writer:
        for clip in clips:
            writer.add(clip)
        finish(writer, len(clips))
    return out


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_clips_are_read_as_float32(tmp_path: Path, storage: Storage) -> None:
    clips = recordings()
    with Cache.open(write(tmp_path / "cache.h5", clips, storage)) as cache:
        assert cache.storage == storage
        assert [line for _, lines in verify(cache) for line in lines] == []
        loaded = cache.load(range(len(cache)))
        assert loaded.poses.dtype == np.float32
        for index, clip in enumerate(clips):
            poses, present = cache.read(index)
            assert poses.dtype == np.float32
            expected = clip.poses.astype(np.float16) if storage.float16 else clip.poses
            np.testing.assert_array_equal(poses, expected)
            np.testing.assert_array_equal(present, clip.present)
            rows = slice(loaded.starts[index], loaded.starts[index] + present.size)
            np.testing.assert_array_equal(loaded.poses[rows], poses.reshape(-1, 4, 3))


def test_float16_and_compression_save_space(tmp_path: Path) -> None:
    clips = [recording(index, 2, 1000) for index in range(10)]
    size = {
        storage: write(tmp_path / "cache.h5", clips, storage).stat().st_size for storage in STORAGES
    }
    plain, smaller, half, smallest = size.values()
    assert plain > smaller > half > smallest


def test_other_hdf5_readers_can_read_the_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "cache.h5", recordings(), Storage(float16=True, compress=True))
    with h5py.File(path) as file:
        assert file["poses"].dtype == np.dtype("<f2")
        assert (file["poses"].compression, file["poses"].shuffle) == ("gzip", True)
        assert file["present"].compression == "gzip"


def test_a_number_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    good, bad = recording(0), recording(1)
    bad.poses[0, 0, 2, 1] = 65_520
    with CacheWriter(
        tmp_path / "cache.h5",
        source="fake",
        rule=RULE,
        layout=LAYOUT,
        max_persons=2,
        storage=Storage(float16=True),
    ) as writer:
        writer.add(good)
        with pytest.raises(InputError, match="clip clip-001: 65520 is beyond the 65504 of float16"):
            writer.add(bad)
        finish(writer, 1)
    with Cache.open(tmp_path / "cache.h5") as cache:
        assert list(cache.clips.names) == ["clip-000"]


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_prepare_uses_and_reports_the_storage(tmp_path: Path, storage: Storage) -> None:
    contents = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.h5"
        report = prepare(FakeSource(count=60), out, workers=workers, storage=storage)
        assert report.storage == storage
        assert f'"float16": {str(storage.float16).lower()}' in report.to_json()
        contents.append(out.read_bytes())
    assert contents[0] == contents[1]
    with Cache.open(out) as cache:
        assert cache.storage == storage
