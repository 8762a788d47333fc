"""The same recording in every public format that can hold it, and as a file of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pipeline import (
    assert_close,
    check_stored,
    new_folder,
    prepare_cache,
    prepare_own,
    score_cache,
    score_files,
    score_lines,
    train_kinetics,
    train_ntu,
    train_nw_ucla,
    train_pyskl,
    write_kinetics_folder,
)
from recordings import COCO, KINETICS, NTU, NW_UCLA, Clip, Kind, clips, examples, make_clip
from writers import (
    Missing,
    styles,
    to_lines,
    ways_to_miss,
    write_csv,
    write_ctrgcn,
    write_json,
    write_kinetics,
    write_npy,
    write_npz,
    write_nw_ucla,
    write_pyskl,
    write_skeleton,
)

from skelnas.data.readers.ctrgcn import CtrGcn
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.data.readers.pyskl import Pyskl

FINITE: list[Missing] = ["zero", "score", "sentinel"]


def write_arrays(folder: Path, clip: Clip, data: st.DataObject, *, has_json: bool) -> list[Path]:
    """Write the files that `predict` takes for every model."""
    missing = st.sampled_from(ways_to_miss(clip.kind))
    write_npy(folder / "array.npy", clip, data.draw(missing))
    write_npz(folder / "archive.npz", clip, data.draw(missing))
    write_csv(folder / "table.csv", clip, data.draw(styles(clip.kind)))
    files = [folder / "array.npy", folder / "archive.npz", folder / "table.csv"]
    if has_json:
        write_json(folder / "lists.json", clip, data.draw(missing))
        files.append(folder / "lists.json")
    return files


def check_predictions(model: Path, raw: Path, arrays: list[Path], lines: list[str]) -> None:
    """Check that a raw file, arrays and a stream of one clip have the same logits."""
    first, *others = score_files(model, [raw, *arrays])
    assert_close(others, first)
    assert_close(score_lines(model, lines, len(lines)), first)


@examples(8)
@given(data=st.data())
def test_ntu(data: st.DataObject) -> None:
    """A `.skeleton`, a pickle of 3-D poses, the `.npz` of CTR-GCN, and arrays."""
    folder = new_folder()
    clip = data.draw(clips(NTU))
    assume(clip.present.any(axis=0).all())
    missing = st.sampled_from(ways_to_miss(NTU))
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    raw = folder / "S001C001P001R001A002.skeleton"
    write_skeleton(raw, clip, data.draw(missing), newline)
    arrays = write_arrays(folder, clip, data, has_json=True)
    caches = {
        "own": (prepare_own(folder, [path.name for path in arrays], NTU), "array"),
        "ntu": (prepare_cache(Ntu(folder, body_rule="first"), folder), raw.stem),
    }
    write_pyskl(
        folder / "3d.pkl",
        {"a": clip, "b": make_clip(NTU, 0)},
        {"a": 0, "b": 1},
        {"xsub_train": ["b"], "xsub_val": ["a"]},
        data.draw(missing),
    )
    caches["pyskl"] = (prepare_cache(Pyskl(folder / "3d.pkl"), folder), "a")
    write_ctrgcn(folder / "x.npz", [clip, make_clip(NTU, 0)], [0, 1], data.draw(missing))
    caches["ctrgcn"] = (prepare_cache(CtrGcn(folder / "x.npz"), folder), "test_000000")
    for path, name in caches.values():
        check_stored(path, [name], clip)
    check_predictions(train_ntu("first"), raw, arrays, to_lines(clip, data.draw(missing)))


@pytest.mark.parametrize("body_rule", ["denoise", "energy"])
@examples(5)
@given(data=st.data())
def test_the_body_rules_leave_a_single_person_alone(body_rule: str, data: st.DataObject) -> None:
    folder = new_folder()
    clip = data.draw(clips(NTU, max_persons=1))
    assume(clip.present.all())
    raw = folder / "S001C001P001R001A002.skeleton"
    write_skeleton(raw, clip, data.draw(st.sampled_from(ways_to_miss(NTU))))
    path = prepare_cache(Ntu(folder, body_rule=body_rule), folder)
    check_stored(path, [raw.stem], clip)
    arrays = write_arrays(folder, clip, data, has_json=True)
    check_predictions(train_ntu(body_rule), raw, arrays, to_lines(clip))


@examples(5)
@given(data=st.data())
def test_frames_without_bodies_are_kept_or_cut_by_rule(data: st.DataObject) -> None:
    folder = new_folder()
    clip = data.draw(clips(NTU, max_persons=1, lost=False))
    places = st.lists(st.integers(0, clip.numbers.shape[1]), min_size=1, max_size=4)
    gappy = clip.insert_absent(data.draw(places))
    write_skeleton(folder / "S001C001P001R001A002.skeleton", gappy)
    name = "S001C001P001R001A002"
    check_stored(prepare_cache(Ntu(folder, body_rule="first"), folder), [name], gappy)
    check_stored(prepare_cache(Ntu(folder, body_rule="energy"), folder), [name], gappy)
    check_stored(prepare_cache(Ntu(folder, body_rule="denoise"), folder), [name], clip)


@examples(8)
@given(data=st.data())
def test_nw_ucla(data: st.DataObject) -> None:
    folder = new_folder()
    clip = data.draw(clips(NW_UCLA))
    places = st.lists(st.integers(0, clip.numbers.shape[1]), max_size=3)
    clip = clip.insert_absent(data.draw(places))
    name = "a01_s01_e00_v03"
    raw = folder / f"{name}.json"
    write_nw_ucla(raw, clip, 1)
    check_stored(prepare_cache(NwUcla(folder), folder), [name], clip)
    arrays = write_arrays(folder, clip, data, has_json=False)
    check_stored(prepare_own(folder, [path.name for path in arrays], NW_UCLA), ["table"], clip)
    check_predictions(train_nw_ucla(), raw, arrays, to_lines(clip))


@examples(8)
@given(data=st.data())
def test_kinetics(data: st.DataObject) -> None:
    """Arrays for its models are in the units of the cache: fractions of the picture, less 0.5."""
    folder = new_folder()
    clip = data.draw(clips(KINETICS))
    places = st.lists(st.integers(0, clip.numbers.shape[1]), max_size=3)
    gappy = clip.insert_absent(data.draw(places))
    trimmed = gappy.trim()
    write_kinetics_folder(folder, {"clip": gappy})
    check_stored(prepare_cache(Kinetics(folder), folder), ["clip", "tclip"], trimmed)
    raw = folder / "raw.json"
    write_kinetics(raw, gappy, data.draw(st.sampled_from(["zero", "score", "sentinel"])))
    own = new_folder()
    arrays = write_arrays(own, trimmed, data, has_json=True)
    check_stored(prepare_own(own, [path.name for path in arrays], KINETICS), ["array"], trimmed)

    centred = trimmed.with_numbers(trimmed.numbers - np.array([0.5, 0.5, 0]))
    arrays = write_arrays(
        new_folder(), Clip(Kind(KINETICS.layout), centred.numbers), data, has_json=False
    )
    first, *others = score_files(train_kinetics(), [raw, *arrays])
    assert_close(others, first)


@examples(8)
@given(data=st.data())
def test_pyskl(data: st.DataObject) -> None:
    folder = new_folder()
    clip = data.draw(clips(COCO))
    places = st.lists(st.integers(0, clip.numbers.shape[1]), max_size=3)
    clip = clip.insert_absent(data.draw(places))
    write_pyskl(
        folder / "2d.pkl",
        {"a": clip, "b": make_clip(COCO, 0)},
        {"a": 0, "b": 1},
        {"train": ["b"], "val": ["a"]},
        data.draw(st.sampled_from(ways_to_miss(COCO))),
    )
    path = prepare_cache(Pyskl(folder / "2d.pkl"), folder)
    check_stored(path, ["a"], clip)
    arrays = write_arrays(folder, clip, data, has_json=True)
    check_stored(prepare_own(folder, [path.name for path in arrays], COCO), ["table"], clip)
    (expected,) = score_cache(path, train_pyskl()).values()
    shares = new_folder() / "shares.npy"
    np.save(shares, np.where(clip.found[..., None], clip.poses, np.nan))
    assert_close(score_files(train_pyskl(), [shares]), expected)
