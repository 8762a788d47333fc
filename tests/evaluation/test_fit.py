"""Data meet a model: reordered by name, refused where they do not fit, and what is recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LAYOUT, write_tiny_cache
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import EvaluateSettings, TrainSettings
from skelnas.data.cache import Cache, CacheWriter, Clips
from skelnas.data.matching import (
    compare_units,
    find_person_size,
    find_score_size,
    match_origins,
)
from skelnas.data.readers.base import Layout, Recording, Test, Train
from skelnas.data.readers.unlabelled import Origin
from skelnas.errors import InputError, UsageError
from skelnas.evaluation.ensemble import ensemble
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.scores import read_scores, write_scores
from skelnas.genotype import BUILT_IN
from skelnas.reporting.model_card import add_results
from skelnas.reporting.report import report
from skelnas.training.saved_model import load_model, save_model
from skelnas.training.train import train

SETTINGS = TrainSettings(
    frames=9, layers=3, channels=2, epochs=1, batch_size=8, device="cpu", streams="joint,bone"
)
ON_CPU = EvaluateSettings(device="cpu")
ANYWAY = EvaluateSettings(device="cpu", allow_mismatch=True)
ORDER = [3, 0, 4, 1, 2]
IN_ORDER = list(range(5))


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit") / "model"
    train(tiny_cache, BUILT_IN["ntu_cs112se30"], folder, SETTINGS)
    return folder


def reorder(layout: Layout, order: list[int]) -> Layout:
    assert layout.center_joint is not None
    return replace(
        layout,
        joints=tuple(layout.joints[old] for old in order),
        bones=tuple((order.index(a), order.index(b)) for a, b in layout.bones),
        center_joint=order.index(layout.center_joint),
    )


def rewrite(
    cache: Path,
    out: Path,
    layout: Layout,
    *,
    joints: list[int] = IN_ORDER,
    channels: tuple[int, ...] = (0, 1, 2),
    scale: float = 1,
    source: str = "tiny",
    rule: dict[str, Any] | None = None,
    max_persons: int = 2,
) -> Path:
    """Write the clips of a cache in another order or layout."""
    with (
        Cache.open(cache) as old,
        CacheWriter(
            out, source=source, rule=rule or old.rule, layout=layout, max_persons=max_persons
        ) as new,
    ):
        for index in range(len(old)):
            poses, present = old.read(index)
            poses = poses[:, :, joints][..., channels] * np.float32(scale)
            name, label = old.clips.names[index], int(old.clips.labels[index])
            subject = int(old.clips.subjects[index])
            new.add(Recording(name, label, poses, present, subject))
        new.finish(classes=old.classes, splits=old.splits, skipped=[], failed=[])
    return out


def test_joints_and_channels_in_another_order_are_reordered_by_name(
    tiny_cache: Path, model: Path, tmp_path: Path
) -> None:
    expected = evaluate(tiny_cache, model, ON_CPU).scores.logits
    permuted = reorder(LAYOUT, ORDER)
    upper = replace(permuted, joints=tuple(map(str.upper, permuted.joints)))
    for name, layout, channels in (
        ("permuted", permuted, (0, 1, 2)),
        ("upper", upper, (0, 1, 2)),
        ("channels", replace(permuted, channels=("Z", "x", "y")), (2, 0, 1)),
    ):
        cache = rewrite(
            tiny_cache, tmp_path / f"{name}.h5", layout, joints=ORDER, channels=channels
        )
        found = evaluate(cache, model, ON_CPU)
        assert np.array_equal(found.scores.logits, expected), name
        assert "mismatches" not in found.to_dict()


@pytest.mark.parametrize(
    ("center", "bones", "text"),
    [
        (4, (), "its centre joint is hand_left, but clips are centred on spine_mid"),
        (None, LAYOUT.bones, "it has no centre joint, but clips are centred on spine_mid"),
    ],
)
def test_clips_are_centred_and_joined_as_in_the_training(
    tiny_cache: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    center: int | None,
    bones: tuple[tuple[int, int], ...],
    text: str,
) -> None:
    expected = evaluate(tiny_cache, model, ON_CPU).scores.logits
    assert not capsys.readouterr().err
    layout = replace(LAYOUT, center_joint=center, bones=bones)
    cache = rewrite(tiny_cache, tmp_path / "other.h5", layout, max_persons=3)
    assert np.array_equal(evaluate(cache, model, ON_CPU).scores.logits, expected)
    assert text in " ".join(capsys.readouterr().err.split())


def test_an_earlier_model_knows_the_names_of_its_joints(
    tiny_cache: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(model)
    save_model(tmp_path, loaded.network, replace(loaded.card, layout=None, rule=None))
    expected = evaluate(tiny_cache, model, ON_CPU).scores.logits
    permuted = rewrite(tiny_cache, tmp_path / "p.h5", reorder(LAYOUT, ORDER), joints=ORDER)
    for cache in (tiny_cache, permuted):
        assert np.array_equal(evaluate(cache, tmp_path, ON_CPU).scores.logits, expected)
    unknown = "channels and centre, units and choice of persons that it was trained on"
    assert f"{tmp_path}: does not record the {unknown}" in " ".join(capsys.readouterr().err.split())
    renamed = replace(LAYOUT, joints=(*LAYOUT.joints[:4], "foot"))
    other = rewrite(tiny_cache, tmp_path / "o.h5", renamed)
    with pytest.raises(InputError, match="5 joints include foot, the model's 5 include hand_left"):
        evaluate(other, tmp_path, ON_CPU)
    assert np.array_equal(evaluate(other, tmp_path, ANYWAY).scores.logits, expected)


FLAT = replace(LAYOUT, channels=("x", "y"), y_down=False)


@pytest.mark.parametrize(
    ("layout", "changes", "text"),
    [
        (
            replace(LAYOUT, joints=("a", "b", *LAYOUT.joints[2:])),
            {},
            "its 5 joints include a, b, the model's 5 include spine_base, spine_mid",
        ),
        (
            replace(LAYOUT, channels=("x", "y", "score"), y_down=False),
            {},
            "its 3 channels include score, the model's 3 include z",
        ),
        (LAYOUT, {"rule": {"rule": "some"}}, "rule some, for the model none"),
        (
            LAYOUT,
            {"rule": {"rule": "none", "picture": [640, 480]}},
            "coordinates are fractions of the picture, for the model as recorded",
        ),
        (LAYOUT, {"source": "mine", "rule": {"rule": "some"}}, "rule some, for the model none"),
        (LAYOUT, {"scale": 1000}, r"a person measures \d+, for the model 1\.\d+: in other units"),
    ],
)
def test_clips_that_do_not_fit_are_refused_unless_allowed(
    tiny_cache: Path,
    model: Path,
    tmp_path: Path,
    layout: Layout,
    changes: dict[str, Any],
    text: str,
) -> None:
    cache = rewrite(tiny_cache, tmp_path / "other.h5", layout, **changes)
    with pytest.raises(InputError, match=f"other.h5: does not fit .*model: .*{text}") as refusal:
        evaluate(cache, model, ON_CPU)
    assert "--allow-mismatch" in str(refusal.value.hint)
    with pytest.raises(InputError, match=text):  # as the model to compare with
        evaluate(cache, model, ON_CPU, other_path=model)
    recorded, *_ = evaluate(cache, model, ANYWAY).to_dict()["mismatches"]
    assert text.split(",")[0].split("(")[0].split("\\")[0] in recorded


@pytest.mark.parametrize(
    ("layout", "joints", "channels", "text"),
    [
        (
            replace(LAYOUT, joints=LAYOUT.joints[:4], bones=()),
            IN_ORDER[:4],
            (0, 1, 2),
            "its 4 joints lack hand_left of the model's 5",
        ),
        (FLAT, IN_ORDER, (0, 1), "its 2 channels lack z of the model's 3"),
    ],
)
def test_another_number_of_joints_or_channels_cannot_be_allowed(
    tiny_cache: Path,
    model: Path,
    tmp_path: Path,
    layout: Layout,
    joints: list[int],
    channels: tuple[int, ...],
    text: str,
) -> None:
    cache = rewrite(tiny_cache, tmp_path / "o.h5", layout, joints=joints, channels=channels)
    for settings in (ON_CPU, ANYWAY):
        with pytest.raises(InputError, match=text) as refusal:
            evaluate(cache, model, settings)
        assert "--allow-mismatch" not in str(refusal.value.hint)


def test_more_persons_than_the_model_takes(tiny_cache: Path, tmp_path: Path, model: Path) -> None:
    with Cache.open(tiny_cache) as cache:
        clips = [cache.read(index) for index in range(len(cache))]
        single = [index for index, (poses, _) in enumerate(clips) if len(poses) == 1]
        assert 0 < len(single) < len(cache)
        with CacheWriter(
            tmp_path / "one.h5", source="tiny", rule=cache.rule, layout=LAYOUT, max_persons=1
        ) as new:
            for index in single:
                label = int(cache.clips.labels[index])
                new.add(Recording(cache.clips.names[index], label, *clips[index], subject=index))
            splits = {"xsub": cache.splits["xsub"][single]}
            new.finish(classes=cache.classes, splits=splits, skipped=[], failed=[])
    settings = SETTINGS.model_copy(update={"streams": "joint"})
    train(tmp_path / "one.h5", BUILT_IN["ntu_cs112se30"], tmp_path / "one", settings)
    evaluate(tmp_path / "one.h5", model, ON_CPU)  # fewer are no mismatch
    with pytest.raises(InputError, match=r"2 persons in clip clip.*, for the model at most 1"):
        evaluate(tiny_cache, tmp_path / "one", ON_CPU)
    evaluation = evaluate(tiny_cache, tmp_path / "one", ANYWAY)
    assert len(evaluation.scores.info.mismatches) == 1


def test_what_was_allowed_travels_with_the_scores(
    tiny_cache: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = replace(LAYOUT, joints=(*LAYOUT.joints[:4], "foot"))
    cache = rewrite(tiny_cache, tmp_path / "other.h5", renamed)
    fits, anyway = tmp_path / "fits.npz", tmp_path / "anyway.npz"
    write_scores(fits, evaluate(tiny_cache, model, ON_CPU).scores)
    write_scores(anyway, evaluate(cache, model, ANYWAY).scores)
    (text,) = read_scores(anyway).info.mismatches
    assert "foot" in text
    assert not read_scores(fits).info.mismatches
    capsys.readouterr()
    assert ensemble([fits, anyway]).to_dict()["mismatches"] == [f"{anyway}: {text}"]
    assert "foot" in capsys.readouterr().err
    comparison = evaluate(tiny_cache, model, ON_CPU, other_path=anyway).comparison
    assert comparison is not None
    assert comparison.to_dict()["mismatches"] == [text]

    page = report(model, tmp_path / "r.html", scores=anyway, cache=cache)
    assert "did not fit the model" in page.read_text()
    with pytest.raises(InputError, match="does not fit"):
        report(model, tmp_path / "r.html", scores=fits, cache=cache)
    done = CliRunner().invoke(
        app, ["evaluate", str(cache), str(model), "--allow-mismatch", "--card", "--device", "cpu"]
    )
    assert "--card is for clips that fit the model" in str(done.exception)


@pytest.mark.parametrize(
    ("data", "model", "mismatches", "notes"),
    [
        ({}, {}, [], []),
        ({"source": "b"}, {}, [], ["from the source b, the model was trained on a"]),
        ({"rule": {}}, {"rule": {}}, [], []),
        (
            {"layout": replace(LAYOUT, y_down=True, frame_rate=25)},
            {"layout": replace(LAYOUT, frame_rate=30)},
            ["y grows downwards, for the model upwards"],
            ["25 frames per second, for the model 30"],
        ),
        ({"rule": {"seed": 1, "test_subjects": [3]}}, {"rule": {"seed": 2}}, [], []),
        (
            {"rule": {"body_rule": "energy"}},
            {"rule": {"body_rule": "denoise"}},
            ["body rule energy, for the model denoise"],
            [],
        ),
        (
            {"rule": {"coordinates": "metres, zero where unknown"}},
            {"rule": {"coordinates": "metres"}},
            [],
            ["coordinates metres, zero where unknown, for the model metres"],
        ),
        (
            {"rule": {"picture": [640, 480.5]}},
            {"rule": {"picture": [1280, 720]}},
            ["picture 640 x 480.5, for the model 1280 x 720"],
            [],
        ),
        ({"rule": {"body_rule": "energy"}}, {"rule": {}}, [], []),
    ],
)
def test_rules_are_compared(
    data: dict[str, Any], model: dict[str, Any], mismatches: list[str], notes: list[str]
) -> None:
    base = Origin("a", LAYOUT, 2, {"rule": "none"})
    match = match_origins(replace(base, **data), replace(base, **model))
    assert (match.mismatches, match.notes) == (mismatches, notes)


def test_names_are_compared_in_one_unicode_form() -> None:
    one = replace(LAYOUT, joints=("hüfte", "a", "b", "c", "d"))
    two = replace(LAYOUT, joints=("a", "HU\u0308FTE", "b", "c", "d"))
    match = match_origins(Origin("a", one, 2, {}), Origin("a", two, 2, {}))
    assert not match.mismatches
    assert match.joints == [1, 0, 2, 3, 4]


@pytest.mark.parametrize(
    ("found", "expected", "text"),
    [
        ("abc", "ab", "its 3 joints include c, the model's 2 do not"),
        ("ab", "abc", "its 2 joints lack c of the model's 3"),
        ("ab", "ac", "its 2 joints include b, the model's 2 include c"),
        (
            "abcdefgh",
            "ijklmnop",
            "its 8 joints include a, b, c, d, e, f and 2 others, "
            "the model's 8 include i, j, k, l, m, n and 2 others",
        ),
    ],
)
def test_other_joints_are_listed_where_they_differ(found: str, expected: str, text: str) -> None:
    data, model = (Origin("a", Layout(tuple(names)), 1, {}) for names in (found, expected))
    assert match_origins(data, model).mismatches == [text]


def test_a_person_is_measured_by_found_joints(tmp_path: Path) -> None:
    poses = np.zeros((1, 3, 5, 3), np.float32)
    poses[0, 1:, 1] = 3, 4, 9
    poses[0, 1:, 2] = 6, 8, 9
    present = np.array([[False, True, True]])
    clips = Clips.from_recordings([Recording("a", 0, poses, present)])
    assert find_person_size(clips, LAYOUT) == 5
    assert find_score_size(clips, LAYOUT) is None
    assert compare_units(clips, LAYOUT, None, None) == ([], [])
    assert compare_units(clips, LAYOUT, 5.1, 0.7) == ([], [])
    text = "a person measures 5, for the model {}: {}in other units"
    assert compare_units(clips, LAYOUT, 0.005, None) == ([text.format(0.005, "")], [])
    assert compare_units(clips, LAYOUT, 1.6, None) == ([], [text.format(1.6, "perhaps ")])


def test_scores_are_measured_where_joints_are_found() -> None:
    flat = replace(LAYOUT, channels=("x", "y", "score"))
    poses = np.random.default_rng(0).uniform(0, 1, (1, 3, 5, 3)).astype(np.float32)
    poses[0, :, 2:] = 0
    poses[0, :, :2, 2] = [[50, 60], [70, 80], [90, 95]]
    clips = Clips.from_recordings([Recording("a", 0, poses, np.ones((1, 3), bool))])
    assert find_score_size(clips, flat) == 92.5
    text = "scores reach 92.5, for the model 0.8: in other units"
    assert compare_units(clips, flat, None, 0.8) == ([text], [])
    size = find_person_size(clips, flat)
    assert size
    assert compare_units(clips, flat, 20 * size, 75) == ([], [])  # people are near or far
    (text,), _ = compare_units(clips, flat, 640 * size, 75)
    assert text.startswith("a person measures")
    clips.poses[..., 2] *= 0.0001  # an estimator that is hardly sure of anything
    assert compare_units(clips, flat, 0.2, 0.8) == ([], [])


def test_classes_without_clips_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_cache(tmp_path / "all.h5")
    for classes, text in (
        ([0, 1], "1 of 3 classes have no clips here: 'pair'"),
        ([2], "all clips are of the class 'pair': always predicting it is right"),
    ):
        with Cache.open(tmp_path / "all.h5") as cache:
            parts = np.where(np.isin(cache.clips.labels, classes), 1, 0).astype(np.int8)
            path = tmp_path / f"{len(classes)}.h5"
            with CacheWriter(
                path, source="tiny", rule=cache.rule, layout=LAYOUT, max_persons=2
            ) as new:
                for index, label in enumerate(cache.clips.labels.tolist()):
                    name = cache.clips.names[index]
                    new.add(Recording(name, label, *cache.read(index)))
                new.finish(classes=cache.classes, splits={"xsub": parts}, skipped=[], failed=[])
        evaluate(path, model, ANYWAY)
        assert text in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["xsub@subject:1/2", "xsub@clip:2/3"])
def test_clips_that_a_model_was_trained_on_are_refused(
    tiny_cache: Path, model: Path, tmp_path: Path, protocol: str
) -> None:
    with Cache.open(tiny_cache) as cache:
        trained = set(cache.indices("xsub", Train))
        chosen = cache.indices(protocol, Test)
        num_seen = sum(index in trained for index in chosen)
    seen = f"was trained on {num_seen} of the {len(chosen)} clips of {protocol}"
    loaded = load_model(model)
    card = replace(loaded.card, trained_clips="")  # as in models of earlier versions
    save_model(tmp_path, loaded.network, card)
    for path in (model, tmp_path):
        with pytest.raises(UsageError, match=seen):
            evaluate(tiny_cache, path, replace_protocol(ON_CPU, protocol))
        scores = evaluate(tiny_cache, path, replace_protocol(ANYWAY, protocol)).scores
        assert scores.info.mismatches == [f"the model {seen}"]


def divide(cache: Path, out: Path, test_subjects: list[int], protocol: str = "xsub") -> Path:
    """Write the clips of a cache with another test part."""
    with (
        Cache.open(cache) as old,
        CacheWriter(out, source="tiny", rule=old.rule, layout=LAYOUT, max_persons=2) as new,
    ):
        for index, label in enumerate(old.clips.labels.tolist()):
            name, subject = old.clips.names[index], int(old.clips.subjects[index])
            new.add(Recording(name, label, *old.read(index), subject))
        is_test = np.isin(old.clips.subjects, test_subjects)
        splits = {protocol: np.where(is_test, Test, Train).astype(np.int8)}
        new.finish(classes=old.classes, splits=splits, skipped=[], failed=[])
    return out


@pytest.mark.parametrize("protocol", ["xsub", "random"])
def test_training_clips_are_known_in_a_cache_that_is_divided_otherwise(
    tiny_cache: Path, model: Path, tmp_path: Path, protocol: str
) -> None:
    other = divide(tiny_cache, tmp_path / "other.h5", [0, 3], protocol)
    settings = replace_protocol(ON_CPU, protocol)
    seen = f"was trained on 12 of the 24 clips of {protocol}"
    with pytest.raises(UsageError, match=seen):
        evaluate(other, model, settings)
    own = SETTINGS.model_copy(update={"protocol": protocol})
    train(other, BUILT_IN["ntu_cs112se30"], tmp_path / "own", own)
    with pytest.raises(UsageError, match=seen):
        evaluate(other, tmp_path / "own", other_path=model)
    fair = divide(tiny_cache, tmp_path / "fair.h5", [3], protocol)
    assert not evaluate(fair, model, settings).scores.info.mismatches


def test_copies_of_training_clips_are_counted_and_recorded(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "copies.h5"
    with (
        Cache.open(tiny_cache) as old,
        CacheWriter(path, source="tiny", rule=old.rule, layout=LAYOUT, max_persons=2) as new,
    ):
        for index in (*range(24), 0, 1):
            name = f"clip {len(new.table().names)}"
            label, subject = int(old.clips.labels[index]), int(old.clips.subjects[index])
            new.add(Recording(name, label, *old.read(index), subject))
        parts = np.array([Train] * 18 + [Test] * 8, np.int8)
        new.finish(classes=old.classes, splits={"xsub": parts}, skipped=[], failed=[])
    train(path, BUILT_IN["ntu_cs112se30"], tmp_path / "model", SETTINGS)
    for trained_clips in (load_model(tmp_path / "model").card.trained_clips, ""):
        loaded = load_model(tmp_path / "model")
        card = replace(loaded.card, trained_clips=trained_clips)
        save_model(tmp_path / "model", loaded.network, card)
        capsys.readouterr()
        scores = evaluate(path, tmp_path / "model", ON_CPU).scores
        note = "2 of the 8 clips have the same numbers as training clips; without them top-1 is "
        assert capsys.readouterr().err.count(note) == 1
        assert scores.info.copies == ["clip 24", "clip 25"]
        assert scores.to_dict()["copies"] == 2
        is_right = scores.logits.argmax(1) == scores.labels
        assert scores.to_dict()["top1_without_copies"] == is_right[:6].mean()
    add_results(tmp_path / "model", scores)
    assert "| 8 (2 copies of training clips) |" in (tmp_path / "model" / "README.md").read_text()
    write_scores(tmp_path / "a.npz", scores)
    write_scores(tmp_path / "b.safetensors", scores)
    assert read_scores(tmp_path / "b.safetensors").info == read_scores(tmp_path / "a.npz").info
    together = ensemble([tmp_path / "a.npz", tmp_path / "b.safetensors"])
    assert together.info.copies == scores.info.copies
    report(tmp_path / "model", tmp_path / "page.html", scores=tmp_path / "a.npz")
    page = (tmp_path / "page.html").read_text()
    assert "Copies of training clips" in page
    assert f"{is_right[:6].mean():.1%}" in page
    write_scores(tmp_path / "together.npz", together)
    with pytest.raises(InputError, match=r"together\.npz: was not scored by the model of"):
        report(tmp_path / "model", tmp_path / "page.html", scores=tmp_path / "together.npz")


def test_what_an_initial_model_was_trained_on_counts(
    tiny_cache: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = divide(tiny_cache, tmp_path / "other.h5", [0, 3])
    settings = SETTINGS.model_copy(update={"init": str(model), "hold_out": 0.5})
    train(other, BUILT_IN["ntu_cs112se30"], tmp_path / "own", settings)
    text = "was trained on 12 of the 24 test clips of xsub, so scores on them will be too high"
    assert text in capsys.readouterr().err
    with pytest.raises(UsageError, match="was trained on 12 of the 24 clips of xsub"):
        evaluate(other, tmp_path / "own", ON_CPU)
    held_out = ON_CPU.model_copy(update={"part": "held-out"})
    with pytest.raises(UsageError, match="was trained on 12 of the 12 clips of xsub"):
        evaluate(other, tmp_path / "own", held_out)


def test_a_model_of_a_fold_may_be_scored_on_the_test_part(tiny_cache: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"protocol": "xsub@subject:1/2"})
    train(tiny_cache, BUILT_IN["ntu_cs112se30"], tmp_path, settings)
    assert not evaluate(
        tiny_cache, tmp_path, replace_protocol(ON_CPU, "xsub")
    ).scores.info.mismatches


def replace_protocol(settings: EvaluateSettings, protocol: str) -> EvaluateSettings:
    return settings.model_copy(update={"protocol": protocol})
