"""However a recording of one's own is written, it is the same clip and has the same logits."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import (
    assert_close,
    check_stored,
    new_folder,
    prepare_cache,
    prepare_own,
    read_clips,
    score_cache,
    score_files,
    score_lines,
    train_own,
)
from recordings import METRES, OWN, Clip, clips, examples, inverse, make_clip, permutations
from writers import (
    SPELLINGS,
    styles,
    to_lines,
    ways_to_miss,
    write_csv,
    write_joints,
    write_json,
    write_npy,
    write_npz,
    write_plain_csv,
)

from skelnas.data.readers.manifest import Manifest

KINDS = pytest.mark.parametrize("name", OWN)


def check_files(folder: Path, files: list[str], clip: Clip, name: str) -> None:
    """Check that all files hold the same clip, for `evaluate` and `predict`."""
    path = prepare_own(folder, files, clip.kind)
    check_stored(path, [Path(file).stem for file in files], clip)
    logits = list(score_cache(path, train_own(name)).values())
    assert len(logits) == len(files)
    assert_close(logits, logits[0])
    assert_close(score_files(train_own(name), [folder / file for file in files]), logits[0])


@KINDS
@examples(10)
@given(data=st.data())
def test_every_format_holds_the_same_clip(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind))
    missing = st.sampled_from(ways_to_miss(kind))
    write_npy(folder / "double.npy", clip, data.draw(missing))
    write_npy(folder / "single.npy", clip, data.draw(missing), "f4")
    write_npz(folder / "poses.npz", clip, data.draw(missing))
    write_npz(folder / "only.npz", clip, data.draw(missing), "arr_0")
    write_json(folder / "object.json", clip, data.draw(missing))
    write_json(folder / "list.json", clip, data.draw(missing), None)
    write_csv(folder / "table.csv", clip, data.draw(styles(kind)))
    if len(clip.numbers) == 1:
        write_plain_csv(folder / "plain.csv", clip, "none", data.draw(missing))
        write_plain_csv(folder / "numbers.csv", clip, "numbers", data.draw(missing))
        write_plain_csv(folder / "pandas.csv", clip, "index and numbers", data.draw(missing))
    files = sorted(path.name for path in folder.iterdir())
    check_files(folder, files, clip, name)
    (logits,) = score_files(train_own(name), [folder / "double.npy"])
    lines = to_lines(clip, data.draw(missing), data.draw(st.booleans()))
    assert_close(score_lines(train_own(name), lines, len(lines)), logits)


@KINDS
@examples(10)
@given(data=st.data())
def test_tables_of_every_style_hold_the_same_clip(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind))
    files = [f"{number}.csv" for number in range(4)]
    for file in files:
        write_csv(folder / file, clip, data.draw(styles(kind)))
    check_files(folder, files, clip, name)


@KINDS
@examples(8)
@given(data=st.data())
def test_frames_without_persons_count_in_every_format(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind))
    num_frames = clip.numbers.shape[1]
    places = st.lists(st.integers(0, num_frames), min_size=1, max_size=4)
    clip = clip.insert_absent(data.draw(places))
    missing = st.sampled_from(ways_to_miss(kind))
    write_npy(folder / "array.npy", clip, data.draw(missing))
    write_npz(folder / "archive.npz", clip, data.draw(missing))
    write_json(folder / "lists.json", clip, data.draw(missing))
    write_csv(folder / "table.csv", clip, data.draw(styles(kind)))
    if len(clip.numbers) == 1:
        for number, header in enumerate(("none", "numbers", "index and numbers")):
            empty = data.draw(st.sampled_from(["", "nan"]))
            write_plain_csv(folder / f"plain{number}.csv", clip, header, data.draw(missing), empty)
    files = sorted(path.name for path in folder.iterdir())
    check_files(folder, files, clip, name)
    (logits,) = score_files(train_own(name), [folder / "array.npy"])
    lines = [
        data.draw(st.sampled_from(["null\n", "[]\n", '{"poses": null}\n']))
        if line == "null\n"
        else line
        for line in to_lines(clip, data.draw(missing))
    ]
    assert_close(score_lines(train_own(name), lines, len(lines)), logits)


@KINDS
@examples(8)
@given(data=st.data())
def test_joints_in_another_order_are_the_same_joints(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind))
    order = data.draw(permutations(kind))
    change = data.draw(st.sampled_from(SPELLINGS))
    write_npy(folder / "array.npy", clip)
    write_csv(folder / "table.csv", clip, data.draw(styles(kind)))
    expected = score_cache(prepare_own(folder, ["array.npy", "table.csv"], kind), train_own(name))

    other = new_folder()
    write_npy(other / "array.npy", clip.with_numbers(clip.numbers[:, :, order]))
    write_csv(other / "table.csv", clip, data.draw(styles(kind)))
    joints = write_joints(other / "joints.json", kind, order, change)
    path = prepare_own(other, ["array.npy", "table.csv"], kind, joints)
    stored = read_clips(path)
    for poses, present in (stored["array"], stored["table"]):
        np.testing.assert_array_equal(present, clip.present)
        np.testing.assert_array_equal(poses[:, :, inverse(order)], clip.poses)
    for file, logits in score_cache(path, train_own(name)).items():
        assert_close(logits, expected[file])


@examples(8)
@given(data=st.data())
def test_the_order_of_a_table_of_clips_changes_nothing(data: st.DataObject) -> None:
    folder, other = new_folder(), new_folder()
    files = [f"{number}.npy" for number in range(6)]
    for number, file in enumerate(files):
        write_npy(folder / file, make_clip(METRES, data.draw(st.integers(0, 999)), 1 + number % 2))
        (other / file).write_bytes((folder / file).read_bytes())
    path = prepare_own(folder, files, METRES)
    header, *rows = (folder / "clips.csv").read_text().splitlines()
    random.Random(data.draw(st.integers(0, 99))).shuffle(rows)
    (other / "clips.csv").write_text("\n".join([header, *rows]))
    for name in ("train0.npy", "train1.npy"):
        (other / name).write_bytes((folder / name).read_bytes())
    shuffled = prepare_cache(
        Manifest(other / "clips.csv", write_joints(other / "joints.json", METRES), persons=2), other
    )
    first, second = read_clips(path), read_clips(shuffled)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name][0], second[name][0])
    expected = score_cache(path, train_own("metres"))
    for name, logits in score_cache(shuffled, train_own("metres")).items():
        assert_close(logits, expected[name])
