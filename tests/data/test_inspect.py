from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_cache import recording, recordings, write

from skelnas.data.cache import Cache, reader
from skelnas.data.inspect import find_clip, find_damage, inspect
from skelnas.data.readers.base import Recording, Test, Train
from skelnas.data.splits import TrainingPart, note_copies, note_faults
from skelnas.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "cache.h5", recordings())


def damage(path: Path) -> list[str]:
    with Cache.open(path) as cache:
        return find_damage(cache)


@pytest.mark.parametrize("read_bytes", [1, 2000, 10**9])
def test_the_contents_of_a_cache_are_summarised(
    path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(reader, "READ_BYTES", read_bytes)
    with Cache.open(path) as cache:
        facts = inspect(cache)
    clips = recordings()
    lengths = [clip.present.shape[1] for clip in clips]
    empty = sum(int((~clip.present.any(axis=0)).sum()) for clip in clips)
    two = sum(int(clip.present.any(axis=1).sum() == 2) for clip in clips)
    assert empty > 0
    assert 0 < two < 20
    assert facts.clips == 20
    assert facts.classes == ["wave", "jump", "跳"]
    assert facts.class_clips == [7, 7, 6]
    assert (facts.subjects, facts.cameras, facts.setups) == ([0, 1, 2, 3, 4], [0, 1], [])
    assert facts.protocols == {
        "xsub": {"train": 7, "test": 7, "unused": 6},
        "xview": {"train": 0, "test": 20, "unused": 0},
    }
    assert facts.frames == sum(lengths)
    assert (facts.shortest, facts.longest) == (min(lengths), max(lengths))
    assert facts.median == np.median(lengths)
    assert facts.two_person_share == two / 20
    assert facts.empty_frame_share == empty / sum(lengths)
    assert (facts.skipped, facts.failed) == (1, 1)
    assert (facts.source, facts.storage, facts.joints) == ("fake", "float32", 4)
    assert facts.megabytes == round(path.stat().st_size / 1e6, 1)


@pytest.mark.parametrize("read_bytes", [1, 2000, 10**9])
def test_an_intact_cache_has_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(reader, "READ_BYTES", read_bytes)
    assert damage(path) == []


def test_a_changed_number_is_found(path: Path) -> None:
    with h5py.File(path, "a") as file:
        row = file["clips/start"][7]
        file["poses"][row, 2, 1] = np.nextafter(file["poses"][row, 2, 1], np.float32(9))
    assert damage(path) == [
        "clip clip-007: its numbers have changed since they were written: the checksum differs"
    ]


def test_a_changed_presence_is_found(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["present"][0] = not file["present"][0]
    assert len(damage(path)) == 1


@pytest.mark.parametrize(
    ("table", "value"),
    [("clips/label", 2), ("clips/subject", 9), ("splits/xsub", 1), ("clips/name", b"other")],
)
def test_a_cache_with_a_changed_table_is_not_opened(path: Path, table: str, value: object) -> None:
    with h5py.File(path, "a") as file:
        file[table][0] = value
    with pytest.raises(InputError, match=f"{table}: has changed since it was written"):
        Cache.open(path)


@pytest.mark.parametrize("fault", ["nan", "stray", "nobody"])
def test_wrong_values_are_found_without_checksums(path: Path, fault: str) -> None:
    with h5py.File(path, "a") as file:
        del file["clips/crc32"], file.attrs["crc32"]
        start = file["clips/start"][3]
        rows = slice(start, start + file["clips/num_persons"][3] * file["clips/num_frames"][3])
        if fault == "nan":
            file["poses"][start, 0, 0] = np.nan
        elif fault == "stray":
            file["present"][start] = False
        else:
            file["present"][rows] = False
            file["poses"][rows] = 0
    unknown, problem = damage(path)
    assert unknown.startswith("there are no checksums")
    assert problem.startswith("clip clip-003: ")


def test_unreadable_bytes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_cache import LAYOUT, RULE, finish

    from skelnas.data.cache import CacheWriter, Storage

    clips = [recording(index, 2, 2000) for index in range(12)]
    path = tmp_path / "cache.h5"
    storage = Storage(compress=True)
    with CacheWriter(
        path, source="fake", rule=RULE, layout=LAYOUT, max_persons=2, storage=storage
    ) as writer:
        for clip in clips:
            writer.add(clip)
        finish(writer, len(clips))
    assert damage(path) == []
    with h5py.File(path) as file:
        chunk = file["poses"].id.get_chunk_info(2)
        first, num_rows = chunk.chunk_offset[0], file["poses"].chunks[0]
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    hit = [index for index in range(12) if index * 4000 < first + num_rows]
    hit = [index for index in hit if (index + 1) * 4000 > first]
    assert 0 < len(hit) < 12
    assert damage(path) == [
        f"clip clip-{index:03}: its part of the file cannot be read" for index in hit
    ]


def test_duplicates_and_missing_clips_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [recording(0), recording(1), recording(2), replace(recording(0), name="copy")]
    clips += [replace(recording(0), name="other"), recording(5)]
    with Cache.open(write(tmp_path / "cache.h5", clips)) as cache:
        facts = inspect(cache)
        for protocol in ("xsub", "xview"):
            train, test = (cache.indices(protocol, part) for part in (Train, Test))
            note_copies(cache, protocol, train, test, "test")
        num_test = len(cache.indices("xsub", Test))
    assert capsys.readouterr().err == (
        f"xsub: 1 of the {num_test} test clips have the same numbers as training clips\n"
    )
    assert facts.duplicates == 2
    assert facts.test_clips_in_train == {"xsub": 1, "xview": 0}
    assert facts.missing_clips == [
        "xsub: all training clips are of one class, so there is nothing to tell apart",
        "xsub: 1 of 3 classes ('jump') has no training clips, and cannot be recognised",
        "xsub: 1 of 3 classes ('跳') has no clips at all",
        "xview has no training clips",
    ]


def test_copies_among_held_out_clips_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [recording(0), recording(1), replace(recording(0), name="copy")]
    with Cache.open(write(tmp_path / "cache.h5", clips)) as cache:
        part = TrainingPart(np.array([0]), np.array([1, 2]), None)
        note_faults(cache, "xsub", part)
    line = "xsub: 1 of the 2 held-out clips have the same numbers as training clips\n"
    assert line in capsys.readouterr().err


def test_clips_are_found_by_name(path: Path) -> None:
    with Cache.open(path) as cache:
        assert find_clip(cache, "clip-007") == 7
        with pytest.raises(InputError, match="has no clip 'clip-07'") as caught:
            find_clip(cache, "clip-07")
    assert "clip-007" in str(caught.value.hint)


def test_very_short_clips_are_summarised(tmp_path: Path) -> None:
    pose = np.ones((1, 1, 4, 3), dtype=np.float32)
    clip = Recording("one", 0, pose, np.ones((1, 1), dtype=np.bool_))
    with Cache.open(write(tmp_path / "cache.h5", [clip])) as cache:
        facts = inspect(cache)
        assert find_damage(cache) == []
    assert (facts.shortest, facts.median, facts.longest) == (1, 1, 1)
    assert (facts.two_person_share, facts.empty_frame_share) == (0, 0)
