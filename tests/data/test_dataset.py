"""From clips of any length to batches: sampling, absence, normalisation, augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from skelnas.config import AugmentSettings, ClipSettings, Store
from skelnas.data.cache import Clips
from skelnas.data.dataset import (
    Batch,
    Dataset,
    HostClips,
    choose_store,
    num_batches,
    shuffled_batches,
)
from skelnas.data.readers import kinetics, ntu, nw_ucla
from skelnas.data.readers.base import Layout
from skelnas.data.sampling import PackedClips
from skelnas.data.sides import find_mirrored_joints
from skelnas.data.streams import branch_channels
from skelnas.data.transforms import draw_augmentation
from skelnas.errors import InputError

SPINE = Layout(
    joints=("spine_base", "spine_mid", "hip_left", "hip_right"), center_joint=1, bones=()
)


def make_clips(*clips: tuple[np.ndarray, np.ndarray]) -> Clips:
    """Pack (poses [M, T, V, C], present [M, T]) as the cache does; label i for clip i."""
    shapes = np.array([present.shape for _, present in clips])
    rows = shapes.prod(axis=1)
    poses = [p.reshape(-1, *p.shape[2:]) * s.reshape(-1, 1, 1) for p, s in clips]
    return Clips(
        names=[f"clip{i}" for i in range(len(clips))],
        labels=np.arange(len(clips)),
        poses=np.concatenate(poses).astype(np.float32),
        present=np.concatenate([s.reshape(-1) for _, s in clips]),
        starts=np.cumsum(rows) - rows,
        num_persons=shapes[:, 0],
        num_frames=shapes[:, 1],
    )


def ramp(frames: int, persons: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Every coordinate of person m in frame t is 100 m + t + 1."""
    values = 100 * np.arange(persons)[:, None] + np.arange(frames) + 1.0
    poses = np.broadcast_to(values[:, :, None, None], (persons, frames, 4, 3)).copy()
    return poses, np.ones((persons, frames), dtype=bool)


def make_dataset(
    clips: Clips,
    persons: int = 1,
    layout: Layout = SPINE,
    store: Store = "auto",
    **settings: object,
) -> Dataset:
    chosen = ClipSettings(**({"frames": 5, "center": False} | settings))
    return Dataset(clips, layout, persons, chosen, torch.device("cpu"), store)


def values(dataset: Dataset, index: int = 0, person: int = 0) -> list[float]:
    """The first coordinate of a person's first joint in each frame."""
    x = dataset.batch(torch.tensor([index])).x
    return x[0, 0, :, 4 * person].tolist()


def noisy(seed: int = 5, frames: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two persons at random positions."""
    poses = np.random.default_rng(seed).normal(size=(2, frames, 4, 3))
    return poses, np.ones((2, frames), dtype=bool)


def augmented(dataset: Dataset, seed: int = 0, **augment: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.arange(len(dataset))
    return dataset.batch(indices, AugmentSettings(**augment), generator).x


def test_linear_sampling_spans_the_whole_clip() -> None:
    assert values(make_dataset(make_clips(ramp(3)))) == [1, 1.5, 2, 2.5, 3]


def test_linear_sampling_repeats_a_single_frame() -> None:
    assert values(make_dataset(make_clips(ramp(1)))) == [1] * 5


def test_nearest_sampling_does_not_interpolate() -> None:
    short = make_dataset(make_clips(ramp(3)), interpolation="nearest")
    assert values(short) == [1, 1, 2, 2, 3]
    long = make_dataset(make_clips(ramp(10)), interpolation="nearest")
    assert values(long) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("num_frames", [22, 29, 112, 300])
def test_nearest_sampling_to_the_same_length_changes_nothing(num_frames: int) -> None:
    same = make_dataset(make_clips(ramp(num_frames)), frames=num_frames, interpolation="nearest")
    assert values(same) == [frame + 1 for frame in range(num_frames)]


def test_one_frame_out_of_many() -> None:
    assert values(make_dataset(make_clips(ramp(4)), frames=1)) == [1]


def test_persons_are_concatenated_along_joints_and_absent_ones_are_zero() -> None:
    dataset = make_dataset(make_clips(ramp(3, persons=2), ramp(3)), persons=2)
    assert dataset.shape == (3, 5, 8)
    batch = dataset.batch(torch.tensor([1, 0]))
    assert batch.x.shape == (2, 3, 5, 8)
    assert batch.labels.tolist() == [1, 0]
    assert values(dataset, 0, person=1) == [101, 101.5, 102, 102.5, 103]
    assert values(dataset, 1, person=1) == [0] * 5


def test_sampling_does_not_interpolate_across_absent_frames() -> None:
    poses, present = ramp(3)
    present[0, 1] = False
    dataset = make_dataset(make_clips((poses, present)), frames=9)
    # Positions 0, 0.25, ..., 2: the person is absent near frame 1 and still elsewhere.
    # Halfway belongs to the earlier frame.
    assert values(dataset) == [1, 1, 1, 0, 0, 0, 0, 3, 3]


def test_the_origin_is_the_center_joint_of_the_first_person_when_first_present() -> None:
    poses, present = ramp(3, persons=2)
    poses[:, :, 1] += 0.25
    present[0, 0] = False  # the first person appears in the second frame
    dataset = make_dataset(make_clips((poses, present)), persons=2, frames=3, center=True)
    assert values(dataset, person=0) == [0, 2 - 2.25, 3 - 2.25]
    assert values(dataset, person=1) == [101 - 2.25, 102 - 2.25, 103 - 2.25]


def test_the_second_person_is_the_origin_if_the_first_is_never_present() -> None:
    poses, present = ramp(2, persons=2)
    present[0] = False
    dataset = make_dataset(make_clips((poses, present)), persons=2, frames=2, center=True)
    assert values(dataset, person=0) == [0, 0]
    assert values(dataset, person=1) == [0, 1]


def body(turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A body that stands along y with its hips along x, turned; it bends over time."""
    upright = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [-1, 0, 0]], dtype=float)
    bend = np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.1, 0], [0, 0, 0]])
    frames = np.stack([upright, upright + bend])
    return (frames @ turn.T)[None], np.ones((1, 2), dtype=bool)


def random_rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def test_alignment_undoes_any_rotation() -> None:
    clips = make_clips(body(np.eye(3)), body(random_rotation(1)), body(random_rotation(2)))
    dataset = make_dataset(clips, frames=2, align=True, center=True)
    x = dataset.batch(torch.arange(3)).x
    torch.testing.assert_close(x[1], x[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x[2], x[0], atol=1e-5, rtol=1e-5)
    assert x[0, :, 0, 2].tolist() == pytest.approx([1, -1, 0])  # left hip: along x, below spine


def test_alignment_does_not_change_a_degenerate_body() -> None:
    poses, present = np.ones((1, 2, 4, 3)), np.ones((1, 2), dtype=bool)
    dataset = make_dataset(make_clips((poses, present)), align=True)
    assert values(dataset) == [1] * 5


def test_alignment_needs_a_spine() -> None:
    flat = Layout(joints=("a", "b", "c", "d"), channels=("x", "y", "score"))
    with pytest.raises(InputError, match="cannot be aligned"):
        make_dataset(make_clips(ramp(2)), layout=flat, align=True)


def test_the_score_channel_is_neither_centred_nor_rotated() -> None:
    flat = Layout(joints=("a", "b", "c", "d"), channels=("x", "y", "score"), center_joint=0)
    dataset = make_dataset(make_clips(ramp(3)), layout=flat, center=True)
    x = augmented(dataset, rotate=90, scale=0.5)
    assert x[0, 2, :, 0].tolist() == [1, 1.5, 2, 2.5, 3]
    assert x[0, :2, 0].abs().max() == 0


def test_rotation_keeps_lengths_and_angles() -> None:
    clips = make_clips(body(random_rotation(3)), body(random_rotation(4)))
    dataset = make_dataset(clips, frames=2)
    plain = dataset.batch(torch.arange(2)).x
    turned = augmented(dataset, seed=1, rotate=40)
    assert (plain - turned).abs().max() > 0.1
    gram = [torch.einsum("nctv,ncuw->ntvuw", x, x) for x in (plain, turned)]
    torch.testing.assert_close(gram[1], gram[0], atol=1e-5, rtol=1e-5)


def negated(clip: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return -clip[0], clip[1]


def test_scale_stretches_each_axis_within_its_bounds() -> None:
    dataset = make_dataset(make_clips(*[negated(ramp(2))] * 50), frames=2)
    x = augmented(dataset, seed=1, scale=0.2)
    factors = -x[:, :, 0, 0]
    assert 0.8 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.2
    assert (factors[:, 0] != factors[:, 1]).all()


def test_crop_is_at_least_its_length() -> None:
    dataset = make_dataset(make_clips(*[ramp(101)] * 200), frames=2)
    x = augmented(dataset, seed=1, crop=0.6)
    begin, end = x[:, 0, 0, 0], x[:, 0, 1, 0]
    spans = end - begin
    assert 60 <= spans.min() < 65
    assert 95 < spans.max() <= 100
    assert begin.min() >= 1
    assert end.max() <= 101 + 1e-3


def test_shear_adds_a_fraction_of_each_axis_to_each_other() -> None:
    unit = np.zeros((1, 1, 4, 3))
    unit[0, 0, :3] = -np.eye(3)  # joint v is opposite to axis v: its picture is minus column v
    dataset = make_dataset(make_clips(*[(unit, np.ones((1, 1), dtype=bool))] * 60), frames=1)
    matrices = -augmented(dataset, shear=0.3)[:, :, 0, :3]
    assert (matrices.diagonal(dim1=1, dim2=2) == 1).all()
    others = matrices[:, ~torch.eye(3, dtype=torch.bool)]
    assert 0.28 < others.abs().max() <= 0.3
    assert others.abs().min() > 0
    assert abs(others.mean()) < 0.03


def test_flip_mirrors_x_and_swaps_sides() -> None:
    clips = make_clips(noisy(1), noisy(2))
    for settings in ({}, {"center": True}):
        dataset = make_dataset(clips, persons=2, frames=6, **settings)
        plain = dataset.batch(torch.arange(2)).x
        swapped = plain[..., [0, 1, 3, 2, 4, 5, 7, 6]]
        swapped[:, 0] *= -1
        assert torch.equal(augmented(dataset, flip=1), swapped)


def test_flipping_twice_changes_nothing() -> None:
    poses, present = noisy()
    once = augmented(make_dataset(make_clips((poses, present)), persons=2, frames=6), flip=1)
    flipped = once[0].permute(1, 2, 0).unflatten(1, (2, 4)).transpose(0, 1).numpy()
    twice = augmented(make_dataset(make_clips((flipped, present)), persons=2, frames=6), flip=1)
    assert torch.equal(
        twice, make_dataset(make_clips((poses, present)), 2, frames=6).batch(torch.tensor([0])).x
    )


def test_flip_moves_the_score_with_its_joint() -> None:
    flat = Layout(joints=("left_eye", "right_eye", "chin"), channels=("x", "y", "score"))
    poses = np.arange(1.0, 10).reshape(1, 1, 3, 3) * [1, -1, 1]
    dataset = make_dataset(make_clips((poses, np.ones((1, 1), dtype=bool))), layout=flat, frames=1)
    assert augmented(dataset, flip=1)[0, :, 0].tolist() == [[-4, -1, -7], [-5, -2, -8], [6, 3, 9]]


@pytest.mark.parametrize("store", ["float32", "float16", "host"])
def test_pixels_change_about_the_middle_of_all_clips(store: Store) -> None:
    layout = Layout(joints=("left_eye", "right_eye"), channels=("x", "y", "score"))
    corner, middle = [100, 50, 1], [300, 150, 1]
    clips = [[[[corner, middle]]], [[[[500, 250, 1], middle]]], [[[[0, 0, 0], middle]]]]
    packed = make_clips(*[(np.array(poses, float), np.ones((1, 1), bool)) for poses in clips])
    dataset = make_dataset(packed, layout=layout, frames=1, store=store)
    for change in ({"rotate": 180}, {"scale": 0.5}, {"shear": 1}):
        x = augmented(dataset, **change)  # type: ignore[arg-type]
        assert (x[:, :2, 0, 1] == torch.tensor(middle[:2])).all()
        assert (x[:2, :2, 0, 0] != torch.tensor([[100, 50], [500, 250]])).all()
        assert (x[2, :, 0, 0] == 0).all()
    x = augmented(dataset, flip=1)
    assert x[:, :2, 0].tolist() == [
        [[300, 500], [150, 50]],
        [[300, 100], [150, 250]],
        [[300, 0], [150, 0]],
    ]


def test_flip_is_applied_with_its_probability() -> None:
    dataset = make_dataset(make_clips(*[negated(ramp(1))] * 400), frames=1)
    flipped = augmented(dataset, flip=0.25)[:, 0, 0, 0] > 0
    assert 0.2 < flipped.float().mean() < 0.3


@pytest.mark.parametrize("joints", ["a b c d", "left right up down", "hand_left b c hand_light"])
def test_flip_needs_sides(joints: str) -> None:
    dataset = make_dataset(make_clips(ramp(2)), layout=Layout(joints=tuple(joints.split())))
    augmented(dataset, rotate=10)
    with pytest.raises(InputError, match="joints cannot be mirrored"):
        augmented(dataset, flip=0.5)


@pytest.mark.parametrize("layout", [ntu.LAYOUT, kinetics.LAYOUT, nw_ucla.LAYOUT])
def test_mirrored_joints_of_the_data_sets(layout: Layout) -> None:
    mirrored = find_mirrored_joints(layout.joints)
    assert [mirrored[other] for other in mirrored] == list(range(len(mirrored)))
    for name, other in zip(layout.joints, mirrored, strict=True):
        assert layout.joints[other] == (
            name.replace("left", "right") if "left" in name else name.replace("right", "left")
        )


def test_jitter_has_the_given_deviation_and_skips_absent_persons() -> None:
    poses, present = noisy(frames=200)
    present[1, 100:] = False
    dataset = make_dataset(make_clips((poses, present)), persons=2, frames=200)
    plain = dataset.batch(torch.tensor([0])).x
    noise = (augmented(dataset, jitter=0.05) - plain)[0]
    assert noise[:, 100:, 4:].abs().max() == 0
    for seen in (noise[:, :, :4], noise[:, :100, 4:]):
        assert seen.std().item() == pytest.approx(0.05, rel=0.05)
        assert abs(seen.mean()) < 0.005


@pytest.mark.parametrize("space", [("x", "y"), ("x", "y", "z")])
def test_augmentation_does_not_change_scores(space: tuple[str, ...]) -> None:
    layout = Layout(("a", "b", "left_eye", "right_eye"), ((1, 0),), (*space, "score"), 0)
    poses, present = noisy(frames=9)
    scores = np.random.default_rng(1).random((*poses.shape[:3], 1))
    clips = make_clips((np.concatenate([poses[..., : len(space)], scores], axis=-1), present))
    settings = {"frames": 9, "center": True, "streams": "joint,bone,motion"}
    dataset = make_dataset(clips, 2, layout, **settings)
    changes = {"rotate": 90, "scale": 0.5, "shear": 0.5, "jitter": 1}
    plain, changed = dataset.batch(torch.tensor([0])).x, augmented(dataset, **changes)
    assert torch.equal(changed[:, -1], plain[:, -1])
    assert not torch.isclose(changed[:, :-1], plain[:, :-1])[plain[:, :-1] != 0].any()


def test_a_draw_does_not_depend_on_later_ones() -> None:
    shape = (5, 2, 3, 4, 3)
    old = AugmentSettings(rotate=20, scale=0.1, crop=0.5)
    more = old.model_copy(update={"flip": 0.5, "jitter": 0.1})
    drawn = [
        draw_augmentation(settings, shape, torch.Generator().manual_seed(3))
        for settings in (old, more)
    ]
    assert torch.equal(drawn[0].crop, drawn[1].crop)
    assert torch.equal(drawn[0].matrix.abs(), drawn[1].matrix.abs())
    assert drawn[1].noise.shape == shape


def test_augmentation_depends_only_on_the_generator() -> None:
    dataset = make_dataset(make_clips(ramp(9), ramp(6)))
    augment = AugmentSettings(rotate=20, scale=0.1, crop=0.5, shear=0.1, flip=0.5, jitter=0.1)

    def make(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return dataset.batch(torch.arange(2), augment, generator).x

    assert torch.equal(make(1), make(1))
    assert not torch.equal(make(1), make(2))


SKELETON = Layout(joints=("root", "chest", "hand", "free"), bones=((1, 0), (2, 1)), center_joint=0)


def streams(
    clips: Clips, names: str, layout: Layout = SKELETON, **settings: object
) -> torch.Tensor:
    """The one clip as [C, T, V]."""
    dataset = make_dataset(clips, persons=2, layout=layout, streams=names, **settings)
    x = dataset.batch(torch.tensor([0])).x
    assert x.shape[1:] == dataset.shape
    return x[0]


def test_bones_of_a_known_skeleton() -> None:
    pose = np.array([[1, 1, 1], [1, 3, 1], [5, 3, 0], [9, 9, 9]], dtype=float)
    clips = make_clips((pose[None, None], np.ones((1, 1), dtype=bool)))
    bones = streams(clips, "bone", frames=1)
    assert bones[:, 0, :4].T.tolist() == [[0, 0, 0], [0, 2, 0], [4, 0, -1], [0, 0, 0]]
    assert bones[:, 0, 4:].abs().max() == 0  # the other person is absent


def test_motion_of_a_ramp_is_its_slope_and_zero_in_the_last_frame() -> None:
    motion = streams(make_clips(ramp(3)), "motion", frames=5)
    assert motion[0, :, :4].tolist() == [[0.5] * 4] * 4 + [[0] * 4]
    assert motion[:, :, 4:].abs().max() == 0


def test_motion_is_zero_next_to_absent_frames() -> None:
    poses, present = ramp(6, persons=2)
    present[0, [1, 5]] = False
    motion = streams(make_clips((poses, present)), "motion", frames=6)
    assert motion[1, :, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert motion[1, :, 4].tolist() == [1, 1, 1, 1, 1, 0]


def test_streams_have_a_fixed_order() -> None:
    clips = make_clips(noisy())
    alone = [streams(clips, name, center=True) for name in ("joint", "bone", "motion")]
    assert torch.equal(streams(clips, "motion, joint,bone", center=True), torch.cat(alone))
    assert torch.equal(streams(clips, "motion,bone", center=True), torch.cat(alone[1:]))


def test_streams_are_made_of_augmented_clips() -> None:
    clips = make_clips(noisy())
    dataset = make_dataset(clips, 2, SKELETON, frames=6, streams="joint,bone,motion")
    joint, bone, motion = augmented(dataset, rotate=30, jitter=0.1, shear=0.2).split(3, dim=1)
    assert torch.equal(bone[..., 2], joint[..., 2] - joint[..., 1])
    assert torch.equal(motion[:, :, :-1], joint[:, :, 1:] - joint[:, :, :-1])


def test_scores_are_added_once_after_all_streams() -> None:
    flat = Layout(joints=tuple("abcd"), bones=((1, 0),), channels=("x", "y", "score"))
    poses, present = ramp(3)
    poses[..., 2] = 0.5
    clips = make_clips((poses, present))
    for names, channels in (("joint", 3), ("bone", 3), ("joint,bone,motion", 7)):
        x = streams(clips, names, flat)
        assert len(x) == channels
        assert (x[-1, :, :4] == 0.5).all()


def test_channels_of_branches() -> None:
    flat = Layout(joints=tuple("abcd"), bones=((1, 0),), channels=("x", "y", "score"))
    assert branch_channels("joint,motion", flat) == [[0, 1, 4], [2, 3, 4], [0, 1, 2, 3, 4]]
    assert branch_channels("bone,motion", SKELETON) == [[0, 1, 2], [3, 4, 5], [0, 1, 2, 3, 4, 5]]


def test_bone_stream_needs_bones() -> None:
    with pytest.raises(InputError, match="does not say which joints are connected"):
        streams(make_clips(ramp(2)), "joint,bone", layout=SPINE)


@pytest.mark.parametrize("names", ["", "joint,", "legs", "joint;bone"])
def test_unknown_streams(names: str) -> None:
    with pytest.raises(ValidationError, match="some of joint, bone, motion"):
        ClipSettings(streams=names)


PERSON = Layout(joints=SPINE.joints, bones=((1, 0), (2, 0), (3, 0)), center_joint=1)
EVERYTHING = AugmentSettings(rotate=20, scale=0.1, crop=0.5, shear=0.1, flip=0.5, jitter=0.01)


def walks(num_clips: int = 30) -> Clips:
    """Clips of every length, of one or two persons that come and go and walk about, far from 0."""
    generator = np.random.default_rng(7)
    clips = []
    for index in range(num_clips):
        persons, frames = 1 + index % 2, 1 + 3 * index
        steps = generator.normal(scale=0.1, size=(persons, frames, 4, 3))
        present = generator.random((persons, frames)) < 0.8
        present[0, 0] = True
        clips.append((3 + steps.cumsum(axis=1), present))
    return make_clips(*clips)


def make_batches(
    clips: Clips, store: Store, device: str = "cpu", **settings: object
) -> list[Batch]:
    """Three batches of random clips, each with and without augmentation."""
    how = ClipSettings(**({"frames": 20, "streams": "joint,bone,motion"} | settings))
    dataset = Dataset(clips, PERSON, 2, how, torch.device(device), store)
    assert dataset.store == store
    made = []
    for seed in range(3):
        indices = torch.from_numpy(np.random.default_rng(seed).integers(0, len(dataset), 8))
        generator = torch.Generator().manual_seed(seed)
        made.append(dataset.batch(indices))
        made.append(dataset.batch(indices, EVERYTHING, generator))
    return made


@pytest.mark.parametrize("settings", [{}, {"interpolation": "nearest", "align": True}], ids=str)
def test_clips_in_host_memory_make_the_same_batches(settings: dict[str, object]) -> None:
    clips = walks()
    pairs = zip(
        make_batches(clips, "float32", **settings),
        make_batches(clips, "host", **settings),
        strict=True,
    )
    for resident, hosted in pairs:
        assert torch.equal(resident.x, hosted.x)
        assert resident.x.stride() == hosted.x.stride()
        assert torch.equal(resident.labels, hosted.labels)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_clips_in_host_memory_make_the_same_batches_on_cuda() -> None:
    clips = walks()
    pairs = zip(
        make_batches(clips, "float32", "cuda"), make_batches(clips, "host", "cuda"), strict=True
    )
    for resident, hosted in pairs:
        assert hosted.x.device.type == "cuda"
        assert torch.equal(resident.x, hosted.x)
        assert torch.equal(resident.labels, hosted.labels)


def test_only_the_clips_of_a_batch_are_transferred() -> None:
    clips = PackedClips.from_cache(walks())
    batch = HostClips(clips, torch.device("cpu")).fetch(torch.tensor([5, 2, 5]))
    assert batch.num_frames.tolist() == [16, 7, 16]
    assert batch.starts.tolist() == [0, 32, 39]
    assert len(batch.poses) == 32 + 7 + 32
    assert torch.equal(batch.poses[32:39], clips.poses[clips.starts[2] : clips.starts[2] + 7])


@pytest.mark.parametrize("center", [True, False])
def test_float16_storage_has_float16_precision(center: bool) -> None:
    clips = walks()
    settings = {"streams": "joint", "center": center}
    pairs = zip(
        make_batches(clips, "float32", **settings)[::2],
        make_batches(clips, "float16", **settings)[::2],
        strict=True,
    )
    for exact, rounded in pairs:
        assert rounded.x.dtype == torch.float32
        bound = 2**-11 * exact.x.abs().max()  # half of the last of 11 bits
        assert 0 < (rounded.x - exact.x).abs().max() <= bound * (1 + 1e-3)
        assert torch.equal(rounded.x == 0, exact.x == 0) or center


def test_float16_rejects_large_coordinates() -> None:
    poses, present = ramp(2)
    with pytest.raises(InputError, match="too large for float16"):
        make_dataset(make_clips((poses * 1e5, present)), store="float16")


def test_the_auto_store_depends_on_device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_store("auto", 10**15, torch.device("cpu")) == "float32"
    monkeypatch.setattr("skelnas.data.dataset.device_memory_bytes", lambda device: 400.0)
    cuda = torch.device("cuda")
    assert [choose_store("auto", size, cuda) for size in (100, 101, 200, 201)] == [
        *("float32", "float16", "float16", "host")
    ]
    assert choose_store("float32", 10**15, cuda) == "float32"


def test_an_epoch_has_every_clip_once_except_an_incomplete_last_batch() -> None:
    batches = list(shuffled_batches(np.arange(10, 20), 3, seed=5))
    seen = torch.cat(batches).tolist()
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(set(seen)) == 9
    assert set(seen) <= set(range(10, 20))
    assert num_batches(10, 3) == 3
    assert seen == torch.cat(list(shuffled_batches(np.arange(10, 20), 3, seed=5))).tolist()
    assert seen != torch.cat(list(shuffled_batches(np.arange(10, 20), 3, seed=6))).tolist()


def test_fewer_clips_than_a_batch_form_one_batch() -> None:
    assert [sorted(b.tolist()) for b in shuffled_batches(np.arange(3), 8, seed=0)] == [[0, 1, 2]]
    assert num_batches(3, 8) == 1
