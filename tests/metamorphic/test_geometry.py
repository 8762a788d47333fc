"""Moved, turned and mirrored recordings, alone and in batches, in every precision."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline import (
    ROUNDING,
    TINY,
    assert_close,
    load,
    make_dataset,
    new_folder,
    prepare_cache,
    prepare_own,
    read_clips,
    score_cache,
    score_files,
    train_own,
    write_table,
)
from recordings import METRES, NTU, OWN, Clip, clips, examples, make_clip
from writers import write_joints, write_npy

from skelnas.config import AugmentSettings
from skelnas.data.cache import Storage
from skelnas.data.readers.manifest import Manifest
from skelnas.data.sides import find_mirrored_joints
from skelnas.evaluation.export import export

COORDINATES = 2e-5
"""Largest difference between coordinates of 10 m that were moved and centred."""


def lose_centre(clip: Clip, num_frames: int) -> Clip:
    """Lose the centre joint in the first frames, but not in the last."""
    numbers = clip.numbers.copy()
    numbers[:, : min(num_frames, numbers.shape[1] - 1), 0] = np.nan
    return clip.with_numbers(numbers)


@pytest.mark.parametrize("name", ["metres", "scored"])
@examples(10)
@given(data=st.data())
def test_moved_recordings_are_the_same_once_centred(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind, min_frames=2))
    clip = lose_centre(clip, data.draw(st.integers(0, 6)))
    numbers = clip.numbers.copy()
    numbers[..., :3] += data.draw(st.tuples(*[st.floats(-4, 4, width=16)] * 3))
    write_npy(folder / "here.npy", clip)
    write_npy(folder / "there.npy", clip.with_numbers(numbers))
    path = prepare_own(folder, ["here.npy", "there.npy"], kind)
    here, there = make_dataset(path, TINY).batch(torch.tensor([2, 3])).x
    np.testing.assert_allclose(there, here, 0, COORDINATES)
    logits = score_cache(path, train_own(name))
    assert_close(logits["there"], logits["here"], 10 * ROUNDING)
    files = [folder / "here.npy", folder / "there.npy"]
    assert_close(score_files(train_own(name), files), logits["here"], 10 * ROUNDING)


@examples(10)
@given(data=st.data())
def test_joints_that_were_not_found_stay_zero_in_batches(data: st.DataObject) -> None:
    folder = new_folder()
    clip = data.draw(clips(METRES))
    write_npy(folder / "clip.npy", clip)
    path = prepare_own(folder, ["clip.npy"], METRES)
    frames, (persons, _, joints) = clip.numbers.shape[1], clip.found.shape
    settings = TINY.model_copy(update={"frames": frames})
    x = make_dataset(path, settings).batch(torch.tensor([2])).x[0]  # [C, T, M * V]
    x = x.reshape(3, frames, METRES.persons, joints).permute(2, 1, 3, 0)[:persons]
    origin = clip.numbers[0, 0, 0]
    expected = np.where(clip.found[..., None], clip.numbers - origin, 0)
    np.testing.assert_allclose(x, expected, 0, COORDINATES)


@examples(10)
@given(
    seed=st.integers(0, 10**6),
    angles=st.tuples(*[st.floats(-180, 180, width=16)] * 3),
    moved=st.tuples(*[st.floats(-4, 4, width=16)] * 3),
    num_persons=st.integers(1, 2),
)
def test_turned_recordings_are_the_same_once_aligned(
    seed: int, angles: tuple[float, ...], moved: tuple[float, ...], num_persons: int
) -> None:
    folder = new_folder()
    clip = make_clip(NTU, seed, num_persons)
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        cos, sin = np.cos(angle), np.sin(angle)
        i, j = ((1, 2), (2, 0), (0, 1))[axis]
        step = np.eye(3)
        step[[i, i, j, j], [i, j, i, j]] = cos, -sin, sin, cos
        turn = step @ turn
    write_npy(folder / "here.npy", clip)
    write_npy(folder / "there.npy", clip.with_numbers(clip.numbers @ turn.T + moved))
    path = prepare_own(folder, ["here.npy", "there.npy"], NTU)
    settings = TINY.model_copy(update={"align": True, "streams": "joint,bone,motion"})
    here, there = make_dataset(path, settings).batch(torch.tensor([2, 3])).x
    np.testing.assert_allclose(there, here, 0, 20 * COORDINATES)


@pytest.mark.parametrize("name", OWN)
@examples(6)
@given(data=st.data())
def test_a_flip_is_the_mirror_image_and_two_are_none(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind, min_frames=2))
    mirror = [0, 1, 2, 4, 3, 6, 5]  # of `recordings.JOINTS`
    numbers = clip.numbers[:, :, mirror]
    width = 0 if kind.picture is None else kind.picture[0]
    numbers[..., 0] = width - numbers[..., 0]
    write_npy(folder / "one.npy", clip)
    write_npy(folder / "other.npy", clip.with_numbers(numbers))
    dataset = make_dataset(prepare_own(folder, ["one.npy", "other.npy"], kind), TINY)
    indices = torch.tensor([2, 3])
    generator = torch.Generator().manual_seed(0)
    plain = dataset.batch(indices).x
    flipped = dataset.batch(indices, AugmentSettings(flip=1), generator).x
    np.testing.assert_allclose(flipped[0], plain[1], 0, COORDINATES)
    np.testing.assert_allclose(flipped[1], plain[0], 0, COORDINATES)


SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))


@examples(40)
@given(data=st.data())
def test_mirrored_joints_are_found_by_any_spelling_of_the_sides(data: st.DataObject) -> None:
    hand = st.sampled_from(["{}_hand", "hand_{}", "{} hand", "hand-{}"])
    template = st.sampled_from(["hand_{}_tip", "upper_{}_arm", "{}.foot", "{}_eye"]) | hand
    parts = data.draw(
        st.lists(template, min_size=1, max_size=4, unique_by=lambda t: "hand" in t or t)
    )
    sides = data.draw(st.sampled_from(SIDES))
    names = ["hip", "head", *(part.format(side) for part in parts for side in sides)]
    order = data.draw(st.permutations(range(len(names))))
    mirrored = find_mirrored_joints([names[index] for index in order])
    assert [mirrored[index] for index in mirrored] == list(range(len(names)))
    for position, index in enumerate(order):
        partner = index if index < 2 else index + (1 if index % 2 == 0 else -1)
        assert order[mirrored[position]] == partner


@pytest.mark.parametrize("name", OWN)
@examples(6)
@given(data=st.data())
def test_a_clip_does_not_depend_on_the_others_in_its_batch(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    files = [f"{number}.npy" for number in range(4)]
    for file in files:
        write_npy(folder / file, data.draw(clips(kind)))
    path = prepare_own(folder, files, kind)
    expected = score_cache(path, train_own(name))
    for batch_size in (1, 3):
        for clip, logits in score_cache(path, train_own(name), batch_size=batch_size).items():
            assert_close(logits, expected[clip])
    order = data.draw(st.permutations(files))
    logits = score_files(train_own(name), [folder / file for file in order], batch_size=3)
    for file, row in zip(order, logits, strict=True):
        assert_close(row, expected[file.removesuffix(".npy")])


@pytest.mark.parametrize("name", OWN)
@examples(5)
@given(data=st.data())
def test_smaller_caches_and_stores_hold_the_same_to_11_bits(name: str, data: st.DataObject) -> None:
    kind, folder = OWN[name], new_folder()
    clip = data.draw(clips(kind))
    write_npy(folder / "clip.npy", clip)
    joints = write_joints(folder / "joints.json", kind)
    source = Manifest(write_table(folder, ["clip.npy"], kind), joints, kind.persons)
    exact = prepare_cache(source, folder)
    packed = prepare_cache(source, folder, Storage(compress=True))
    rounded = prepare_cache(
        source, folder, Storage(float16=True, compress=data.draw(st.booleans()))
    )
    poses, present = read_clips(exact)["clip"]
    np.testing.assert_array_equal(read_clips(packed)["clip"][0], poses)
    np.testing.assert_array_equal(read_clips(rounded)["clip"][0], poses.astype(np.float16))
    np.testing.assert_array_equal(read_clips(rounded)["clip"][1], present)

    expected = score_cache(exact, train_own(name))["clip"]
    assert_close(score_cache(packed, train_own(name))["clip"], expected)
    assert_close(score_cache(exact, train_own(name), store="host")["clip"], expected)
    for logits in (
        score_cache(rounded, train_own(name))["clip"],
        score_cache(exact, train_own(name), store="float16")["clip"],
    ):
        assert_close(logits, expected, 0.02)


@pytest.fixture(scope="module")
def exports() -> list[object]:
    """The network of `metres` in other runtimes: functions of clips [N, C, T, V]."""
    import onnxruntime

    folder, model = new_folder(), train_own("metres")
    for format in ("onnx", "torchscript", "safetensors-fused"):
        export(model, folder / format, format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.load(folder / "torchscript")
    session = onnxruntime.InferenceSession(folder / "onnx", providers=["CPUExecutionProvider"])
    return [
        lambda x: session.run(None, {"clips": x.numpy()})[0],
        traced,
        load(folder / "safetensors-fused"),
    ]


@examples(8)
@given(data=st.data())
def test_exports_score_batches_like_evaluate(exports: list[object], data: st.DataObject) -> None:
    folder = new_folder()
    files = [f"{number}.npy" for number in range(3)]
    for file in files:
        write_npy(folder / file, data.draw(clips(METRES)))
    path = prepare_own(folder, files, METRES)
    expected = np.stack(list(score_cache(path, train_own("metres")).values()))
    order = torch.tensor(data.draw(st.permutations([2, 3, 4])))
    x = make_dataset(path, TINY).batch(order).x.contiguous()
    for run in exports:
        with torch.no_grad():
            logits = np.asarray(run(x))
        np.testing.assert_allclose(
            logits, expected[order - 2], 0, 1e-4 * max(1, abs(expected).max())
        )
