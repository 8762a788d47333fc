"""Recipes: their values, the effect of each setting, the weight average and the best epoch."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LAYOUT, write_tiny_cache
from interrupting import stop_after
from pydantic import ValidationError
from safetensors.torch import load_file

from skelnas.config import RECIPES, EvaluateSettings, TrainSettings
from skelnas.data.readers.files import packaged_names
from skelnas.errors import DeviceError, InputError, Interrupted, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import BUILT_IN
from skelnas.reporting.model_card import write_card
from skelnas.training import run_dir
from skelnas.training.loop import cosine
from skelnas.training.saved_model import load_model
from skelnas.training.train import train

DOCS = Path(__file__).parents[2] / "docs"
GENOTYPE = BUILT_IN["ntu_cs112se30"]
TINY: Any = {
    "frames": 6,
    "layers": 3,
    "channels": 2,
    "epochs": 2,
    "batch_size": 9,
    "device": "cpu",
    "recipe": "paper",
}
STEPS = 4
"""Steps of an epoch: the tiny cache has 36 training clips."""


def trained(cache: Path, out: Path, **settings: Any) -> dict[str, torch.Tensor]:
    return load_file(train(cache, GENOTYPE, out, TrainSettings(**TINY | settings)).path)


def test_options_override_the_recipe_and_the_recipe_overrides_defaults() -> None:
    assert TrainSettings().recipe == "strong"
    paper = TrainSettings(recipe="paper")
    assert (paper.recipe, paper.epochs, paper.lr, paper.nesterov) == ("paper", 350, 0.01, False)
    assert paper.recipe_deviations() == []

    strong = TrainSettings(recipe="strong", lr=0.3, rotate=0, epochs=350)
    for name, value in RECIPES["strong"].items():
        if name not in ("lr", "rotate"):
            assert getattr(strong, name) == value != getattr(paper, name)
    assert (strong.lr, strong.rotate, strong.epochs) == (0.3, 0, 350)
    assert strong.recipe_deviations() == ["lr", "rotate"]

    like_paper = {name: getattr(paper, name) for name in RECIPES["strong"]}
    assert TrainSettings(recipe="strong", **like_paper).lr == 0.01
    with pytest.raises(ValidationError, match="'paper' or 'strong'"):
        TrainSettings.model_validate({"recipe": "weak"})


def test_the_help_shows_the_values_of_the_default_recipe() -> None:
    for name, value in RECIPES["strong"].items():
        assert TrainSettings.default(name) == getattr(TrainSettings(), name) == value


def means(text: str, value: object) -> bool:
    """Return whether the text in a table stands for a value."""
    if text in ("on", "off"):
        return value is (text == "on") or (text == "off" and value in (0.0, 1.0))
    return text == f"`{value}`" if isinstance(value, str) else float(text) == value


def test_the_documentation_lists_the_values_of_both_recipes() -> None:
    section = (DOCS / "recipes.md").read_text(encoding="utf-8").split("\n## ")[1]
    rows = [row.split(" | ") for row in re.findall(r"^\| (`--.*) \|$", section, re.MULTILINE)]
    paper = TrainSettings(recipe="paper")
    documented = set()
    for options, of_paper, of_strong, _ in rows:
        names = [name.replace("-", "_") for name in re.findall(r"`--([\w-]+)`", options)]
        for name, text in zip(names, of_strong.split(", "), strict=True):
            assert means(text, RECIPES["strong"][name]), name
            assert means(of_paper, getattr(paper, name)), name
            documented.add(name)
    assert documented == RECIPES["strong"].keys()


def test_only_the_recipes_flip_is_dropped_when_joints_have_no_sides(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tiny_cache, tmp_path / "m", recipe="strong", epochs=1)
    assert "--flip 0, because a clip cannot be mirrored (joints cannot" in capsys.readouterr().err
    assert run_dir.read_config(tmp_path / "m")["settings"]["flip"] == 0
    with pytest.raises(InputError, match="joints cannot be mirrored"):
        trained(tiny_cache, tmp_path / "n", recipe="strong", epochs=1, flip=0.3)
    with pytest.raises(InputError, match="joints cannot be mirrored"):
        trained(tiny_cache, tmp_path / "n", recipe="paper", epochs=1, flip=0.5)


def test_a_run_prints_how_it_differs_from_its_recipe(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tiny_cache, tmp_path / "m", recipe="strong", epochs=1)
    config = run_dir.read_config(tmp_path / "m")
    assert config["beside_recipe"] == ["batch_size", "epochs", "flip"]
    assert config["settings"]["recipe"] == "strong"
    assert config["settings"]["ema"] == RECIPES["strong"]["ema"]
    assert config["settings"]["precision"] == "fp32"  # what 'auto' is on a CPU
    assert "the strong recipe, except --batch-size, --epochs, --flip" in capsys.readouterr().err
    other = TrainSettings(**TINY | {"epochs": 1})
    with pytest.raises(UsageError, match="started with recipe = 'strong', now it is 'paper'"):
        train(tiny_cache, GENOTYPE, tmp_path / "m", other, resume=True)


@pytest.mark.parametrize(
    "lever",
    [{"warmup": 0.5}, {"nesterov": True}, {"label_smoothing": 0.2}, {"ema": 0.9}, {"flip": 0.5}],
    ids=lambda lever: next(iter(lever)),
)
def test_each_setting_changes_the_training(lever: dict[str, Any], tmp_path: Path) -> None:
    sides = replace(LAYOUT, joints=(*LAYOUT.joints[:4], "head"))
    write_tiny_cache(tmp_path / "c.h5", layout=sides)
    without = trained(tmp_path / "c.h5", tmp_path / "without", epochs=1)
    within = trained(tmp_path / "c.h5", tmp_path / "with", epochs=1, **lever)
    assert not torch.equal(without["classifier.weight"], within["classifier.weight"])


def test_baselines_follow_a_recipe_too(
    tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TINY | {"recipe": "strong", "epochs": 1, "layers": 9, "channels": 36, "frames": 9}
    train(tiny_cache, "hcn", tmp_path / "m", TrainSettings(**settings))
    config = run_dir.read_config(tmp_path / "m")
    assert config["settings"]["label_smoothing"] == 0.1
    assert (config["settings"]["lr"], "lr" in config["beside_recipe"]) == (0.01, True)
    assert "--lr 0.01, because hcn does not learn at the recipe's 0.1" in capsys.readouterr().err
    train(tiny_cache, "hcn", tmp_path / "o", TrainSettings(**settings | {"lr": 0.02}))
    assert run_dir.read_config(tmp_path / "o")["settings"]["lr"] == 0.02
    with pytest.raises(UsageError, match="--drop-path is a setting of cells"):
        train(tiny_cache, "hcn", tmp_path / "n", TrainSettings(**settings | {"drop_path": 0.2}))


def test_the_rate_warms_up_linearly_and_decays_along_a_cosine(
    tiny_cache: Path, tmp_path: Path
) -> None:
    trained(tiny_cache, tmp_path / "m", lr=0.5, lr_min=0.1, epochs=4, warmup=0.375)
    lines = run_dir.read_lines(tmp_path / "m" / run_dir.METRICS)
    rising = 6  # of 16 steps; the rate of the last step of an epoch is logged
    expected = [0.5 * 4 / rising, *(cosine((k - rising) / 10, 0.5, 0.1) for k in (7, 11, 15))]
    assert [line["lr"] for line in lines] == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, STEPS + 1])
def test_a_resumed_strong_training_ends_with_the_same_bytes(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole = trained(tiny_cache, tmp_path / "whole", recipe="strong")
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted):
            trained(tiny_cache, tmp_path / "parts", recipe="strong")
    settings = TrainSettings(**TINY | {"recipe": "strong"})
    parts = load_file(train(tiny_cache, GENOTYPE, tmp_path / "parts", settings, resume=True).path)
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    ends = [load_file(tmp_path / run / run_dir.CHECKPOINT) for run in ("whole", "parts")]
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []

    averaged = {name: value for name, value in ends[0].items() if name.startswith("average/")}
    assert len(averaged) > 10
    for name, value in averaged.items():  # the model is the average
        assert torch.equal(whole[name.removeprefix("average/")], value)
    weight = "classifier.weight"
    assert not torch.equal(ends[0][f"average/{weight}"], ends[0][f"model/{weight}"])


def test_a_checkpoint_without_the_average_belongs_to_another_run(
    tiny_cache: Path, tmp_path: Path
) -> None:
    trained(tiny_cache, tmp_path / "m", ema=0.5, epochs=1)
    trained(tiny_cache, tmp_path / "n", epochs=1)
    checkpoint = (tmp_path / "n" / run_dir.CHECKPOINT).read_bytes()
    (tmp_path / "m" / run_dir.CHECKPOINT).write_bytes(checkpoint)
    settings = TrainSettings(**TINY | {"ema": 0.5, "epochs": 1})
    with pytest.raises(InputError, match="does not belong to this run"):
        train(tiny_cache, GENOTYPE, tmp_path / "m", settings, resume=True)


SELECT: Any = {"hold_out": 0.3, "select_epoch": True, "epochs": 4, "lr": 0.3}


def test_held_out_clips_choose_the_epoch(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = trained(tiny_cache, tmp_path / "m", **SELECT, ema=0.5)
    lines = run_dir.read_lines(tmp_path / "m" / run_dir.METRICS)
    ranks = [(line["held_out_top1"], -line["held_out_nll"]) for line in lines]
    best = ranks.index(max(ranks)) + 1
    found = evaluate(tiny_cache, tmp_path / "m", EvaluateSettings(part="held-out")).metrics
    assert (found.top1, -found.nll) == pytest.approx(ranks[best - 1])

    assert load_model(tmp_path / "m").card.epoch == best
    write_card(tmp_path / "m", load_model(tmp_path / "m"))
    text = (tmp_path / "m" / "README.md").read_text()
    assert f"| epoch, chosen on held-out clips | {best} |" in text

    # Training is the same without it; the chosen model is the state after the best epoch.
    last = trained(tiny_cache, tmp_path / "n", **SELECT | {"select_epoch": False}, ema=0.5)
    assert [
        line["train_loss"] for line in run_dir.read_lines(tmp_path / "n" / run_dir.METRICS)
    ] == [line["train_loss"] for line in lines]
    assert "epoch" not in load_model(tmp_path / "n").card.to_dict()
    ends = load_file(tmp_path / "m" / run_dir.CHECKPOINT)
    assert torch.equal(ends["average/classifier.weight"], last["classifier.weight"])
    assert ends["best/figures"][0] == best
    assert torch.equal(ends["best/classifier.weight"], chosen["classifier.weight"])

    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Interrupted):
            trained(tiny_cache, tmp_path / "parts", **SELECT, ema=0.5)
    settings = TrainSettings(**TINY | SELECT | {"ema": 0.5})
    parts = load_file(train(tiny_cache, GENOTYPE, tmp_path / "parts", settings, resume=True).path)
    assert [name for name in chosen if not torch.equal(chosen[name], parts[name])] == []


def test_select_epoch_needs_held_out_clips(tiny_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are none"):
        trained(tiny_cache, tmp_path / "m", select_epoch=True)


def test_clips_of_classes_with_a_side_are_not_mirrored(tmp_path: Path) -> None:
    sides = replace(LAYOUT, joints=(*LAYOUT.joints[:4], "head"))
    write_tiny_cache(tmp_path / "c.h5", layout=sides, classes=("still", "Swipe-Left", "bright"))
    with pytest.raises(InputError, match="of the class 'Swipe-Left' would be of another class"):
        trained(tmp_path / "c.h5", tmp_path / "m", flip=0.5)
    assert not (tmp_path / "m").exists()


SIDES = replace(LAYOUT, joints=(*LAYOUT.joints[:4], "head"))
"""Joints of a tiny cache that can be mirrored."""


def test_the_recipe_mirrors_classes_that_are_known_to_be_symmetric_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def flip_of(classes: tuple[str, ...], source: str) -> float:
        write_tiny_cache(tmp_path / "c.h5", layout=SIDES, classes=classes, source=source)
        trained(tmp_path / "c.h5", tmp_path / "m", recipe="strong", epochs=1)
        flip = run_dir.read_config(tmp_path / "m")["settings"]["flip"]
        shutil.rmtree(tmp_path / "m")
        return float(flip)

    symmetric = packaged_names("ntu_classes.txt")[:3]
    assert flip_of(symmetric, "pyskl") == 0.5
    assert "--flip" not in capsys.readouterr().err
    assert flip_of((*symmetric[:2], "own class"), "kinetics") == 0
    assert flip_of(symmetric, "manifest") == 0
    assert "train: --flip 0, because mirrored clips may belong" in capsys.readouterr().err


def test_a_given_flip_is_as_given_even_at_the_value_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_cache(tmp_path / "c.h5", layout=SIDES)
    trained(tmp_path / "c.h5", tmp_path / "m", recipe="strong", epochs=1, flip=0.5)
    assert run_dir.read_config(tmp_path / "m")["settings"]["flip"] == 0.5
    assert "--flip" not in capsys.readouterr().err
    write_tiny_cache(tmp_path / "c.h5", layout=replace(LAYOUT, joints=tuple("abcde")))
    with pytest.raises(InputError, match="no joint is left or right"):
        trained(tmp_path / "c.h5", tmp_path / "n", recipe="strong", epochs=1, flip=0.5)


def test_a_resumed_run_mirrors_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_cache(tmp_path / "c.h5", layout=SIDES)
    began = TrainSettings(**TINY | {"recipe": "strong", "flip": 0.5})
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Interrupted):
            train(tmp_path / "c.h5", GENOTYPE, tmp_path / "m", began)
    by_default = TrainSettings(**TINY | {"recipe": "strong"})
    train(tmp_path / "c.h5", GENOTYPE, tmp_path / "m", by_default, resume=True)
    assert run_dir.read_config(tmp_path / "m")["settings"]["flip"] == 0.5


def test_compile_affects_the_steps_only(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []

    def record(network: torch.nn.Module) -> Any:
        compiled.append(network)
        return lambda x: 2 * network(x)

    monkeypatch.setattr(torch, "compile", record)
    plain = trained(tiny_cache, tmp_path / "plain", epochs=1)
    assert compiled == []
    doubled = trained(tiny_cache, tmp_path / "doubled", epochs=1, compile=True)
    assert len(compiled) == 1
    assert plain.keys() == doubled.keys()
    assert not torch.equal(plain["classifier.weight"], doubled["classifier.weight"])
    assert json.loads((tmp_path / "doubled" / run_dir.CONFIG).read_text())["settings"]["compile"]


def test_a_failing_compiler_is_reported_in_one_line(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise failure("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda network: fail)
    with pytest.raises(DeviceError, match=r"torch\.compile failed \(no C\+\+ compiler\)$"):
        trained(tiny_cache, tmp_path / "m", compile=True)
