"""Caches that are damaged or made to do harm: refused, with the name of the entry."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np
import pytest
from test_cache import CLASSES, LAYOUT, recording, recordings, write

from skelnas.data.cache import Cache, CacheWriter, Storage
from skelnas.data.inspect import inspect
from skelnas.data.readers.base import Layout
from skelnas.errors import InputError

Change = Callable[[h5py.File], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "cache.h5", recordings())


def content(path: Path) -> tuple[Any, ...]:
    """Return all that can be read from a cache."""
    with Cache.open(path) as cache:
        clips = cache.load(range(len(cache)))
        head = (cache.source, cache.rule, cache.layout, cache.classes, cache.skelnas_version)
        head += (cache.max_persons, cache.skipped, cache.failed, cache.storage)
        table = (cache.clips.subjects, cache.clips.cameras, cache.clips.setups)
        columns = [column.tolist() for column in (*table, *cache.splits.values())]
        facts = replace(inspect(cache), path="", megabytes=0)
    return *head, columns, list(cache.splits), clips.fingerprint(), facts


def strip_checksums(path: Path) -> None:
    """Remove all checksums, so that only what is checked without them is refused."""
    with h5py.File(path, "a") as file:
        file["clips"].pop("crc32")
        file.attrs.pop("crc32")
        file.visititems(lambda _, item: item.attrs.pop("crc32", None) and None)


def reason(path: Path) -> str:
    """Return why a cache is refused, at opening."""
    with pytest.raises(InputError) as caught:
        Cache.open(path)
    return str(caught.value).partition(f"the cache {path} is damaged or cut short: ")[2]


@pytest.mark.parametrize("compress", [False, True])
def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "cache.h5"
    with CacheWriter(
        path,
        source="fake",
        rule={"rule": "denoise"},
        layout=replace(LAYOUT, y_down=True, frame_rate=30),
        max_persons=2,
        storage=Storage(compress=compress),
    ) as writer:
        for clip in recordings(6):
            writer.add(clip)
        writer.finish(classes=CLASSES, splits={"xsub": np.array([0, 1] * 3, np.int8)})
    data = path.read_bytes()
    expected = content(path)
    used = [index for index, byte in enumerate(data) if byte]
    rng = random.Random(0)
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        changed[rng.choice(used)] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            assert content(path) == expected
        except InputError:
            refused += 1
    assert refused > 50


def replace_table(name: str, **options: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def set_values(name: str, index: Any, value: Any) -> Change:
    return lambda file: file[name].__setitem__(index, value)


def set_attribute(group: str, name: str, value: Any) -> Change:
    return lambda file: file[group].attrs.__setitem__(name, value)


def put_link(name: str, link: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


def make_view(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((20,), "<i4")
    layout[:] = h5py.VirtualSource("other.h5", "clips/label", (20,))
    del file["clips/label"]
    file.create_virtual_dataset("clips/label", layout)


def nest(file: h5py.File) -> None:
    group = file["splits"]
    for _ in range(500):
        group = group.create_group("deep")


def fill_splits(file: h5py.File) -> None:
    for number in range(1001):
        file["splits"][f"split-{number}"] = file["splits/xsub"]


def declare_rows(num_rows: int) -> Change:
    def change(file: h5py.File) -> None:
        missing = num_rows - len(file["poses"])
        for name in ("poses", "present"):
            file[name].resize(num_rows, axis=0)
        file["clips/num_frames"][19] += missing // file["clips/num_persons"][19]

    return change


text = h5py.string_dtype()
HUGE = 10**12
OUTSIDE = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put_link("classes", h5py.ExternalLink("other.h5", "classes")),
            r"classes: .* found a link",
        ),
        (put_link("splits", h5py.ExternalLink("other.h5", "/")), r"splits: .* found a link"),
        (put_link("splits/xsub", h5py.SoftLink("/splits/xview")), r"splits/xsub: .* found a link"),
        (put_link("poses", h5py.SoftLink("/poses")), r"poses: .* found a link"),
        (make_view, r"clips/label: .* found a view or another file"),
        (
            replace_table("clips/label", shape=(20,), dtype="<i4", external=OUTSIDE),
            r"clips/label: .* found a view or another file",
        ),
        (replace_table("clips/label", shape=(20,), dtype=h5py.vlen_dtype("i4")), "clips/label: "),
        (replace_table("clips/label", shape=(20,), dtype=h5py.ref_dtype), "clips/label: found"),
        (nest, "splits/deep: is a group where a dataset"),
        (fill_splits, "splits: more than 1000 entries"),
        (
            replace_table("classes", shape=(30_000_000,), dtype=text, chunks=(1000,)),
            "classes: 30,000,000 strings, expected at most 65,536",
        ),
        (
            replace_table("failed/file", shape=(HUGE,), dtype=text, chunks=(1000,)),
            r"failed/file: \[1000000000000\] values, more than the file can hold",
        ),
        (
            replace_table("clips/label", shape=(HUGE,), dtype="<i4", chunks=(1000,)),
            r"clips/label: found <i4 \[1000000000000\], expected <i4 \[20\]",
        ),
        (
            replace_table("layout/bones", shape=(HUGE, 2), dtype="<i4", chunks=(1000, 2)),
            "layout/bones: .* more than the file can hold",
        ),
        (
            replace_table("layout/bones", data=np.ones((20_000, 2), np.int32)),
            "layout/bones: 20,000, expected at most 10,000",
        ),
        (declare_rows(10**8), "poses: 4,800,000,000 bytes, too much for a file of"),
        (
            replace_table("present", shape=(9,), dtype="?", chunks=(9,), compression="lzf"),
            r"present: filters \[32000\]",
        ),
        (
            replace_table("present", shape=(2**30,), dtype="?", chunks=(2**30,)),
            "present: chunks of 1,073,741,824 rows",
        ),
        (set_attribute("/", "max_persons", np.inf), "attribute max_persons: expected one int"),
        (set_attribute("/", "max_persons", 65), "attribute max_persons: 65, expected 1 to 64"),
        (set_attribute("/", "source", np.zeros(5000)), "attribute source: expected one str"),
        (
            set_attribute("/", "rule", '{"threshold": NaN}'),
            "attribute rule: expected JSON: .*not JSON compliant",
        ),
        (set_attribute("/", "rule", "[" * 20_000), "attribute rule: expected JSON: "),
        (set_attribute("layout", "center_joint", np.inf), "layout/center_joint: expected one int"),
        (set_attribute("layout", "center_joint", 4), "layout: .* the centre is not one of joints"),
        (set_attribute("layout", "frame_rate", np.nan), "layout/frame_rate: nan, expected a fin"),
        (set_attribute("layout", "frame_rate", -1.0), "layout: a frame rate of -1.0"),
        (set_values("clips/name", 1, "clip-000"), "clips/name: 'clip-000' is there twice"),
        (set_values("classes", 1, "wave"), "classes: 'wave' is there twice"),
        (set_values("layout/joints", 1, "hip"), "layout/joints: 'hip' is there twice"),
        (set_values("layout/bones", 0, (0, 2)), "layout: the bones form a circle: hip - "),
        (set_values("layout/bones", 0, (1, 9)), "layout: a bone or the centre is not one"),
        (set_values("clips/label", 0, -1), "clips/label: -1 to 2, expected 0 to 2"),
        (set_values("clips/camera", 0, -2), "clips/camera: -2 to 1, expected -1 or more"),
        (set_values("clips/start", 1, HUGE), "clips/start: the clips do not follow each other"),
        (set_values("splits/xsub", 0, 2), "splits/xsub: expected 0, 1 or -1"),
        (
            replace_table("splits/xsub", data=np.zeros(20, np.float32)),
            r"splits/xsub: found <f4 \[20\], expected \|i1 \[20\]",
        ),
    ],
)
def test_a_harmful_entry_is_refused_by_name(path: Path, change: Change, message: str) -> None:
    strip_checksums(path)
    Cache.open(path).close()
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=message) as caught:
        Cache.open(path)
    assert caught.value.exit_code == 3


def test_a_gzipped_chunk_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with CacheWriter(
        path,
        source="fake",
        rule={},
        layout=LAYOUT,
        max_persons=2,
        storage=Storage(compress=True),
    ) as writer:
        writer.add(recording(1))
        writer.finish(classes=CLASSES, splits={})
    with h5py.File(path, "a") as file:
        file["poses"].id.write_direct_chunk((0, 0, 0), bytes(100_000))
    assert reason(path) == "poses: a gzipped chunk is too large"


def test_unknown_entries_are_ignored(path: Path) -> None:
    expected = content(path)
    with h5py.File(path, "a") as file:
        file["more"] = h5py.ExternalLink("other.h5", "/")
        file["clips/speed"] = np.zeros(3)
        file.attrs["more"] = np.inf
    assert content(path)[:-1] == expected[:-1]


def test_the_checksum_of_the_head_is_the_documented_one(path: Path) -> None:
    head: dict[str, Any] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name in ("poses", "present"):
            checksum = item.attrs.get("crc32")
            checksum = None if checksum is None else int(checksum)
            head[name] = [item.dtype.str, item.shape, item.compression, checksum]
        elif isinstance(item, h5py.Dataset):
            is_text = h5py.check_string_dtype(item.dtype)
            data = b"".join(text + b"\0" for text in item) if is_text else item[()].tobytes()
            assert item.attrs["crc32"] == crc32(data)
            head[name] = crc32(data)

    with h5py.File(path) as file:
        file.visititems(add)
        for name in ("source", "rule", "skelnas_version"):
            head[f"@{name}"] = file.attrs[name]
        head["@max_persons"] = int(file.attrs["max_persons"])
        head["@layout/center_joint"] = int(file["layout"].attrs["center_joint"])
        present = file["present"]
        assert present.attrs["crc32"] == crc32(present[()].tobytes())
        assert file.attrs["crc32"] == crc32(json.dumps(head, sort_keys=True).encode())


def test_a_changed_attribute_or_name_is_refused(path: Path) -> None:
    changes: list[Change] = [
        set_attribute("/", "source", "other"),
        set_attribute("/", "skelnas_version", "0.0.9"),
        set_attribute("layout", "y_down", True),
        set_attribute("layout", "frame_rate", 25.0),
        lambda file: file.move("splits/xsub", "splits/xsuc"),
        lambda file: file["clips"].pop("crc32"),
    ]
    data = path.read_bytes()
    for change in changes:
        path.write_bytes(data)
        with h5py.File(path, "a") as file:
            change(file)
        assert reason(path) == "its head has changed since it was written"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 0.5])
@pytest.mark.parametrize("has_checksums", [False, True])
def test_a_changed_number_is_refused_when_it_is_read(
    path: Path, value: float, has_checksums: bool
) -> None:
    if not has_checksums:
        strip_checksums(path)
    with h5py.File(path, "a") as file:
        file["poses"][file["clips/start"][7], 2, 1] = value
    with Cache.open(path) as cache:
        if value == 0.5 and not has_checksums:
            assert cache.read(7)[0][0, 0, 2, 1] == 0.5
            return
        for read in (lambda: cache.read(7), lambda: cache.load([3, 7])):
            with pytest.raises(InputError, match=r"cut short: clip clip-007: (some|its) "):
                read()
        cache.read(6)
        cache.load([6, 8])


def test_a_changed_presence_is_found_by_who_counts_it(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["present"][0] = not file["present"][0]
    with Cache.open(path) as cache, pytest.raises(InputError, match="present: has changed since"):
        inspect(cache)


def test_a_heap_of_strings_that_ends_late_does_not_hang(path: Path) -> None:
    """HDF5 2.0.0 never returns from it."""
    expected = content(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"GCOL") + 10] ^= 1  # 64 KB in its size
    path.write_bytes(data)
    assert content(path) == expected


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    os.mkfifo(path)
    with pytest.raises(InputError, match="expected a file, found a device or a pipe"):
        Cache.open(path)


@pytest.mark.parametrize("channels", [("x", "y"), ("x", "y", "z")])
@pytest.mark.parametrize("y_down", [None, False, True])
@pytest.mark.parametrize("frame_rate", [None, 30, 29.97])
def test_direction_and_frame_rate_are_stored(
    tmp_path: Path, channels: tuple[str, ...], y_down: bool | None, frame_rate: float | None
) -> None:
    layout = Layout(LAYOUT.joints, (), channels, None, y_down, frame_rate)
    clip = recording(0)
    with CacheWriter(
        tmp_path / "cache.h5", source="fake", rule={}, layout=layout, max_persons=2
    ) as writer:
        writer.add(replace(clip, poses=np.ascontiguousarray(clip.poses[..., : len(channels)])))
        writer.finish(classes=CLASSES, splits={})
    with Cache.open(tmp_path / "cache.h5") as cache:
        assert cache.layout == layout


def test_what_could_not_be_opened_is_not_written(tmp_path: Path) -> None:
    out = tmp_path / "cache.h5"
    circle = replace(LAYOUT, bones=((0, 1), (1, 0)))
    with pytest.raises(InputError, match="fake: the bones form a circle"):
        CacheWriter(out, source="fake", rule={}, layout=circle, max_persons=2)
    with CacheWriter(out, source="fake", rule={}, layout=LAYOUT, max_persons=2) as writer:
        writer.add(recording(0))
        with pytest.raises(InputError, match=r"cannot write .*: classes: 'wave' is there twice"):
            writer.finish(classes=["wave", "wave"], splits={})
    assert list(tmp_path.iterdir()) == []
