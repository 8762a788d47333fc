"""Predictions: a raw file scores like its clip in a cache; streams; and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BODY, LAYOUT, overflow
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import EvaluateSettings, PredictSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.prepare import prepare
from skelnas.data.readers import kinetics, manifest
from skelnas.data.readers.base import Source, Train
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.manifest import Manifest
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.data.readers.synthetic import write_raw
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.predict import predict, predict_stream
from skelnas.evaluation.timeline import predict_over_time
from skelnas.genotype import BUILT_IN
from skelnas.models.network import Network
from skelnas.training.saved_model import Model, load_model, save_model
from skelnas.training.train import train

REAL = Path(__file__).parents[3] / "shared" / "data"
GENOTYPE = BUILT_IN["ntu_cs112se30"]
SMALL = TrainSettings(frames=7, layers=3, channels=2, epochs=1, batch_size=8, device="cpu")
ON_CPU = PredictSettings(device="cpu")


def make_model(source: Source, folder: Path, settings: TrainSettings = SMALL) -> Path:
    """Prepare a cache next to the folder and train a small network for one epoch."""
    prepare(source, folder.with_suffix(".h5"))
    train(folder.with_suffix(".h5"), GENOTYPE, folder, settings)
    return folder


def check_like_evaluate(model: Path, find: Callable[[str], Path], persons: set[int]) -> None:
    """Check that raw files give the logits of their test clips, bit for bit."""
    scores = evaluate(model.with_suffix(".h5"), model, EvaluateSettings(device="cpu")).scores
    files = [find(name) for name in scores.info.names]
    predictions = list(predict(load_model(model), files, ON_CPU))
    assert {prediction.num_persons for prediction in predictions} == persons
    assert np.array_equal([prediction.logits for prediction in predictions], scores.logits)
    assert np.ptp(scores.logits, axis=0).min() > 0  # clips differ


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("denoise", {}),
        ("energy", {"align": True, "streams": "joint,bone,motion"}),
        ("first", {"center": False, "interpolation": "nearest"}),
    ],
)
def test_ntu_files_of_any_name_get_the_scores_of_their_clips(
    tmp_path: Path, rule: str, changes: dict[str, object]
) -> None:
    write_raw(tmp_path / "raw", num_clips=32)
    source = Ntu(tmp_path / "raw", body_rule=rule)
    model = make_model(source, tmp_path / "model", SMALL.model_copy(update=changes))
    (tmp_path / "mine").mkdir()

    def renamed(name: str) -> Path:
        path = tmp_path / "mine" / f"of {name}.skeleton"
        return Path(shutil.copy(tmp_path / "raw" / f"{name}.skeleton", path))

    check_like_evaluate(model, renamed, persons={1, 2})


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings in {REAL}")
@pytest.mark.parametrize("rule", ["denoise", "energy"])
def test_real_ntu_files_with_false_bodies_get_the_scores_of_their_clips(
    tmp_path: Path, rule: str
) -> None:
    source = Ntu(REAL / "ntu-raw", body_rule=rule)
    settings = SMALL.model_copy(update={"protocol": "xview"})
    model = make_model(source, tmp_path / "model", settings)
    check_like_evaluate(model, lambda name: REAL / "ntu-raw" / f"{name}.skeleton", persons={1, 2})


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings in {REAL}")
def test_real_kinetics_files_get_the_scores_of_their_clips(tmp_path: Path) -> None:
    folder = REAL / "kinetics-skeleton"
    model = make_model(Kinetics(folder), tmp_path / "model")
    check_like_evaluate(model, lambda name: folder / "val" / f"{name}.json", persons={2})


def test_kinetics_files_need_no_label(tmp_path: Path) -> None:
    root, generator = tmp_path / "raw", np.random.default_rng(0)
    for part in ("train", "val"):
        entries = {}
        (root / part).mkdir(parents=True)
        for index in range(8):
            persons = [
                {
                    "pose": generator.uniform(0, 1, 36).tolist(),
                    "score": generator.uniform(0, 1, 18).tolist(),
                }
                for _ in range(3)
            ]
            frames = [
                {"frame_index": frame, "skeleton": persons[: 1 + (frame + index) % 3]}
                for frame in range(4, 9)
            ]
            name = f"{part}{index}"
            (root / part / f"{name}.json").write_text(json.dumps({"data": frames}))
            entries[name] = {"has_skeleton": True, "label": "yoga", "label_index": 398}
        (root / f"kinetics_{part}_label.json").write_text(json.dumps(entries))
    kinetics.read_labels.cache_clear()
    model = make_model(Kinetics(root, person_rule="frame"), tmp_path / "model")
    (root / "kinetics_val_label.json").unlink()
    check_like_evaluate(model, lambda name: root / "val" / f"{name}.json", persons={2})


def test_nw_ucla_files_need_no_label(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for action, camera in ((1, 1), (2, 2), (1, 3), (2, 3)):
        frames = generator.normal(0, 1, (5, 20, 3)).tolist()
        clip = {"skeletons": frames, "label": action}
        path = tmp_path / "raw" / f"a{action:02}_s01_e00_v{camera:02}.json"
        path.write_text(json.dumps(clip))
    model = make_model(NwUcla(tmp_path / "raw"), tmp_path / "model")

    def without_label(name: str) -> Path:
        clip = json.loads((tmp_path / "raw" / f"{name}.json").read_text())
        path = tmp_path / f"{name} again.json"
        path.write_text(json.dumps({"skeletons": clip["skeletons"]}))
        return path

    check_like_evaluate(model, without_label, persons={1})


def test_manifest_recordings_keep_their_joints_and_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    lines = ["path,label,split"]
    for index in range(6):
        array = generator.uniform(1, [99, 49], (1 + index % 2, 5, 3, 2))
        array[0, 2, 1] = np.nan
        np.save(tmp_path / f"clip{index}.npy", array)
        lines.append(f"clip{index}.npy,{'ab'[index % 2]},{'test' if index > 2 else 'train'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    joints = {"joints": ["hip", "head", "hand"], "center": "hip", "picture": [100, 50]}
    (tmp_path / "joints.json").write_text(json.dumps(joints))
    manifest.read_manifest.cache_clear()
    source = Manifest(tmp_path / "clips.csv", joints=tmp_path / "joints.json", persons=2)
    model = make_model(source, tmp_path / "model")
    capsys.readouterr()
    check_like_evaluate(model, lambda name: tmp_path / f"{name}.npy", persons={1, 2})
    assert "of the picture" not in capsys.readouterr().err

    larger = 2 * np.load(tmp_path / "clip1.npy")
    np.save(tmp_path / "larger.npy", larger)
    assert list(predict(load_model(model), [tmp_path / "larger.npy"], ON_CPU))
    text = r"larger.npy: joints have x from .* to 1\.\d\d, y from .* of the picture, 100 x 50 \("
    assert re.search(text, " ".join(capsys.readouterr().err.split()))
    assert list(predict_stream(load_model(model), as_lines(larger), ON_CPU))
    err = " ".join(capsys.readouterr().err.split())
    assert re.search(text.replace("larger.npy", "standard input"), err)


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `conftest.LAYOUT`: five joints, two persons."""
    folder = tmp_path_factory.mktemp("predict") / "model"
    train(tiny_cache, GENOTYPE, folder, SMALL)
    return folder


@pytest.fixture
def poses() -> np.ndarray:
    """Two persons in 20 frames, the second only in frames 6 to 20."""
    poses = np.tile(BODY, (2, 20, 1, 1)).astype(np.float64)
    poses += np.random.default_rng(0).normal(0, 0.1, poses.shape)
    poses[1, :5] = np.nan
    return poses


def as_lines(poses: np.ndarray) -> list[str]:
    """Return one line per frame, without absent persons."""
    frames = (
        [person for person in frame if np.isfinite(person).all()] for frame in poses.swapaxes(0, 1)
    )
    return [json.dumps([person.tolist() for person in frame]) + "\n" for frame in frames]


def test_a_window_of_a_stream_equals_a_recording_of_its_frames(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    loaded = load_model(model)
    settings = PredictSettings(device="cpu", window=8, stride=5)
    windows = list(predict_stream(loaded, as_lines(poses), settings))
    assert [(window.first_frame, window.last_frame) for window in windows] == [
        (1, 8),
        (6, 13),
        (11, 18),
    ]
    for window in windows:
        frames = slice(window.first_frame - 1, window.last_frame)
        np.save(tmp_path / "window.npy", poses[:, frames])
        (expected,) = predict(loaded, [tmp_path / "window.npy"], ON_CPU)
        assert window.prediction is not None
        assert np.array_equal(window.prediction.logits, expected.logits)
        assert window.prediction.num_persons == 2
        assert window.latency_ms > 0


def test_persons_of_a_pose_estimator_are_tracked_in_a_stream_as_in_a_file(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    """They come in any order, and more pass by than the model takes."""
    poses[1] += 1  # beside the first
    passer = poses[:1] + np.array([3, 0, 0])
    passer[:, 6:] = np.nan
    seen = np.concatenate([poses, passer])
    lines = []
    for number, frame in enumerate(seen.swapaxes(0, 1)):  # [M, V, C]
        persons = [person for person in frame if np.isfinite(person).all()]
        people = [
            {"keypoints": [dict(zip("xyz", joint, strict=True)) for joint in person.tolist()]}
            for person in persons[:: -1 if number % 2 else 1]
        ]
        lines.append(json.dumps(people))
    (tmp_path / "clip.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "clip.npy", poses)
    loaded, settings = load_model(model), PredictSettings(device="cpu", window=20)
    (window,) = predict_stream(loaded, lines, settings)
    assert window.prediction is not None
    for name in ("clip.jsonl", "clip.npy"):
        (expected,) = predict(loaded, [tmp_path / name], ON_CPU)
        assert np.array_equal(window.prediction.logits, expected.logits)


def test_windows_have_the_length_of_training_clips_and_come_as_soon_as_they_are_full(
    model: Path, tiny_cache: Path, poses: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cache.open(tiny_cache) as cache:
        length = round(np.median(cache.num_frames[cache.indices("xsub", Train)]))
    assert length != SMALL.frames
    read = []

    def lines() -> object:
        for line in as_lines(poses):
            read.append(line)
            yield line

    windows = predict_stream(load_model(model), lines(), ON_CPU)
    assert next(windows).last_frame == length == len(read)
    assert next(windows).last_frame == length + 8 == len(read)
    assert f"windows of {length} frames, as the clips" in capsys.readouterr().err


def test_a_model_that_does_not_know_the_length_of_its_clips_takes_its_own(
    model: Path, poses: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(model)
    old = Model(loaded.network, replace(loaded.card, clip_length=None, person_size=None))
    assert next(predict_stream(old, as_lines(poses), ON_CPU)).last_frame == SMALL.frames
    assert f"windows of {SMALL.frames} frames, as the network takes" in capsys.readouterr().err
    layout = replace(LAYOUT, frame_rate=5)
    fast = Model(loaded.network, replace(loaded.card, clip_length=10, layout=layout))
    assert next(predict_stream(fast, as_lines(poses), ON_CPU)).last_frame == 10
    assert "windows of 10 frames (2.0 s at 5 frames per second)" in capsys.readouterr().err


def test_blank_lines_and_a_byte_order_mark_are_no_frames(model: Path, poses: np.ndarray) -> None:
    loaded, lines = load_model(model), as_lines(poses)
    with_blanks = ["\ufeff\n", "\ufeff" + lines[0], "\n", " \t\r\n", *lines[1:], "\n"]
    settings = PredictSettings(device="cpu", window=8)
    expected, found = (
        [
            (w.first_frame, w.last_frame, w.prediction)
            for w in predict_stream(loaded, some, settings)
        ]
        for some in (lines, with_blanks)
    )
    assert [frames for *frames, _ in found] == [frames for *frames, _ in expected]
    for (*_, one), (*_, other) in zip(found, expected, strict=True):
        assert np.array_equal(one.logits, other.logits)
    with pytest.raises(InputError, match="standard input, line 6: expected a frame"):
        list(predict_stream(loaded, [*with_blanks[:5], "wave"], settings))


def test_other_units_are_noted_once_and_absurd_numbers_refused(
    model: Path, poses: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}.npy" for name in ("metres", "mm", "cm")]
    for path, scale in zip(paths, (1, 1000, 100), strict=True):
        np.save(path, poses * scale)
    loaded = load_model(model)
    assert len(list(predict(loaded, paths, ON_CPU))) == 3
    err = " ".join(capsys.readouterr().err.split())
    assert "mm.npy: a person measures" in err
    assert err.count("a person measures") == 1
    np.save(paths[0], 6 * poses)
    assert list(predict(loaded, paths[:1], ON_CPU))
    assert "perhaps in other units" in " ".join(capsys.readouterr().err.split())
    old = Model(loaded.network, replace(loaded.card, person_size=None))
    assert list(predict(old, paths[:1], ON_CPU))
    assert "does not record the size of persons" in " ".join(capsys.readouterr().err.split())

    poses[0, 3, 2, 1] = 1e30
    np.save(tmp_path / "absurd.npy", poses)
    with pytest.raises(InputError, match=r"absurd.npy.*1e\+30"):
        list(predict(loaded, [tmp_path / "absurd.npy"], ON_CPU))
    with pytest.raises(InputError, match=r"line 4: .*1e\+30"):
        list(predict_stream(loaded, as_lines(poses), ON_CPU))


def test_pixels_with_scores_are_not_taken_for_coordinates(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    scored = np.concatenate([300 + 100 * poses[..., :2], 0.5 + 0 * poses[..., :1]], axis=-1)
    np.save(tmp_path / "scored.npy", scored)
    loaded = load_model(model)
    reason = "the third number of a joint is 0.5 to 0.5 beside .*, like a score and not z"
    with pytest.raises(InputError, match=rf"scored.npy: {reason}"):
        list(predict(loaded, [tmp_path / "scored.npy"], ON_CPU))
    with pytest.raises(InputError, match=f"^standard input: {reason}"):
        list(predict_stream(loaded, as_lines(scored), ON_CPU))
    with pytest.raises(InputError, match=f"^standard input: {reason}"):
        list(predict_stream(loaded, as_lines(scored)[:1], ON_CPU))
    given = PredictSettings(device="cpu", channels="x,y,z", window=20)
    (prediction,) = predict(loaded, [tmp_path / "scored.npy"], given)
    (window,) = predict_stream(loaded, as_lines(scored), given)
    assert window.prediction is not None
    assert np.array_equal(window.prediction.logits, prediction.logits)


def test_arrays_may_have_their_channels_in_another_order(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "xyz.npy", poses)
    np.save(tmp_path / "zxy.npy", poses[..., [2, 0, 1]])
    loaded = load_model(model)
    (expected,) = predict(loaded, [tmp_path / "xyz.npy"], ON_CPU)
    given = PredictSettings(device="cpu", channels="Z,x,y", window=20)
    (found,) = predict(loaded, [tmp_path / "zxy.npy"], given)
    assert np.array_equal(found.logits, expected.logits)
    (window,) = predict_stream(loaded, as_lines(poses[..., [2, 0, 1]]), given)
    assert window.prediction is not None
    assert np.array_equal(window.prediction.logits, expected.logits)
    given = PredictSettings(device="cpu", channels="x,y")
    with pytest.raises(InputError, match="expected the channels x, y, z, found x, y"):
        list(predict(loaded, [tmp_path / "xyz.npy"], given))


def test_a_stream_that_ends_early_is_one_window(model: Path, poses: np.ndarray) -> None:
    (window,) = predict_stream(load_model(model), as_lines(poses)[:3], ON_CPU)
    assert (window.first_frame, window.last_frame) == (1, 3)
    assert window.prediction is not None
    assert window.prediction.num_persons == 1


def test_windows_without_a_person_have_no_prediction(model: Path, poses: np.ndarray) -> None:
    lines = ["null", "[]", '{"poses": null}', json.dumps([[None] * 3] * 5)]
    settings = PredictSettings(device="cpu", window=4, stride=1)
    empty, occupied = predict_stream(load_model(model), [*lines, as_lines(poses)[0]], settings)
    assert empty.prediction is None
    assert occupied.prediction is not None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("wave", "expected a frame as JSON, found 'wave'"),
        ("7", "found something else, expected 5 joints of 3 numbers"),
        ("[[1, 2, 3]]", r"found an array \[1, 3\], expected 5 joints of 3 numbers"),
        ('[["a", 2, 3]]', "found something else, expected 5 joints"),
        ("[[1, 2], [3]]", "found something else, expected 5 joints"),
        (json.dumps([BODY.tolist()] * 3), "3 persons, expected at most 2"),
    ],
)
def test_a_line_that_is_not_a_frame_is_reported(model: Path, line: str, reason: str) -> None:
    lines = [json.dumps(BODY.tolist()), line]
    with pytest.raises(InputError, match=f"^standard input, line 2: {reason}"):
        list(predict_stream(load_model(model), lines, ON_CPU))


def test_a_stream_without_frames_is_refused(model: Path) -> None:
    with pytest.raises(InputError, match="standard input: no frames"):
        list(predict_stream(load_model(model), [], ON_CPU))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.skeleton", "1", "cannot be read for a model that was trained on tiny"),
        ("none.npy", None, "No such file"),
        ("a.csv", "1,2,3,9\n", "4 columns, expected a multiple of the 5 joints"),
        ("b.csv", "hip_x,hip_y,hip_z\n1,2,3\n", "expected the joints spine_base, .*, found hip"),
        ("a.json", json.dumps([[[1, 2, 3]] * 4]), "4 joints of 3 numbers, expected 5 of 3, as in"),
        ("b.json", json.dumps([[BODY.tolist()]] * 3), "3 persons in 1 frames, expected 1 to 2"),
        ("c.json", json.dumps([[[None] * 3] * 5]), "nobody is present in any of 1 frames"),
        (".", None, "is a folder, expected a recording"),
    ],
)
def test_mismatched_input_is_refused(
    model: Path, tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=reason) as refusal:
        list(predict(load_model(model), [path], ON_CPU))
    assert str(path) in str(refusal.value)


def test_probabilities_are_a_softmax_and_ranked(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", poses)
    (prediction,) = predict(load_model(model), [tmp_path / "a.npy"], ON_CPU)
    powers = np.exp(prediction.logits.astype(np.float64))
    assert prediction.probabilities == pytest.approx(powers / powers.sum())
    ranked = prediction.top(9)
    assert sorted(name for name, _ in ranked) == ["pair", "still", "wave"]
    assert [probability for _, probability in ranked] == sorted(
        prediction.probabilities, reverse=True
    )
    tied = replace(prediction, logits=np.zeros(3, np.float32))
    assert tied.top(2) == [("still", pytest.approx(1 / 3)), ("wave", pytest.approx(1 / 3))]


def test_a_model_without_a_layout_is_refused(model: Path, tiny_cache: Path, tmp_path: Path) -> None:
    loaded = load_model(model)
    with Cache.open(tiny_cache) as cache:
        assert loaded.card.layout == cache.layout == LAYOUT
        assert loaded.card.rule == cache.rule
    save_model(tmp_path, loaded.network, replace(loaded.card, layout=None, rule=None))
    old = load_model(tmp_path)
    with pytest.raises(InputError, match="does not say what the numbers of its tiny joints are"):
        list(predict(old, [], ON_CPU))
    unknown = Model(old.network, replace(loaded.card, source="ntu", rule={"body_rule": "newest"}))
    (tmp_path / "a.skeleton").touch()
    with pytest.raises(InputError, match="body_rule 'newest', which this skelnas lacks"):
        list(predict(unknown, [tmp_path / "a.skeleton"], ON_CPU))


def command(*words: object, stdin: str = "") -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["predict", *map(str, words), "--device", "cpu"], input=stdin)
    if isinstance(done.exception, InputError):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_command_prints_text_or_lines_of_json(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", poses)
    one, other = tmp_path / "a.npy", tmp_path / "b.npy"
    shutil.copy(one, other)
    code, text, _ = command(model, one, other, "--top", 2)
    assert code == 0
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert heads == [f"{path}: 20 frames, 2 persons" for path in (one, other)]
    assert len(text.splitlines()) == 6

    code, text, errors = command(model, one, tmp_path / "none.npy", other, "--json")
    assert code == 3
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["recording"]: line.get("frames") for line in lines} == {
        str(one): 20,
        str(tmp_path / "none.npy"): None,
        str(other): 20,
    }
    assert sum(entry["probability"] for entry in lines[-1]["classes"]) == pytest.approx(1)
    assert "none.npy: cannot be read" in errors


def test_the_command_reads_frames_from_a_pipe(model: Path, poses: np.ndarray) -> None:
    frames = "".join(as_lines(poses))
    code, text, _ = command(model, "-", "--json", "--top", 1, "--window", 12, stdin=frames)
    assert code == 0
    first, last = map(json.loads, text.splitlines())
    assert (first["first_frame"], first["last_frame"], last["last_frame"]) == (1, 12, 20)
    assert first["latency_ms"] > 0
    assert len(first["classes"]) == 1
    _, text, _ = command(model, "-", "--window", 3, "--stride", 9, stdin="null\n" * 3)
    assert text == "frames 1 to 3: nobody is seen\n"
    assert command(model, "-", "a.npy")[0] != 0


def test_arrays_score_like_the_files_that_hold_them(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "pair.npy", poses)
    one = poses[:1].astype(np.float32)
    np.save(tmp_path / "one.npy", one)
    loaded = load_model(model)
    files = [str(tmp_path / "pair.npy"), tmp_path / "one.npy"]
    expected = list(predict(loaded, files, ON_CPU))
    found = list(predict(loaded, iter([poses, torch.from_numpy(one[0])]), ON_CPU))
    assert [prediction.name for prediction in found] == ["recording 0", "recording 1"]
    assert [p.num_persons for p in found] == [2, 1]
    for one_found, one_expected in zip(found, expected, strict=True):
        assert np.array_equal(one_found.logits, one_expected.logits)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (
            np.ones((20, 4, 3)),
            "recording 0: 4 joints of 3 numbers, expected 5 of 3, as",
        ),
        (np.ones((3, 20, 5, 3)), "recording 0: 3 persons in 20 frames, expected 1 to 2"),
        (np.ones((5, 3)), r"recording 0: an array of the shape \(5, 3\), expected \[frames"),
        (np.full((20, 5, 3), np.nan), "recording 0: nobody is present in any of 20 frames"),
        (np.full((20, 5, 3), True), "recording 0: expected an array of numbers, found truth"),
        (np.full((20, 5, 3), "a"), "recording 0: expected an array of numbers, found <U1"),
        (np.full((20, 5, 3), None), "recording 0: expected an array of numbers, found object"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(model: Path, array: np.ndarray, reason: str) -> None:
    loaded = load_model(model)
    with pytest.raises(InputError, match=reason):
        list(predict(loaded, [array], ON_CPU))
    broken: list[str] = []
    good = np.tile(BODY, (20, 1, 1))
    settings = ON_CPU.model_copy(update={"batch_size": 1})
    skipped = predict(loaded, [array, good], settings, lambda name, error: broken.append(name))
    assert [prediction.name for prediction in skipped] == ["recording 1"]
    assert broken == ["recording 0"]


def test_a_single_recording_is_not_taken_for_several(model: Path, poses: np.ndarray) -> None:
    for single in (poses, torch.from_numpy(poses), "clip.npy", Path("clip.npy")):
        with pytest.raises(UsageError, match="several recordings, not a single one"):
            predict(load_model(model), single, ON_CPU)


def test_a_prediction_is_short_where_it_is_shown(model: Path, poses: np.ndarray) -> None:
    (prediction,) = predict(load_model(model), [poses], ON_CPU)
    ((name, probability),) = prediction.top(1)
    assert prediction.top1 == name
    assert repr(prediction) == f"Prediction('recording 0', {name!r}, {probability:.1%})"
    as_dict = prediction.to_dict(2)
    assert list(as_dict) == ["recording", "frames", "persons", "classes"]
    assert as_dict["classes"][0] == {"class": name, "probability": probability}
    assert len(as_dict["classes"]) == 2


def test_scores_that_are_not_finite_are_refused(
    model: Path, tiny_cache: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    loaded = load_model(model)
    assert isinstance(loaded.network, Network)
    overflow(loaded.network.classifier)
    broken = tmp_path / "broken"
    broken.mkdir()
    save_model(broken, loaded.network, loaded.card)
    np.save(tmp_path / "a.npy", poses)
    for views in (1, 3):
        settings = EvaluateSettings(device="cpu", views=views)
        with pytest.raises(InputError, match=r"broken: its scores of 'clip\d+' are not finite"):
            evaluate(tiny_cache, broken, settings)
    with pytest.raises(InputError, match=r"broken: its scores of 'clip\d+' are not finite"):
        evaluate(tiny_cache, model, EvaluateSettings(device="cpu"), broken)
    loaded = load_model(broken)
    with pytest.raises(InputError, match="scores of 'recording 1' are not finite"):
        list(predict(loaded, [np.full_like(poses, np.nan), poses], ON_CPU, lambda *_: None))
    with pytest.raises(InputError, match="scores of 'standard input' are not finite"):
        list(predict_stream(loaded, as_lines(poses), ON_CPU))
    with pytest.raises(InputError, match=r"scores of 'a\.npy' are not finite"):
        predict_over_time(loaded, tmp_path / "a.npy", ON_CPU)


def test_a_recording_over_time_has_the_windows_of_a_stream(
    model: Path, poses: np.ndarray, tmp_path: Path
) -> None:
    loaded, path = load_model(model), tmp_path / "a.npy"
    np.save(path, poses)
    settings = ON_CPU.model_copy(update={"window": 4, "stride": 3, "batch_size": 2})
    timeline = predict_over_time(loaded, path, settings)
    windows = list(predict_stream(loaded, as_lines(poses), settings))
    assert len(windows) > 1
    assert [(w.first_frame - 1, w.last_frame) for w in windows] == [*map(tuple, timeline.spans)]
    expected = [w.prediction.probabilities for w in windows if w.prediction]
    np.testing.assert_allclose(timeline.probabilities, expected, rtol=1e-5)
    whole = ON_CPU.model_copy(update={"window": poses.shape[1]})
    (prediction,) = predict(loaded, [path], ON_CPU)
    (probabilities,) = predict_over_time(loaded, path, whole).probabilities
    np.testing.assert_allclose(probabilities, prediction.probabilities, rtol=1e-5)


def test_the_command_draws_a_recording(model: Path, poses: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", poses)
    plot = tmp_path / "new" / "a.svg"
    code, out, err = command(model, tmp_path / "a.npy", "--plot", plot)
    assert code == 0
    assert str(plot) in err
    assert str(plot) not in out
    assert plot.read_text().startswith("<?xml")
